"""Intervals of medians and ratios, and a rank test for drift. Pure functions of seconds."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.core.interval import LEAST_ROUNDS, LEAST_SEEDS, Interval
from cdvft_bench.core.student import LEVEL, mean_interval
from cdvft_bench.core.ties import DIGITS
from cdvft_bench.core.timed import Samples

Array = NDArray[np.float64]

DRIFT = 0.05  # relative change of the machine's speed that is worth a word
SIGNIFICANT = 0.01  # p of the rank test under which a drift is spoken of
FIRST_LOOK, LOOKS, CONFIRM = 10, 1.25, 1.5  # rounds until the first look, and factors to the next ones
SAME = 10.0**-DIGITS  # relative difference up to which two figures are the same
WIDEST = 0.9  # correlation of neighbouring rounds beyond which it is not told how much less they say


def samples_of(name: str, seconds: Sequence[float]) -> Samples:
    """A contender's samples with their median and quartiles."""
    median, q25, q75 = (float(q) for q in np.quantile(seconds, [0.5, 0.25, 0.75]))
    return Samples(name, tuple(seconds), median, q25, q75)


def median_interval(values: Array) -> Interval:
    """Median of the rounds of one process, with its 95 % interval.

    The interval lies between two of the ordered values, so it holds whatever the rounds' distribution (sign test);
    five rounds have 94 % at best. Rounds that resemble their neighbours say less than as many independent ones: the
    interval is stretched about the median by sqrt((1 + r) / (1 - r)), r the lag-1 correlation of the rounds' ranks,
    or rather what it may be: its bias (1 + 3 r) / n is taken off, and 0.8 / sqrt(n) + 16 / n^2 is added. These two
    numbers are such that every row of ``cdvft-bench dev coverage`` shows 93 % or more. It speaks of
    this process alone: see :func:`ratio_interval` for the next one.

    Args:
        values: (n,), one figure a round, in time's order.

    Returns:
        without bounds where there are fewer than ``LEAST_ROUNDS``.
    """
    n = len(values)
    median = float(np.median(values))
    if n < LEAST_ROUNDS:
        return Interval(median)
    ordered = np.sort(values)
    depth = _depth(n)
    low, high = float(ordered[depth - 1]), float(ordered[n - depth])
    r = lag1(values) or 0.0
    r = min(max(r + (1 + 3 * r) / n + 0.8 / math.sqrt(n) + 16 / n**2, 0.0), WIDEST)
    stretch = math.sqrt((1 + r) / (1 - r))
    if low > 0:  # a time or a ratio, which stays one
        return Interval(median, median * (low / median) ** stretch, median * (high / median) ** stretch)
    return Interval(median, median - stretch * (median - low), median + stretch * (high - median))


@lru_cache(maxsize=1024)
def _depth(n: int) -> int:
    """Rank of the ordered value at which the sign test's 95 % interval of the median of n values begins, >= 1."""
    below, depth = 0, 0
    while depth < n and below + math.comb(n, depth) <= LEVEL / 2 * 2**n:
        below += math.comb(n, depth)
        depth += 1
    return max(depth, 1)


def ratio_interval(processes: Sequence[Array]) -> Interval:
    """A ratio over several processes with its 95 % interval, which holds in the next process, too.

    A process has its own ratio (allocator, page placement), which more rounds in it do not average out. So a process
    is one draw: the mean of the logarithms of the processes' medians, with Student's t.

    Args:
        processes: the positive ratios of each process's rounds, one process or more.

    Returns:
        of fewer than ``LEAST_SEEDS`` processes, the median of all their rounds with the interval of
        :func:`median_interval`, which does not hold in the next process; without bounds where there are fewer than
        ``LEAST_ROUNDS`` rounds in all.
    """
    rounds = np.concatenate(processes)
    if len(processes) < LEAST_SEEDS:
        return median_interval(rounds)
    found = mean_interval([math.log(float(np.median(values))) for values in processes])
    if len(rounds) < LEAST_ROUNDS or found.low is None or found.high is None:
        return Interval(math.exp(found.value))
    return Interval(math.exp(found.value), math.exp(found.low), math.exp(found.high))


