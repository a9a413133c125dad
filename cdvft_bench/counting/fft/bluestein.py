"""Transforms of prime length by convolution with a chirp (Bluestein, 1970), over numbers that count.

``X[k] = w[k] sum_j (x[j] w[j]) conj(w[k - j])`` with ``w[j] = exp(-pi i j^2 / n)``: a convolution, which FFTs of a
longer and smooth length carry out. The chirp's own spectrum is known beforehand. The zeros that pad the data are
data here, since libraries do not skip them. Real data take no less: their chirped values are complex.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from cdvft_bench.counting.tallied import Complex, Number, Real, root

Transform = Callable[[Sequence[Complex]], list[Complex]]
"""A forward transform of a length of small primes."""


def smooth_length(least: int) -> int:
    """The smallest length >= ``least`` of 2^a, 3 * 2^a or 5 * 2^a; other odd factors take more than they save."""
    return min(q << max(0, (-(-least // q) - 1).bit_length()) for q in (1, 3, 5))


def bluestein(x: Sequence[Complex], transform: Transform, outputs: int | None = None) -> list[Complex]:
    """The first ``outputs`` (all by default) of n frequencies of n points."""
    n = len(x)
    return [z.turn(k * k, 2 * n) for k, z in enumerate(_convolved(x, transform)[: n if outputs is None else outputs])]


def real_parts(x: Sequence[Complex], transform: Transform) -> list[Number]:
    """The frequencies' real parts alone."""
    found: list[Number] = []
    for k, z in enumerate(_convolved(x, transform)[: len(x)]):
        c, s = root(k * k, 2 * len(x))
        found.append(z.re * c - z.im * s)
    return found


def _convolved(x: Sequence[Complex], transform: Transform) -> list[Complex]:
    n = len(x)
    length = smooth_length(2 * n - 1)
    parts = [part for z in x for part in (z.re, z.im)]
    zero: Number = next((Real(0.0, part.tally) for part in parts if isinstance(part, Real)), 0.0)
    chirped = [z.turn(j * j, 2 * n) for j, z in enumerate(x)]
    spectrum = transform([*chirped, *[Complex(zero, zero)] * (length - n)])
    product = [(a * b).swap() for a, b in zip(spectrum, _chirp_spectrum(n, length, transform), strict=True)]
    return [z.swap() for z in transform(product)]  # with parts swapped a forward transform is an inverse one


@cache
def _chirp_spectrum(n: int, length: int, transform: Transform) -> list[Complex]:
    """Spectrum of the conjugate chirp at shifts -(n - 1) ... n - 1, over ``length`` for the inverse transform."""
    chirp = [Complex(0.0, 0.0)] * length
    for j in range(n):
        c, s = root(j * j, 2 * n)
        chirp[j] = chirp[-j] = Complex(c / length, -s / length)
    return transform(chirp)
