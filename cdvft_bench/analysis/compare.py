"""Two stores side by side: which cases became slower, which faster, and which only one of them holds.

The two were measured at different times, perhaps on different machines, so their rounds do not pair
up: the ratio is that of two medians, each with an interval of its own. Where both runs timed the frozen
subject beside the case, ``basis="frozen"`` compares the ratios to it instead, which cancels the
machine's own speed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from cdvft_bench.analysis.cases import label, widths
from cdvft_bench.core.case import FROZEN, Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import LEAST_ROUNDS, Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import NOT_MEASURED, clean, html_table, interval, plural, significant
from cdvft_bench.core.timed import Timing
from cdvft_bench.timing.statistics import median_interval

if TYPE_CHECKING:
    from pandas import DataFrame

Basis = Literal["time", "frozen"]
Verdict = Literal["faster", "slower", "no difference", "only in A", "only in B", "not compared"]

TOLERANCE = 0.05
_VERDICTS: tuple[Verdict, ...] = ("slower", "faster", "not compared", "only in A", "only in B", "no difference")


@dataclass(frozen=True)
class Row:
    """One case in both stores.

    Attributes:
        key: of the case. case: it. label: of its method, with the path that executes it.
        a, b: median seconds of a call (basis "frozen": median ratio to the frozen subject); None not measured.
        ratio: median of B over median of A, with its 95 % interval; None where there is none to take.
        verdict: "slower" or "faster" where the whole interval lies beyond the tolerance.
        note: why nothing was compared, or what makes the comparison doubtful.
    """

    key: str
    case: Case
    label: str
    a: float | None
    b: float | None
    ratio: Interval | None
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two stores compared.

    Attributes:
        a, b: their names. basis: what was compared. tolerance: relative difference that does not count.
        rows: slower ones first.
        warnings: what differs between the machines and environments, and so may explain a difference.
        notes: what differs and is meant to (the revision of the code).
    """

    a: str
    b: str
    basis: Basis
    tolerance: float
    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Rows by verdict, all verdicts."""
        found = Counter(row.verdict for row in self.rows)
        return {verdict: found[verdict] for verdict in _VERDICTS}

    @property
    def compared(self) -> int:
        """Cases of which both have times enough to judge."""
        return sum(self.counts[verdict] for verdict in ("slower", "faster", "no difference"))

    def exit_code(self, fail_on: Sequence[Verdict] = ("slower",)) -> int:
        """2 where nothing could be compared, 1 where a case has one of the verdicts ``fail_on``, else 0."""
        return int(any(self.counts[verdict] for verdict in fail_on)) if self.compared else 2

    def _repr_html_(self) -> str:
        rows = [cells_of(row, self) for row in shown_of(self, False)]
        return html_table(f"A: {self.a}; B: {self.b}", columns_of(self), rows, counts_of(self))


def columns_of(comparison: Comparison) -> tuple[str, ...]:
    """Heads of the columns that are shown."""
    unit = "ms" if comparison.basis == "time" else "× frozen"
    return ("verdict", "method", "case", f"A, {unit}", f"B, {unit}", "B / A, 95 %", "note")


def shown_of(comparison: Comparison, everything: bool) -> list[Row]:
    """The rows that differ, or all of them."""
    return [row for row in comparison.rows if everything or row.verdict != "no difference"]


def cells_of(row: Row, comparison: Comparison) -> tuple[str, ...]:
    """A row as texts."""
    scale = 1e3 if comparison.basis == "time" else 1.0
    case, ratio = row.case, row.ratio
    where = f"{case.subject}, {case.batch} × {case.sequence}, {case.dtype}, {case.device}, {case.pass_}"
    figures = [NOT_MEASURED if v is None else significant(v * scale) for v in (row.a, row.b)]
    said = interval(ratio.value, ratio.low, ratio.high) if ratio else NOT_MEASURED
    return row.verdict, clean(row.label), clean(where), *figures, said, clean(row.note)


def counts_of(comparison: Comparison) -> str:
    """How many cases have which verdict."""
    counts = ", ".join(f"{n} {verdict}" for verdict, n in comparison.counts.items() if n)
    return f"{plural(len(comparison.rows), 'case')}: {counts} (beyond {comparison.tolerance:.0%})"


def ratio_of_medians(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Median of ``b`` over median of ``a`` with its 95 % interval; the two are independent.

    Args:
        a, b: positive figures, one a round, in any unit that both share.

    Returns:
        without bounds where either has fewer than ``LEAST_ROUNDS``.
    """
    return median_interval(np.asarray(b, dtype=np.float64)).over(median_interval(np.asarray(a, dtype=np.float64)))


