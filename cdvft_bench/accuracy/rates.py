"""Search of a learning rate on a logarithmic grid that extends itself until the best rate lies inside.

The first three rates stand a ratio apart. While the best so far is the smallest or largest, the grid grows by one ratio
beyond it; once it lies inside, every further trial halves, on the logarithm, the wider gap beside it. Nothing is drawn:
the same scores give the same rates, so a search that was interrupted goes on from its rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

LEAST, MOST = 1e-9, 1e4
"""No rate beyond these is tried: a best rate out there is a fault of the workload, not of the grid."""
FIRST = (Fraction(0), Fraction(-1), Fraction(1))
PAIR = FIRST[:2]
"""A shorter start: the better of the two says in which direction the third lies."""
DIVERGED = -1.0
"""Below every accuracy."""


@dataclass(frozen=True)
class Grid:
    """Rates ``middle * ratio**step``; the first steps are 0, -1 and 1.

    Attributes:
        middle: where the search begins, above 0. ratio: of neighbours, above 1.
    """

    middle: float
    ratio: float

    def rate(self, step: Fraction) -> float:
        """Of a step, three digits."""
        return float(f"{self.middle * self.ratio ** float(step):.3g}")

    def reaches(self, step: Fraction) -> bool:
        """Whether a step is one that may be tried."""
        return LEAST <= self.rate(step) <= MOST


def best_step(found: Mapping[Fraction, float]) -> Fraction:
    """The step of the best score; of equals the one with most steps on both its sides, then the smaller."""
    ordered = sorted(found)
    return max(ordered, key=lambda step: (found[step], inner(ordered.index(step), len(ordered)), -step))


def inner(place: int, n: int) -> int:
    """How far the ``place``-th of ``n`` ordered rates is from the nearer end: 0 for the smallest and the largest."""
    return min(place, n - 1 - place)


def beyond(found: Mapping[Fraction, float]) -> Fraction | None:
    """The step by which the grid must grow; None where its best lies inside.

    Where no score is better than ``DIVERGED`` the grid grows downwards.
    """
    ordered, best = sorted(found), best_step(found)
    if best == ordered[0] or found[best] <= DIVERGED:
        return ordered[0] - 1
    return ordered[-1] + 1 if best == ordered[-1] else None


def between(found: Mapping[Fraction, float]) -> Fraction:
    """The step that halves the wider gap beside the best one; of equal gaps that towards the better neighbour."""
    ordered, best = sorted(found), best_step(found)
    place = ordered.index(best)
    low, high = ordered[place - 1], ordered[place + 1]
    below, above = (best - low, found[low]), (high - best, found[high])
    return (best + low) / 2 if below >= above else (best + high) / 2


def walk(
    grid: Grid, trials: int, score: Callable[[float], float | None], first: Sequence[Fraction] = FIRST
) -> tuple[list[float], bool]:
    """The rates of a search in their order, as far as the known scores decide them.

    Args:
        grid: where it begins. trials: how many rates, at least three; more are tried while the best is at an end.
        score: of a rate, ``DIVERGED`` or an accuracy; None where it was not tried. first: steps that it begins with.

    Returns:
        Rates: those with a score, then those to try now. Whether the search has ended.
    """
    steps = list(first)
    while True:
        scores = {step: score(grid.rate(step)) for step in steps}
        found = {step: value for step, value in scores.items() if value is not None}
        if len(found) < len(steps):
            return [grid.rate(step) for step in steps], False
        further = beyond(found)
        if further is not None and grid.reaches(further):
            steps.append(further)
        elif len(steps) < trials and further is None:
            steps.append(between(found))
        else:
            return [grid.rate(step) for step in steps], True


def enclosed_after(grid: Grid, score: Callable[[float], float | None], first: Sequence[Fraction] = FIRST) -> int:
    """How many rates it takes until the best lies inside; while that is open, as many as are known to be needed."""
    return len(walk(grid, len(FIRST), score, first)[0])
