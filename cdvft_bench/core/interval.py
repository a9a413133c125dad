"""An estimate with its interval, and the one rule by which it lies above, below or on no known side of a figure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Side = Literal["above", "below", "undecided"]


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

    def within(self, low: float, high: float) -> bool:
        """Whether the whole interval lies in ``[low, high]``: the claim "no different by more than that" holds."""
        return self.low is not None and self.high is not None and low <= self.low and self.high <= high

    def scaled(self, by: float) -> Interval:
        """The same in another unit; ``by`` > 0."""
        low, high = (None if bound is None else bound * by for bound in (self.low, self.high))
        return Interval(self.value * by, low, high)
