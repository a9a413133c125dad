"""Laws: what a quantity is claimed to do. A law hears one witness's figures and says whether they obey it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cdvft_bench.claims.ledger.fits import TERMS, fit, slope
from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.claims.ledger.text import besides, number, numbers

EXACT = 1e-9
"""Relative deviations that are rounding errors."""


def at_most(value: float, bound: float) -> bool:
    """Whether a value is not above a bound, but for rounding errors: a figure 10 % off is within 10 %."""
    return value <= bound + EXACT * abs(bound)


@dataclass(frozen=True)
class Figure:
    """What one witness said at one point.

    Attributes:
        x: place on the law's axis; None where the law has none.
        value: the figure, or several that belong together (see the quantity).
        against: the same of the other side of a ratio.
        interval: 95 %, of the value or of the ratio, where the figure was measured; infinite where its spread is not
            known. None for a figure that is exact.
        note: on what the interval rests. remedy: what would make it narrower.
    """

    x: float | None
    value: tuple[float, ...]
    against: tuple[float, ...] | None = None
    interval: tuple[float, float] | None = None
    note: str = ""
    remedy: str = ""

    def within(self, low: float, high: float) -> bool | None:
        """Whether the figure's interval lies inside the bounds; False where it is apart from them, None else."""
        assert self.interval is not None
        a, b = self.interval
        return True if at_most(low, a) and at_most(b, high) else False if b < low or a > high else None

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
    """Whether a witness's figures obey the law.

    Attributes:
        holds: they do; None where an interval reaches both what was claimed and what was not.
        miss: how far they are off, relative to what was claimed; 0 where they hold exactly.
        text: the numbers.
        ratio: for a ratio, its value.
        remedy: where ``holds`` is None, what would settle it.
    """

    holds: bool | None
    miss: float
    text: str
    ratio: float | None = None
    remedy: str = ""


@dataclass(frozen=True)
class Over:
    """The range that a law is judged on.

    Attributes:
        axis: see ``Point.changed``.
        values: increasing.
        counted: the part of them that the count runs; all where empty.
    """

    axis: str
    values: tuple[Value, ...]
    counted: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Law(ABC):
    """Base of all laws. ``kind`` is its name in a ledger."""

    kind: ClassVar[str]
    needs_against: ClassVar[bool] = False
    needs_tolerance: ClassVar[bool] = True
    least_values: ClassVar[int] = 0
    over: Over | None = None

    @abstractmethod
    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        """Hear the figures; ``tolerance`` is 0 where the claim gives none."""


@dataclass(frozen=True)
class Ratio(Law):
    """The subject's figure over the other's is as expected.

    Attributes:
        expected: figures, any of which will do.
        digits: decimals that the claim prints: the ratio rounded to them must be the figure.
        low, high: instead of ``expected``: bounds.
    """

    kind: ClassVar[str] = "ratio"
    needs_against: ClassVar[bool] = True
    expected: tuple[float, ...] = ()
    digits: int | None = None
    low: float | None = None
    high: float | None = None

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        figure = figures[0]
        assert figure.against is not None
        if not figure.against[0]:
            return Outcome(False, float("inf"), f"{number(figure.value[0])} / 0")
        ratio = figure.value[0] / figure.against[0]
        text = f"{number(figure.value[0])} / {number(figure.against[0])} = {number(ratio, 5)}{figure.spread}"
        if not self.expected:
            below = 0.0 if self.low is None or at_most(self.low, ratio) else ratio / self.low - 1
            above = 0.0 if self.high is None or at_most(ratio, self.high) else ratio / self.high - 1
            miss = below or above
            holds: bool | None = not miss
            if figure.interval is not None:
                holds = figure.within(self.low or 0.0, math.inf if self.high is None else self.high)
            return Outcome(holds, miss, text + ("" if holds else besides(miss)), ratio, figure.remedy)
        miss = min((ratio / e - 1 for e in self.expected), key=abs)
        if figure.interval is not None:
            each = [figure.within(*self._window(e, tolerance)) for e in self.expected]
            holds = True if True in each else None if None in each else False
        elif self.digits is None:
            holds = at_most(abs(miss), tolerance)
        else:
            holds = any(self.prints(ratio, e) for e in self.expected)
        return Outcome(holds, miss, text + besides(miss), ratio, figure.remedy)

    def prints(self, ratio: float, expected: float) -> bool:
        """Whether a ratio rounds to a printed figure; a half does so up as well as down."""
        half = 0.5 * 10.0 ** -(self.digits or 0)
        return abs(ratio - round(expected, self.digits or 0)) <= half + EXACT * abs(expected)

    def _window(self, expected: float, tolerance: float) -> tuple[float, float]:
        """What counts as a printed figure."""
        half = expected * (tolerance if self.digits is None else self.rounding(expected) / 2)
        return expected - half, expected + half

    def rounding(self, expected: float) -> float:
        """Relative width of the window around a printed figure that rounds to it."""
        return 10.0 ** -(self.digits or 0) / expected


