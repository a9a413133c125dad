"""Figures that sources give, and what a law makes of them."""

import math
from dataclasses import dataclass

from cdvft_bench.claims.ledger.text import number
from cdvft_bench.core.interval import Interval

EXACT = 1e-9
"""Relative deviations that are rounding errors."""


def at_most(value: float, bound: float) -> bool:
    """Whether a value is not above a bound, but for rounding errors: a figure 10 % off is within 10 %."""
    return value <= bound + EXACT * abs(bound)


@dataclass(frozen=True)
class Figure:
    """What one source gives at one point.

    Attributes:
        value: the figure, or several that belong together (see the quantity).
        against: the same of the other side of a ratio.
        x: where on the law's axis; None where the law has none.
        interval: 95 %, of the value or of the ratio, where the figure was measured; infinite where its spread is not
            known. None for a figure that is exact.
        note: on what the interval rests. remedy: what would make it narrower.
    """

    value: tuple[float, ...]
    against: tuple[float, ...] | None = None
    x: float | None = None
    interval: tuple[float, float] | None = None
    note: str = ""
    remedy: str = ""

    def within(self, low: float, high: float) -> bool | None:
        """Whether the figure's interval lies inside the bounds; False where it is apart from them, None else."""
        assert self.interval is not None
        slack = EXACT * abs(low), EXACT * abs(high) if math.isfinite(high) else 0.0
        return Interval(self.value[0], *self.interval).within(low - slack[0], high + slack[1])

    @property
    def spread(self) -> str:
        """The interval in words, "" for a figure that is exact."""
        if self.interval is None:
            return ""
        bounded = math.isfinite(self.interval[0]) and math.isfinite(self.interval[1])
        text = f" [{number(self.interval[0])}, {number(self.interval[1])}]" if bounded else ""
        return text + (f" ({self.note})" if self.note else "" if bounded else " (no interval)")


@dataclass(frozen=True)
class Outcome:
    """Whether a source's figures obey the law.

    Attributes:
        holds: they do; None where an interval reaches both what was claimed and what was not.
        miss: how far they are off, relative to what was claimed; 0 where they hold exactly.
        text: the numbers.
        value: for a law on one figure, or on a ratio, that number.
        remedy: where ``holds`` is None, what would settle it.
    """

    holds: bool | None
    miss: float
    text: str
    value: float | None = None
    remedy: str = ""
