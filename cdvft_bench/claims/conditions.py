"""Where a claim holds that does not hold everywhere, and how often another figure than the claimed one would be hit.

A printed figure that is looked for among thousands of combinations of prices is soon found. So the same settings are
held against every figure that could have been printed instead, from half to twice the claimed one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cdvft_bench.claims.ledger.claim import Claim
from cdvft_bench.claims.ledger.figures import EXACT
from cdvft_bench.claims.ledger.laws import Equals, Ratio
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


# --- how likely a hit is by chance ----------------------------------------------------------


EXPLAINS = 0.5
"""Chance from which a hit says nothing: most other figures would have been hit as well."""

REACH = 2.0
"""Figures from 1 / REACH to REACH times the claimed one could have been claimed instead."""


@dataclass(frozen=True)
class Chance:
    """How likely free settings hit a figure that nobody claimed.

    Attributes:
        share: of the sets of figures of that number, 0 to 1.
        each: the share of single figures that some setting hits.
        low, high: the figures that were considered. digits: decimals of them; None where any number could be claimed.
    """

    share: float
    each: float
    low: float
    high: float
    digits: int | None


def chance_of(claim: Claim, judged: Sequence[Reading]) -> Chance | None:
    """The chance for a claim of one or several figures; None where the law claims none, or no setting is free."""
    law = claim.law
    if not isinstance(law, Ratio | Equals) or not law.expected or len(judged) < 2:
        return None
    if isinstance(law, Equals) and len(law.expected) > 1:
        return None
    digits = law.digits if isinstance(law, Ratio) else None
    if digits is None and claim.tolerance == 0:
        return None  # one exact number among all numbers: nothing hits it by chance
    values = [v for r in judged if (v := r.results[0].value) is not None and v > 0]
    middle = math.prod(abs(e) for e in law.expected) ** (1 / len(law.expected))
    low, high = middle / REACH, middle * REACH
    each = _printed(values, low, high, digits) if digits is not None else _near(values, low, high, claim.tolerance)
    return Chance(1 - (1 - each) ** len(law.expected), each, low, high, digits)


def _printed(values: Sequence[float], low: float, high: float, digits: int) -> float:
    """Share of the figures with so many decimals that some value rounds to."""
    unit = 10.0**-digits
    first, last = math.ceil(low / unit - EXACT), math.floor(high / unit + EXACT)
    hit = {math.floor(v / unit + 0.5) for v in values}
    return sum(first <= k <= last for k in hit) / max(1, last - first + 1)


def _near(values: Sequence[float], low: float, high: float, tolerance: float) -> float:
    """Share of the range, on a logarithmic scale, that lies within the tolerance of some value."""
    reached = start = math.log(low)
    end, total = math.log(high), 0.0
    for value in sorted(values):
        a, b = math.log(value / (1 + tolerance)), math.log(value / (1 - tolerance))
        total += max(0.0, min(b, end) - max(a, reached))
        reached = max(reached, min(b, end))
    return total / (end - start)
