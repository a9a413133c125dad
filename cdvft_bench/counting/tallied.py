"""Numbers that count their own arithmetic.

Data are :class:`Real` numbers; each addition, subtraction or multiplication of one is tallied.
Plain floats are constants known beforehand (twiddle factors, the zero imaginary part of real
data), and a program with them written in would skip what they make void, so these are free: adding
the constant 0, multiplying by the constants 0, 1 and -1, negating, and so swapping parts for a
product with i or -i. A complex product takes 4 multiplications and 2 additions (3 and 3 would be as
many FLOPs), one with an odd power of the eighth root of unity 2 and 2. A multiplication by 1/2 or 2
counts as any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SQRT_HALF = math.sqrt(0.5)


@dataclass(frozen=True)
class FFTCount:
    """Real additions (subtractions included) and real multiplications."""

    additions: int
    multiplications: int

    @property
    def flops(self) -> int:
        """Additions and multiplications together; a fused multiply-add would be two."""
        return self.additions + self.multiplications

    def __add__(self, other: FFTCount) -> FFTCount:
        return FFTCount(self.additions + other.additions, self.multiplications + other.multiplications)

    def __sub__(self, other: FFTCount) -> FFTCount:
        return FFTCount(self.additions - other.additions, self.multiplications - other.multiplications)


class Tally:
    """What the numbers made with it have spent so far."""

    def __init__(self) -> None:
        self.additions = 0
        self.multiplications = 0

    def count(self) -> FFTCount:
        """The tally at this moment."""
        return FFTCount(self.additions, self.multiplications)


class Real:
    """A real number of the data: its value, and the tally that its arithmetic goes to."""

    __slots__ = ("tally", "value")

    def __init__(self, value: float, tally: Tally) -> None:
        self.value = float(value)
        self.tally = tally

    def __add__(self, other: Number) -> Real:
        if isinstance(other, Real):
            self.tally.additions += 1
            return Real(self.value + other.value, self.tally)
        if other == 0:
            return self
        self.tally.additions += 1
        return Real(self.value + other, self.tally)

    __radd__ = __add__

    def __sub__(self, other: Number) -> Real:
        if isinstance(other, Real):
            self.tally.additions += 1
            return Real(self.value - other.value, self.tally)
        return self + -other

    def __rsub__(self, other: float) -> Real:
        return -self + other

    def __neg__(self) -> Real:
        return Real(-self.value, self.tally)

    def __mul__(self, other: Number) -> Number:
        if isinstance(other, Real):
            self.tally.multiplications += 1
            return Real(self.value * other.value, self.tally)
        if other in (0, 1, -1):
            return 0.0 if other == 0 else self if other == 1 else -self
        self.tally.multiplications += 1
        return Real(self.value * other, self.tally)

    __rmul__ = __mul__

    def __float__(self) -> float:
        return self.value


Number = Real | float
"""A datum, whose arithmetic counts, or a constant."""


@dataclass(slots=True)
class Complex:
    """A complex number in Cartesian parts."""

    re: Number
    im: Number

    def __add__(self, other: Complex) -> Complex:
        return Complex(self.re + other.re, self.im + other.im)

    def __sub__(self, other: Complex) -> Complex:
        return Complex(self.re - other.re, self.im - other.im)

    def __mul__(self, other: Complex) -> Complex:
        return Complex(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)

    def conj(self) -> Complex:
        return Complex(self.re, -self.im)

    def swap(self) -> Complex:
        """i times the conjugate: turns a forward transform of swapped data into a backward one."""
        return Complex(self.im, self.re)

    def over_i(self) -> Complex:
        return Complex(self.im, -self.re)

    def turn(self, k: int, n: int) -> Complex:
        """The product with exp(-2 pi i k / n)."""
        c, s = root(k, n)
        if abs(c) == abs(s):  # (+-1 +-i) / sqrt(2): add first, then scale
            a, b = math.copysign(1.0, c), math.copysign(1.0, s)
            return Complex((self.re * a - self.im * b) * SQRT_HALF, (self.re * b + self.im * a) * SQRT_HALF)
        return self * Complex(c, s)

    def __complex__(self) -> complex:
        return complex(float(self.re), float(self.im))


def root(k: int, n: int) -> tuple[float, float]:
    """Parts of exp(-2 pi i k / n), exact at multiples of n/4 and with equal magnitudes at odd ones of n/8."""
    quarter, rest = divmod(4 * (k % n), n)
    if rest == 0:
        c, s = 1.0, 0.0
    elif 2 * rest == n:
        c, s = SQRT_HALF, -SQRT_HALF
    else:
        angle = 0.5 * math.pi * rest / n
        c, s = math.cos(angle), -math.sin(angle)
    for _ in range(quarter):
        c, s = s, -c
    return c, s
