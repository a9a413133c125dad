"""Laws: what a quantity is claimed to do. A law takes one source's figures and says whether they obey it.

Each law knows how a ledger writes it (``read``) and judges what it was given (``judge``).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from cdvft_bench.claims.ledger.checks import check_keys, finite
from cdvft_bench.claims.ledger.figures import EXACT, Figure, Outcome, at_most
from cdvft_bench.claims.ledger.fits import TERMS, fit, slope
from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.claims.ledger.text import besides, number, numbers
from cdvft_bench.core.errors import UserError


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
    """Base of all laws. ``kind`` is its name in a ledger, ``keys`` what a ledger may write of it."""

    kind: ClassVar[str]
    keys: ClassVar[tuple[str, ...]] = ()
    needs_against: ClassVar[bool] = False
    needs_tolerance: ClassVar[bool] = True
    least_values: ClassVar[int] = 0
    over: Over | None = None

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Self:
        """From the table of a ledger, whose keys have been checked. Raises UserError."""
        return cls(over=_over(table, cls) if cls.least_values else None)

    @abstractmethod
    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        """Whether the figures obey; ``tolerance`` is 0 where the claim gives none."""


@dataclass(frozen=True)
class Ratio(Law):
    """The subject's figure over the other's is as expected.

    Attributes:
        expected: figures, any of which will do.
        digits: decimals that the claim prints: the ratio rounded to them must be the figure.
        low, high: instead of ``expected``: bounds.
    """

    kind: ClassVar[str] = "ratio"
    keys: ClassVar[tuple[str, ...]] = ("expected", "digits", "low", "high")
    needs_against: ClassVar[bool] = True
    expected: tuple[float, ...] = ()
    digits: int | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Self:
        bounds = {k: finite(table[k], k) for k in ("low", "high") if k in table}
        if ("expected" in table) == bool(bounds):
            raise UserError("law 'ratio' needs 'expected', or bounds: 'low', 'high' or both")
        if any(b <= 0 for b in bounds.values()) or bounds.get("low", 0) > bounds.get("high", math.inf):
            raise UserError(f"law 'ratio': {bounds} must be positive, low below high")
        digits = table.get("digits")
        if bounds:
            if digits is not None:
                raise UserError("law 'ratio': 'digits' belongs to 'expected'")
            return cls(low=bounds.get("low"), high=bounds.get("high"))
        expected = _expected(table, cls.kind)
        if any(e <= 0 for e in expected):
            raise UserError(f"law 'ratio': expected = {list(expected)} must be positive")
        if digits is not None and (isinstance(digits, bool) or not isinstance(digits, int) or not 0 <= digits <= 9):
            raise UserError(f"law 'ratio': digits = {digits!r} must be an integer from 0 to 9")
        return cls(expected=expected, digits=digits)

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        figure = figures[0]
        assert figure.against is not None
        if not figure.against[0]:
            return Outcome(False, math.inf, f"{number(figure.value[0])} / 0")
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
        else:
            holds = any(self.gives(ratio, e, tolerance) for e in self.expected)
        return Outcome(holds, miss, text + besides(miss), ratio, figure.remedy)

    def gives(self, ratio: float, expected: float, tolerance: float = 0.0) -> bool:
        """Whether a ratio is a claimed figure: rounds to it, a half up as well as down, or is within the tolerance."""
        if self.digits is None:
            return at_most(abs(ratio / expected - 1), tolerance)
        return abs(ratio - round(expected, self.digits)) <= 0.5 * 10.0**-self.digits + EXACT * abs(expected)

    def _window(self, expected: float, tolerance: float) -> tuple[float, float]:
        """What counts as a printed figure."""
        half = expected * tolerance if self.digits is None else 0.5 * 10.0**-self.digits
        return expected - half, expected + half


@dataclass(frozen=True)
class Equals(Law):
    """The figure, or each of several that belong together, is the expected one: exactly, or within the tolerance."""

    kind: ClassVar[str] = "equals"
    keys: ClassVar[tuple[str, ...]] = ("expected",)
    needs_tolerance: ClassVar[bool] = False
    expected: tuple[float, ...] = ()

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Self:
        return cls(expected=_expected(table, cls.kind))

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        value = figures[0].value
        misses = [v / e - 1 if e else float(v != 0) for v, e in zip(value, self.expected, strict=True)]
        miss = max(misses, key=abs)
        return Outcome(at_most(abs(miss), tolerance), miss, numbers(value) + besides(miss), value[0])


@dataclass(frozen=True)
class AtMost(Law):
    """The figure is not above the expected one."""

    kind: ClassVar[str] = "at_most"
    keys: ClassVar[tuple[str, ...]] = ("expected",)
    needs_tolerance: ClassVar[bool] = False
    expected: tuple[float, ...] = ()

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Self:
        expected = _expected(table, cls.kind)
        if len(expected) != 1 or expected[0] <= 0:
            raise UserError(f"law 'at_most': expected = {list(expected)} must be one number > 0")
        return cls(expected=expected)

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        figure, bound = figures[0], self.expected[0]
        value = figure.value[0]
        miss = max(0.0, value / bound - 1)
        holds: bool | None = at_most(miss, tolerance)
        if figure.interval is not None:
            holds = figure.within(0.0, bound * (1 + tolerance))
        return Outcome(holds, miss, f"{number(value)}{figure.spread}{besides(miss)}", value, figure.remedy)


@dataclass(frozen=True)
class Absent(Law):
    """Nothing comes near a dense weight change: the figure is smaller than ``fraction`` of it."""

    kind: ClassVar[str] = "absent"
    keys: ClassVar[tuple[str, ...]] = ("fraction",)
    needs_tolerance: ClassVar[bool] = False
    fraction: float = 0.5

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Self:
        fraction = finite(table.get("fraction", 0.5), "fraction")
        if not 0 < fraction <= 1:
            raise UserError(f"law 'absent': fraction = {fraction} must be above 0 and at most 1")
        return cls(fraction=fraction)

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        value = figures[0].value[0]
        holds = value < self.fraction
        miss = 0.0 if holds else value / self.fraction - 1
        return Outcome(holds, miss, f"{number(value)} of a dense weight change", value)


@dataclass(frozen=True)
class Present(Law):
    """Something is at least as large as a dense weight change."""

    kind: ClassVar[str] = "present"
    needs_tolerance: ClassVar[bool] = False

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        value = figures[0].value[0]
        return Outcome(value >= 1, min(0.0, value - 1), f"{number(value)} of a dense weight change", value)


@dataclass(frozen=True)
class Identity(Law):
    """Two things are equal: the figure, a relative difference, is within the tolerance of 0."""

    kind: ClassVar[str] = "identity"

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        value = figures[0].value[0]
        holds = math.isfinite(value) and at_most(value, tolerance)
        said = f"at most {number(tolerance, 2)}" if holds else number(value, 2)  # what is within is rounding errors
        return Outcome(holds, value, f"relative difference {said}", value)


@dataclass(frozen=True)
class Exponent(Law):
    """A power law: the 95 % interval of the log-log slope lies within the tolerance of the expected exponent."""

    kind: ClassVar[str] = "exponent"
    keys: ClassVar[tuple[str, ...]] = ("expected",)
    least_values: ClassVar[int] = 4
    expected: tuple[float, ...] = ()

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Self:
        expected = _expected(table, cls.kind)
        if len(expected) != 1:
            raise UserError(f"law 'exponent': expected = {list(expected)} must be one number")
        return cls(over=_over(table, cls), expected=expected)

    def judge(self, figures: Sequence[Figure], tolerance: float) -> Outcome:
        x, y = _curve(figures)
        if min(y) <= 0:
            return _no_law(figures)
        fitted = slope(x, y)
        value, half = fitted.coefficients[0], fitted.half_widths[0]
        miss = value - self.expected[0]
        text = f"exponent {number(value)} [{number(value - half)}, {number(value + half)}]{_range(figures)}"
        return Outcome(at_most(abs(miss) + half, tolerance), miss, text, value)


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


def law_of(table: Mapping[str, Any]) -> Law:
    """Read a claim's law. Raises UserError."""
    kind = table.get("kind")
    if kind not in LAWS:
        raise UserError(f"law {kind!r} is not known; use one of {', '.join(LAWS)}")
    law = LAWS[kind]
    ranged = ("over", "values", "counted") if law.least_values else ()
    check_keys(table, ("kind", *law.keys, *ranged), f"law {kind!r}")
    return law.read(table)


