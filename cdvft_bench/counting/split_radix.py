"""What an FFT really takes: split-radix transforms run on numbers that count, by no formula.

Forward transforms are ``X[k] = sum_j x[j] exp(-2 pi i j k / n)``. Those of real data keep the half spectrum
k = 0 ... n // 2 and never compute its mirror image. An inverse is the same flow graph run backwards, on a spectrum that
is weighted before (n multiplications at most), and takes as much.

While 4 divides a length it is split into a half and two quarters, then into halves, then by its odd primes; a prime is
transformed by its defining sums, mirrored terms paired, a large one by convolution with a chirp. What is free, says
``tallied``; no count says anything about speed.

Sources: Duhamel and Hollmann (1984) for split radix; Sorensen, Jones, Heideman and Burrus (1987) for real data;
Bluestein (1970) for large primes. Split radix is not the least known (Johnson and Frigo, 2007: 34/9 n log2 n).
"""

import math
import random
from collections.abc import Sequence
from functools import cache

from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.tallied import SQRT_HALF, Complex, FFTCount, Number, Real, Tally, root

LARGEST_DIRECT, LARGEST_DIRECT_REAL = 73, 113  # prime factors up to here by their sums, in O(r^2): a chirp takes more
_ZERO = Complex(0.0, 0.0)


@cache
def count_fft(n: int, real: bool = False) -> FFTCount:
    """Operations of one transform of ``n`` points, tallied in a run on random data.

    Args:
        n: length, >= 1.
        real: real data to a half spectrum, instead of complex data.

    Raises:
        UserError: n < 1.
    """
    if n < 1:
        raise UserError(f"transform length n = {n} is too small; it must be >= 1")
    tally, generator = Tally(), random.Random(n)
    a, b = ([Real(generator.gauss(0.0, 1.0), tally) for _ in range(n)] for _ in range(2))
    if real:
        rfft(a)
    else:
        fft([Complex(*parts) for parts in zip(a, b, strict=True)])
    return tally.count()


def _radix(n: int) -> int:
    """2, or the least odd prime factor, of a length that 4 does not divide."""
    return 2 if n % 2 == 0 else next((r for r in range(3, math.isqrt(n) + 1, 2) if n % r == 0), n)


def fft(x: Sequence[Complex]) -> list[Complex]:
    """Complex transform of n >= 1 points."""
    n, out = len(x), list(x)
    if n == 1:
        return out
    if n % 4 == 0:
        q = n // 4
        even, one, three = (fft(part) for part in (x[0::2], x[1::4], x[3::4]))
        for k in range(q):
            a, b = one[k].turn(k, n), three[k].turn(3 * k, n)
            s, d = a + b, (a - b).over_i()
            out[k::q] = even[k] + s, even[k + q] + d, even[k] - s, even[k + q] - d
        return out
    r = _radix(n)
    m = n // r
    parts = [fft(x[q::r]) for q in range(r)]
    for k in range(m):
        out[k::m] = _butterfly([part[k].turn(q * k, n) for q, part in enumerate(parts)])
    return out


