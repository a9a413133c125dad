"""Accuracy over initialisations: CDVFT's test scores that differ by the start alone, each tuned by itself."""

from __future__ import annotations

from collections.abc import Sequence

from cdvft_bench.accuracy.analysis import Score
from cdvft_bench.accuracy.trial import scale_name
from cdvft_bench.analysis.accuracy.answers import differences_to, verdict
from cdvft_bench.core.text import clean, listed, markdown, plural
from cdvft_bench.methods import make_method
from cdvft_bench.report.figures.panels import Plot, drawn
from cdvft_bench.report.figures.style import SETTINGS, Drawn, Styles, blank

DEFAULT = "zero_diagonal"


def by_start(found: Sequence[Score]) -> list[dict[str, Score]]:
    """Scores of CDVFT by start, in groups that are alike in all else but what is tuned for each: rate and scale.

    A start may be tested twice: by its name, and as the default of a run that names none; then the first one counts.
    """
    tuned = scale_name("cdvft")
    groups: dict[tuple[object, ...], dict[str, Score]] = {}
    named = [s for s in found if s.method == "cdvft" and "init" in dict(s.hyperparameters)]
    for score in [*named, *(s for s in found if s.method == "cdvft" and s not in named)]:
        start = str(vars(make_method("cdvft", dict(score.hyperparameters)))["init"])
        rest = tuple(sorted((k, v) for k, v in score.hyperparameters if k not in ("init", tuned)))
        groups.setdefault(rest, {}).setdefault(start, score)
    return [group for group in groups.values() if len(group) > 1]


def starts_said(group: dict[str, Score]) -> str:
    """The starts' accuracies, and how they differ from that of the default start by chance or beyond it."""
    ordered = sorted(group.items(), key=lambda item: -item[1].mean)
    first = ordered[0][1]
    label = make_method("cdvft", {k: v for k, v in first.hyperparameters if k != "init"}).label
    text = f"{clean(label)}, each start tuned by itself: {listed([_accuracy(*item) for item in ordered])}"
    against = group.get(DEFAULT, first)
    found = differences_to(list(group.values()), against.label)
    name = next(start for start, score in group.items() if score is against)
    compared = [f"{start} is {verdict(found[s.label])}" for start, s in ordered if s.label in found]
    return f"{text}. Against {name}: {listed(compared)}." if compared else f"{text}."


def _accuracy(start: str, score: Score) -> str:
    bounds = "" if score.low is None or score.high is None else f" [{100 * score.low:.1f}, {100 * score.high:.1f}]"
    rate = f"rate {score.lr:g}{', the edge of those tried' if score.at_edge else ''}"
    scale = "" if score.scale is None else f", scale {score.scale:g}"
    return f"{start} {100 * score.mean:.1f} %{bounds} ({plural(len(score.accuracies), 'seed')}, {rate}{scale})"


def starts_section(found: Sequence[Score]) -> tuple[list[str], list[Drawn]]:
    """Lines of the page, and figures; none where no two starts were tested."""
    groups = by_start(found)
    lines: list[str] = []
    figures = []
    for i, group in enumerate(groups):
        figure = starts_figure(group, f"starts-{i + 1}" if len(groups) > 1 else "starts")
        lines += [
            markdown(starts_said(group)),
            "",
            f"![{figure.alt}](figures/{figure.name}.svg)",
            "",
            figure.caption,
            "",
        ]
        figures.append(figure)
    return (["## Initialisations", "", *lines] if lines else []), figures


def starts_figure(group: dict[str, Score], name: str) -> Drawn:
    """One row a start, the best on top: each seed, their mean and its interval."""
    import matplotlib

    ordered = sorted(group.items(), key=lambda item: -item[1].mean)[::-1]
    style = Styles(["cdvft"])["cdvft"]
    with matplotlib.rc_context(SETTINGS):
        figure, (axes,) = blank(1, 1, 1.3 + 0.45 * len(ordered))
        for i, (_, score) in enumerate(ordered):
            if score.low is not None and score.high is not None:
                axes.plot([100 * score.low, 100 * score.high], [i, i], color=style.color, linewidth=1.4)
            seeds = [100 * a for a in score.accuracies]
            axes.plot(seeds, [i - 0.18] * len(seeds), "|", color=style.color, markersize=7, alpha=0.6)
            axes.plot([100 * score.mean], [i], style.marker, color=style.color, markersize=8)
        axes.set_yticks(range(len(ordered)), [start for start, _ in ordered])
        axes.set_ylim(-0.6, len(ordered) - 0.4)
        axes.set_xlabel("test accuracy [%]")
        caption = (
            "Mean test accuracy over seeds by start, each at its own best learning rate and scale; bars are 95 % "
            "intervals over seeds and test examples, strokes below them the seeds."
        )
        best = ordered[-1]
        alt = f"Test accuracy by start. Highest mean: {best[0]}, {100 * best[1].mean:.1f} %."
        return drawn(name, "Accuracy by start", Plot(figure, caption, alt))
