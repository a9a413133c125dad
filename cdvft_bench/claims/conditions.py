"""Where a claim holds that does not hold everywhere: the values that it needs, and a region in which it always does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdvft_bench.claims.ledger.claim import Claim
from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.claims.verdict import Reading

Terms = tuple[tuple[str, tuple[Value, ...]], ...]
"""Values of axes; an axis that may have any is left out."""


@dataclass(frozen=True)
class Conditions:
    """Where it holds.

    Attributes:
        needed: axes of which not every value is among the hits, with those that are.
        exact: every judged setting with these values is a hit, so that they say it all.
        wherever: a region all of whose settings are hits, the largest that is found by leaving values out one by one.
        size: settings in that region.
    """

    needed: Terms
    exact: bool
    wherever: Terms
    size: int


def conditions(claim: Claim, hits: Sequence[Reading], judged: Sequence[Reading]) -> Conditions:
    """Conditions under which a claim holds that some judged settings hit and others do not."""
    axes = {axis: [repr(v) for v in values] for axis, values in claim.open}
    names: dict[str, Value] = {repr(v): v for _, values in claim.open for v in values}
    rows = [({axis: repr(v) for axis, v in r.setting}, r.holds) for r in judged]
    for reading in judged:  # workloads and machines, which records name
        for axis, value in reading.setting:
            if axis not in dict(claim.open) and repr(value) not in axes.setdefault(axis, []):
                axes[axis].append(repr(value))
                names[repr(value)] = value
    tried = {axis: [v for v in values if any(row[axis] == v for row, _ in rows)] for axis, values in axes.items()}

    def terms(box: dict[str, list[str]]) -> Terms:
        short = {axis: values for axis, values in box.items() if len(values) < len(tried[axis])}
        return tuple((axis, tuple(names[v] for v in values)) for axis, values in short.items())

    good = {axis: [v for v in values if any(h and row[axis] == v for row, h in rows)] for axis, values in tried.items()}
    exact = all(holds for row, holds in rows if all(row[axis] in values for axis, values in good.items()))
    box = {axis: list(values) for axis, values in good.items()}
    inside = [(row, holds) for row, holds in rows if all(row[axis] in values for axis, values in box.items())]
    while not all(holds for _, holds in inside):
        worst = max(
            ((axis, value) for axis, values in box.items() if len(values) > 1 for value in values),
            key=lambda term: (_failing(inside, *term), axes[term[0]].index(term[1])),
        )
        box[worst[0]].remove(worst[1])
        inside = [(row, holds) for row, holds in inside if row[worst[0]] != worst[1]]
    return Conditions(terms(good), exact, terms(box), len(inside))


def _failing(rows: Sequence[tuple[dict[str, str], bool]], axis: str, value: str) -> float:
    """Share of the rows with a value that are no hits."""
    of_value = [holds for row, holds in rows if row[axis] == value]
    return of_value.count(False) / len(of_value) if of_value else 1.0