@dataclass(frozen=True)
class Equals(Law):
    """The figure, or each of several that belong together, is the expected one: exactly, or within the tolerance."""

    kind: ClassVar[str] = "equals"
    needs_tolerance: ClassVar[bool] = False
    expected: tuple[float, ...] = ()

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        value = figures[0].value
        misses = [v / e - 1 if e else float(v != 0) for v, e in zip(value, self.expected, strict=True)]
        miss = max(misses, key=abs)
        return Outcome(at_most(abs(miss), tolerance), miss, numbers(value) + besides(miss))


@dataclass(frozen=True)
class AtMost(Law):
    """The figure is not above the expected one."""

    kind: ClassVar[str] = "at_most"
    needs_tolerance: ClassVar[bool] = False
    expected: tuple[float, ...] = ()

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        figure, bound = figures[0], self.expected[0]
        value = figure.value[0]
        miss = max(0.0, value / bound - 1)
        holds: bool | None = at_most(miss, tolerance)
        if figure.interval is not None:
            holds = figure.within(0.0, bound * (1 + tolerance))
        text = f"{number(value)}{figure.spread}{besides(miss)}"
        return Outcome(holds, miss, text, remedy=figure.remedy)


@dataclass(frozen=True)
class Absent(Law):
    """No allocation comes near a dense weight change: the largest is smaller than ``fraction`` of it."""

    kind: ClassVar[str] = "absent"
    needs_tolerance: ClassVar[bool] = False
    fraction: float = 0.5

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        value = figures[0].value[0]
        holds = value < self.fraction
        return Outcome(holds, 0.0 if holds else value / self.fraction - 1, f"{number(value)} of a dense weight change")


@dataclass(frozen=True)
class Present(Law):
    """Some allocation is at least as large as a dense weight change."""

    kind: ClassVar[str] = "present"
    needs_tolerance: ClassVar[bool] = False

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        value = figures[0].value[0]
        holds = value >= 1
        return Outcome(holds, 0.0 if holds else value - 1, f"{number(value)} of a dense weight change")


@dataclass(frozen=True)
class Identity(Law):
    """Two things are equal: the figure, a relative difference, is within the tolerance of 0."""

    kind: ClassVar[str] = "identity"

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        value = figures[0].value[0]
        said = f"below {EXACT:.0e}" if value < EXACT else number(value, 2)
        return Outcome(at_most(value, tolerance), value, f"relative difference {said}")


