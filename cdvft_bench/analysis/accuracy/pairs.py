"""Which of two methods is more accurate beyond chance: against one baseline, or all pairs with each other."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

from cdvft_bench.accuracy.analysis import Difference, Estimate, Score, compared, estimate, holm, paired
from cdvft_bench.accuracy.draws import CostOf
from cdvft_bench.accuracy.pilot import detectable
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.text import percent_bounds

BASELINE = "LoRA r=8"
CHANCE = 0.05

State = Literal["on", "open", "off"]
"""Of a method and a front: on it beyond chance, not told, beaten beyond chance."""


def told_apart(d: Difference) -> bool:
    """Whether a difference is beyond chance: by the corrected p, and its own interval leaves 0 out."""
    return d.p_holm < CHANCE and d.interval.side(0.0) != "undecided"


def verdict(d: Difference) -> str:
    """Better, worse or neither, by the corrected p; where neither, with the difference that would have been seen."""
    size = f"{100 * d.mean:+.1f} points{percent_bounds(d.interval)}"
    if told_apart(d):
        return f"{'more' if d.mean > 0 else 'less'} accurate ({size}, p = {d.p_holm:.2g})"
    seen = detectable(d)
    power = f"; {100 * seen:.1f} points would be seen with a chance of 80 %" if math.isfinite(seen) else ""
    return f"not told apart ({size}, p = {d.p_holm:.2f}{power})"


def differences_to(found: Sequence[Score], against: str) -> dict[str, Difference]:
    """Every method's difference to one, by label; none where no two seeds are shared."""
    try:
        return {d.label: d for d in compared(found, against)}
    except UserError:
        return {}


def beyond_chance(named: Mapping[str, Mapping[str, Score]]) -> set[tuple[str, str, str]]:
    """Every (workload, better, worse) that tests tell apart, paired by seed and example.

    Holm's correction runs over all pairs of all workloads: with a chance of 95 % not one of them is wrong.

    Args:
        named: scores by workload and name.
    """
    tests: list[tuple[str, str, str, Estimate]] = []
    for workload, scored in named.items():
        for one, other in combinations(scored, 2):
            table = paired(scored[one], scored[other])
            if table is not None:
                tests.append((workload, one, other, estimate(table)))
    found = set()
    for (workload, one, other, value), p in zip(tests, holm([value.p for *_, value in tests]), strict=True):
        if p < CHANCE:
            found.add((workload, one, other) if value.mean > 0 else (workload, other, one))
    return found


def states(labels: Sequence[str], costs: Mapping[str, CostOf], better: set[tuple[str, str]]) -> dict[str, State]:
    """Where every method stands to the front of accuracy against a cost.

    "off": another one surely costs no more and is more accurate beyond chance. "on": every other one surely costs more
    or is less accurate beyond chance. "open": neither. An exact cost is sure; a measured one is surely less than
    another where their 95 % intervals leave a gap, and never surely equal.

    Args:
        labels: of methods. costs: theirs. better: pairs (better, worse) beyond chance.
    """
    found: dict[str, State] = {}
    for one in labels:
        others = [other for other in labels if other != one]
        if any((other, one) in better and _no_more(costs[other], costs[one]) for other in others):
            found[one] = "off"
        elif all((one, other) in better or _less(costs[one], costs[other]) for other in others):
            found[one] = "on"
        else:
            found[one] = "open"
    return found


def _less(one: CostOf, other: CostOf) -> bool:
    high = one.value if one.high is None else one.high
    low = other.value if other.low is None else other.low
    return high < low


def _no_more(one: CostOf, other: CostOf) -> bool:
    exact = (one.low, one.high, other.low, other.high) == (None,) * 4
    return _less(one, other) or (exact and one.value == other.value)
