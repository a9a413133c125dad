"""Steps that were measured as they are asked for: the same model, workload and device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cdvft_bench.analytic.roofline import Rates
from cdvft_bench.core.case import LORA
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.record import Record
from cdvft_bench.methods import Method
from cdvft_bench.predictor.results import Range
from cdvft_bench.predictor.samples import as_executed, hold
from cdvft_bench.sweep.model_cost import case_method


def measured_steps(
    model: str,
    rates: Rates,
    workload: tuple[int, int, str],
    records: Iterable[Record],
    environments: Mapping[str, Environment],
) -> dict[Method, tuple[float, Range]]:
    """Median seconds of recorded steps by method, and their ratio to LoRA r = 8's, timed beside; the newest counts.

    Args:
        model: its name in the table. rates: of the device. workload: batch, sequence and dtype.
        records, environments: profiles.
    """
    found: dict[Method, tuple[float, Range]] = {}
    for record in sorted(records, key=lambda r: r.order):
        case, timing = record.case, record.timed.timing if record.timed else None
        asked = (case.kind, case.subject, case.pass_, (case.batch, case.sequence, case.dtype))
        environment = environments.get(record.environment)
        if asked != ("model", model, "step", workload) or environment is None or not hold(rates, record, environment):
            continue
        method = case_method(as_executed(record))
        if method is None or timing is None or not timing.samples or record.status != "ok":
            continue
        ratio = timing.ratios.get(LORA)
        own = Range(1.0) if ratio is None else Range(ratio.value, ratio.low, ratio.high)
        found[method] = timing.samples[0].median, own
    return found