def _sum(terms: Sequence[Complex]) -> Complex:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _butterfly(u: Sequence[Complex], direct: int = LARGEST_DIRECT) -> list[Complex]:
    """Transform of r = 2 or an odd number of points, without twiddle factors."""
    r = len(u)
    if r > direct:
        return bluestein(u)
    if r == 2:
        return [u[0] + u[1], u[0] - u[1]]
    pairs = range(1, r // 2 + 1)
    plus, minus = [u[j] + u[r - j] for j in pairs], [u[j] - u[r - j] for j in pairs]
    out = [_sum([u[0], *plus])] * r
    for k in pairs:
        roots = [root(j * k, r) for j in pairs]
        even = _sum([u[0], *(Complex(t.re * c, t.im * c) for t, (c, _) in zip(plus, roots, strict=True))])
        odd = _sum([Complex(-d.im * s, d.re * s) for d, (_, s) in zip(minus, roots, strict=True)])
        out[k], out[r - k] = even + odd, even - odd
    return out


# --- real data: the same steps, with what conjugate symmetry makes redundant left out ------


def rfft(x: Sequence[Number]) -> list[Complex]:
    """Half spectrum, n // 2 + 1 points, of n >= 1 real points."""
    n = len(x)
    if n == 1:
        return [Complex(x[0], 0.0)]
    if n % 4 == 0:
        return _rfft_split(x)
    r = _radix(n)
    if r == n > LARGEST_DIRECT_REAL:
        first, *rest = bluestein([Complex(v, 0.0) for v in x], n // 2 + 1)
        return [Complex(first.re, 0.0), *rest]
    m, direct = n // r, LARGEST_DIRECT_REAL if r == n else LARGEST_DIRECT
    parts = [rfft(x[q::r]) for q in range(r)]
    half = [_ZERO] * (n // 2 + 1)
    for k in range(m // 2 + 1):
        for j, value in enumerate(_butterfly([part[k].turn(q * k, n) for q, part in enumerate(parts)], direct)):
            at = k + m * j
            half[min(at, n - at)] = value if at <= n // 2 else value.conj()
    return half


def _rfft_split(x: Sequence[Number]) -> list[Complex]:
    n, q, h = len(x), len(x) // 4, len(x) // 2
    even, one, three = (rfft(part) for part in (x[0::2], x[1::4], x[3::4]))
    half = [_ZERO] * (h + 1)
    first = one[0].re + three[0].re
    half[0], half[h] = Complex(even[0].re + first, 0.0), Complex(even[0].re - first, 0.0)
    half[q] = Complex(even[q].re, three[0].re - one[0].re)
    for k in range(1, (q + 1) // 2):
        z, y = one[k].turn(k, n), three[k].turn(3 * k, n)
        s, d = z + y, (z - y).over_i()
        half[k], half[h - k] = even[k] + s, (even[k] - s).conj()
        half[q + k], half[q - k] = even[q - k].conj() + d, even[q - k] - d.conj()
    if q % 2 == 0:
        k, e = q // 2, even[q // 2]
        re, im = (one[k].re - three[k].re) * SQRT_HALF, (one[k].re + three[k].re) * SQRT_HALF
        half[k], half[h - k] = Complex(e.re + re, e.im - im), Complex(e.re - re, -e.im - im)
    return half


# --- large primes: convolution with a chirp ------------------------------------------------


def smooth_length(least: int) -> int:
    """The smallest length >= ``least`` of 2^a, 3 * 2^a or 5 * 2^a; other odd factors take more than they save."""
    return min(q << max(0, (-(-least // q) - 1).bit_length()) for q in (1, 3, 5))


def bluestein(x: Sequence[Complex], outputs: int | None = None) -> list[Complex]:
    """The first ``outputs`` (all by default) of n frequencies.

    ``X[k] = w[k] sum_j (x[j] w[j]) conj(w[k - j])`` with ``w[j] = exp(-pi i j^2 / n)``.

    The convolution is carried out by FFTs of a longer and smooth length; the chirp's own spectrum is known beforehand.
    The zeros that pad the data are data here, since libraries do not skip them. Real data take no less: their chirped
    values are complex.
    """
    n = len(x)
    length = smooth_length(2 * n - 1)
    parts = [part for z in x for part in (z.re, z.im)]
    zero: Number = next((Real(0.0, part.tally) for part in parts if isinstance(part, Real)), 0.0)
    chirped = [z.turn(j * j, 2 * n) for j, z in enumerate(x)]
    spectrum = fft([*chirped, *[Complex(zero, zero)] * (length - n)])
    product = [(a * b).swap() for a, b in zip(spectrum, _chirp_spectrum(n, length), strict=True)]
    # With parts swapped a forward transform is an inverse one.
    return [z.swap().turn(k * k, 2 * n) for k, z in enumerate(fft(product)[: outputs or n])]


@cache
def _chirp_spectrum(n: int, length: int) -> list[Complex]:
    """Spectrum of the conjugate chirp at shifts -(n - 1) ... n - 1, over ``length`` for the inverse transform."""
    chirp = [_ZERO] * length
    for j in range(n):
        c, s = root(j * j, 2 * n)
        chirp[j] = chirp[-j] = Complex(c / length, -s / length)
    return fft(chirp)
