"""What difference between two methods a design can see: seeds, test examples, and how the answers vary.

The answers of two methods, paired by seed and example, make a table of differences (seeds, examples) of -1, 0 and 1.
It varies by seed, by example, and by what belongs to one seed's answer to one example alone. These three parts, taken
from a pilot's runs, say what another number of seeds or examples would see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cdvft_bench.accuracy.analysis import Answers, Estimate
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.student import t_value

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
