"""Student's t by the standard library alone (a bare node has no scipy), and intervals of means by it."""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from statistics import NormalDist

from cdvft_bench.core.interval import LEAST_SEEDS, Interval

LEVEL = 0.05
"""Chance that an interval does not hold the true value, one half on each side."""
_MANY = 1e4
"""Degrees of freedom from which a normal distribution of a transformed t is exact to 8 digits where it matters."""


def tail(t: float, freedom: float) -> float:
    """``P(|T| >= |t|)``, the two-sided chance of so large a value; ``freedom`` > 0, not necessarily whole.

    It is the regularised incomplete beta function ``I_x(freedom / 2, 1 / 2)`` at ``x = freedom / (freedom + t^2)``
    (Abramowitz and Stegun, 26.7.1), by its continued fraction (26.5.8); of many degrees of freedom, where the
    logarithms of gamma functions would cancel, the normal distribution of 26.7.8.
    """
    if math.isinf(t):
        return 0.0
    if freedom >= _MANY:
        z = abs(t) * (1 - 1 / (4 * freedom)) / math.sqrt(1 + t * t / (2 * freedom))
        return math.erfc(z / math.sqrt(2))
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
    for m in range(1, 10_000):
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
def t_value(freedom: float, confidence: float = 1 - LEVEL) -> float:
    """Half-width of a central interval in standard errors; infinite without a degree of freedom.

    Args:
        freedom: as for :func:`tail`; infinite for the normal distribution.
        confidence: chance that the interval holds the true value, >= 0 and < 1.
    """
    if freedom <= 0:
        return math.inf
    if confidence == 0:
        return 0.0
    wanted = 1 - confidence
    t = NormalDist().inv_cdf(1 - wanted / 2)  # below what is sought, from where Newton's steps do not go beyond it
    for _ in range(200):
        chance, slope = tail(t, freedom), 2 * _density(t, freedom)
        # Near 0 the chance is a straight line, in the tails its logarithm is one over that of t.
        step = (chance - wanted) / slope
        if t >= 0.5:
            step = t * math.expm1(math.log(chance / wanted) * chance / (t * slope))
        t += step
        if abs(step) <= 1e-13 * t:
            break
    return t


def _density(t: float, freedom: float) -> float:
    if freedom >= _MANY:
        return math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
    gammas = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    return math.exp(gammas - (freedom + 1) / 2 * math.log1p(t * t / freedom)) / math.sqrt(freedom * math.pi)


def half_width(error: float, freedom: float, level: float = LEVEL) -> float:
    """Half of the interval of a mean whose standard error is ``error``."""
    return t_value(freedom, 1 - level) * error if error else 0.0


def mean_interval(values: Sequence[float], least: int = LEAST_SEEDS) -> Interval:
    """Mean of independent draws with its 95 % interval.

    Args:
        values: one or more. least: fewer than so many make no interval.

    Raises:
        ValueError: there is no value.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no value to average")
    mean = math.fsum(values) / n
    if n < max(least, 2):
        return Interval(mean)
    half = half_width(math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n * (n - 1))), n - 1)
    return Interval(mean, mean - half, mean + half)


def fieller(one: float, other: float, aa: float, ab: float, bb: float) -> tuple[float, float]:
    """Interval of the ratio of two means: every ratio rho >= 0 for which ``one - rho other`` is not told from 0.

    Args:
        one, other: the means, >= 0. aa, ab, bb: variance of the first, their covariance, variance of the second, each
            times the squared half-width of its interval in standard errors.

    Returns:
        from 0 to infinity where the second is not told from 0 itself (Fieller 1954).
    """
    square, middle, constant = other * other - bb, one * other - ab, one * one - aa
    if square <= 0:
        return 0.0, math.inf
    root = math.sqrt(max(0.0, middle * middle - square * constant))
    return max(0.0, (middle - root) / square), max(0.0, (middle + root) / square)


def joint_freedom(parts: Iterable[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of independent variances, such that the sum's 95 % interval holds.

    The half-width is the root of the sum of the squares of the parts' own half-widths (the method of variance estimates
    recovery, Zou and Donner 2008). Satterthwaite's formula trusts a part of two or three values that happens to be
    small, and its intervals hold 87 to 93 % there.

    Args:
        parts: variance >= 0 and its degrees of freedom, one or more.

    Returns:
        between the least and the greatest of the parts' degrees of freedom.
    """
    every = list(parts)
    given = [(variance, freedom) for variance, freedom in every if variance > 0]
    degrees = [freedom for _, freedom in given or every]
    if not given or min(degrees) == max(degrees):
        return min(degrees)
    total = math.fsum(variance for variance, _ in given)
    wanted = math.sqrt(math.fsum(v * t_value(f) ** 2 for v, f in given) / total)
    # Quantiles are nearly a line over 1 / freedom: regula falsi, its stuck end halved (Illinois).
    low, high = 1 / max(degrees), 1 / min(degrees)
    below, above = t_value(1 / low) - wanted, t_value(1 / high) - wanted
    at = low if below >= 0 else high
    for _ in range(60):
        if below >= 0 or above <= 0 or abs(miss := t_value(1 / at) - wanted) <= 1e-9 * wanted:
            break
        if miss < 0:
            low, below, above = at, miss, above / 2
        else:
            high, above, below = at, miss, below / 2
        at = (low * above - high * below) / (above - below)
    return min(max(1 / at, min(degrees)), max(degrees))
