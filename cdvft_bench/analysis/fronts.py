"""Accuracy against cost as columns for the page: runs that others published, and runs made with this suite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdvft_bench.analysis.accuracy.published import style_key
from cdvft_bench.core.text import clean
from cdvft_bench.report.page.dataset import Column

if TYPE_CHECKING:
    from cdvft_bench.accuracy.analysis import Score
    from cdvft_bench.accuracy.published import PublishedRun


def accuracy_columns(
    published: Sequence[PublishedRun], source: str, scored: Sequence[tuple[str, Sequence[Score]]]
) -> list[Column]:
    """One row a run (published) or a method (made here, mean over seeds).

    Args:
        published: others' runs. source: who published them.
        scored: scores by the name of their file of results.
    """
    rows: list[tuple[str, str, str, dict[str, float | None]]] = [
        (run.experiment, style_key(run), f"published by {source}", {
            "accuracy": 100 * run.test_accuracy, "parameters": run.trainable_params, "seconds": run.train_time_s,
            "peak": run.peak_memory_bytes,
        })
        for run in published
    ]  # fmt: skip
    for name, found in scored:
        rows += [
            (s.label, s.method, f"fine-tuned here: {name}", {
                "accuracy": 100 * s.mean, "accuracy_low": None if s.low is None else 100 * s.low,
                "accuracy_high": None if s.high is None else 100 * s.high, "parameters": s.parameters,
                "seconds": s.step_seconds, "flops": s.step_flops,
            })
            for s in found
        ]  # fmt: skip
    figures = (
        ("parameters", "trained parameters", "", "count"),
        ("seconds", "time (of training; of a step if made here)", "s", "number"),
        ("peak", "peak memory", "bytes", "bytes"), ("flops", "FLOPs of a step", 'FLOP, "flop"', "flops"),
        ("accuracy", "test accuracy", "%", "number"), ("accuracy_low", "test accuracy, low", "%", "number"),
        ("accuracy_high", "test accuracy, high", "%", "number"),
    )  # fmt: skip
    return [
        Column("setting", "run", "", "text", [clean(row[0]) for row in rows]),
        Column("method", "method", "", "text", [clean(row[1]) for row in rows]),
        Column("source", "source", "", "text", [clean(row[2]) for row in rows]),
        *(Column(n, title, unit, kind, [row[3].get(n) for row in rows]) for n, title, unit, kind in figures),  # type: ignore[arg-type]
    ]
