"""What the figures of a section share: the workloads to draw, and a mark for a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdvft_bench.report.groups import Section, Workload, title_of
from cdvft_bench.report.style import Drawn, Styles, encode
from cdvft_bench.report.text import plural
from cdvft_bench.sweep.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 4
CONVENTION = "flop"


@dataclass(frozen=True)
class Plot:
    """A figure with its words, before it is encoded."""

    figure: Figure
    caption: str
    alt: str


def drawn(name: str, title: str, plot: Plot) -> Drawn:
    """Encode a plot; call inside the style's settings."""
    svg, png = encode(plot.figure)
    return Drawn(name, title, plot.caption, plot.alt, svg, png)


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
