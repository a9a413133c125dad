"""Score against cost as others published it: runs, their Pareto fronts, and what this suite does not know of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cdvft_bench.accuracy.published.methods import method_of, plain
from cdvft_bench.accuracy.published.run import PublishedRun
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.text import clean
from cdvft_bench.methods import method_names

if TYPE_CHECKING:
    from pandas import DataFrame

    from cdvft_bench.accuracy.published.reading import Published

COSTS: Mapping[str, Callable[[PublishedRun], float | None]] = {
    "parameters": lambda run: run.trainable_params,
    "seconds": lambda run: run.train_time_s,
    "peak_bytes": lambda run: run.peak_memory_bytes,
    "bytes": lambda run: run.adapter_file_bytes,
}
"""What a front is drawn against, by its column; None where a run does not say."""


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

    fronts = {}
    for name, cost in COSTS.items():
        known = [(i, float(value)) for i, run in enumerate(runs) if (value := cost(run)) is not None]
        front = pareto_front([value for _, value in known], [runs[i].score for i, _ in known])
        fronts[name] = {known[k][0] for k in front}
    rows = [
        {
            "experiment": clean(run.experiment),
            "method": style_key(run),
            "score": run.score,
            **{name: math.nan if (value := cost(run)) is None else float(value) for name, cost in COSTS.items()},
            **{f"front_{name}": i in front for name, front in fronts.items()},
            "device": clean(run.device),
            "torch": clean(run.torch),
            "date": clean(run.date[:10]),
        }
        for i, run in enumerate(runs)
    ]
    rows.sort(key=lambda row: (-float(str(row["score"])), str(row["experiment"])))
    return pd.DataFrame(rows)


def style_key(run: PublishedRun) -> str:
    """The method whose colour a published run takes; PEFT files DoRA under LoRA."""
    name = method_of(run)[0]
    return next((known for known in method_names() if plain(known) == plain(name)), clean(run.method).lower())


def notes(found: Published) -> tuple[str, ...]:
    """What was left out on reading, and the runs whose method or variant is not one of this suite's."""
    known = {plain(name) for name in method_names()}
    strangers = []
    for run in found.runs:
        name, unknown = method_of(run)
        stranger = plain(name) not in known
        if unknown or stranger:
            strangers.append(clean(f"{run.experiment} ({run.method if stranger else unknown})"))
    told = [f"Left out: {one}." for one in found.left_out]
    if strangers:
        told.append(f"Methods or variants that this suite does not have, shown as given: {', '.join(strangers)}.")
    return tuple(told)
