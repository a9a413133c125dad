"""Means with intervals, and the best row within a budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cdvft_bench.core.student import t_value
from cdvft_bench.core.ties import steady
from cdvft_bench.expressivity.experiments import REACHED, Row


@dataclass(frozen=True)
class Interval:
    """A mean over draws and half the width of its 95 % interval (Student's t); None for a single draw."""

    mean: float
    half: float | None
    draws: int

    def __str__(self) -> str:
        if self.half is None:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ± {self.half:.3f}"


def interval(values: Sequence[float]) -> Interval:
    """Mean and interval of independent draws.

    Raises:
        ValueError: there is no value.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no value to average")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, 1)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    return Interval(mean, t_value(n - 1) * deviation / math.sqrt(n), n)


def rank_error(errors: Sequence[float]) -> float:
    """Mean error to rank by: all that is reached is alike, and so is what differs by rounding errors."""
    return max(steady(interval(errors).mean), REACHED)


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
