"""Statistics of fine-tuning runs: paired differences, corrected for many comparisons, and fronts with uncertainty.

Two things could have come out otherwise: the seeds, and the examples of the test split. Every method answers the same
examples with the same seeds, so both are compared pair by pair. An estimate's variance is taken as the sum of that of
its means over seeds and that of its means over examples; chance that belongs to one seed's answer to one example is in
both, so intervals are rather too wide than too narrow. Degrees of freedom: see ``core.student.joint_freedom``.

Answers are right or wrong, so sums over seeds and examples are integers: means are quotients of two of them, variances
fractions, and the methods of a draw are compared by integers. Equal accuracies are equal, whatever the order in which
they were added up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.accuracy.results import final_runs, tuning_runs
from cdvft_bench.accuracy.training.trial import BASE, TrialResult, Value, scale_name, unpacked
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import LEAST_SEEDS, Interval
from cdvft_bench.core.student import half_width, joint_freedom, tail

DRAWS = 10_000
"""Of seeds, examples and costs; a share of them is known within half a point."""
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
        lr: the chosen learning rate. at_edge: it is the smallest or largest that was tried.
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
class Difference:
    """Accuracy of one method less another's, paired by seed and test example.

    Attributes:
        label, against: the methods. estimate: the mean difference with its standard error.
        p_holm: that so large a difference comes by chance, corrected for all comparisons of its family (Holm).
    """

    label: str
    against: str
    estimate: Estimate
    p_holm: float

    @property
    def mean(self) -> float:
        """Of the differences."""
        return self.estimate.mean

    @property
    def p(self) -> float:
        """That so large a difference comes by chance, alone."""
        return self.estimate.p

    @property
    def interval(self) -> Interval:
        """The difference with its 95 % interval; without one for fewer than three seeds."""
        return self.estimate.interval


def estimate(table: Answers, other: Answers | None = None, ratio: float = 1.0) -> Estimate:
    """The mean over (seeds, examples), both of which are random.

    Args:
        table: whole numbers. other: of the same shape; then of ``table - ratio * other``. ratio: a finite number.

    Raises:
        ValueError: an entry is no whole number.
    """
    ours = _whole(table)
    theirs = np.zeros_like(ours) if other is None else _whole(other)
    seeds, examples = ours.shape
    times = Fraction(ratio)
    mean = float((int(ours.sum()) - times * int(theirs.sum())) / ours.size)
    if seeds < LEAST_SEEDS:
        return Estimate(mean, None, 0)
    parts = [(_of_the_mean(ours.sum(1), theirs.sum(1), times) / examples**2, seeds - 1)]
    if examples > 1:
        parts.append((_of_the_mean(ours.sum(0), theirs.sum(0), times) / seeds**2, examples - 1))
    variance = sum((v for v, _ in parts), Fraction(0))
    return Estimate(mean, math.sqrt(variance), joint_freedom((float(v), n) for v, n in parts))


def _whole(table: Answers) -> Answers:
    whole = np.asarray(table).astype(np.int64)
    if not np.array_equal(whole, table):
        raise ValueError("answers must be whole numbers, 1 for right and 0 for wrong")
    return whole


def _of_the_mean(ours: Answers, theirs: Answers, times: Fraction) -> Fraction:
    """Variance of the mean of ``ours - times * theirs``, from as many independent values."""
    n = len(ours)

    def products(a: Answers, b: Answers) -> int:
        return n * int(a @ b) - int(a.sum()) * int(b.sum())

    squares = products(ours, ours) - 2 * times * products(ours, theirs) + times**2 * products(theirs, theirs)
    return Fraction(squares) / (n * n * (n - 1))


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
        rates = [r.trial.lr for r in tried.get(label, [])]
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
    right, zeros = score.answers.sum(1), np.zeros(len(score.answers), dtype=np.int64)
    return float(math.sqrt(len(right) * _of_the_mean(right, zeros, Fraction(1))) / score.answers.shape[1])


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
    made = []
    for (label, _), value, p_holm in zip(tables, values, holm([v.p for v in values]), strict=True):
        made.append(Difference(label, against, value, p_holm))
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


@dataclass(frozen=True)
class CostOf:
    """What a method costs: a value, with a 95 % interval where it was measured."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def spread(self) -> float:
        """Standard deviation of its logarithm."""
        if self.low is None or self.high is None or self.low <= 0:
            return 0.0
        return math.log(self.high / self.low) / (2 * 1.96)


