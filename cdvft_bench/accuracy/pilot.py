"""Whether a workload can rank methods: tuned full fine-tuning against training nothing but the classifier.

Where the two score alike there is no room between them for methods to differ in. A front of such a workload says
nothing, however many examples it scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdvft_bench.accuracy.analysis import Score, estimate, paired, scores
from cdvft_bench.accuracy.power import detectable
from cdvft_bench.accuracy.training.trial import BASE, HEAD, TrialResult

FULL = "full"
GAIN = 0.05
"""By so much tuned full fine-tuning must beat training nothing but the classifier, for a workload to rank methods."""


@dataclass(frozen=True)
class Pilot:
    """What a pilot showed.

    Attributes:
        least: the runs of the classifier alone, or of the untrained model. full: of full fine-tuning. Both tuned.
        gain: mean accuracy of the second less that of the first. low, high: its 95 % interval, over seeds and examples.
        detectable: difference between these two that the same design finds with a chance of 80 %, at 5 %.
    """

    least: Score
    full: Score
    gain: float
    low: float
    high: float
    detectable: float

    @property
    def disjoint(self) -> bool:
        """Whether the two accuracies' 95 % intervals leave a gap."""
        return self.least.high is not None and self.full.low is not None and self.least.high < self.full.low

    def passed(self, gain: float) -> bool:
        """Whether full fine-tuning is better by so much or more, and the intervals are disjoint."""
        return self.gain >= gain and self.disjoint

    def __str__(self) -> str:
        apart = "disjoint" if self.disjoint else "not disjoint"
        return (
            f"tuned full fine-tuning {self.full.mean:.2%}, {self.least.label.lower()} {self.least.mean:.2%}: "
            f"{100 * self.gain:.1f} points more ({100 * self.low:.1f} to {100 * self.high:.1f}), intervals {apart}"
        )


def pilot_of(results: Sequence[TrialResult]) -> Pilot | None:
    """The pilot in the runs of one workload; None where they lack it, or have fewer than three seeds of it.

    Raises:
        UserError: scipy is missing, or runs of a method scored different examples.
    """
    found = {s.method: s for s in scores([r for r in results if r.trial.method in (HEAD, BASE, FULL)])}
    least, full = found.get(HEAD) or found.get(BASE), found.get(FULL)
    table = paired(full, least) if least is not None and full is not None else None
    if table is None or least is None or full is None:
        return None
    value = estimate(table)
    if value.interval.low is None or value.interval.high is None:
        return None
    return Pilot(least, full, value.mean, value.interval.low, value.interval.high, detectable(value))


def cannot_rank(runs: Sequence[TrialResult]) -> str:
    """Why a workload cannot rank methods; empty where its pilot shows that it can."""
    pilot = pilot_of(runs)
    if pilot is None:
        return "no pilot, which takes three seeds of full fine-tuning, and of the head alone or the untrained model"
    return "" if pilot.passed(GAIN) else f"its pilot does not show a gain of {100 * GAIN:g} points ({pilot})"
