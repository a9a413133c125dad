"""Accuracy against cost as others published it: runs, their Pareto fronts, and where CDVFT's cost would fall."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.text import clean

if TYPE_CHECKING:
    from pandas import DataFrame

    from cdvft_bench.accuracy.published import PublishedRun

COSTS: Mapping[str, Callable[[PublishedRun], float]] = {
    "parameters": lambda run: run.trainable_params,
    "seconds": lambda run: run.train_time_s,
    "peak_bytes": lambda run: run.peak_memory_bytes,
}
"""What a front is drawn against, by its column."""


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Indices of the points that no other point beats, cheapest first.

    A point is beaten by one that costs no more and scores no less, and is better in one of the two. Points that agree
    in both do not beat each other: all of them are on the front, or none.

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


def published_frame(runs: Sequence[PublishedRun]) -> DataFrame:
    """One row a published run, best first, with a column for each front that it may be on."""
    import pandas as pd

    accuracies = [run.test_accuracy for run in runs]
    fronts = {name: set(pareto_front([cost(run) for run in runs], accuracies)) for name, cost in COSTS.items()}
    rows = [
        {
            "experiment": clean(run.experiment),
            "method": style_key(run),
            "accuracy": run.test_accuracy,
            **{name: float(cost(run)) for name, cost in COSTS.items()},
            **{f"front_{name}": i in front for name, front in fronts.items()},
            "device": clean(run.device),
            "torch": clean(run.torch),
            "date": clean(run.date),
        }
        for i, run in enumerate(runs)
    ]
    rows.sort(key=lambda row: (-float(str(row["accuracy"])), str(row["experiment"])))
    return pd.DataFrame(rows)


def style_key(run: PublishedRun) -> str:
    """The method whose colour a published run takes; PEFT files DoRA under LoRA."""
    name = run.method.lower()
    return "dora" if name == "lora" and run.hyperparameters.get("use_dora") else name
