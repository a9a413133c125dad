"""Figures of a section against one hyperparameter: block size p, number of diagonals m."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from cdvft_bench.analysis.agreement import (
    adapter_flops,
    counted_flops,
    counted_launches,
    counted_passes,
    predicted_launches,
    ratio_to_frozen,
    total,
)
from cdvft_bench.analysis.groups import Section, is_frozen, is_lora8
from cdvft_bench.analytic.conventions import CONVENTIONS
from cdvft_bench.analytic.models import layer_shape
from cdvft_bench.core.case import Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import clean, listed
from cdvft_bench.methods.base import make_method
from cdvft_bench.report.figures.panels import CONVENTION, Plot, panels
from cdvft_bench.report.figures.style import FAINT, INK, Styles, blank, exact_ticks, from_zero, legend_below, log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_SERIES = 12
"""Lines of a panel; CDVFT's settings come first."""
_DASHES = ("-", "--", ":", "-.")


def block_size_figure(section: Section, styles: Styles) -> Plot | str:
    """Time, launches and FLOPs against the block size p."""
    return _sweep(section, styles, "block_size", "block size p")


def factors_figure(section: Section, styles: Styles) -> Plot | str:
    """Time, launches and FLOPs against the number of diagonals m."""
    return _sweep(section, styles, "m", "diagonal factors m")


def resolved(case: Case) -> Mapping[str, object]:
    """The case's hyperparameters with the method's defaults; a layer's block size left unset is its width."""
    given = dict(case.hyperparameters)
    try:
        method = make_method(case.method, given)
        values = asdict(method)
        if case.kind == "layer" and values.get("block_size", 0) is None:
            return method.resolved(layer_shape(case.subject))
    except UserError:  # a record of another version may hold what this one does not know
        return given
    return values


def _sweep(section: Section, styles: Styles, x: str, axis: str) -> Plot | str:
    def swept(rows: Sequence[Record]) -> dict[tuple[object, ...], list[tuple[int, Record]]]:
        found: dict[tuple[object, ...], list[tuple[int, Record]]] = {}
        for record in rows:
            values = dict(resolved(record.case))
            value = values.pop(x, None)
            if isinstance(value, int):
                rest = tuple(sorted((k, repr(v)) for k, v in values.items()))
                found.setdefault((record.case.method, rest, record.case.seed), []).append((value, record))
        several = {k: sorted(f, key=lambda item: item[0]) for k, f in found.items() if len({v for v, _ in f}) > 1}
        return dict(sorted(several.items(), key=lambda item: item[0][0] != "cdvft"))

    shown, left_out = panels(section, lambda rows: bool(swept(rows)))
    if not shown:
        return f"no method was recorded at two values of {axis.split()[-1]} with all else equal"
    figure, axes = blank(len(shown), 3, 2.7 * len(shown) + 0.8)
    for i, (where, rows) in enumerate(shown.items()):
        time, launches, flops = axes[3 * i : 3 * i + 3]
        frozen = next((r for r in rows if is_frozen(r.case)), None)
        series = dict(list(swept(rows).items())[:MAX_SERIES])
        seen: dict[str, int] = {}
        for (method, *_), points in series.items():
            style, nth = styles[str(method)], seen.get(str(method), 0)
            seen[str(method)] = nth + 1
            label, dash = _common([r.label for _, r in points]), _DASHES[nth % len(_DASHES)]
            face = style.color if nth == 0 else "white"
            marks: dict[str, Any] = {
                "marker": style.marker,
                "color": style.color,
                "markerfacecolor": face,
                "linestyle": "none",
            }
            at = [(v, ratio) for v, r in points if (ratio := ratio_to_frozen(r))]
            if at:
                time.plot([v for v, _ in at], [q.value for _, q in at], **marks | {"linestyle": dash}, label=label)
                for v, q in at:
                    if q.low is not None and q.high is not None:
                        time.plot([v, v], [q.low, q.high], color=style.color, linewidth=1.0, alpha=0.6)
            _line(launches, points, predicted_launches, color=style.color, linestyle=dash)
            _line(launches, points, counted_launches, **marks)
            _line(launches, points, _profiled, marker="+", color=INK, linestyle="none", markersize=4.5)
            _line(flops, points, lambda r: adapter_flops(r, CONVENTION), color=style.color, linestyle=dash)
            _line(flops, points, partial(_above, frozen), **marks)
        values = [v for points in series.values() for v, _ in points]
        lora = next((r for r in rows if is_lora8(r.case)), None)
        _references(time, launches, flops, lora, styles)
        for one in (time, launches, flops):
            exact_ticks(one, values) if x == "block_size" else one.set_xticks(sorted(set(values)))
            one.set_xlabel(axis)
        log_axis(flops, "y")
        from_zero(launches)
        if not time.lines[1:]:
            time.text(0.5, 0.5, "time: not measured", transform=time.transAxes, ha="center", color=FAINT)
        time.set_title(where.short)
        time.set_ylabel("time ÷ frozen [×]")
        launches.set_ylabel("launches, whole pass")
        flops.set_ylabel(f'adapter\'s FLOPs, "{CONVENTION}"')
    legend_below(figure, axes, 3)
    caption = (
        "Left: time of a call over the frozen subject's, with 95 % intervals. Middle: kernel launches. Right: the "
        f'adapter\'s FLOPs, convention "{CONVENTION}" ({CONVENTIONS[CONVENTION].statement}). In the middle and on the '
        "right the line is the formula, marks are what was dispatched (above the frozen subject's own count, on the "
        "right), crosses the profiler. Time that follows the middle panel rather than the right one is launch time, "
        "not arithmetic" + left_out
    )
    names = listed(sorted({_common([r.label for _, r in p]) for rows in shown.values() for p in swept(rows).values()}))
    return Plot(figure, caption, f"Lines against {axis} for {names}.")


