"""What an FFT really takes: operations tallied in a run, by no formula.

The algorithms are run on numbers that count (see :mod:`cdvft_bench.counting.tallied` for what is
free), so that rules of thumb such as 5 n log2 n have something to be held against. No count says
anything about speed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.fft.algorithms import (
    ALGORITHMS,
    NAIVE_LIMIT,
    check_algorithm,
    fft,
    ifft,
    irfft_of_weighted,
    rfft,
    weighted,
)
from cdvft_bench.counting.tallied import Complex, FFTCount, Number, Real, Tally

__all__ = [
    "ALGORITHMS",
    "CirculantCount",
    "FFTCount",
    "PriceCheck",
    "circulant_product",
    "circulant_product_count",
    "compare_with_convention",
    "count_fft",
]


def _data(n: int, tally: Tally) -> list[Number]:
    generator = random.Random(n)
    return [Real(generator.gauss(0.0, 1.0), tally) for _ in range(n)]


@cache
def count_fft(n: int, algorithm: str = "split-radix", real: bool = False, inverse: bool = False) -> FFTCount:
    """Operations of one transform of ``n`` points, tallied in a run on random data.

    Args:
        n: length, >= 1.
        algorithm: one of ``ALGORITHMS``.
        real: real data to a half spectrum (or back), instead of complex data.
        inverse: the inverse transform, its weights (at most n multiplications) left out.

    Raises:
        UserError: the algorithm is not known, or does not take this length.
    """
    check_algorithm(algorithm, n)
    tally = Tally()
    if not real:
        points = [Complex(a, b) for a, b in zip(_data(n, tally), _data(n, tally), strict=True)]
        (ifft if inverse else fft)(points, algorithm)
    elif inverse:
        a, b = _data(n // 2 + 1, tally), _data(n // 2 + 1, tally)
        half = [Complex(re, 0.0 if 2 * k in (0, n) else im) for k, (re, im) in enumerate(zip(a, b, strict=True))]
        irfft_of_weighted(half, n, algorithm)
    else:
        rfft(_data(n, tally), algorithm)
    return tally.count()


@dataclass(frozen=True)
class PriceCheck:
    """A measured transform beside what a rule of thumb says of it.

    Attributes:
        n, real, algorithm: the transform.
        measured: real additions and multiplications tallied.
        rule: the rule of thumb in words, e.g. "5 n log2 n".
        priced: what the rule says.
    """

    n: int
    real: bool
    algorithm: str
    measured: int
    rule: str
    priced: float

    @property
    def ratio(self) -> float:
        """measured / priced: below 1 the rule overprices the transform."""
        return self.measured / self.priced


def compare_with_convention(n: int, real: bool = False) -> list[PriceCheck]:
    """Each algorithm's measured count over 5 n log2 n (2.5 for real data) and over n log2 n.

    Algorithms that do not take the length are left out.

    Raises:
        UserError: n < 2, where the rules say nothing.
    """
    if n < 2:
        raise UserError(f"transform length n = {n} has no price to compare with: n log2 n is 0; use n >= 2")
    rows = []
    for algorithm in ALGORITHMS:
        if (algorithm == "naive" and n > NAIVE_LIMIT) or (algorithm == "radix-2" and n & (n - 1)):
            continue
        measured = count_fft(n, algorithm, real).flops
        for rule, factor in (("2.5 n log2 n", 2.5) if real else ("5 n log2 n", 5.0), ("n log2 n", 1.0)):
            rows.append(PriceCheck(n, real, algorithm, measured, rule, factor * n * math.log2(n)))
    return rows


@dataclass(frozen=True)
class CirculantCount:
    """One circulant product ``y = irfft(rfft(c) * rfft(x))`` of p points, part by part.

    Attributes:
        transform_c, transform_x: the two forward transforms.
        weights: scaling the spectrum of c for the inverse; paid once for a c that stays.
        product: the product of the half spectra.
        inverse: the inverse transform.
    """

    transform_c: FFTCount
    weights: FFTCount
    transform_x: FFTCount
    product: FFTCount
    inverse: FFTCount

    @property
    def whole(self) -> FFTCount:
        """With the transform of c and its weights, as when c has just changed."""
        return self.transform_c + self.weights + self.given_spectrum

    @property
    def given_spectrum(self) -> FFTCount:
        """The weighted spectrum of c is at hand: a further x by the same c."""
        return self.transform_x + self.product + self.inverse


def circulant_product(
    c: Sequence[float], x: Sequence[float], algorithm: str = "split-radix"
) -> tuple[list[float], CirculantCount]:
    """``y[r] = sum_s c[(r - s) mod p] x[s]`` by way of half spectra, and what it took.

    Raises:
        UserError: the algorithm is not known, or does not take this length.
    """
    p, tally = len(c), Tally()
    if len(x) != p:
        raise UserError(f"c has {p} entries and x {len(x)}; a circulant block takes vectors of its own size")
    marks = [tally.count()]

    def mark() -> None:
        marks.append(tally.count())

    spectrum = rfft([Real(v, tally) for v in c], algorithm)
    mark()
    spectrum = weighted(spectrum, p)
    mark()
    other = rfft([Real(v, tally) for v in x], algorithm)
    mark()
    product = [a * b for a, b in zip(spectrum, other, strict=True)]
    mark()
    y = irfft_of_weighted(product, p, algorithm)
    mark()
    parts = [after - before for before, after in pairwise(marks)]
    return [float(v) for v in y], CirculantCount(*parts)


@cache
def circulant_product_count(p: int, algorithm: str = "split-radix") -> CirculantCount:
    """Operations of one circulant block's product with a vector, tallied in a run on random data.

    Raises:
        UserError: the algorithm is not known, or does not take this length.
    """
    check_algorithm(algorithm, p)
    generator = random.Random(p)
    c, x = ([generator.gauss(0.0, 1.0) for _ in range(p)] for _ in range(2))
    return circulant_product(c, x, algorithm)[1]
