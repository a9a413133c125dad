"""How sure a front of accuracy against a cost is: random draws of seeds, examples and costs.

The methods of a draw are compared by whole numbers of right answers, so that equal ones are equal.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.accuracy.analysis import Answers, Score
from cdvft_bench.core.interval import Interval

DRAWS = 10_000
"""Of seeds, examples and costs; a share of them is known within half a point."""


@dataclass(frozen=True)
class CostOf(Interval):
    """What a method costs: a value, with a 95 % interval where it was measured."""

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
    places = {seed: rng.random(DRAWS) for seed in range(max(len(s.seeds) for s in points))}
    columns: dict[str, NDArray[Any]] = {}
    for examples in dict.fromkeys(s.answers.shape[1] for s in points):
        alike = [s for s in points if s.answers.shape[1] == examples]
        sums = _drawn_sums(np.concatenate([s.answers for s in alike]), rng)
        for s, by_seed in zip(
            alike, np.split(sums, np.cumsum([len(s.answers) for s in alike])[:-1], axis=1), strict=True
        ):
            seeds = len(s.answers)
            picked = [np.minimum((places[i] * seeds).astype(int), seeds - 1) for i in range(seeds)]
            right = np.sum([by_seed[np.arange(DRAWS), pick] for pick in picked], axis=0)
            columns[s.label] = right.astype(dtype) * (common // s.answers.size)
    return np.stack([columns[s.label] for s in points], axis=1)


def _drawn_sums(answers: Answers, rng: np.random.Generator) -> Answers:
    """Right answers (draws, rows) of ``answers`` (rows, examples), over examples drawn with replacement."""
    examples = answers.shape[1]
    # Whole numbers below 2^24 and 2^53: their product has no rounding, in whatever order it is summed.
    table = answers.T.astype(np.float32 if examples < 2**24 else np.float64)
    drawn = np.empty((min(DRAWS, 256), examples), table.dtype)
    sums = np.empty((DRAWS, len(answers)), dtype=np.int64)
    for start in range(0, DRAWS, len(drawn)):
        part = drawn[: DRAWS - start]
        for row in part:
            row[:] = np.bincount(rng.integers(0, examples, examples), minlength=examples)
        sums[start : start + len(part)] = part @ table
    return sums
