"""What formula, count and clock say of one record, and whether formula and count say the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cdvft_bench.analysis.cases import is_frozen
from cdvft_bench.analytic.conventions import CONVENTIONS, Convention
from cdvft_bench.core.case import FROZEN, LORA
from cdvft_bench.core.counted import Counted, FvcoreCount, PassCount
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import PredictedPass, Record
from cdvft_bench.core.text import NOT_MEASURED, clean, integer

if TYPE_CHECKING:
    from pandas import DataFrame

PASSES = ("forward", "backward", "update")
WHOLE = "parameters and saved activations"
EXACT = "exact"


def ratio_to_frozen(record: Record) -> Interval | None:
    """The subject's time over the frozen one's, paired by round."""
    return _ratio(record, FROZEN)


def ratio_to_lora8(record: Record) -> Interval | None:
    """The subject's time over LoRA r = 8's, paired by round."""
    return _ratio(record, LORA)


def _ratio(record: Record, baseline: str) -> Interval | None:
    timing = record.timed.timing if record.timed else None
    ratio = timing.ratios.get(baseline) if timing else None
    if ratio is None or not math.isfinite(ratio.value):
        return None
    low, high = (b if b is not None and math.isfinite(b) else None for b in (ratio.low, ratio.high))
    return Interval(ratio.value, low, high)


def median_seconds(record: Record) -> float | None:
    """Median seconds of a call of the record's subject."""
    timing = record.timed.timing if record.timed else None
    median = timing.samples[0].median if timing and timing.samples else math.nan
    return median if math.isfinite(median) else None


def predicted_passes(record: Record) -> Iterator[tuple[str, PredictedPass]]:
    """The predicted passes that the case runs: the forward, or forward, backward and update."""
    if record.predicted is None:
        return
    yield "forward", record.predicted.forward
    if record.case.pass_ == "step":
        yield "backward", record.predicted.backward
        yield "update", record.predicted.update


def trainable(record: Record) -> int | None:
    """Trainable parameters: counted, or by formula where nothing was counted."""
    if record.counted is not None:
        return record.counted.parameters
    return record.predicted.parameters if record.predicted else None


def counted_passes(record: Record) -> dict[str, PassCount | None]:
    """The counted passes that the case runs, by name; None where a pass was not counted."""
    counted: Counted | None = record.counted
    passes: dict[str, PassCount | None] = {"forward": counted.forward if counted else None}
    if record.case.pass_ == "step":
        passes |= {"backward": counted.backward if counted else None, "update": counted.update if counted else None}
    if is_frozen(record.case) and passes.get("update", ...) is None and counted is not None:
        del passes["update"]  # nothing is trained, so there is no optimiser to run
    return passes


def counted_flops(count: PassCount | FvcoreCount, price: Convention) -> float | None:
    """A count under a convention; None where it cannot be converted.

    Counts price their FFTs at the "flop" convention. Another price is a matter of scale as
    long as all transforms are real, or all are complex: a mixture cannot be told apart again, nor
    can fvcore's ``fft_fft``, which may have a real input.
    """
    operators = count.operators if isinstance(count, PassCount) else count.by_operator
    base = CONVENTIONS["flop"]
    real = price.fft_real / base.fft_real
    complex_ = price.fft_complex / base.fft_complex
    transforms = [name for name in operators if "fft" in name]
    whole = [name for name in transforms if not ("r2c" in name or "c2r" in name or "rfft" in name)]
    if not count.fft_flops or real == complex_:
        scale = real
    elif not transforms or 0 < len(whole) < len(transforms) or (whole and isinstance(count, FvcoreCount)):
        return None
    else:
        scale = complex_ if whole else real
    return price.mac * count.macs + price.elementwise * count.elementwise_flops + scale * count.fft_flops


def predicted_flops(record: Record, convention: str) -> float | None:
    """FLOPs by formula of the passes that the case runs."""
    return total(one.flops.get(convention) for _, one in predicted_passes(record))


def adapter_flops(record: Record, convention: str) -> float | None:
    """The adapter's share of them."""
    return total(one.adapter_flops.get(convention) for _, one in predicted_passes(record))


def predicted_launches(record: Record) -> int | None:
    """Launches by formula of the passes that the case runs."""
    launches = [one.launches for _, one in predicted_passes(record)]
    return sum(launches) if launches else None


