"""Labels on a scatter that overlap neither each other nor, where it can be helped, the points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

_DISTANCES = (6.0, 12.0, 20.0, 30.0, 42.0, 56.0, 72.0, 90.0)
_DIRECTIONS = 16
_POINT = 4.0


@dataclass(frozen=True)
class Label:
    """A text to put near a point, in data coordinates."""

    x: float
    y: float
    text: str
    color: str
    bold: bool = False


def place_labels(
    axes: Axes,
    labels: Sequence[Label],
    obstacles: Sequence[tuple[float, float]],
    lines: Sequence[Sequence[tuple[float, float]]] = (),
    ground: str = "white",
) -> list[Bbox]:
    """Write every label near its point and tie it to the point by a thin line where it stands apart.

    Greedy: labels in order, each at the nearest of some hundred positions that covers no label and
    leaves the axes nowhere, preferring those that cover no point. The figure's layout is fixed by
    drawing it once before.

    Args:
        axes: axes whose limits and scales are final.
        labels: most important first.
        obstacles: points, in data coordinates, that are better left uncovered.
        lines: corners of polylines that are better left uncovered.
        ground: colour behind the texts.

    Returns:
        Boxes of the labels in display coordinates, in order.
    """
    figure: Any = axes.get_figure(root=True)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    renderer = figure.canvas.get_renderer()
    scale = figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    points = [_display(axes, *point) for point in obstacles]
    for line in lines:
        points += _dots([_display(axes, *corner) for corner in line], 10 * scale)
    taken: list[Bbox] = []
    for label in labels:
        at = _display(axes, label.x, label.y)
        note = axes.annotate(
            label.text,
            (label.x, label.y),
            (0, 0),
            textcoords="offset points",
            fontsize=8,
            color=label.color,
            fontweight="bold" if label.bold else "normal",
            va="center",
            ha="center",
            zorder=6,
            bbox={"facecolor": ground, "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
        )
        size = note.get_window_extent(renderer)
        best, best_cost = None, math.inf
        for distance in _DISTANCES:
            for k in range(_DIRECTIONS):
                angle = 2 * math.pi * k / _DIRECTIONS
                box = _beside(at, size, distance * scale, angle, scale)
                cost = _cost(box, frame, taken, points, scale) + distance
                if cost < best_cost:
                    best, best_cost = box, cost
        assert best is not None
        taken.append(best)
        centre = ((best.x0 + best.x1) / 2, (best.y0 + best.y1) / 2)
        note.set_position(((centre[0] - at[0]) / scale, (centre[1] - at[1]) / scale))
        if _gap(best, at) > 7 * scale:
            end = (min(max(at[0], best.x0), best.x1), min(max(at[1], best.y0), best.y1))
            back = axes.transData.inverted()
            (x0, y0), (x1, y1) = back.transform(at), back.transform(end)
            axes.plot(
                [x0, x1], [y0, y1], color=label.color, linewidth=0.6, alpha=0.7, zorder=2.5, scalex=False, scaley=False
            )
    return taken


def _display(axes: Axes, x: float, y: float) -> tuple[float, float]:
    at = axes.transData.transform((x, y))
    return float(at[0]), float(at[1])


def _dots(corners: Sequence[tuple[float, float]], step: float) -> list[tuple[float, float]]:
    dots = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        n = max(1, math.ceil(math.hypot(x1 - x0, y1 - y0) / step))
        dots += [(x0 + (x1 - x0) * k / n, y0 + (y1 - y0) * k / n) for k in range(n + 1)]
    return dots


def _beside(at: tuple[float, float], size: Bbox, distance: float, angle: float, scale: float) -> Bbox:
    from matplotlib.transforms import Bbox

    half_w, half_h = size.width / 2 + scale, size.height / 2 + 0.5 * scale
    x = at[0] + math.cos(angle) * (distance + half_w)
    y = at[1] + math.sin(angle) * (distance + half_h)
    return Bbox.from_extents(x - half_w, y - half_h, x + half_w, y + half_h)


def _gap(box: Bbox, at: tuple[float, float]) -> float:
    dx = max(box.x0 - at[0], 0.0, at[0] - box.x1)
    dy = max(box.y0 - at[1], 0.0, at[1] - box.y1)
    return float(math.hypot(dx, dy))


def _cost(box: Bbox, frame: Bbox, taken: Sequence[Bbox], points: Sequence[tuple[float, float]], scale: float) -> float:
    cost = 0.0
    if box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1:
        cost += 1e4
    cost += 1e5 * sum(box.overlaps(other) for other in taken)
    margin = _POINT * scale
    mid_x, mid_y, half_w, half_h = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, box.width / 2, box.height / 2
    covered = [p for p in points if abs(p[0] - mid_x) < half_w + margin and abs(p[1] - mid_y) < half_h + margin]
    return cost + 25.0 * len(covered)