@dataclass(frozen=True)
class Exponent(Law):
    """A power law: the 95 % interval of the log-log slope lies within the tolerance of the expected exponent."""

    kind: ClassVar[str] = "exponent"
    least_values: ClassVar[int] = 4
    expected: tuple[float, ...] = ()

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        x, y = _curve(figures)
        if min(y) <= 0:
            return _no_law(figures)
        fitted = slope(x, y)
        value, half = fitted.coefficients[0], fitted.half_widths[0]
        miss = value - self.expected[0]
        return Outcome(
            at_most(abs(miss) + half, tolerance),
            miss,
            f"exponent {number(value)} [{number(value - half)}, {number(value + half)}]{_range(figures)}",
        )


@dataclass(frozen=True)
class _Growth(Law):
    """A sum of terms fits within the tolerance and better than n^2 and n do, and an n^2 term beside it is none.

    It is none where its share of the last value is within the tolerance, or where its interval holds 0
    and reaches no farther than ``WIDEST``: a range too short to tell settles nothing.
    """

    WIDEST: ClassVar[float] = 0.15

    terms: ClassVar[tuple[str, ...]]
    least_values: ClassVar[int] = 4

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        x, y = _curve(figures)
        if min(y) <= 0:
            return _no_law(figures)
        fitted = fit(self.terms, x, y)
        more = fit(("n^2", *self.terms), x, y)
        quadratic = fit(("n^2", "n"), x, y)
        # The n^2 term's part in the last value, and its interval.
        weight = x[-1] ** 2 / y[-1]
        share, half = more.coefficients[0] * weight, more.half_widths[0] * weight
        none = at_most(abs(share), tolerance) or abs(share) <= half <= self.WIDEST
        better = fitted.residual <= max(quadratic.residual, EXACT)
        holds = at_most(fitted.residual, tolerance) and none and better
        text = (
            f"{_sum(self.terms, fitted.coefficients, x[-1], y[-1])} fits within {_share(fitted.residual)} "
            f"(n^2 and n: {_share(quadratic.residual)}); an n^2 term beside it makes "
            f"{_share(share)} ± {_share(half)} of the last value{_range(figures)}"
        )
        return Outcome(holds, 0.0 if holds else max(fitted.residual, abs(share)), text)


@dataclass(frozen=True)
class Linear(_Growth):
    """Linear in the axis, with a constant."""

    kind: ClassVar[str] = "linear"
    terms: ClassVar[tuple[str, ...]] = ("n", "1")


@dataclass(frozen=True)
class NLogN(_Growth):
    """n log n in the axis, with a linear term."""

    kind: ClassVar[str] = "n_log_n"
    terms: ClassVar[tuple[str, ...]] = ("n log n", "n")


LAWS: dict[str, type[Law]] = {
    law.kind: law for law in (Ratio, Equals, AtMost, Absent, Present, Identity, Exponent, Linear, NLogN)
}


def _curve(figures: Sequence[Figure]) -> tuple[list[float], list[float]]:
    y = [f.value[0] if f.against is None else f.value[0] / f.against[0] for f in figures]
    return [float(f.x or 0.0) for f in figures], y


def _range(figures: Sequence[Figure]) -> str:
    xs = [f.x or 0.0 for f in figures]
    return f", {len(xs)} values from {number(min(xs))} to {number(max(xs))}"


def _sum(terms: Sequence[str], coefficients: Sequence[float], x: float, y: float) -> str:
    """A fitted sum, without the terms that are rounding errors."""
    parts: list[str] = []
    for term, coefficient in zip(terms, coefficients, strict=True):
        if abs(coefficient * TERMS[term](x) / y) > EXACT:
            sign = "- " if coefficient < 0 else "+ "
            parts.append(
                (sign if parts or coefficient < 0 else "") + f"{number(abs(coefficient))} {term}".removesuffix(" 1")
            )
    return " ".join(parts)


def _share(value: float) -> str:
    return "0 %" if abs(value) < EXACT else f"{number(100 * value, 2)} %"


def _no_law(figures: Sequence[Figure]) -> Outcome:
    return Outcome(False, float("inf"), f"no law in figures of which one is 0{_range(figures)}")