def counted_launches(record: Record) -> int | None:
    """Launches as dispatched; None where a pass was not counted."""
    passes = list(counted_passes(record).values())
    return sum(p.launches for p in passes if p) if all(passes) else None


def differences(record: Record, name: str) -> list[str] | None:
    """Quantities by which formula and count differ in one pass; None where either is missing."""
    predicted, counted = record.predicted, record.counted
    if predicted is None or counted is None:
        return None
    if name == WHOLE:
        pairs: list[tuple[str, float | None, float | None]] = [("parameters", predicted.parameters, counted.parameters)]
        if predicted.saved_bytes is not None:
            pairs.append(("saved bytes", predicted.saved_bytes, counted.saved_bytes))
    else:
        one, other = dict(predicted_passes(record)).get(name), counted_passes(record).get(name)
        if one is None or other is None:
            return None
        pairs = [
            ("launches", one.launches, other.launches),
            ("MACs", one.macs, other.macs),
            ("FFTs", one.ffts, other.ffts),
            ("element-wise FLOPs", one.elementwise_flops, other.elementwise_flops),
            ('FFT FLOPs, convention "flop"', one.fft_flops.get("flop"), other.fft_flops),
        ]
    return [
        f"{what} {_plain(a)} → {_plain(b)}"
        for what, a, b in pairs
        if a is not None and b is not None and abs(a - b) > 1e-9 * max(abs(a), abs(b))
    ]


def differing_operators(one: PredictedPass | None, other: PassCount | None) -> str:
    """Operators that one source has more often than the other, ``mul 3 → 4``; "" where there are none."""
    if one is None or other is None:
        return ""
    names = sorted(set(one.operators) | set(other.operators))
    pairs = [(name, one.operators.get(name, 0), other.operators.get(name, 0)) for name in names]
    return "; ".join(f"{clean(name)} {a} → {b}" for name, a, b in pairs if a != b)


def unpriced_operators(record: Record, name: str) -> str | None:
    """Operators of a pass that launched but have no price; None where the pass was not counted."""
    if record.counted is None:
        return None
    one = counted_passes(record).get(name)
    if one is None:
        return "" if name not in PASSES else None
    return "; ".join(f"{clean(operator)} × {times}" for operator, times in sorted(one.unpriced.items()))


def agreement(record: Record) -> str:
    """Whether formula and count agree on everything of a record: "exact", "differs" or "not measured"."""
    if record.predicted is None or record.counted is None:
        return NOT_MEASURED
    passes = dict(predicted_passes(record))
    for name, counted in ((WHOLE, None), *counted_passes(record).items()):
        if differences(record, name) or differing_operators(passes.get(name), counted):
            return "differs"
    return EXACT


def passes_frame(records: Iterable[Record]) -> DataFrame:
    """Formula beside count, one row a record and pass, and one for what belongs to no pass.

    Columns: key, environment, setting, subject, pass, agreement ("exact", "differs" or "not measured"), differing
    quantities and operators (formula → count), operators without a price, and the quantities of both sources; a
    quantity that a source does not have is missing.
    """
    import pandas as pd

    rows = []
    for record in records:
        if record.status != "ok":
            continue
        predicted, counted = dict(predicted_passes(record)), counted_passes(record)
        for name in (WHOLE, *counted):
            found, operators = differences(record, name), differing_operators(predicted.get(name), counted.get(name))
            row: dict[str, object] = {
                "key": record.case.key,
                "environment": clean(record.environment),
                "setting": clean(record.label),
                "subject": clean(record.case.subject),
                "pass": name,
                "agreement": NOT_MEASURED if found is None else "differs" if found or operators else EXACT,
                "differing quantities (formula → count)": "; ".join(found or ()),
                "differing operators (formula → count)": operators,
                "operators without a price": unpriced_operators(record, name),
            }
            for source, one in (("formula", predicted.get(name)), ("count", counted.get(name))):
                for quantity in ("launches", "macs", "ffts", "elementwise_flops", "read", "written"):
                    row[f"{quantity}, {source}"] = getattr(one, quantity, None)
            rows.append(row)
    return pd.DataFrame(rows)


def total(values: Iterable[float | None]) -> float | None:
    """The sum, or None where there is nothing to add or a part is missing."""
    found = list(values)
    return sum(v for v in found if v is not None) if found and all(v is not None for v in found) else None


def _plain(value: float) -> str:
    return integer(value) if float(value).is_integer() else f"{value:,.1f}"
