"""The pictures that a README shows: the first screen's two, drawn for paper and for dark ground."""

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from cdvft_bench.accuracy.pilot import REFERENCES
from cdvft_bench.analysis.accuracy.fronts import Front, window_of
from cdvft_bench.analysis.accuracy.pairs import State
from cdvft_bench.analysis.accuracy.study import Study
from cdvft_bench.analysis.overview import Overview, Panel
from cdvft_bench.analysis.sentences import headline, picture_title, trimmed
from cdvft_bench.core.text import clean, shorten
from cdvft_bench.report.figures.labels import Label, place_labels
from cdvft_bench.report.figures.style import DARK, LIGHT, Drawn, Ground, blank, log_axis
from cdvft_bench.report.palette import Palette

PANELS = 4
COST = "parameters"
"""What the front is drawn against: it sets adapters apart whose steps take nearly as long. The page has all costs."""
FAR = 2.3
"""Ratios beyond this are drawn as an arrow at the edge."""

WIDE = (0.12, 0.25, 0.5, 1.0, 2.0)
TICKS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
NEAR = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
"""Ticks where ratios reach very far, where they reach far, and where they lie near 1."""
LOOK: Mapping[State, tuple[float, float]] = {"on": (0.95, 8), "open": (0.95, 7), "off": (0.4, 6)}
"""Opacity and size of a method's point: on the front beyond chance, not told (hollow), beaten beyond chance."""


def pictures(found: Overview | None, methods: Mapping[str, str], studies: Sequence[Study]) -> list[Drawn]:
    """Every picture that there is something to draw for, on light and on dark ground.

    Args:
        methods: of the overview's settings, by setting.
    """
    made = []
    for ground in (LIGHT, DARK):
        with matplotlib.rc_context(ground.settings()):
            if found is not None:
                made.append(overview_picture(found, methods, ground))
            made += front_picture(studies, ground)
    return made


def _name(name: str, ground: Ground) -> str:
    return f"{name}-dark" if ground.dark else name


# --- time over the baseline's ----------------------------------------------------------------


def overview_picture(found: Overview, methods: Mapping[str, str], ground: Ground) -> Drawn:
    """Rows are methods, a panel a layer or model, the line at 1."""
    shown = found.panels[:PANELS]
    rows = [row for row in found.rows if any(row in panel.cells for panel in shown)]
    figure, axes = blank(len(shown), 1.35 + 0.25 * len(rows), sharey=True, sharex=True)
    size = 10.5
    title = figure.suptitle(picture_title(found), x=0.01, ha="left", fontweight="bold", fontsize=size)
    while title.get_window_extent().x1 > 0.95 * figure.bbox.x1 and size > 6:
        title.set_fontsize(size := size - 0.25)
    for one, panel in zip(axes, shown, strict=True):
        _panel(one, panel, rows, methods, found, ground)
    axes[0].set_yticks(range(len(rows)), [shorten(row, 26) for row in rows])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    for label in axes[0].get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == found.focus else "normal")
    figure.supxlabel(f"step time ÷ {found.baseline_title}  (left of the line is faster)", fontsize=9)
    return Drawn(_name("overview", ground), f"{picture_title(found)}. {headline(found).text}", figure, ground)


def _panel(
    axes: Axes, panel: Panel, rows: Sequence[str], methods: Mapping[str, str], found: Overview, ground: Ground
) -> None:
    palette, (low, high) = Palette(methods.values()), _reach(found.panels[:PANELS])
    under = [shorten(line, 34) for line in found.under(panel)]
    axes.set_title(shorten(panel.title, 24) + len(under) * "\n", fontsize=9)
    said, size = "\n".join(under), 8.5 - 0.5 * len(under)
    axes.text(0, 1.01, said, transform=axes.transAxes, fontsize=size, color=ground.faint, va="bottom")
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.axvline(1.0, color=ground.faint, linewidth=1.2, zorder=1)
    for y, row in enumerate(rows):
        axes.axhline(y + 0.5, color=ground.grid, linewidth=0.6, zorder=0)
        if row == found.focus:
            axes.axhspan(y - 0.5, y + 0.5, color=ground.accent, zorder=0)
        cell = panel.cells.get(row)
        if cell is None:
            axes.text(1.0, y, "–", transform=axes.get_yaxis_transform(), ha="right", va="center", color=ground.faint)
            continue
        look = palette[methods[row]]
        color, time = (look.dark if ground.dark else look.color), cell.time
        if time.low is not None and time.high is not None and time.low < high:
            axes.plot([time.low, min(time.high, high)], [y, y], color=color, linewidth=2.6, alpha=0.5)
        sure = cell.trust in ("firm", "fair")
        marker = ">" if time.value > high else look.marker
        face = color if sure else ground.paper
        axes.plot([min(time.value, high)], [y], marker, color=color, markerfacecolor=face, markersize=6, zorder=3)
        axes.text(
            1.0,
            y,
            trimmed(time),
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=8.5,
            fontweight="bold" if cell.rank else "normal",
        )
    axes.set_xscale("log")
    axes.set_xlim(low, high * (high / low) ** 0.38)  # the figures stand to the right of the marks
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in _ticks(low, high) if low <= tick <= high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _ticks(low: float, high: float) -> tuple[float, ...]:
    return WIDE if high > 7 * low else TICKS if high > 1.7 * low else NEAR


