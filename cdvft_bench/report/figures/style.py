"""One look for all figures: a colour and a marker a method, one set of matplotlib settings."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdvft_bench.core.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.0
"""Inches: a figure fills the page's text column, where 9 pt then reads as body text."""

INK, FAINT, GRID = "#1a1a1a", "#8a8a8a", "#dddddd"

SETTINGS: dict[str, Any] = {
    "figure.facecolor": "white", "savefig.facecolor": "white", "axes.facecolor": "white",
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9.0,
    "axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.labelsize": 9.0, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5, "legend.frameon": False, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.edgecolor": FAINT, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.unicode_minus": True,
    "lines.linewidth": 1.4, "lines.markersize": 6.0, "errorbar.capsize": 2.0,
    "text.parse_math": False,  # a "$" in a label is a dollar sign, not an unfinished formula
    "svg.fonttype": "none", "svg.hashsalt": "cdvft-bench", "pdf.fonttype": 42,
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """Colour and marker of a method."""

    color: str
    marker: str


# Okabe and Ito's and Paul Tol's colours for colour-blind readers, dark enough on white; markers say the same again.
KNOWN: dict[str, Style] = {
    "cdvft": Style("#d55e00", "o"),
    "block_circulant": Style("#c98a00", "s"),
    "lora": Style("#0072b2", "^"),
    "dora": Style("#4aa3d8", "v"),
    "c3a": Style("#009e73", "D"),
    "fourierft": Style("#b8568f", "P"),
    "vera": Style("#882255", "X"),
    "boft": Style("#332288", "h"),
    "frozen": Style("#6f6f6f", "|"),
    "full": Style("#000000", "*"),
}
_COLORS = ("#117733", "#aa4499", "#661100", "#6699cc", "#888811", "#44aa99")
_MARKERS = ("<", ">", "p", "d", "8")


class Styles:
    """The style of every method of one report: fixed for the well known, handed out in order to the rest."""

    def __init__(self, methods: Iterable[str]) -> None:
        others = sorted({m for m in methods if m not in KNOWN})
        self._styles = dict(KNOWN)
        for i, name in enumerate(others):
            self._styles[name] = Style(_COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)])

    def __getitem__(self, method: str) -> Style:
        return self._styles.get(method, Style(FAINT, "o"))

    def knows(self, method: str) -> bool:
        """Whether the method has a look of its own."""
        return method in self._styles


@dataclass(frozen=True)
class Drawn:
    """A figure, drawn.

    Attributes:
        name: file name without suffix.
        title, caption: what it is, and what to see in it.
        alt: what it shows, for a reader who cannot see it.
        svg, png, pdf: its files' bytes.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: bytes
    png: bytes
    pdf: bytes = b""

    def files(self) -> dict[str, bytes]:
        """The figure's files by their path in a report's folder."""
        made = {"svg": self.svg, "png": self.png, "pdf": self.pdf}
        return {f"figures/{self.name}.{suffix}": content for suffix, content in made.items() if content}


@dataclass(frozen=True)
class Skipped:
    """A figure that cannot be drawn from these records, and why."""

    name: str
    title: str
    reason: str


def blank(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of page width with rows by columns axes, listed row by row, outside pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def encode(figure: Figure) -> tuple[bytes, bytes, bytes]:
    """SVG, PNG and PDF bytes of a figure: the same bytes for the same figure, no date and no URL of its maker."""
    svg, png, pdf = io.BytesIO(), io.BytesIO(), io.BytesIO()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, for both files
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(svg, format="svg", metadata=nothing)
    figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
    figure.savefig(pdf, format="pdf", metadata=dict.fromkeys(("Creator", "Producer", "CreationDate")))
    text = svg.getvalue().decode()
    text = re.sub(r"<!DOCTYPE.*?>\s*", "", text, flags=re.DOTALL)
    return text.encode(), png.getvalue(), pdf.getvalue()


def log_axis(axes: Axes, which: str) -> None:
    """Make an axis whose limits are final logarithmic, with some three to seven plain labels: 1k, 20M."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    if min(axis.get_view_interval()) <= 0 and not axes.lines:
        return  # nothing drawn
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(FixedLocator(log_ticks(*sorted(axis.get_view_interval()))))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def log_ticks(low: float, high: float) -> list[float]:
    """Round values between positive ``low`` and ``high``, evenly spread on a logarithmic axis."""
    if high < 1.5 * low:
        return narrow_ticks(low, high)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for mantissas in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(1 + k / 10 for k in range(90))):
        ticks = [m * 10.0**e for e in range(first, last + 1) for m in mantissas if low <= m * 10.0**e <= high]
        if len(ticks) >= 3:
            break
    step = math.ceil(len(ticks) / 8) or 1
    return ticks[::step]


def narrow_ticks(low: float, high: float) -> list[float]:
    """Two to four round values between ``low`` and a little larger ``high``; their labels have many digits."""
    if not low < high:
        return [low]
    steps = (m * 10.0**e for e in range(math.floor(math.log10(high - low)), -400, -1) for m in (5, 2, 1))
    for step in steps:
        ticks = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
        if len(ticks) >= 2:
            return ticks
    return [low]


def exact_ticks(axes: Axes, values: Iterable[float]) -> None:
    """Put the ticks of a logarithmic x axis (base 2) at the values that occur."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted(set(values))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def from_zero(axes: Axes) -> None:
    """Let a linear y axis of whole numbers start at zero."""
    from matplotlib.ticker import MaxNLocator

    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def short(value: float) -> str:
    """``20000000`` as ``20M``, ``0.05`` as ``0.05``."""
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9999:
            return f"{value / size:.4g}{prefix}"
    return f"{value:.4g}"


def legend_below(figure: Figure, axes: Iterable[Axes], columns: int = 4) -> None:
    """One legend for all axes under the figure, every label once."""
    entries: dict[str, Any] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            entries.setdefault(shorten(label), handle)
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(columns, len(entries)))
