"""Predict recorded times by fits that did not see them, and say how far they miss."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np

from cdvft_bench.analytic.cost import flops
from cdvft_bench.analytic.roofline import Rates, load_rates
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.io.files import is_file
from cdvft_bench.core.record import Record
from cdvft_bench.core.ties import steady
from cdvft_bench.predictor.causes import find_cause, typical_baselines
from cdvft_bench.predictor.devices import devices
from cdvft_bench.predictor.fit import PRIOR, Fit, Floats, Ints, Predicted, Terms, fit, make_terms
from cdvft_bench.predictor.results import (
    NOT_MEASURED,
    Bound,
    Efficiency,
    ErrorRow,
    Evaluation,
    Farthest,
    Prediction,
    Split,
)
from cdvft_bench.predictor.samples import Factors, Sample, around, as_graphs, device_name, hold, samples
from cdvft_bench.sweep.storage.store import Store

BOUNDS: tuple[Bound, ...] = ("arithmetic", "bytes", "launches")
FARTHEST = 10


def evaluate(
    records: Iterable[Record], environments: Mapping[str, Environment], rates: Mapping[str, Rates] | None = None
) -> Evaluation:
    """Predict every record by fits that left it out, alone, and with all of its shape, method, campaign or machine.

    Args:
        records: of one store or several. environments: by key, as ``Store.environments()``.
        rates: calibrated ones by device as :func:`device_name` calls it; for other devices the built-in CPU's, which
            the fit corrects, or a GPU's datasheet.

    Raises:
        UserError: no record can be used.
    """
    found, left_out = samples(records, environments, rates)
    if not found:
        first = f": {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        raise UserError(f"no record has a time to compare with a prediction{first}")
    found = [*found, *as_graphs(found)]
    predictions: list[Prediction] = []
    efficiencies: list[Efficiency] = []
    worst: list[tuple[Prediction, Sample, Predicted]] = []
    notes: list[str] = []
    devices_of = sorted({s.device for s in found})
    for device in devices_of:
        mine = [s for s in found if s.device == device]
        bench = _Bench(mine)
        whole = bench.fitted(np.arange(len(mine)))
        efficiencies += _efficiencies(device, whole.full, bench.terms)
        cases = bench.left_out_alone(whole)
        predictions += cases
        explained = whole.full.predict(bench.terms)
        worst += [(p, s, _row(explained, i)) for i, (p, s) in enumerate(zip(cases, mine, strict=True))]
        splits: tuple[Split, ...] = ("shape", "method", "campaign")
        for split in splits:
            groups = {s.group[split] for s in mine}
            if len(groups) < 2:
                notes.append(f"{device}: all records are of one {split}, so none could be left out")
                continue
            predictions += bench.left_out_together(split)
    predictions += _other_machines(found, notes)
    worst.sort(key=lambda entry: -abs(np.log(entry[0].ratio)))
    baselines = {device: typical_baselines([s.record for s in found if s.device == device]) for device in devices_of}
    farthest = [
        Farthest(p, *find_cause(p, s.record, s.work, by_kind, baselines[s.device], efficiencies))
        for p, s, by_kind in worst[:FARTHEST]
    ]
    gpus = [s for s in found if s.kind == "cuda"]
    if not gpus:
        notes.append(f"GPUs: {NOT_MEASURED} ({', '.join(d.name for d in devices().values())})")
    used = {s.device: s.work.rates.source for s in found}
    return Evaluation(
        tuple(predictions),
        tuple(_errors(predictions)),
        tuple(efficiencies),
        tuple(farthest),
        used,
        tuple(left_out),
        tuple(notes),
    )


def _row(found: Predicted, i: int) -> Predicted:
    return Predicted(found.seconds[i : i + 1], found.by_kind[i : i + 1], found.bounds[i : i + 1])


@dataclass(frozen=True)
class _Fits:
    """The predictor and its two baselines, fitted to the same records."""

    full: Fit
    bytes_: Fit
    flops: Mapping[str, float]  # seconds a FLOP by dtype


class _Bench:
    """Records in columns, ready to be left out."""

    def __init__(self, found: Sequence[Sample]) -> None:
        self.found = found
        self.terms: Terms = make_terms([s.work for s in found])
        self.seconds: Floats = np.array([s.seconds for s in found])
        self.flops: Floats = np.array([float(flops(s.work.kernels, "flop")) for s in found])
        self.dtypes = [s.record.case.dtype for s in found]

    def fitted(self, rows: Ints, start: _Fits | None = None) -> _Fits:
        terms, seconds = self.terms.of(rows), self.seconds[rows]
        full = fit(terms, seconds, start=start.full.log_efficiency if start else None)
        without = fit(terms, seconds, launches=False, start=start.bytes_.log_efficiency if start else None)
        return _Fits(full, without, self._flop_seconds(rows))

    def _flop_seconds(self, rows: Ints) -> dict[str, float]:
        logs: dict[str, list[float]] = defaultdict(list)
        for i in rows.tolist():
            for name in (self.dtypes[i], ""):
                logs[name].append(float(np.log(self.seconds[i] / self.flops[i])))
        return {name: float(np.exp(np.median(values))) for name, values in logs.items()}

    def by_flops(self, fits: _Fits, i: int) -> float:
        return float(self.flops[i]) * (fits.flops.get(self.dtypes[i]) or fits.flops[""])

    def left_out_alone(self, fits: _Fits) -> list[Prediction]:
        made = []
        found = fits.full.predict(self.terms)
        logs = np.log(self.seconds)
        ours, theirs = np.exp(logs - fits.full.left_out), np.exp(logs - fits.bytes_.left_out)
        rates, dtypes = self.seconds / self.flops, np.array(self.dtypes)
        for i in range(len(self.found)):
            others = np.arange(len(self.found)) != i
            same = others & (dtypes == dtypes[i])
            chosen = rates[same] if same.any() else rates[others] if others.any() else rates
            rate = np.median(chosen)
            held = around(fits.full, self.found, "case", self.found[i].record.case.pass_, i)
            made.append(self._prediction(i, "case", ours[i], theirs[i], float(rate * self.flops[i]), found, i, held))
        return made

    def left_out_together(self, split: Split) -> list[Prediction]:
        groups = np.array([s.group[split] for s in self.found])
        made: list[Prediction] = []
        start: _Fits | None = None
        for group in sorted(set(groups)):
            rows, out = np.flatnonzero(groups != group), np.flatnonzero(groups == group)
            start = self.fitted(rows, start)
            made += self.predictions(start, rows, out, split)
        return made

    def predictions(self, fits: _Fits, fitted: Ints, rows: Ints, split: Split) -> list[Prediction]:
        terms = self.terms.of(rows)
        found, without = fits.full.predict(terms), fits.bytes_.predict(terms).seconds
        mine = [self.found[i] for i in fitted.tolist()]
        passes = {self.found[i].record.case.pass_ for i in rows.tolist()}
        held = {pass_: around(fits.full, mine, split, pass_) for pass_ in passes}
        return [
            self._prediction(
                i,
                split,
                found.seconds[n],
                without[n],
                self.by_flops(fits, i),
                found,
                n,
                held[self.found[i].record.case.pass_],
            )
            for n, i in enumerate(rows.tolist())
        ]

    def _prediction(
        self,
        i: int,
        split: Split,
        seconds: float,
        bytes_s: float,
        flops_s: float,
        found: Predicted,
        row: int,
        held: Factors,
    ) -> Prediction:
        sample = self.found[i]
        case = sample.record.case
        bounds = found.bounds[row]
        most = int(np.argmax([steady(b) for b in bounds.tolist()]))
        low, high = (float(seconds) * f for f in held) if held else (None, None)
        return Prediction(
            case.key,
            sample.record.label,
            case.method,
            case.kind,
            case.subject,
            case.tokens,
            case.dtype,
            case.pass_,
            sample.device,
            sample.record.environment,
            split,
            sample.seconds,
            Interval(float(seconds), low, high),
            float(flops_s),
            float(bytes_s),
            BOUNDS[most],
            float(bounds[most] / bounds.sum()),
        )


def _other_machines(found: Sequence[Sample], notes: list[str]) -> list[Prediction]:
    """Each machine by the efficiencies of the others of its kind, at its own rates."""
    made: list[Prediction] = []
    for kind in sorted({s.kind for s in found}):
        mine = [s for s in found if s.kind == kind]
        machines = sorted({s.device for s in mine})
        if len(machines) < 2:
            notes.append(f"machines ({kind}): there is one, {machines[0]}, so none could be left out")
            continue
        made += _Bench(mine).left_out_together("machine")
    return made


def _efficiencies(device: str, fitted: Fit, terms: Terms) -> list[Efficiency]:
    by_kind = fitted.predict(terms).by_kind.sum(0)
    deviations = np.sqrt(np.diag(fitted.covariance))
    made = []
    for i, kind in enumerate(fitted.kinds):
        value, spread = fitted.log_efficiency[i], 1.96 * deviations[i]
        made.append(
            Efficiency(
                device,
                kind,
                Interval(*(float(np.exp(v)) for v in (value, value - spread, value + spread))),
                float(by_kind[i] / by_kind.sum()),
                float(min(deviations[i] ** 2 / PRIOR**2, 1.0)),
            )
        )
    return made


def error(ratio: float) -> float:
    """The error of a ratio: 0.25 for 1.25 and for 0.8."""
    return float(np.exp(abs(np.log(ratio)))) - 1


def _errors(predictions: Sequence[Prediction]) -> list[ErrorRow]:
    groups: dict[tuple[str, str, str, Split], list[Prediction]] = defaultdict(list)
    for p in predictions:
        groups[p.device, p.kind, p.pass_, p.split].append(p)
    order: dict[str, int] = {name: i for i, name in enumerate(get_args(Split))}
    made = []
    for (device, kind, pass_, split), mine in sorted(groups.items(), key=lambda g: (*g[0][:3], order[g[0][3]])):

        def spread(of: Callable[[Prediction], float], mine: Sequence[Prediction] = mine) -> tuple[float, float]:
            found = [error(of(p) / p.measured_s) for p in mine]
            return float(np.median(found)), float(np.quantile(found, 0.9))

        inside = [
            p.predicted_s.low <= p.measured_s <= p.predicted_s.high
            for p in mine
            if p.predicted_s.low is not None and p.predicted_s.high is not None
        ]
        by: dict[Split, Callable[[Prediction], object]] = {
            "case": lambda p: (p.key, p.environment),
            "shape": lambda p: (p.subject, p.tokens),
            "method": lambda p: p.method,
            "campaign": lambda p: p.environment,
            "machine": lambda p: p.device,
        }
        made.append(
            ErrorRow(
                device,
                kind,
                pass_,
                split,
                len(mine),
                len(Counter(by[split](p) for p in mine)),
                *spread(lambda p: p.predicted_s.value),
                *spread(lambda p: p.flops_only_s),
                *spread(lambda p: p.flops_bytes_s),
                sum(inside) / len(inside) if inside else None,
            )
        )
    return made


# --- whole stores ----------------------------------------------------------------------------


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
    given = load_rates(rates) if rates is not None else None
    for path in stores:
        with Store(path) as store:
            records, environments = list(store.records()), store.environments()
        found.records += records
        found.environments |= environments
        beside = path.with_name(BESIDE)
        own = given or (load_rates(beside) if is_file(beside) else None)
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
