"""Why a prediction is far from the truth: found by rule from the record itself, the most telling rule first."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median

import numpy as np

from cdvft_bench.core.record import Record
from cdvft_bench.predictor.fit import LAUNCH, Predicted, Work, make_terms
from cdvft_bench.predictor.results import Efficiency, Prediction
from cdvft_bench.timing.traces.names.families import coarse

Baselines = Mapping[tuple[object, ...], float]
"""Median seconds of the frozen subject by environment and workload, over the records that it was timed beside."""

SLOWER = 1.3


def typical_baselines(records: Sequence[Record]) -> Baselines:
    """What the frozen subject usually takes beside other methods of the same workload."""
    found: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for record in records:
        seconds = _frozen(record)
        if seconds is not None:
            found[_workload(record)].append(seconds)
    return {key: median(values) for key, values in found.items() if len(values) >= 3}


def _workload(record: Record) -> tuple[object, ...]:
    case = record.case
    return record.environment, case.kind, case.subject, case.batch, case.sequence, case.dtype, case.pass_


def _frozen(record: Record) -> float | None:
    timing = record.timed.timing if record.timed else None
    frozen = [s.median for s in timing.samples if s.name == "frozen"] if timing else []
    return frozen[0] if frozen and frozen[0] > 0 else None


def find_cause(
    prediction: Prediction,
    record: Record,
    work: Work,
    found: Predicted,
    baselines: Baselines,
    fitted: Sequence[Efficiency],
) -> tuple[str, str]:
    """Cause and evidence.

    Args:
        prediction: the miss. record: what was recorded. work: its kernels and rates.
        found: the fitted prediction of this record alone. baselines: see :func:`typical_baselines`.
        fitted: efficiencies of its device, for kinds with too little data.
    """
    slower = prediction.ratio < 1
    own, usual = _frozen(record), baselines.get(_workload(record))
    if own and usual:
        factor = own / usual if slower else usual / own
        if factor > SLOWER:
            pace = "slower" if slower else "faster"
            return (
                f"the machine was {pace} during this run",
                f"the frozen subject beside it took {_s(own)}, beside the others {_s(usual)} in the median",
            )
    timing = record.timed.timing if record.timed else None
    seconds = timing.samples[0].seconds if timing and timing.samples else ()
    low, high = (float(q) for q in np.quantile(seconds, [0.05, 0.95])) if seconds else (0.0, 0.0)
    if timing and low > 0 and high >= low * max(prediction.ratio, 1 / prediction.ratio):
        # Rounds that differ by as much as the miss; a warning of a few per cent explains no factor of two.
        rounds = f"nine of ten rounds took {_s(low)} to {_s(high)}, of {len(seconds)}"
        if timing.warnings:
            return "the clock warned", f"{timing.warnings[0]}; {rounds}"
        return "the rounds disagree", rounds
    return _from_trace(record, work, found, slower) or _from_sizes(work, found) or _thin(found, work, fitted)


def _from_trace(record: Record, work: Work, found: Predicted, slower: bool) -> tuple[str, str] | None:
    """A family of operators that took a very different time than predicted, or time between operators."""
    trace = record.timed.trace if record.timed else None
    if trace is None or not trace.families or not trace.span_seconds:
        return None
    if slower and trace.busy_fraction is not None and trace.busy_fraction < 0.5:
        return (
            "dispatch overhead",
            f"operators ran in {100 * trace.busy_fraction:.0f} % of the traced call; the rest is Python and autograd",
        )
    measured = _coarse(trace.families)
    other = measured["other"] / max(sum(measured.values()), 1e-12)
    if slower and other > 0.2:
        return "operators that the formula does not cover", f"they took {100 * other:.0f} % of the traced call"
    predicted = _families(work, found)
    gaps = {name: measured[name] - seconds for name, seconds in predicted.items()}
    gaps = {name: gap for name, gap in gaps.items() if (gap > 0) == slower}
    if not gaps:
        return None
    worst = max(gaps, key=lambda name: abs(gaps[name]))
    if abs(gaps[worst]) < 0.3 * sum(abs(gap) for gap in gaps.values()):
        return None
    return (
        f"{worst} operators take {'longer' if slower else 'less'} than their kind usually does",
        f"{_s(measured[worst])} in the trace, {_s(predicted[worst])} predicted; {_largest(work, worst)}",
    )


def _coarse(families: Mapping[str, float]) -> dict[str, float]:
    """Seconds by the families that formulas know; 0 of one that was not seen."""
    seconds: dict[str, float] = defaultdict(float)
    for name, one in families.items():
        seconds[coarse(name)] += one
    return seconds


def _families(work: Work, found: Predicted) -> dict[str, float]:
    """Predicted seconds by the families of a trace, launches shared out by their number."""
    scale = _scale(work, found)
    seconds: dict[str, float] = defaultdict(float)
    for kernel in work.kernels:
        if kernel.launches:
            seconds[kernel.kind] += scale[id(kernel)]
    return dict(seconds)


def _scale(work: Work, found: Predicted) -> dict[int, float]:
    terms = make_terms([work])
    rows = [k for k in work.kernels if k.launches]
    together = terms.arithmetic + terms.traffic + terms.launch
    raw = np.where(terms.overlaps, np.maximum(terms.arithmetic, terms.traffic), together) * terms.launches
    factor = float(found.seconds[0]) / max(float(raw.sum()), 1e-30)
    return {id(k): float(s) * factor for k, s in zip(rows, raw, strict=True)}


def _largest(work: Work, family: str) -> str:
    one = max((k for k in work.kernels if k.kind == family and k.launches), key=lambda k: float(k.read + k.written))
    return f"the largest, {one.op}, moves {float(one.read + one.written) / 1e6:.3g} MB"


def _from_sizes(work: Work, found: Predicted) -> tuple[str, str] | None:
    """Sizes where the measured bandwidth changes steeply: between caches and memory."""
    moved = [k for k in work.kernels if k.kind in work.rates.bandwidth and k.launches]
    if not moved or found.bounds[0][1] < 0.3 * found.seconds[0]:
        return None
    one = max(moved, key=lambda k: float((k.read + k.written) * k.launches))
    size = float(one.read + one.written)
    for (low, slow), (high, fast) in pairwise(work.rates.bandwidth[one.kind]):
        if low <= size <= high and max(slow, fast) > 2 * min(slow, fast):
            return (
                "sizes between cache and memory",
                f"{one.op} moves {size / 1e6:.3g} MB, where the bandwidth changes from {slow:.2g} to {fast:.2g} B/s",
            )
    return None


def _thin(found: Predicted, work: Work, fitted: Sequence[Efficiency]) -> tuple[str, str]:
    kinds = {e.kind: e for e in fitted if e.prior > 0.5 and e.kind != LAUNCH}
    names = [e.kind for e in fitted]
    shares = dict(zip(names, found.by_kind[0] / found.seconds[0], strict=False))
    for kind, one in kinds.items():
        if shares.get(kind, 0.0) > 0.3:
            return "too few records of this kind of kernel", f"{kind}: the prior weighs {100 * one.prior:.0f} %"
    most = max(shares, key=lambda k: shares[k]) if shares else "?"
    return "no cause found", f"{most} takes {100 * shares.get(most, 0.0):.0f} % of the predicted time"


def _s(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