def _reach(panels: Sequence[Panel]) -> tuple[float, float]:
    times = [cell.time for panel in panels for cell in panel.cells.values()]
    bounds = [b for time in times for b in (time.value, time.low, time.high) if b is not None and 0 < b <= FAR]
    return min([0.9, *bounds]) * 0.96, max([1.2, *bounds]) * 1.04


# --- accuracy against cost -------------------------------------------------------------------


def front_picture(studies: Sequence[Study], ground: Ground) -> list[Drawn]:
    """Test accuracy against trained parameters, a panel a workload, with the references as lines.

    The workloads are those that can rank methods; where none can, the first, if any.
    """
    shown = [(study, front) for study in studies for front in study.fronts if front.kind.name == COST and front.costs]
    shown = ([one for one in shown if not one[0].cannot_rank] or shown[:1])[:PANELS]
    if not shown:
        return []
    rows = 2 if len(shown) == PANELS else 1
    figure, axes = blank(len(shown) // rows, 3.8 * rows if rows > 1 else 4.6, rows)
    for one in axes[:: len(shown) // rows]:
        one.set_ylabel("test accuracy [%]")
    width = 96 * rows // len(shown)
    labels = [_front(one, study, front, ground, width) for one, (study, front) in zip(axes, shown, strict=True)]
    for one, some in zip(axes, labels, strict=True):  # when all else stands: this fixes the layout
        points = [(label.x, label.y) for label in some]
        place_labels(one, some, points, [_corners(line) for line in one.lines], ground.paper)
    told = " ".join(f"{study.name}: {front.told}" for study, front in shown)
    alt = f"Test accuracy against {shown[0][1].kind.what}. {told} Hollow: not told."
    return [Drawn(_name("front", ground), alt, figure, ground)]


def _front(axes: Axes, study: Study, front: Front, ground: Ground, width: int) -> list[Label]:
    """Draw all but the labels, which are returned, those of the front first; the title in lines of a width."""
    palette, labels = Palette(score.method for score in study.scores), []
    points = [(s, front.costs[s.label]) for s in study.scores if s.label in front.costs and s.method not in REFERENCES]
    for score, cost in points:
        state, look, y = front.states[score.label], palette[score.method], 100 * score.mean
        color, (shown, size) = (look.dark if ground.dark else look.color), LOOK[state]
        if score.low is not None and score.high is not None:
            axes.plot([cost.value] * 2, [100 * score.low, 100 * score.high], color=color, linewidth=1, alpha=shown / 2)
        face = ground.paper if state == "open" else color
        axes.plot([cost.value], [y], look.marker, color=color, markerfacecolor=face, markersize=size, alpha=shown)
        ink = ground.faint if state == "off" else ground.ink
        labels.append(Label(cost.value, y, clean(score.label), ink, bold=state == "on"))
    corners = _steps([(cost.value, 100 * score.mean) for score, cost in points])
    axes.plot([x for x, _ in corners], [y for _, y in corners], color=ground.faint, linestyle=":", zorder=1.5)
    values = [cost.value for _, cost in points]
    axes.margins(x=0.12, y=0.08)
    if max(values) > 3 * min(values):
        spread = (max(values) / min(values)) ** 0.09
        axes.set_xlim(min(values) / spread, max(values) * spread)
        log_axis(axes, "x")
    axes.set_xlabel(front.kind.short)
    on, off = ([s.label for s, _ in points if front.states[s.label] == state] for state in ("on", "off"))
    where = study.name.split(" (")[0]
    told = f"{len(on)} of {len(points)} surely on the front, {len(off)} beaten"
    axes.set_title("\n".join((*wrap(f"{where}:", width), *wrap(told, width))))
    return _references(axes, study, ground) + sorted(labels, key=lambda label: not label.bold)


def _references(axes: Axes, study: Study, ground: Ground) -> list[Label]:
    """Set the limits of accuracy, and draw a line across for each reference inside; the labels of all of them."""
    window, (left, right) = window_of(study.scores), axes.get_xlim()
    low, high = 100 * window.low, 100 * window.high
    axes.set(xlim=(left, right), ylim=(low, high))
    labels = []
    for line in window.lines:
        y, side = 100 * line.at, f" ({line.side})" if line.side else ""
        if not side:
            axes.plot([left, right], [y, y], color=ground.faint, linewidth=1, linestyle="--", zorder=1.4)
        labels.append(Label(right, y, f"{clean(line.score.label)} {100 * line.score.mean:.1f} %{side}", ground.faint))
    return labels


def _corners(line: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]


def _steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners of the step line through the points that none is cheaper and better than."""
    corners: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not corners or y > corners[-1][1]:
            corners += [(x, corners[-1][1])] if corners and math.isfinite(x) else []
            corners.append((x, y))
    return corners
