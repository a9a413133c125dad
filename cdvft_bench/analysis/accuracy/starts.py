"""Accuracy over initialisations: CDVFT's test scores that differ by the start alone, each tuned by itself."""

from __future__ import annotations

from collections.abc import Sequence

from cdvft_bench.accuracy.analysis import Score
from cdvft_bench.accuracy.training.trial import scale_name
from cdvft_bench.analysis.accuracy.pairs import differences_to, verdict
from cdvft_bench.core.text import clean, listed, plural
from cdvft_bench.methods import make_method

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
