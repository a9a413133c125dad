"""Student's t distribution by the standard library alone: a bare node, and a plain installation, have no scipy."""

from __future__ import annotations

import math
from functools import lru_cache


def tail(t: float, freedom: float) -> float:
    """``P(|T| >= |t|)``, the two-sided chance of so large a value; ``freedom`` > 0, not necessarily whole.

    It is the regularised incomplete beta function ``I_x(freedom / 2, 1 / 2)`` at ``x = freedom / (freedom + t^2)``
    (Abramowitz and Stegun, 26.7.1), by its continued fraction (26.5.8).
    """
    if math.isinf(t):
        return 0.0
    a, b = freedom / 2, 0.5
    x, y = freedom / (freedom + t * t), t * t / (freedom + t * t)
    if y == 0:
        return 1.0
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(scale - a * math.log1p(t * t / freedom) + b * math.log(y))
    if x < (a + 1) / (a + b + 2):
        return front / a * _fraction(a, b, x)
    return 1 - front / b * _fraction(b, a, y)


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    value = d
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


@lru_cache(maxsize=4096)
def t_value(freedom: float, level: float = 0.95) -> float:
    """Half-width of a central interval of that level in standard errors; infinite without a degree of freedom."""
    if freedom <= 0:
        return math.inf
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        beyond = tail(math.sqrt(freedom) * math.tan(middle), freedom)
        low, high = (middle, high) if beyond > 1 - level else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)
