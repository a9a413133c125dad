"""Whether a workload can rank methods: tuned full fine-tuning against training nothing but the classifier.

Where the two score alike there is no room between them for methods to differ in. A front of such a workload says
nothing, however many examples it scores.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cdvft_bench.accuracy.analysis import Answers, Estimate, Score, estimate, paired, scores
from cdvft_bench.accuracy.training.trial import BASE, HEAD, TrialResult
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.student import t_value

FULL = "full"
REFERENCES = (HEAD, BASE, FULL)
"""Not ranked, and no front of their own: what is compared lies between them."""
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


# --- power -----------------------------------------------------------------------------------
# The answers of two methods, paired by seed and example, make a table of differences (seeds, examples) of -1, 0 and 1.
# It varies by seed, by example, and by what belongs to one seed's answer to one example alone. These three parts, taken
# from a pilot's runs, say what another number of seeds or examples would see.


LEVEL, POWER = 0.05, 0.8
"""Two-sided chance of a difference where there is none; chance of finding one that is there."""


@dataclass(frozen=True)
class Components:
    """Variances of one entry of a table of differences: by seed, by example, and the rest. None is negative."""

    seed: float
    example: float
    rest: float

    def error(self, seeds: int, examples: int) -> float:
        """Standard error of the mean over so many seeds and examples."""
        return math.sqrt(self.seed / seeds + self.example / examples + self.rest / (seeds * examples))

    def detectable(self, seeds: int, examples: int, comparisons: int = 1) -> float:
        """Difference that a design of so many seeds and examples finds, see the function of that name."""
        return detectable(Estimate(0.0, self.error(seeds, examples), seeds - 1), comparisons)


def components(table: Answers) -> Components:
    """The parts of a table (seeds, examples), by the mean squares of a two-way layout of random effects.

    Raises:
        UserError: it has fewer than two seeds or examples.
    """
    seeds, examples = table.shape
    if min(seeds, examples) < 2:
        raise UserError(f"{seeds} seeds and {examples} examples show no spread; two of each are needed at least")
    by_seed, by_example, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    left_over = table - by_seed[:, None] - by_example[None, :] + mean
    rest = float((left_over**2).sum()) / ((seeds - 1) * (examples - 1))
    seed = float(by_seed.var(ddof=1)) - rest / examples
    example = float(by_example.var(ddof=1)) - rest / seeds
    return Components(max(seed, 0.0), max(example, 0.0), rest)


def detectable(value: Estimate, comparisons: int = 1) -> float:
    """The true difference that a test like this estimate's finds with a chance of 80 %.

    Args:
        value: whose standard error and degrees of freedom count; its mean does not.
        comparisons: of a family; Holm's first step, the strictest, divides the level by as many.

    Returns:
        (t(1 - level / 2) + t(power)) standard errors; infinite where the spread is not known.
    """
    if value.error is None:
        return math.inf
    if value.error == 0:
        return 0.0
    return value.error * (t_value(value.freedom, 1 - LEVEL / comparisons) + t_value(value.freedom, 2 * POWER - 1))
