"""Pareto fronts: cheap and good."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cdvft_bench.core.errors import UserError


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Indices of the points that no other point beats, cheapest first.

    A point is beaten by one that costs no more and scores no less, and is better in one of the
    two. Points that agree in both do not beat each other: all of them are on the front, or none.

    Args:
        costs: the less the better.
        scores: the more the better; as many as ``costs``.

    Raises:
        UserError: the lengths differ, or a value is NaN, which has no order.
    """
    if len(costs) != len(scores):
        raise UserError(f"{len(costs)} costs and {len(scores)} scores; a point needs one of each")
    for name, values in (("cost", costs), ("score", scores)):
        for i, value in enumerate(values):
            if math.isnan(value):
                raise UserError(f"{name} {i} is NaN, which has no place on a front; leave the point out")
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -scores[i]))
    front: list[int] = []
    for i in order:
        # Cheapest first: a point is beaten exactly when a kept one scores more, or as much for less.
        last = front[-1] if front else None
        if last is None or scores[i] > scores[last] or (scores[i], costs[i]) == (scores[last], costs[last]):
            front.append(i)
    return front
