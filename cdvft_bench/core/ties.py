"""Equal numbers decided as equal on every machine, whatever the last bits of their floats are.

Sums of floats, logarithms and products of matrices end in other last bits where a processor has other vector units or
a library another version. What is counted is therefore compared as integers and fractions, and what is computed as
floats is ordered without its last digits.
"""

import math
from collections.abc import Iterable
from fractions import Fraction

EXAMPLES = 10**6
"""Largest denominator of a share that is told from its float: distinct ones differ by 1e-12, 1,000 units in its last
place."""

DIGITS = 12
"""Significant digits in which a computed float is alike on every machine."""


def exact(share: float) -> Fraction:
    """The share of right answers that a float stands for: k / n for up to a million examples, or a decimal of 6 digits.

    Any other float stands for itself.

    Raises:
        ValueError: the share is infinite or NaN.
    """
    if not math.isfinite(share):
        raise ValueError(f"share = {share} is not a finite number")
    near = Fraction(share).limit_denominator(EXAMPLES)
    return near if float(near) == share else Fraction(share)


def mean_share(shares: Iterable[float]) -> float:
    """Mean of shares, see :func:`exact`: equal means are equal floats in whatever order and however many they are.

    Raises:
        ValueError: there is no share.
    """
    found = [exact(share) for share in shares]
    if not found:
        raise ValueError("no share to average")
    return float(sum(found, Fraction(0)) / len(found))


def steady(value: float, digits: int = DIGITS) -> float:
    """A computed float without its last digits, to rank or round by: what differs by rounding errors alone is equal."""
    return float(f"{value:.{digits - 1}e}") if math.isfinite(value) else value
