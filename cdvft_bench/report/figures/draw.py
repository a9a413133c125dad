"""Figures of one section. Each is drawn from records alone, or is skipped with the reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from cdvft_bench.analysis.agreement import (
    counted_launches,
    median_seconds,
    predicted_flops,
    predicted_launches,
    predicted_passes,
    ratio_to_frozen,
    total,
    trainable,
)
from cdvft_bench.analysis.groups import Section, is_frozen, is_lora8, paper_setting
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import clean, interval, plural, shorten
from cdvft_bench.report.figures.lines import block_size_figure, factors_figure
from cdvft_bench.report.figures.panels import CONVENTION, MAX_LABELS, MAX_MARKS, Plot, dot, drawn, panels, thinned
from cdvft_bench.report.figures.style import FAINT, SETTINGS, Drawn, Skipped, Styles, blank, legend_below, log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE = 5.0
"""Ratios further apart than this get a logarithmic axis."""


def section_figures(section: Section, styles: Styles) -> list[Drawn | Skipped]:
    """All figures of a section."""
    import matplotlib

    plots: tuple[tuple[str, str, Callable[[Section, Styles], Plot | str]], ...] = (
        ("ratios", "Time of every method against the frozen subject", ratio_figure),
        ("block-size", "Time, launches and FLOPs against block size p", block_size_figure),
        ("factors", "Time, launches and FLOPs against the number of diagonals m", factors_figure),
        ("predicted-measured", "What the formulas predict, and what was measured", predicted_figure),
        ("parameters-time", "Trainable parameters against time", parameters_figure),
    )
    done: list[Drawn | Skipped] = []
    for name, title, plot in plots:
        name = f"{section.anchor}-{name}"
        with matplotlib.rc_context(SETTINGS):
            made = plot(section, styles)
            done.append(Skipped(name, title, made) if isinstance(made, str) else drawn(name, title, made))
    return done


def ratio_figure(section: Section, styles: Styles) -> Plot | str:
    """Dot and interval: every method's time over the frozen subject's, best on top."""
    shown, left_out = panels(section, lambda rows: any(ratio_to_frozen(r) for r in rows))
    if not shown:
        return "no record holds a time paired with the frozen subject's"
    first = next(iter(shown.values()))
    labels = _by_ratio(first)
    labels += [clean(r.label) for rows in shown.values() for r in rows if not is_frozen(r.case)]
    labels = list(dict.fromkeys(labels))
    more = len(labels) - MAX_LABELS
    if more > 0:  # the fastest, and those that everything is compared with
        feet = {clean(r.label) for r in first if is_lora8(r.case)} | {clean(r.label) for r in paper_setting(first)}
        labels = [name for i, name in enumerate(labels) if i < MAX_LABELS or name in feet]
        left_out = f". {plural(more, 'further setting is', 'further settings are')} in the tables alone{left_out}"
    place = {label: len(labels) - 1 - i for i, label in enumerate(labels)}
    columns = 2 if len(shown) == 4 else len(shown)
    rows_ = math.ceil(len(shown) / columns)
    figure, axes = blank(rows_, columns, rows_ * (0.9 + 0.23 * len(labels)), sharey=True)
    for one in axes[len(shown) :]:
        one.set_visible(False)
    for one, (where, rows) in zip(axes, shown.items(), strict=False):
        one.set_title(where.short)
        one.axvline(1.0, color=FAINT, linewidth=1.0)
        missing = []
        for record in rows:
            ratio, style = ratio_to_frozen(record), styles[record.case.method]
            if is_frozen(record.case):
                continue
            y = place.get(clean(record.label), -1)
            if y < 0:
                continue
            if ratio is None:
                missing.append(y)
                continue
            if ratio.low is not None and ratio.high is not None:
                one.plot(
                    [ratio.low, ratio.high], [y, y], color=style.color, linewidth=2.4, alpha=0.55, solid_capstyle="butt"
                )
            hollow = ratio.low is None
            one.plot(
                [ratio.value], [y], style.marker, color=style.color, markerfacecolor="white" if hollow else style.color
            )
            if is_lora8(record.case):
                one.axvline(ratio.value, color=style.color, linewidth=0.9, linestyle=":")
        for y in missing:
            one.annotate(
                "not measured", (1.0, y), (4, 0), textcoords="offset points", va="center", color=FAINT, fontsize=8
            )
        _spread(one, "x", [q.value for r in rows if (q := ratio_to_frozen(r))])
        one.set_yticks([place[label] for label in labels], [shorten(label, 34) for label in labels])
        one.set_ylim(-0.7, len(labels) - 0.3)
        one.set_xlabel("time ÷ frozen [×]")
    best = min((r for r in first if ratio_to_frozen(r)), key=_ratio_value)
    caption = (
        "Median over rounds of the time of one call over the frozen subject's in the same round, with its 95 % "
        "bootstrap interval (the bar); a hollow mark has no interval. Further left is faster; the grey line is the "
        "frozen subject, the dotted one LoRA r=8. Methods are ordered by the first panel" + left_out
    )
    return Plot(figure, caption, f"Dot chart of {plural(len(labels), 'setting')}; fastest is {_ratio_text(best)}.")


def predicted_figure(section: Section, styles: Styles) -> Plot | str:
    """Predicted FLOPs and bytes against time, predicted against dispatched launches."""
    records = [r for r in section.ok if r.predicted is not None]
    timed = [r for r in records if median_seconds(r)]
    counted = [r for r in records if counted_launches(r)]
    if not timed and not counted:
        return "no record holds a prediction together with a time or a count"
    figure, (flops, traffic, launches) = blank(1, 3, 3.6)
    for one, what, value in (
        (flops, f'predicted FLOPs, convention "{CONVENTION}"', lambda r: predicted_flops(r, CONVENTION)),
        (traffic, "predicted bytes read and written", _traffic),
    ):
        one.set_xlabel(what)
        if not timed:
            one.text(0.5, 0.5, "time: not measured", transform=one.transAxes, ha="center", color=FAINT)
            continue
        found = [(x, 1e3 * y, r) for r in timed if (x := value(r)) and (y := median_seconds(r))]
        for x, y, record in thinned(found):
            dot(one, x, y, record, styles)
        log_axis(one, "x")
        log_axis(one, "y")
    flops.set_ylabel("measured median of a call [ms]")
    launches.set_xlabel("launches by formula")
    launches.set_ylabel("launches dispatched")
    pairs = [(x, y, r) for r in counted if (x := predicted_launches(r)) and (y := counted_launches(r))]
    for x, y, record in thinned(pairs):
        dot(launches, x, y, record, styles)
    if pairs:
        top = 1.08 * max(max(x, y) for x, y, _ in pairs)
        launches.plot([0, top], [0, top], color=FAINT, linewidth=0.9, zorder=1)
        launches.set_xlim(0, top)
        launches.set_ylim(0, top)
    else:
        launches.text(0.5, 0.5, "launches: not counted", transform=launches.transAxes, ha="center", color=FAINT)
    legend_below(figure, (flops, traffic, launches), 8)
    agree = sum(x == y for x, y, _ in pairs)
    caption = (
        f"{_marks(len(records))}, all workloads; filled for a whole step, hollow for the forward pass alone. A formula "
        "that explained time would put its panel's marks on one rising line: the scatter around it is what FLOPs, or "
        "bytes, do not tell. "
        f"On the right the grey line is agreement: {agree} of {plural(len(pairs), 'record')} "
        f"{'lies' if agree == 1 else 'lie'} exactly on it."
    )
    return Plot(figure, caption, f"Three scatters; {agree} of {len(pairs)} launch counts equal the formula's.")


def parameters_figure(section: Section, styles: Styles) -> Plot | str:
    """Trainable parameters against the ratio to the frozen subject."""

    def fits(rows: Sequence[Record]) -> bool:
        return any(ratio_to_frozen(r) and trainable(r) for r in rows)

    shown, left_out = panels(section, fits)
    if not shown:
        return "no record holds both trainable parameters and a time paired with the frozen subject's"
    columns = 2 if len(shown) == 4 else len(shown)
    rows_ = math.ceil(len(shown) / columns)
    figure, axes = blank(rows_, columns, 3.3 * rows_ + 0.6)
    for one in axes[len(shown) :]:
        one.set_visible(False)
    for one, (where, rows) in zip(axes, shown.items(), strict=False):
        one.set_title(where.short)
        one.axhline(1.0, color=FAINT, linewidth=1.0)
        found = [
            (float(n), ratio.value, r)
            for r in rows
            if (n := trainable(r)) and (ratio := ratio_to_frozen(r)) and not is_frozen(r.case)
        ]
        for parameters, value, record in thinned(found):
            ratio = ratio_to_frozen(record)
            assert ratio is not None
            style = styles[record.case.method]
            if ratio.low is not None and ratio.high is not None:
                one.plot([parameters, parameters], [ratio.low, ratio.high], color=style.color, linewidth=1.6, alpha=0.5)
            dot(one, parameters, value, record, styles)
        log_axis(one, "x")
        _spread(one, "y", [q.value for r in rows if (q := ratio_to_frozen(r))])
        one.set_xlabel("trainable parameters [count]")
        one.set_ylabel("time ÷ frozen [×]")
    legend_below(figure, axes[: len(shown)], 8)
    caption = (
        f"{_marks(max(map(len, shown.values())), 'setting')}: fewer parameters to the left, less time below; bars are "
        "95 % intervals, hollow marks forward passes. Were time bought with parameters, the marks would fall "
        "from left to right" + left_out
    )
    return Plot(figure, caption, "Scatter of trainable parameters against the time ratio to the frozen subject.")


def _marks(n: int, what: str = "record") -> str:
    """What a mark stands for: thinned where there are many."""
    return f"One mark a {what}" if n <= MAX_MARKS else f"One mark for the first {what} of a method in each small cell"


def _by_ratio(records: Iterable[Record]) -> list[str]:
    measured = [r for r in records if ratio_to_frozen(r) and not is_frozen(r.case)]
    return [clean(r.label) for r in sorted(measured, key=_ratio_value)]


def _ratio_value(record: Record) -> float:
    ratio = ratio_to_frozen(record)
    return ratio.value if ratio else math.inf


def _ratio_text(record: Record) -> str:
    ratio = ratio_to_frozen(record)
    assert ratio is not None
    return f"{clean(record.label)} at {interval(ratio.value, ratio.low, ratio.high)}"


def _spread(axes: Axes, which: str, ratios: Sequence[float]) -> None:
    """Make the axis of widely spread ratios logarithmic."""
    if max(ratios, default=1.0) > WIDE * min(ratios, default=1.0):
        log_axis(axes, which)


def _traffic(record: Record) -> float | None:
    return total(one.read + one.written for _, one in predicted_passes(record))
