"""Statistics of fine-tuning runs: paired differences, corrected for many comparisons, and fronts with uncertainty.

Two things could have come out otherwise: the seeds, and the examples of the test split. Every method answers the same
examples with the same seeds, so both are compared pair by pair. An estimate's variance is taken as the sum of that of
its means over seeds and that of its means over examples; chance that belongs to one seed's answer to one example is in
both, so intervals are rather too wide than too narrow. Degrees of freedom: see ``core.student.joint_freedom``.

Answers are right or wrong, so sums over seeds and examples are integers: means are quotients of two of them, variances
fractions, and the methods of a draw are compared by integers. Equal accuracies are equal, whatever the order in which
they were added up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.accuracy.results import deciding_runs, final_runs, tuning_runs
from cdvft_bench.accuracy.training.trial import BASE, TrialResult, Value, scale_name, unpacked
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import LEAST_SEEDS, Interval
from cdvft_bench.core.student import fieller, half_width, joint_freedom, t_value, tail

Answers = NDArray[np.int64]
"""Right answers, 1 or 0, by (seed, example); or those of one method less those of another."""


@dataclass(frozen=True)
class Score:
    """A method's runs on the test split.

    Attributes:
        label: the method. method: its name in the suite. hyperparameters: of the chosen setting.
        accuracies: by seed. diverged: runs that did not end.
        mean: right answers over answers, the float nearest to the fraction.
        low, high: 95 % interval over seeds and test examples; None for fewer than three seeds.
        lr: the chosen learning rate. at_edge: it is the smallest or largest of those that decided.
        scale: the chosen scale of the weight change; None where the method has none or it was not tuned.
        parameters, step_flops: of a run. step_seconds: median of the runs' own. training_bytes: see ``TrialResult``.
        peak_bytes: largest of the runs, None where it was not measured.
        joules: of a training step, median of the runs that know it; None where none does.
        answers: whether each run answered each test example right (seeds, examples), 0 or 1.
        seeds: of the rows. An untrained model's one run stands for every seed, since none enters its answers.
    """

    label: str
    method: str
    accuracies: tuple[float, ...]
    diverged: int
    mean: float
    low: float | None
    high: float | None
    lr: float
    at_edge: bool
    parameters: int
    step_flops: float | None
    step_seconds: float | None
    hyperparameters: tuple[tuple[str, Value], ...]
    scale: float | None
    training_bytes: int | None
    peak_bytes: int | None
    joules: float | None
    answers: Answers
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error and degrees of freedom; ``error`` None where fewer than three seeds show none."""

    mean: float
    error: float | None
    freedom: float

    @property
    def half_width(self) -> float | None:
        """Of the 95 % interval."""
        if self.error is None:
            return None
        return half_width(self.error, self.freedom)

    @property
    def interval(self) -> Interval:
        """The mean with its 95 % interval."""
        half = self.half_width
        return Interval(self.mean) if half is None else Interval(self.mean, self.mean - half, self.mean + half)

    @property
    def p(self) -> float:
        """Two-sided chance of so large a mean where the true one is 0."""
        if self.error is None:
            return 1.0
        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return tail(self.mean / self.error, self.freedom)


@dataclass(frozen=True)
class Difference(Estimate):
    """Accuracy of one method less another's, paired by seed and test example.

    Attributes:
        label, against: the methods.
        p_holm: that so large a difference comes by chance, corrected for all comparisons of its family (Holm).
    """

    label: str
    against: str
    p_holm: float


def estimate(table: Answers, other: Answers | None = None, ratio: float = 1.0) -> Estimate:
    """The mean over (seeds, examples), both of which are random.

    Args:
        table: whole numbers. other: of the same shape; then of ``table - ratio * other``. ratio: a finite number.

    Raises:
        ValueError: an entry is no whole number.
    """
    ours = _whole(table)
    theirs = np.zeros_like(ours) if other is None else _whole(other)
    seeds, times = len(ours), Fraction(ratio)
    mean = float((int(ours.sum()) - times * int(theirs.sum())) / ours.size)
    if seeds < LEAST_SEEDS:
        return Estimate(mean, None, 0)
    parts = [(_less(moments, times), freedom) for moments, freedom in _parts(ours, theirs)]
    variance = sum((v for v, _ in parts), Fraction(0))
    return Estimate(mean, math.sqrt(variance), joint_freedom((float(v), n) for v, n in parts))


def ratio_interval(table: Answers, other: Answers) -> tuple[float, float]:
    """95 % interval (Fieller's) of one mean over another's, over pairs (3 seeds or more, examples), both random."""
    parts = [([float(m) for m in moments], t_value(freedom) ** 2) for moments, freedom in _parts(table, other)]
    aa, ab, bb = (math.fsum(square * moments[i] for moments, square in parts) for i in range(3))
    return fieller(float(table.mean()), float(other.mean()), aa, ab, bb)


Moments = tuple[Fraction, Fraction, Fraction]
"""Variance of one mean, covariance with another, variance of that."""


def _parts(ours: Answers, theirs: Answers) -> list[tuple[Moments, int]]:
    """Of the means over seeds and over examples, with the degrees of freedom of each."""
    seeds, examples = ours.shape
    parts = [(_moments(ours.sum(1), theirs.sum(1), examples), seeds - 1)]
    return parts + ([(_moments(ours.sum(0), theirs.sum(0), seeds), examples - 1)] if examples > 1 else [])


