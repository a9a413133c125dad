"""One set of matplotlib settings for all pictures, on light and on dark ground, and how they become files."""

import io
import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from cdvft_bench.core.errors import UserError
from cdvft_bench.report.palette import FAINT, GRID, INK

WIDTH = 9.0
"""Inches: a figure fills a page's text column, where 9 pt then reads as body text."""

FORMATS = ("png", "svg", "pdf")
_BARE = {
    "png": {"Software": None},
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "pdf": dict.fromkeys(("Creator", "Producer", "CreationDate")),
}
"""No date and no address of its maker in a file."""


@dataclass(frozen=True)
class Ground:
    """Colours of everything but the methods."""

    paper: str
    ink: str
    faint: str
    grid: str
    accent: str
    dark: bool

    def settings(self) -> dict[str, Any]:
        """matplotlib's settings on this ground."""
        return {
            "figure.facecolor": self.paper,
            "savefig.facecolor": self.paper,
            "axes.facecolor": self.paper,
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 9.0,
            "axes.titlesize": 9.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "text.color": self.ink,
            "axes.labelcolor": self.ink,
            "axes.edgecolor": self.faint,
            "xtick.color": self.ink,
            "ytick.color": self.ink,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": self.grid,
            "grid.linewidth": 0.6,
            "axes.axisbelow": True,
            "text.parse_math": False,  # a "$" in a label is a dollar sign, not an unfinished formula
            "svg.fonttype": "none",
            "svg.hashsalt": "cdvft-bench",
            "pdf.fonttype": 42,
        }


LIGHT = Ground("#ffffff", INK, FAINT, GRID, "#fdf1e7", dark=False)
DARK = Ground("#0d1117", "#e6e8ea", "#8b929a", "#2a2f34", "#33231a", dark=True)


@dataclass(frozen=True)
class Drawn:
    """A picture: file name without suffix, what it shows in words, the figure, and its ground."""

    name: str
    alt: str
    figure: Figure
    ground: Ground

    def files(self, formats: Collection[str]) -> dict[str, bytes]:
        """Its files by their path in a report's folder; the same bytes for the same picture."""
        with matplotlib.rc_context(self.ground.settings()):
            self.figure.draw_without_rendering()
            self.figure.set_layout_engine("none")  # laid out once, for all files
            return {f"figures/{self.name}.{suffix}": self._encoded(suffix) for suffix in formats}

    def _encoded(self, suffix: str) -> bytes:
        made = io.BytesIO()
        self.figure.savefig(made, format=suffix, dpi=160, metadata=_BARE[suffix])
        return (
            re.sub(rb"<!DOCTYPE.*?>\s*", b"", made.getvalue(), flags=re.DOTALL) if suffix == "svg" else made.getvalue()
        )


def check_formats(formats: Iterable[str]) -> tuple[str, ...]:
    """Formats of pictures as they were asked for; a PDF comes with its SVG.

    Raises:
        UserError: one is not known.
    """
    asked = {name.strip().lower() for name in formats if name.strip()}
    unknown = sorted(asked - set(FORMATS))
    if unknown:
        raise UserError(f"{unknown[0]!r} is no format of pictures; use {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in asked or (name == "svg" and "pdf" in asked))


def blank(columns: int, height: float, rows: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of page width with rows and columns of axes, outside pyplot's global state."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def log_axis(axes: Axes, which: str) -> None:
    """Make an axis whose limits are final logarithmic, with at most five plain labels: 1k, 20M."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(FixedLocator(log_ticks(*sorted(axis.get_view_interval()))))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def log_ticks(low: float, high: float) -> list[float]:
    """One to five round values between positive ``low`` and ``high``, evenly spread on a logarithmic axis."""
    if high < 1.5 * low:
        return narrow_ticks(low, high)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks: list[float] = []
    for mantissas in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(1 + k / 10 for k in range(90))):
        ticks = [m * 10.0**e for e in range(first, last + 1) for m in mantissas if low <= m * 10.0**e <= high]
        if len(ticks) >= 3:
            break
    return ticks[:: math.ceil(len(ticks) / 5) or 1]


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


def short(value: float) -> str:
    """``20000000`` as ``20M``, ``0.05`` as ``0.05``."""
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9999:
            return f"{value / size:.4g}{prefix}"
    return f"{value:.4g}"
