"""Figures of fine-tuning runs: fronts with uncertainty, paired differences, loss curves."""

from __future__ import annotations

from collections.abc import Sequence

from cdvft_bench.accuracy.analysis import Difference, Score
from cdvft_bench.accuracy.trial import BASE, HEAD
from cdvft_bench.analysis.accuracy.costs import Front
from cdvft_bench.core.text import clean, listed, prefixed
from cdvft_bench.report.figures.labels import Label, place_labels
from cdvft_bench.report.figures.panels import Plot, drawn
from cdvft_bench.report.figures.style import FAINT, INK, SETTINGS, Drawn, Style, Styles, blank, log_axis

OFTEN = 0.5
"""Share of draws that makes a method's point a strong one."""


def style_of(method: str, styles: Styles) -> Style:
    """The method's; the classifier alone and the untrained model are crosses."""
    return Style(INK, {HEAD: "x", BASE: "+"}[method]) if method in (HEAD, BASE) else styles[method]


def front_figures(fronts: Sequence[Front], found: Sequence[Score]) -> list[Drawn]:
    """One figure for every cost that is known."""
    import matplotlib

    styles = Styles(s.method for s in found)
    made = []
    for front in fronts:
        if front.costs:
            with matplotlib.rc_context(SETTINGS):
                title = f"Accuracy against {front.kind.what}"
                made.append(drawn(f"front-{front.kind.name}", title, _front(front, found, styles)))
    return made


def _front(front: Front, found: Sequence[Score], styles: Styles) -> Plot:
    figure, (axes,) = blank(1, 1, 5.0)
    points = [(s, front.costs[s.label]) for s in found if s.label in front.costs]
    labels = []
    for s, cost in points:
        share = front.shares[s.label]
        often = share >= OFTEN
        style, y = style_of(s.method, styles), 100 * s.mean
        shown = 0.95 if often else 0.35
        if s.low is not None and s.high is not None:
            axes.plot([cost.value] * 2, [100 * s.low, 100 * s.high], color=style.color, linewidth=1.0, alpha=shown)
        if cost.low is not None and cost.high is not None:
            axes.plot([cost.low, cost.high], [y, y], color=style.color, linewidth=1.0, alpha=shown)
        axes.plot([cost.value], [y], style.marker, color=style.color, markersize=8 if often else 6, alpha=shown)
        text = clean(s.label) + (f"  {100 * share:.0f} %" if share >= 0.05 else "")
        labels.append(Label(cost.value, y, text, style.color if often else FAINT, bold=often))
    corners = _line([(cost.value, 100 * s.mean) for s, cost in points])
    axes.plot([x for x, _ in corners], [y for _, y in corners], color=INK, linewidth=0.9, linestyle=":", zorder=1.5)
    values = [cost.value for _, cost in points]
    axes.margins(x=0.1, y=0.1)
    if max(values) > 3 * min(values):
        spread = (max(values) / min(values)) ** 0.08
        axes.set_xlim(min(values) / spread, max(values) * spread)
        log_axis(axes, "x")
    elif min(values) >= 1000:
        axes.xaxis.set_major_formatter(lambda value, _: prefixed(value))
    axes.set_xlabel(front.kind.axis)
    axes.set_ylabel("test accuracy [%]")
    labels.sort(key=lambda label: not label.bold)
    place_labels(axes, labels, [(cost.value, 100 * s.mean) for s, cost in points], [corners])
    caption = (
        f"Mean test accuracy over seeds against {front.kind.what}; bars are 95 % intervals over seeds and test examples"
        + (", and over the clock's rounds" if any(c.low is not None for c in front.costs.values()) else "")
        + ". The percentage is the share of random draws of seeds and examples in which the method is on the front; "
        "bold from half of them on, faded below, unnamed share below 5 %. The dotted line joins the front of the means."
    )
    names = [clean(s.label) for s, _ in points if front.shares[s.label] >= OFTEN]
    return Plot(figure, caption, f"Scatter of test accuracy against {front.kind.what}. "
                                 f"On the front in half of the draws or more: {listed(names) or 'none'}.")  # fmt: skip


def _line(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners of the step line through the points that none is cheaper and better than."""
    corners: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not corners or y > corners[-1][1]:
            corners += [(x, corners[-1][1])] if corners else []
            corners.append((x, y))
    return corners


def difference_figure(made: Sequence[Difference], found: Sequence[Score]) -> Drawn:
    """Every method's paired difference with its interval, largest on top."""
    import matplotlib

    styles = Styles(s.method for s in found)
    method = {s.label: s.method for s in found}
    ordered = sorted(made, key=lambda d: d.mean)
    against = clean(made[0].against)
    with matplotlib.rc_context(SETTINGS):
        figure, (axes,) = blank(1, 1, 1.2 + 0.24 * len(made))
        for i, d in enumerate(ordered):
            style = style_of(method[d.label], styles)
            sure = d.p_holm < 0.05
            if d.low is not None and d.high is not None:
                axes.plot(
                    [100 * d.low, 100 * d.high], [i, i], color=style.color, linewidth=1.4, alpha=1 if sure else 0.5
                )
            axes.plot([100 * d.mean], [i], style.marker, color=style.color, alpha=1 if sure else 0.5)
        axes.axvline(0, color=INK, linewidth=0.9)
        axes.set_yticks(range(len(ordered)), [clean(d.label) for d in ordered])
        axes.set_ylim(-0.6, len(ordered) - 0.4)
        axes.set_xlabel(f"test accuracy less that of {against} [points]")
        caption = (
            f"Paired by seed and test example, with 95 % intervals; strong where the difference to {against} stays "
            f"below p = 0.05 after Holm's correction for {len(made)} comparisons."
        )
        beyond = [clean(d.label) for d in made if d.p_holm < 0.05]
        alt = f"Differences of accuracy to {against}. Beyond chance after correction: {listed(beyond) or 'none'}."
        name = "differences-" + ("".join(c if c.isalnum() else "-" for c in against.lower())).strip("-")
        return drawn(name, f"Accuracy less that of {against}", Plot(figure, caption, alt))
