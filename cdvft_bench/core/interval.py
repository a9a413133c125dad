"""An estimate with its interval, and the one rule by which it lies above, below or on no known side of a figure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Side = Literal["above", "below", "undecided"]

LEAST_ROUNDS = 5
"""Fewer rounds of a clock make no interval: the extremes of four hold the true median with a chance of 88 % at best."""
LEAST_SEEDS = 3
"""Fewer seeds, or other independent draws, make no interval: of two it would be 12.7 standard errors to each side."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; ``low`` and ``high`` are None where too little was measured for one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """``(low, high)``, or None where there is no interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def half_width(self) -> float:
        """Half the interval's width over its value; infinite where there is no interval."""
        if self.low is None or self.high is None or self.value == 0:
            return math.inf
        return (self.high - self.low) / (2 * abs(self.value))

    def side(self, of: float = 1.0, margin: float = 0.0) -> Side:
        """On which side of ``of`` the whole interval lies.

        Args:
            of: the figure to compare with; 1 for a ratio, 0 for a difference.
            margin: how far beyond ``of`` the interval has to be, >= 0.

        Returns:
            "above" or "below" where all of the interval is beyond the margin, else "undecided"; an estimate without an
            interval is undecided, whatever its value.
        """
        if self.low is None or self.high is None:
            return "undecided"
        if self.low > of + margin:
            return "above"
        return "below" if self.high < of - margin else "undecided"

    def within(self, low: float, high: float) -> bool | None:
        """Whether the value lies in ``[low, high]``: True where all of the interval does, False where none of it does.

        None where it reaches both, or there is no interval.
        """
        if self.low is None or self.high is None:
            return None
        if low <= self.low and self.high <= high:
            return True
        return False if self.high < low or self.low > high else None

    def over(self, other: Interval) -> Interval:
        """This over an independent one, both positive.

        The bounds' distances add up as squares, on the logarithms (method of variance estimates recovery, Zou and
        Donner 2008): intervals of 95 % give one of 95 %.

        Returns:
            without bounds where either has none, or one that is not positive.
        """
        value = self.value / other.value
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return Interval(value)
        if min(self.low, other.low) <= 0:
            return Interval(value)
        down = math.hypot(math.log(self.value / self.low), math.log(other.high / other.value))
        up = math.hypot(math.log(self.high / self.value), math.log(other.value / other.low))
        return Interval(value, value * math.exp(-down), value * math.exp(up))

    def inverse(self) -> Interval:
        """One over this, which is positive."""
        low, high = self.low, self.high
        return Interval(1 / self.value, None if high is None else 1 / high, None if low is None else 1 / low)

    def scaled(self, by: float) -> Interval:
        """The same in another unit; ``by`` > 0."""
        low, high = (None if bound is None else bound * by for bound in (self.low, self.high))
        return Interval(self.value * by, low, high)
