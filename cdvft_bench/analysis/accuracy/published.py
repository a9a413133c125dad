"""Accuracy against cost: figures that others published, their Pareto fronts, and where CDVFT's cost would fall."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from cdvft_bench.analysis.pareto import pareto_front
from cdvft_bench.core.text import clean, integer, listed, plural, shorten
from cdvft_bench.report.figures.labels import Label, place_labels
from cdvft_bench.report.figures.panels import Plot, drawn
from cdvft_bench.report.figures.style import FAINT, INK, SETTINGS, Drawn, Skipped, Styles, blank, log_axis

if TYPE_CHECKING:
    from pandas import DataFrame

    from cdvft_bench.accuracy.published import PublishedRun

OF_INTEREST = ("lora", "dora", "c3a", "fourierft", "vera", "boft")


COSTS: tuple[tuple[str, str, str, Callable[[PublishedRun], float]], ...] = (
    ("parameters", "trainable parameters", "trainable parameters [count]", lambda run: run.trainable_params),
    ("time", "training time", "training time [s]", lambda run: run.train_time_s),
    ("memory", "peak memory", "peak memory [GB]", lambda run: run.peak_memory_bytes / 1e9),
)


def published_figures(
    runs: Sequence[PublishedRun], source: str, cdvft_parameters: Mapping[str, int], styles: Styles
) -> list[Drawn | Skipped]:
    """One figure a cost: parameters, training time, peak memory.

    Args:
        runs: published runs of one task on one machine.
        source: who published them.
        cdvft_parameters: closed-form trainable parameters of CDVFT on the same model's query and value
            projections, by setting; their accuracy is not measured, so they are lines and not points.
        styles: colours of the methods.
    """
    import matplotlib

    done: list[Drawn | Skipped] = []
    for name, what, axis, cost in COSTS:
        title = f"Accuracy against {what}, as published"
        if not runs:
            done.append(Skipped(f"published-{name}", title, "no published figures were given"))
            continue
        with matplotlib.rc_context(SETTINGS):
            marks = cdvft_parameters if name == "parameters" else {}
            plot = front_figure(runs, source, what, axis, cost, marks, styles)
            done.append(drawn(f"published-{name}", title, plot))
    return done


def front_figure(
    runs: Sequence[PublishedRun],
    source: str,
    what: str,
    axis: str,
    cost: Callable[[PublishedRun], float],
    marks: Mapping[str, int],
    styles: Styles,
    unit: str = "parameters",
) -> Plot:
    """Accuracy against one cost, the front marked, the rest faded; ``unit`` of the marks."""
    figure, (axes,) = blank(1, 1, 5.2)
    best = set(pareto_front([cost(r) for r in runs], [r.test_accuracy for r in runs]))
    labels: list[Label] = []
    for i, run in enumerate(runs):
        key = style_key(run)
        on_front, known = i in best, key in OF_INTEREST
        style = styles[key] if known else None
        axes.plot(
            [cost(run)], [100 * run.test_accuracy], style.marker if style else "o", linestyle="none",
            color=style.color if style else (INK if on_front else FAINT), markersize=7.5 if on_front else 5.5,
            alpha=1.0 if on_front else 0.6 if known else 0.35, zorder=4 if on_front else 3 if known else 2,
        )  # fmt: skip
        if on_front or (known and not _is_lora_variant(run)):
            text = shorten(run.experiment, 34)
            labels.append(Label(cost(run), 100 * run.test_accuracy, text, style.color if style else INK, bold=on_front))
    ordered = sorted(best, key=lambda i: (cost(runs[i]), runs[i].test_accuracy))
    corners = _staircase([(cost(runs[i]), 100 * runs[i].test_accuracy) for i in ordered])
    axes.plot([x for x, _ in corners], [y for _, y in corners], color=INK, linewidth=1.2, zorder=2.4)
    low, high = min(cost(r) for r in runs), max(cost(r) for r in runs)
    least, most = min([low, *marks.values()]), max([high, *marks.values()])
    for nth, (setting, parameters) in enumerate(sorted(marks.items(), key=lambda item: item[1])):
        low, high = min(low, parameters), max(high, parameters)
        color = styles["cdvft"].color
        axes.axvline(parameters, color=color, linewidth=1.4, linestyle="--", zorder=1.5)
        text = f"{shorten(setting)}: {integer(parameters)} {unit} by formula, accuracy not measured"
        axes.annotate(
            text, (parameters, 1.0), (0, 4 + 12 * nth), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha=_towards_the_middle(parameters, least, most), color=color, fontsize=8.5,
        )  # fmt: skip
    spread = (high / low) ** 0.05
    axes.set_xlim(low / spread, high * spread)
    axes.margins(y=0.08)
    if high > 3 * low:
        log_axis(axes, "x")
    axes.set_xlabel(axis)
    axes.set_ylabel("test accuracy [%]")
    labels.sort(key=lambda label: not label.bold)
    bottom, top = axes.get_ylim()
    lines = [corners]
    lines += [[(float(parameters), bottom), (float(parameters), top)] for parameters in marks.values()]
    place_labels(axes, labels, [(cost(r), 100 * r.test_accuracy) for r in runs], lines)
    names = [clean(runs[i].experiment) for i in ordered]
    caption = (
        f"{plural(len(runs), 'run')} published by {clean(source).rstrip('.')}: cheaper to the left, better on top. The "
        f"step line is the Pareto front in {what} (dark, bold): no other run is both cheaper and better. The rest is "
        "faded; of it only plain LoRA, DoRA, C3A, FourierFT, VeRA and BOFT are named; every kind of LoRA is a triangle."
    )
    if marks:
        caption += (
            f" Dashed lines are CDVFT's {unit} on the query and value projections by formula: its "
            "accuracy there is not measured, so it is a line and not a point."
        )
    return Plot(figure, caption, f"Scatter of test accuracy against {what}. On the front: {listed(names)}.")


def _towards_the_middle(value: float, low: float, high: float) -> Literal["left", "center", "right"]:
    """How a text above a mark is aligned, so that it stays within a logarithmic axis."""
    share = math.log(value / low) / (math.log(high / low) or 1.0)
    return "left" if share < 1 / 3 else "right" if share > 2 / 3 else "center"


def published_table(runs: Sequence[PublishedRun]) -> DataFrame:
    """The published runs, best first, with the fronts that each is on."""
    import pandas as pd

    fronts = {
        what: set(pareto_front([cost(r) for r in runs], [r.test_accuracy for r in runs])) for _, what, _, cost in COSTS
    }
    rows = [
        {
            "experiment": clean(run.experiment),
            "PEFT type": clean(run.method),
            "test accuracy [%]": round(100 * run.test_accuracy, 6),
            "trainable parameters [count]": run.trainable_params,
            "training time [s]": run.train_time_s,
            "peak memory [bytes]": run.peak_memory_bytes,
            "on the Pareto front in": listed([what for what, front in fronts.items() if i in front]) or "none",
            "device": clean(run.device),
            "torch": clean(run.torch),
            "date": clean(run.date),
        }
        for i, run in enumerate(runs)
    ]
    rows.sort(key=lambda row: -float(str(row["test accuracy [%]"])))
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["experiment"], dtype=object)


def style_key(run: PublishedRun) -> str:
    """The method whose colour a published run takes; PEFT files DoRA under LoRA."""
    name = run.method.lower()
    return "dora" if name == "lora" and run.hyperparameters.get("use_dora") else name


def _is_lora_variant(run: PublishedRun) -> bool:
    """LoRA by another initialisation, target or rule: a triangle, but not named."""
    return style_key(run) == "lora" and re.fullmatch(r"lora-rank\d+", run.experiment) is None


def _staircase(front: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    corners: list[tuple[float, float]] = []
    for x, y in front:
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    return corners