# --- reading ------------------------------------------------------------------------------


def _expected(table: Mapping[str, Any], kind: str) -> tuple[float, ...]:
    if "expected" not in table:
        raise UserError(f"law {kind!r} needs 'expected'")
    given = table["expected"]
    values = given if isinstance(given, list) else [given]
    if not values:
        raise UserError(f"law {kind!r}: expected is empty")
    return tuple(finite(v, "expected") for v in values)


def _over(table: Mapping[str, Any], law: type[Law]) -> Over:
    axis, values = table.get("over"), table.get("values")
    if not isinstance(axis, str):
        raise UserError(f"law {law.kind!r} is judged on a range; give 'over' (an axis, e.g. \"d\") and 'values'")
    if not isinstance(values, list) or len(values) < law.least_values:
        n = len(values) if isinstance(values, list) else 0
        raise UserError(f"law {law.kind!r} over {n} point{'' if n == 1 else 's'}; it needs at least {law.least_values}")
    counted = table.get("counted", [])
    for name, given in (("values", values), ("counted", counted)):
        if not isinstance(given, list) or any(finite(v, name) <= 0 for v in given) or sorted(set(given)) != given:
            raise UserError(f"law {law.kind!r}: {name} = {given} must be positive numbers in increasing order")
    if not set(counted) <= set(values) or (counted and len(counted) < law.least_values):
        raise UserError(f"law {law.kind!r}: counted = {counted} must be at least {law.least_values} of its values")
    return Over(axis, tuple(values), tuple(counted))


# --- texts --------------------------------------------------------------------------------


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
            sign = "- " if coefficient < 0 else "+ " if parts else ""
            parts.append(f"{sign}{number(abs(coefficient))} {term}".removesuffix(" 1"))
    return " ".join(parts)


def _share(value: float) -> str:
    return "0 %" if abs(value) < EXACT else f"{number(100 * value, 2)} %"


def _no_law(figures: Sequence[Figure]) -> Outcome:
    return Outcome(False, math.inf, f"no law in figures of which one is 0{_range(figures)}")