def compare_records(
    a: Iterable[Record],
    b: Iterable[Record],
    *,
    names: tuple[str, str] = ("A", "B"),
    environments: tuple[Mapping[str, object], Mapping[str, object]] = ({}, {}),
    tolerance: float = TOLERANCE,
    basis: Basis = "time",
) -> Comparison:
    """Compare the records of two campaigns, matched by the key of their case.

    Args:
        a, b: what was before, and what is now; of a case given twice the newest record counts.
        names: of the two.
        environments: of the two, by key.
        tolerance: relative difference that does not count, >= 0.
        basis: "time", or "frozen": the ratio to the frozen subject timed in the same run.

    Raises:
        UserError: the tolerance is negative, the basis unknown, or the two have no case in common.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UserError(f"tolerance = {tolerance} is out of range; it must be a number >= 0, as 0.05 for 5 %")
    if basis not in get_args(Basis):
        raise UserError(f"basis {basis!r} is not known; use {' or '.join(get_args(Basis))}")
    first, second = _newest(a), _newest(b)
    shared = first.keys() & second.keys()
    if not shared:
        raise UserError(
            f"{clean(names[0])} ({plural(len(first), 'case')}) and {clean(names[1])} ({plural(len(second), 'case')}) "
            "have no case in common, so there is nothing to compare; run the same grid into both"
        )
    sides = widths([*first.values(), *second.values()])
    rows = [_row(first.get(key), second.get(key), sides, tolerance, basis) for key in first.keys() | second.keys()]
    rows.sort(key=_order)
    used = [{r.environment for r in records.values()} for records in (first, second)]
    kept = [{k: v for k, v in given.items() if k in keys} for given, keys in zip(environments, used, strict=True)]
    warnings, notes = _differences(*kept) if used[0] != used[1] else ((), ())
    if used[0] != used[1] and not (kept[0] and kept[1]):
        warnings = (*warnings, "the environments differ, and not all of them are known")
    return Comparison(*names, basis, tolerance, tuple(rows), warnings, notes)


def compare_stores(a: Path, b: Path, *, tolerance: float = TOLERANCE, basis: Basis = "time") -> Comparison:
    """Compare two stores, SQLite or text form, see :func:`compare_records`."""
    from cdvft_bench.sweep.storage.store import Store

    with Store(a) as one, Store(b) as other:
        return compare_records(
            one.records(),
            other.records(),
            names=(str(a), str(b)),
            environments=(one.environments(), other.environments()),
            tolerance=tolerance,
            basis=basis,
        )


def _newest(records: Iterable[Record]) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for record in sorted(records, key=lambda r: r.order):
        found[record.case.key] = record
    return found


def _row(
    a: Record | None, b: Record | None, sides: Mapping[tuple[str, str], int], tolerance: float, basis: Basis
) -> Row:
    either = b or a
    assert either is not None
    (one, why_a), (other, why_b) = series(a, basis), series(b, basis)
    medians = [float(np.median(s)) if s else None for s in (one, other)]
    named = label(either, sides.get((either.case.kind, either.case.subject)))
    row = (either.case.key, either.case, named, medians[0], medians[1])
    if a is None or b is None:
        return Row(*row, None, "only in B" if a is None else "only in A", why_b if a is None else why_a)
    if not one or not other:
        causes = [f"{name}: {why}" for name, why in (("A", why_a), ("B", why_b)) if why]
        return Row(*row, None, "not compared", "; ".join(causes))
    ratio = ratio_of_medians(one, other)
    notes = _doubts(a, b)
    if ratio.bounds is None:
        few = f"{len(one)} and {len(other)} rounds make no interval; {LEAST_ROUNDS} of each do"
        return Row(*row, ratio, "not compared", "; ".join([few, *notes]))
    verdict: Verdict = "no difference"
    if ratio.side(1 + tolerance) == "above":
        verdict = "slower"
    elif ratio.side(1 / (1 + tolerance)) == "below":
        verdict = "faster"
    return Row(*row, ratio, verdict, "; ".join(notes))


def _timing(record: Record) -> Timing | None:
    return record.timed.timing if record.timed else None


def series(record: Record | None, basis: Basis) -> tuple[tuple[float, ...], str]:
    """One figure a round of a record (seconds, or its ratio to the frozen subject), or why there are none."""
    if record is None:
        return (), ""
    if record.status != "ok":
        return (), f"failed: {record.error or 'no cause is recorded'}"
    timing = _timing(record)
    if timing is None or not timing.samples or not timing.samples[0].seconds:
        return (), NOT_MEASURED
    seconds = timing.samples[0].seconds
    if basis == "frozen":
        baseline = [s.seconds for s in timing.samples if s.name == FROZEN]
        if not baseline or record.case.method == FROZEN:
            return (), "is itself the frozen subject" if record.case.method == FROZEN else "no frozen subject beside it"
        seconds = tuple(s / b for s, b in zip(seconds, baseline[0], strict=True))
    if not all(math.isfinite(s) and s > 0 for s in seconds):
        return (), "a time is not a positive number"
    return seconds, ""


def _doubts(a: Record, b: Record) -> list[str]:
    one, other = _timing(a), _timing(b)
    if one is None or other is None:
        return []
    found = []
    if one.threads != other.threads:
        found.append(f"{one.threads} threads in A, {other.threads} in B")
    if one.method != other.method:
        found.append(f"timed by {clean(one.method)} in A, by {clean(other.method)} in B")
    warned = " and ".join(name for name, timing in (("A", one), ("B", other)) if timing.warnings)
    return [*found, *([f"the clock warned in {warned}"] if warned else [])]


def _order(row: Row) -> tuple[object, ...]:
    case = row.case
    size = abs(math.log(row.ratio.value)) if row.ratio else 0.0
    where = (case.kind, case.subject, case.pass_, case.tokens)
    return (_VERDICTS.index(row.verdict), -round(size, 3), *where, row.label, row.key)


def _differences(a: Mapping[str, object], b: Mapping[str, object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Fields of the environments by which the two campaigns differ: warnings, and notes on the code's revision."""
    sides = [[_fields(e) for e in given.values()] for given in (a, b)]
    names = dict.fromkeys(name for side in sides for fields in side for name in fields)
    warnings: list[str] = []
    notes: list[str] = []
    for name in names:
        if name == "date":
            continue
        one, other = (sorted({clean(fields.get(name, "none")) for fields in side}) for side in sides)
        if one != other:
            text = f"{name} differs: {' / '.join(one) or 'unknown'} in A, {' / '.join(other) or 'unknown'} in B"
            (notes if name == "revision" else warnings).append(text)
    return tuple(warnings), tuple(notes)


