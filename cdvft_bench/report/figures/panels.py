"""What the figures of a section share: the workloads to draw, and a mark for a record."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdvft_bench.analysis.groups import Section, Workload, title_of
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import plural
from cdvft_bench.report.figures.style import Drawn, Styles, encode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 4
MAX_MARKS = 400
"""More marks than these in a panel are drawn as one for each method and cell of a grid."""
MAX_LABELS = 44
"""Settings that a dot chart lists."""
CELLS = 32
CONVENTION = "flop"


@dataclass(frozen=True)
class Plot:
    """A figure with its words, before it is encoded."""

    figure: Figure
    caption: str
    alt: str


def drawn(name: str, title: str, plot: Plot) -> Drawn:
    """Encode a plot; call inside the style's settings."""
    svg, png, pdf = encode(plot.figure)
    return Drawn(name, title, plot.caption, plot.alt, svg, png, pdf)


def panels(
    section: Section, fits: Callable[[Sequence[Record]], bool]
) -> tuple[dict[Workload, tuple[Record, ...]], str]:
    """The workloads to draw, at most four, and the caption's end that says how many were left out."""
    fitting = {where: rows for where, rows in section.workloads().items() if fits(rows)}
    shown = dict(list(fitting.items())[:MAX_PANELS])
    rest = len(fitting) - len(shown)
    return shown, f". {plural(rest, 'more workload is', 'more workloads are')} in the tables alone." if rest else "."


def dot(axes: Axes, x: float, y: float, record: Record, styles: Styles) -> None:
    """One mark of a record: its method's colour and marker, filled for a step, hollow for a forward pass."""
    style = styles[record.case.method]
    face = style.color if record.case.pass_ == "step" else "white"
    label = title_of(record.case.method)
    axes.plot(
        [x],
        [y],
        style.marker,
        color=style.color,
        markerfacecolor=face,
        markersize=5.5,
        alpha=0.85,
        linestyle="none",
        label=label,
    )


def thinned(points: Sequence[tuple[float, float, Record]]) -> list[tuple[float, float, Record]]:
    """The points, or of many the first in each cell of a logarithmic grid, one a method; x and y are positive."""
    if len(points) <= MAX_MARKS:
        return list(points)
    logs = [(math.log(x), math.log(y)) for x, y, _ in points]
    sides = [(min(side), (max(side) - min(side)) or 1.0) for side in zip(*logs, strict=True)]
    kept: dict[tuple[object, ...], tuple[float, float, Record]] = {}
    for point, log in zip(points, logs, strict=True):
        cell = tuple(round(CELLS * (v - low) / span) for v, (low, span) in zip(log, sides, strict=True))
        kept.setdefault((point[2].case.method, point[2].case.pass_, *cell), point)
    return list(kept.values())
