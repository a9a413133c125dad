"""Medians with bootstrap intervals, and a rank test for drift. Pure functions of seconds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.core.timed import Interval

Array = NDArray[np.float64]

RESAMPLES = 1000
SIGNIFICANT = 0.01  # p of the rank test under which a drift is spoken of


def bootstrap_medians(columns: Array, seed: int = 0) -> list[Interval]:
    """Median of every column with its 95 % percentile-bootstrap interval, rounds resampled as wholes.

    The interval of n rounds lies between their extremes, which hold the true median with probability
    1 - 2^(1 - n): 75 % for three rounds, 94 % for five, 97 % for six.

    Args:
        columns: (rounds, k), k >= 0.
        seed: of the resampling; the same values and seed give the same interval.

    Returns:
        k intervals; without bounds where there are fewer than three rounds.
    """
    rounds = len(columns)
    medians = np.median(columns, axis=0)
    if rounds < 3:
        return [Interval(float(m), None, None) for m in medians]
    drawn = np.random.default_rng(seed).integers(0, rounds, (RESAMPLES, rounds))
    bounds = np.quantile(np.median(columns[drawn], axis=1), [0.025, 0.975], axis=0)
    return [Interval(float(m), float(low), float(high)) for m, (low, high) in zip(medians, bounds.T, strict=True)]


def bootstrap_median(values: Array, seed: int = 0) -> Interval:
    """Median of ``values`` (rounds,) with its interval, see :func:`bootstrap_medians`."""
    return bootstrap_medians(np.asarray(values, dtype=np.float64)[:, None], seed)[0]


def half_width(interval: Interval) -> float:
    """Half the interval's width over its value; infinite where it has no bounds."""
    if interval.low is None or interval.high is None or interval.value == 0:
        return math.inf
    return (interval.high - interval.low) / (2 * abs(interval.value))


def rank_test(first: Array, last: Array) -> float:
    """Two-sided p-value of the Mann-Whitney rank test (normal approximation with ties) that both are alike."""
    n, m = len(first), len(last)
    values = np.concatenate([first, last])
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]  # tied values share their mean rank
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
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
