"""Records of several stores, and the calibrated rates that lie beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cdvft_bench.analytic.roofline import Rates
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.io.files import is_file
from cdvft_bench.core.record import Record
from cdvft_bench.predictor.devices import read_rates
from cdvft_bench.predictor.evaluation import evaluate
from cdvft_bench.predictor.results import Evaluation
from cdvft_bench.predictor.samples import device_name, hold
from cdvft_bench.sweep.storage.store import Store

BESIDE = "rates.json"
"""What ``cdvft-bench calibrate --output`` is called when it lies beside a profile."""


@dataclass
class Profiles:
    """Records, the environments that they were made in, and rates by device."""

    records: list[Record] = field(default_factory=list)
    environments: dict[str, Environment] = field(default_factory=dict)
    rates: dict[str, Rates] = field(default_factory=dict)


def read_profiles(stores: Sequence[Path], rates: Path | None = None) -> Profiles:
    """Read stores; each one's devices take the rates in ``rates``, or in the ``rates.json`` beside the store.

    Rates of a GPU hold for the GPU of that name, rates of a CPU for CPU records of as many threads.

    Raises:
        UserError: a store or the rates cannot be read.
    """
    found = Profiles()
    given = read_rates(rates) if rates is not None else None
    for path in stores:
        with Store(path) as store:
            records, environments = list(store.records()), store.environments()
        found.records += records
        found.environments |= environments
        beside = path.with_name(BESIDE)
        own = given or (read_rates(beside) if is_file(beside) else None)
        if own is not None:
            for record in records:
                environment = environments.get(record.environment)
                if environment is not None and hold(own, record, environment):
                    found.rates[device_name(record.case, environment)] = own
    return found


def evaluate_stores(stores: Sequence[Path], rates: Path | None = None) -> Evaluation:
    """Predictions against the recorded times of whole stores, see :func:`evaluate`.

    Raises:
        UserError: a store or the rates cannot be read, or no record can be used.
    """
    found = read_profiles(stores, rates)
    return evaluate(found.records, found.environments, found.rates)