def _fields(environment: object) -> dict[str, object]:
    """Fields by name, those of mappings each by itself; lists in the order of their texts, which says nothing."""
    if is_dataclass(environment) and not isinstance(environment, type):
        environment = asdict(environment)
    found: dict[str, object] = {}
    for name, value in environment.items() if isinstance(environment, Mapping) else [("environment", environment)]:
        if isinstance(value, Mapping):
            found |= {f"{name}: {part}": inner for part, inner in value.items()}
        else:
            found[str(name)] = ", ".join(sorted(map(str, value))) if isinstance(value, list | tuple) else value
    return found


def comparison_frame(comparison: Comparison) -> DataFrame:
    """Every row of a comparison; figures in full, "not measured" where there is none."""
    import pandas as pd

    def figure(value: float | None) -> object:
        return NOT_MEASURED if value is None else value

    unit = "seconds" if comparison.basis == "time" else "ratio to frozen"
    lines = []
    for row in comparison.rows:
        case, ratio = row.case, row.ratio or Interval(math.nan)
        lines.append(
            {
                "verdict": row.verdict,
                "method": clean(row.label),
                "kind": case.kind,
                "subject": clean(case.subject),
                "pass": case.pass_,
                "batch": case.batch,
                "sequence": case.sequence,
                "dtype": case.dtype,
                "device": case.device,
                "seed": case.seed,
                f"A {unit}": figure(row.a),
                f"B {unit}": figure(row.b),
                "B / A": figure(ratio.value if row.ratio else None),
                "low": figure(ratio.low),
                "high": figure(ratio.high),
                "note": clean(row.note),
                "key": row.key,
            }
        )
    return pd.DataFrame(lines)
