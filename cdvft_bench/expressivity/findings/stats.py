"""Means with intervals, and the best row within a budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from cdvft_bench.core.interval import Interval
from cdvft_bench.core.student import mean_interval
from cdvft_bench.core.ties import steady
from cdvft_bench.expressivity.experiments import REACHED, Row


def mean(values: Sequence[float]) -> float:
    """Mean of independent draws, of which there is one or more."""
    return interval(values).value


def interval(values: Sequence[float]) -> Interval:
    """Mean of independent draws with its 95 % interval (Student's t); without one of fewer than three.

    Raises:
        ValueError: there is no value.
    """
    return mean_interval(values)


def plus_minus(values: Sequence[float]) -> str:
    """Mean and half-width of independent draws, ``0.123 ± 0.004``; the mean alone where there is no interval."""
    found = interval(values)
    return f"{found.value:.3f}" if found.high is None else f"{found.value:.3f} ± {found.high - found.value:.3f}"


def rank_error(errors: Sequence[float]) -> float:
    """Mean error to rank by: all that is reached is alike, and so is what differs by rounding errors."""
    return max(steady(mean(errors)), REACHED)


def best_within(rows: Iterable[Row], axis: str, budget: float) -> Row | None:
    """The row of least mean error whose ``axis`` ("parameters" or "flops_per_token") is within the budget.

    Of rows alike in error (see :func:`rank_error`) the cheapest.
    """
    fitting = [row for row in rows if row[axis] <= budget * (1 + 1e-12)]
    return min(fitting, key=lambda row: (rank_error(row["errors"]), steady(row[axis])), default=None)


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent of a power law through positive points: the least-squares slope of their logarithms."""
    u, v = [math.log(value) for value in x], [math.log(value) for value in y]
    mean_u, mean_v = sum(u) / len(u), sum(v) / len(v)
    numerator = sum((a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True))
    return numerator / sum((a - mean_u) ** 2 for a in u)