@dataclass
class Looks:
    """Decides when rounds are enough, by looking at their intervals ever more rarely.

    Stopping at the first interval that happens to be narrow would make intervals too narrow. So there are few looks,
    and a second one must agree when half as many rounds again are made.

    Attributes:
        precision: relative half-width that is enough. at: rounds at which the next look is due.
        once: whether the last look found them enough.
    """

    precision: float
    at: int = FIRST_LOOK
    once: bool = False

    def due(self, rounds: int) -> bool:
        """Whether to look now."""
        return rounds >= self.at

    def enough(self, table: Array) -> bool:
        """Look at (rounds, k) figures: whether all columns' intervals are narrow, and were when last looked at."""
        narrow = all(median_interval(column).half_width <= self.precision for column in table.T)
        if narrow and self.once:
            return True
        self.once, self.at = narrow, math.ceil((CONFIRM if narrow else LOOKS) * len(table))
        return False


def lag1(values: Array) -> float | None:
    """Correlation of each round with the next, of their ranks, so that one odd round does not decide.

    Returns:
        between -1 and 1; None where there are fewer than ``LEAST_ROUNDS``, or all are alike.
    """
    if len(values) < LEAST_ROUNDS:
        return None
    ranks = _ranks(values)
    centred = ranks - ranks.mean()
    whole = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / whole if whole > 0 else None


def _ranks(values: Array) -> Array:
    """Ranks from 1; tied values share their mean rank. Neighbours that rounding alone tells apart are tied."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    group = np.concatenate([[0], np.cumsum(np.diff(ordered) > SAME * np.abs(ordered[1:]))])
    counts = np.bincount(group)
    ranks = np.empty(len(values))
    ranks[order] = (np.cumsum(counts) - (counts - 1) / 2)[group]
    return ranks


def rank_test(first: Array, last: Array) -> float:
    """Two-sided p-value of the Mann-Whitney rank test (normal approximation with ties) that both are alike."""
    n, m = len(first), len(last)
    values = np.concatenate([first, last])
    counts = np.unique(values, return_counts=True)[1]
    u = float(_ranks(values)[:n].sum()) - n * (n + 1) / 2
    total = n + m
    ties = float((counts.astype(np.float64) ** 3 - counts).sum()) / (total * (total - 1))
    variance = n * m / 12 * (total + 1 - ties)
    if variance <= 0:
        return 1.0
    return math.erfc(abs(u - n * m / 2) / math.sqrt(2 * variance))


def drift(values: Array, least: float) -> tuple[float, float] | None:
    """Change from the first third of ``values`` to the last.

    Args:
        values: one figure a round, in time's order.
        least: relative change of the medians that is worth a word.

    Returns:
        relative change and p-value of the rank test; None where the change is smaller than ``least``, not
        significant, or there are fewer than 15 rounds (a third of five cannot be significant with less).
    """
    third = len(values) // 3
    if third < 5:
        return None
    first, last = values[:third], values[-third:]
    change = float(np.median(last) / np.median(first)) - 1
    p = rank_test(first, last)
    return (change, p) if abs(change) >= least and p <= SIGNIFICANT else None


def machine_speed(table: Array) -> Array:
    """What all contenders have in common, round by round.

    Args:
        table: (rounds, contenders), seconds.

    Returns:
        (rounds,): geometric mean over the contenders of time over its own median; 1 where all are as usual.
    """
    return np.asarray(np.exp(np.log(table / np.median(table, axis=0)).mean(axis=1)))


def drift_warnings(table: Array, names: Sequence[str], precision: float) -> Iterator[str]:
    """What a reader must know of (rounds, contenders) seconds: a drift of the machine or of the first one's ratios."""
    if found := drift(machine_speed(table), DRIFT):
        change, p = found
        yield (
            f"the machine drifted: the last third of the rounds took {change:+.0%} against the first (p = {p:.1g}); "
            "ratios are paired by round, absolute times are not"
        )
    for i, name in enumerate(names[1:], 1):
        if found := drift(table[:, 0] / table[:, i], max(precision, 0.02)):
            change, p = found
            yield f"the ratio to {name} drifted by {change:+.0%} during the run (p = {p:.1g}): it has no one value"