def front_shares_of(
    found: Sequence[Score], costs: Mapping[str, Mapping[str, CostOf]], seed: int = 0
) -> dict[str, dict[str, float]]:
    """How often each method is on the front of accuracy against a cost, over random draws of what might have been.

    A draw takes seeds and test examples with replacement, the same ones for every method, and measured costs from
    log-normal distributions of their intervals. Costs that the same methods have share their draws.

    Args:
        found: scores. costs: by name and label; methods without one are left out. seed: of the draws.

    Returns:
        By name and label, the share of draws in which no other method costs as little and scores as much, one of them
        better.
    """
    made: dict[str, dict[str, float]] = {}
    drawn: dict[tuple[str, ...], tuple[NDArray[Any], Any]] = {}
    for name, one in costs.items():
        points = [s for s in found if s.label in one]
        if not points:
            made[name] = {}
            continue
        rng = np.random.default_rng(seed)
        labels = tuple(s.label for s in points)
        if labels not in drawn:
            drawn[labels] = _drawn_accuracies(points, rng), rng.bit_generator.state
        accuracy, rng.bit_generator.state = drawn[labels]
        spread = np.array([one[s.label].spread for s in points])
        # A cost that is known exactly is itself in every draw: what costs as much ties.
        cost = np.array([one[s.label].value for s in points]) * np.exp(
            spread * rng.standard_normal((DRAWS, len(points)))
        )
        shares = on_front(accuracy, cost).sum(axis=0)
        made[name] = {s.label: int(n) / DRAWS for s, n in zip(points, shares, strict=True)}
    return made


def on_front(accuracy: NDArray[Any], cost: NDArray[Any]) -> NDArray[np.bool_]:
    """By (draw, method): whether no other method costs as little and scores as much, one of them better."""
    beaten = []
    for mine, own in zip(accuracy.T[:, :, None], cost.T[:, :, None], strict=True):
        no_worse = (cost <= own) & (accuracy >= mine)
        beaten.append((no_worse & ((cost < own) | (accuracy > mine))).any(axis=1))
    return ~np.stack(beaten, axis=1)


def _drawn_accuracies(points: Sequence[Score], rng: np.random.Generator) -> NDArray[Any]:
    """Accuracies (draws, methods) of seeds and examples drawn with replacement, times one integer for all methods."""
    common = math.lcm(*(s.answers.size for s in points))
    dtype = np.int64 if common < 2**63 else object
    times: dict[int, NDArray[np.float64]] = {}
    places = {seed: rng.random(DRAWS) for seed in range(max(len(s.seeds) for s in points))}
    columns = []
    for s in points:
        seeds, examples = s.answers.shape
        if examples not in times:
            drawn = (np.bincount(rng.integers(0, examples, examples), minlength=examples) for _ in range(DRAWS))
            times[examples] = np.stack(list(drawn)).astype(np.float64)
        # Whole numbers far below 2^53: their product has no rounding, in whatever order it is summed.
        by_seed = (times[examples] @ s.answers.T.astype(np.float64)).astype(np.int64)
        picked = [np.minimum((places[i] * seeds).astype(int), seeds - 1) for i in range(seeds)]
        right = np.sum([by_seed[np.arange(DRAWS), pick] for pick in picked], axis=0)
        columns.append(right.astype(dtype) * (common // s.answers.size))
    return np.stack(columns, axis=1)