def _references(time: Axes, launches: Axes, flops: Axes, lora: Record | None, styles: Styles) -> None:
    time.axhline(1.0, color=FAINT, linewidth=1.0, label="frozen")
    if lora is None:
        return
    color = styles["lora"].color
    look: dict[str, Any] = {"color": color, "linewidth": 1.0, "linestyle": (0, (6, 2))}
    ratio, count, cost = ratio_to_frozen(lora), counted_launches(lora), adapter_flops(lora, CONVENTION)
    if ratio is not None:
        time.axhline(ratio.value, **look, label="LoRA r=8")
        if ratio.low is not None and ratio.high is not None:
            time.axhspan(ratio.low, ratio.high, color=color, alpha=0.12, linewidth=0)
    if count:
        launches.axhline(count, **look)
    if cost:
        flops.axhline(cost, **look)


def _line(
    axes: Axes, points: Iterable[tuple[int, Record]], value: Callable[[Record], float | None], **look: Any
) -> None:
    found = [(x, y) for x, record in points if (y := value(record)) is not None and y > 0]
    if found:
        axes.plot([x for x, _ in found], [y for _, y in found], **look)


def _above(frozen: Record | None, record: Record) -> float | None:
    mine, foot = _counted_total(record), _counted_total(frozen) if frozen else None
    return mine - foot if mine is not None and foot is not None else None


def _counted_total(record: Record) -> float | None:
    price = CONVENTIONS[CONVENTION]
    return total(counted_flops(one, price) if one else None for one in counted_passes(record).values())


def _profiled(record: Record) -> float | None:
    return record.timed.trace.launches if record.timed and record.timed.trace else None


def _common(labels: Sequence[str]) -> str:
    """The words that all labels share: the name of a series."""
    words = [clean(label).split() for label in labels]
    return " ".join(word for word in words[0] if all(word in other for other in words)) or clean(labels[0])