def _moments(ours: Answers, theirs: Answers, size: int) -> Moments:
    """Of the means of independent pairs of sums, each of so many answers."""
    n = len(ours)
    whole = n * n * (n - 1) * size**2

    def of(a: Answers, b: Answers) -> Fraction:
        return Fraction(n * int(a @ b) - int(a.sum()) * int(b.sum()), whole)

    return of(ours, ours), of(ours, theirs), of(theirs, theirs)


def _less(moments: Moments, times: Fraction) -> Fraction:
    """Variance of one mean less so many times the other."""
    aa, ab, bb = moments
    return aa - 2 * times * ab + times**2 * bb


def _whole(table: Answers) -> Answers:
    whole = np.asarray(table).astype(np.int64)
    if not np.array_equal(whole, table):
        raise ValueError("answers must be whole numbers, 1 for right and 0 for wrong")
    return whole


def answers_of(runs: Sequence[TrialResult]) -> Answers:
    """Right and wrong answers (runs, examples), 1 or 0.

    Raises:
        UserError: the runs did not answer the same examples.
    """
    counts = {run.scored for run in runs}
    if len(counts) != 1 or counts == {0}:
        raise UserError(
            f"runs of {runs[0].label} scored {', '.join(map(str, sorted(counts)))} examples; runs of one method must "
            "have answered the same ones: run the preset into a new file"
        )
    return np.array([unpacked(run.right, run.scored) for run in runs], dtype=np.int64)


def scores(results: Sequence[TrialResult]) -> list[Score]:
    """One score a method that has runs on the test split, best first.

    Of equals those of fewer parameters come first, then the first by name.

    Raises:
        UserError: runs of a method scored different examples.
    """
    tried = tuning_runs(results)
    found = []
    finals = final_runs(results)
    every = sorted({r.trial.seed for runs in finals.values() for r in runs})
    for label, runs in finals.items():
        ended = [r for r in runs if r.accuracy is not None]
        if not ended:
            continue
        first = ended[0]
        table, seeds = answers_of(ended), [r.trial.seed for r in ended]
        accuracies = tuple(int(right) / table.shape[1] for right in table.sum(axis=1))
        if first.trial.method == BASE:
            table, seeds = np.repeat(table[:1], len(every), axis=0), every
        value = estimate(table)
        low, high = _bounds(value, table.shape[1])
        rates = [r.trial.lr for r in deciding_runs(tried.get(label, []))]
        seconds = [r.step_seconds for r in ended if r.step_seconds is not None]
        joules = [r.step_joules for r in ended if r.step_joules is not None]
        peaks = [r.peak_bytes for r in ended if r.peak_bytes is not None]
        chosen = dict(first.trial.hyperparameters).get(scale_name(first.trial.method) or "")
        found.append(
            Score(
                label,
                first.trial.method,
                accuracies,
                sum(r.diverged for r in runs),
                value.mean,
                low,
                high,
                first.trial.lr,
                len(set(rates)) > 1 and first.trial.lr in (min(rates), max(rates)),
                first.parameters,
                first.step_flops,
                float(np.median(seconds)) if seconds else None,
                first.trial.hyperparameters,
                float(chosen) if chosen is not None else None,
                first.training_bytes,
                max(peaks, default=None),
                float(np.median(joules)) if joules else None,
                table,
                tuple(seeds),
            )
        )
    return sorted(found, key=lambda s: (-s.mean, s.parameters, s.label))


def _bounds(value: Estimate, examples: int) -> tuple[float | None, float | None]:
    """95 % interval of a mean accuracy; where all answers are alike, with the exact bound of a binomial share."""
    if value.error == 0 and value.mean in (0.0, 1.0):
        beyond = 1 - 0.025 ** (1 / examples)
        return (0.0, beyond) if value.mean == 0 else (1 - beyond, 1.0)
    return value.interval.low, value.interval.high


def seed_deviation(score: Score) -> float:
    """Standard deviation of the accuracies of a score's seeds, of which there are two or more."""
    right = score.answers.sum(1)
    return math.sqrt(len(right) * _moments(right, right, score.answers.shape[1])[0])


def paired(one: Score, other: Score) -> Answers | None:
    """Right answers of one less those of the other (shared seeds, examples); None with fewer than two such seeds."""
    shared = [seed for seed in one.seeds if seed in other.seeds]
    if len(shared) < 2 or one.answers.shape[1] != other.answers.shape[1]:
        return None
    rows = [[s.seeds.index(seed) for seed in shared] for s in (one, other)]
    difference: Answers = one.answers[rows[0]] - other.answers[rows[1]]
    return difference


def compared(found: Sequence[Score], against: str) -> list[Difference]:
    """Every method against one, paired by seed and example; smallest corrected p first.

    Raises:
        UserError: ``against`` has no run, or no method shares two seeds with it.
    """
    base = next((s for s in found if s.label == against), None)
    if base is None:
        raise UserError(
            f"{against!r} has no run on the test split; there are {', '.join(s.label for s in found) or 'none'}"
        )
    tables = [(s.label, table) for s in found if s is not base and (table := paired(s, base)) is not None]
    if not tables:
        raise UserError(f"no method shares two seeds with {against!r}; run more seeds")
    values = [estimate(table) for _, table in tables]
    corrected = zip(tables, values, holm([v.p for v in values]), strict=True)
    made = [Difference(v.mean, v.error, v.freedom, label, against, p_holm) for (label, _), v, p_holm in corrected]
    return sorted(made, key=lambda d: (d.p_holm, -abs(d.mean), d.label))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p values for many comparisons."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    corrected = [0.0] * len(ps)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = highest
    return corrected
