"""FFT algorithms over numbers that count: naive, radix 2, mixed radix and split radix, complex and real.

Forward transforms are ``X[k] = sum_j x[j] exp(-2 pi i j k / n)``. Transforms of real data keep the
half spectrum k = 0 ... n // 2 and never compute its mirror image. The inverse real transform is
the forward one's flow graph run backwards, on a spectrum already weighted by 1/n at frequencies 0
and n/2 and by 2/n in between.

Sources of the algorithms: Duhamel and Hollmann (1984) for split radix; Sorensen, Jones, Heideman
and Burrus (1987) for real data; Bluestein (1970) for large primes. Split radix is not the least
known (Johnson and Frigo, 2007, come to 34/9 n log2 n).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.fft.bluestein import bluestein, real_parts
from cdvft_bench.counting.tallied import SQRT_HALF, Complex, Number, root

NAIVE_LIMIT = 512  # n^2 complex products in plain Python
LARGEST_DIRECT, LARGEST_DIRECT_REAL = 73, 113  # prime factors up to here by their sums, in O(r^2): a chirp takes more
_SPLIT = 0

Choose = Callable[[int], int]
"""The radix of the outermost step at a length; asked again at each length below."""


def _odd_prime(n: int) -> int:
    return next((r for r in range(3, math.isqrt(n) + 1, 2) if n % r == 0), n)


def _radix_2(n: int) -> int:
    if n & (n - 1):
        raise UserError(f"radix-2 takes powers of two, not n = {n}; use split-radix or mixed-radix")
    return 2


def _split_radix(n: int) -> int:
    return _SPLIT if n % 4 == 0 else 2 if n % 2 == 0 else _odd_prime(n)


def _mixed_radix(n: int) -> int:
    return 4 if n % 4 == 0 else 2 if n % 2 == 0 else _odd_prime(n)


_CHOOSE: dict[str, Choose] = {"radix-2": _radix_2, "mixed-radix": _mixed_radix, "split-radix": _split_radix}
ALGORITHMS = ("naive", *_CHOOSE)
"""naive: the defining sums. radix-2: powers of two. mixed-radix: factors 4, then 2, then odd primes, as plain
libraries do. split-radix: 2 and 4 at once while 4 divides the length, then 2 and odd primes. An odd prime is
transformed by its defining sums, mirrored terms paired, a large one by Bluestein's chirp."""


def check_algorithm(name: str, n: int) -> Choose | None:
    """How the algorithm of that name splits a length; None for naive, which does not.

    Raises:
        UserError: there is none of that name, n < 1, or n is too long for naive.
    """
    if name not in ALGORITHMS:
        raise UserError(f"FFT algorithm {name!r} is not known; use one of {', '.join(ALGORITHMS)}")
    if n < 1:
        raise UserError(f"transform length n = {n} is too small; it must be >= 1")
    if name == "naive" and n > NAIVE_LIMIT:
        raise UserError(f"naive takes n^2 products, too many at n = {n}; stay at n <= {NAIVE_LIMIT} or use split-radix")
    return _CHOOSE.get(name)


def fft(x: Sequence[Complex], algorithm: str = "split-radix") -> list[Complex]:
    """Complex transform of n points.

    Raises:
        UserError: the algorithm is not known, or does not take this length.
    """
    choose = check_algorithm(algorithm, len(x))
    return _naive(x, len(x)) if choose is None else _fft(x, choose)


def ifft(x: Sequence[Complex], algorithm: str = "split-radix") -> list[Complex]:
    """n times the inverse transform: the forward one with parts swapped. Raises as :func:`fft` does."""
    return [z.swap() for z in fft([z.swap() for z in x], algorithm)]


def rfft(x: Sequence[Number], algorithm: str = "split-radix") -> list[Complex]:
    """Half spectrum, n // 2 + 1 points, of n real points. Raises as :func:`fft` does."""
    choose = check_algorithm(algorithm, len(x))
    return _naive([Complex(v, 0.0) for v in x], len(x) // 2 + 1) if choose is None else _rfft(x, choose)


def weighted(half: Sequence[Complex], n: int) -> list[Complex]:
    """A half spectrum times 1/n at frequencies 0 and n/2, 2/n in between: n multiplications."""
    inner = [Complex(z.re * (2 / n), z.im * (2 / n)) for z in half[1 : (n + 1) // 2]]
    ends = [Complex(half[k].re * (1 / n), 0.0) for k in ((0,) if n % 2 else (0, n // 2))]
    return [ends[0], *inner, *ends[1:]][: n // 2 + 1]


def irfft_of_weighted(half: Sequence[Complex], n: int, algorithm: str = "split-radix") -> list[Number]:
    """n real points from a half spectrum that :func:`weighted` has scaled. Raises as :func:`fft` does."""
    choose = check_algorithm(algorithm, n)
    if len(half) != n // 2 + 1:
        raise UserError(f"a half spectrum of {len(half)} points does not belong to n = {n}; it must have n // 2 + 1")
    return _naive_inverse(half, n) if choose is None else _irfft(half, n, choose)


# --- the defining sums --------------------------------------------------------------------


def _naive(x: Sequence[Complex], outputs: int) -> list[Complex]:
    n = len(x)
    return [_sum([z.turn(j * k, n) for j, z in enumerate(x)]) for k in range(outputs)]


def _sum(terms: list[Complex]) -> Complex:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _naive_inverse(half: Sequence[Complex], n: int) -> list[Number]:
    out: list[Number] = []
    for j in range(n):
        total = half[0].re
        for k, z in enumerate(half[1:], start=1):
            c, s = root(j * k, n)
            total = total + (z.re * c + z.im * s)
        out.append(total)
    return out


# --- complex data -------------------------------------------------------------------------


def _fft(x: Sequence[Complex], choose: Choose) -> list[Complex]:
    n = len(x)
    if n == 1:
        return list(x)
    r = choose(n)
    if r == _SPLIT:
        return _fft_split(x, choose)
    m, out = n // r, list(x)
    parts = [_fft(x[q::r], choose) for q in range(r)]
    for k in range(m):
        out[k::m] = _butterfly([part[k].turn(q * k, n) for q, part in enumerate(parts)])
    return out


def _smooth(x: Sequence[Complex]) -> list[Complex]:
    """The transform that Bluestein's takes twice."""
    return _fft(x, _split_radix)


def _fft_split(x: Sequence[Complex], choose: Choose) -> list[Complex]:
    n, q, out = len(x), len(x) // 4, list(x)
    even, one, three = (_fft(part, choose) for part in (x[0::2], x[1::4], x[3::4]))
    for k in range(q):
        a, b = one[k].turn(k, n), three[k].turn(3 * k, n)
        s, d = a + b, (a - b).over_i()
        out[k::q] = even[k] + s, even[k + q] + d, even[k] - s, even[k + q] - d
    return out


def _butterfly(u: Sequence[Complex], direct: int = LARGEST_DIRECT) -> list[Complex]:
    """Transform of r = 2, 4 or an odd number of points, without twiddle factors."""
    r = len(u)
    if r > direct:
        return bluestein(u, _smooth)
    if r == 2:
        return [u[0] + u[1], u[0] - u[1]]
    if r == 4:
        a, b, c, d = u[0] + u[2], u[0] - u[2], u[1] + u[3], (u[1] - u[3]).over_i()
        return [a + c, b + d, a - c, b - d]
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


def _rfft(x: Sequence[Number], choose: Choose) -> list[Complex]:
    n = len(x)
    if n == 1:
        return [Complex(x[0], 0.0)]
    r = choose(n)
    if r == n > LARGEST_DIRECT_REAL:
        first, *rest = bluestein([Complex(v, 0.0) for v in x], _smooth, n // 2 + 1)
        return [Complex(first.re, 0.0), *rest]
    if r == _SPLIT:
        return _rfft_split(x, choose)
    m, direct = n // r, LARGEST_DIRECT_REAL if r == n else LARGEST_DIRECT
    parts = [_rfft(x[q::r], choose) for q in range(r)]
    half = [Complex(0.0, 0.0)] * (n // 2 + 1)
    for k in range(m // 2 + 1):
        if 2 * k == m:
            values = _butterfly_between([part[k].re for part in parts])
        else:
            values = _butterfly([part[k].turn(q * k, n) for q, part in enumerate(parts)], direct)
        for j, value in enumerate(values):
            at = k + m * j
            if at <= n // 2:
                half[at] = value
            else:
                half[n - at] = value.conj()
    return half


def _butterfly_between(y: list[Number]) -> list[Complex]:
    """Sums of r real points with exp(-2 pi i q (j + 1/2) / r), frequencies 0 <= j <= (r - 1) / 2 alone."""
    r = len(y)
    if r == 2:
        return [Complex(y[0], -y[1])]
    if r == 4:
        s, t = (y[1] - y[3]) * SQRT_HALF, (y[1] + y[3]) * SQRT_HALF
        return [Complex(y[0] + s, -y[2] - t), Complex(y[0] - s, y[2] - t)]
    # Frequency j + 1/2 is r/2 away from the whole frequency j - (r - 1)/2, and r/2 only flips signs.
    whole = _butterfly([Complex(-v if q % 2 else v, 0.0) for q, v in enumerate(y)])
    return [whole[j - r // 2] for j in range(r // 2 + 1)]


def _rfft_split(x: Sequence[Number], choose: Choose) -> list[Complex]:
    n, q, h = len(x), len(x) // 4, len(x) // 2
    even, one, three = (_rfft(part, choose) for part in (x[0::2], x[1::4], x[3::4]))
    half = [Complex(0.0, 0.0)] * (h + 1)
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


# --- inverse, to real data: the steps above run backwards on weighted half spectra ---------


def _irfft(half: Sequence[Complex], n: int, choose: Choose) -> list[Number]:
    if n == 1:
        return [half[0].re]
    r = choose(n)
    if r == _SPLIT:
        return _irfft_split(half, n, choose)
    m = n // r
    parts: list[list[Complex]] = [[Complex(v, 0.0)] for v in _to_real([half[j * m] for j in range(r // 2 + 1)], r)]
    for k in range(1, (m + 1) // 2):
        at = [k + m * j for j in range(r)]
        whole = [(half[i] if i <= n // 2 else half[n - i].conj()).swap() for i in at]
        for q, value in enumerate(_butterfly(whole)):
            parts[q].append(value.swap().turn(-q * k, n))
    if m % 2 == 0:
        reals = _to_real_between([half[m // 2 + m * j] for j in range((r + 1) // 2)], r)
        for part, v in zip(parts, reals, strict=True):
            part.append(Complex(v, 0.0))
    out: list[Number] = [0.0] * n
    for q, part in enumerate(parts):
        out[q::r] = _irfft(part, m, choose)
    return out


def _to_real(half: list[Complex], r: int) -> list[Number]:
    """r = 2, 4 or an odd number of real points from a weighted half spectrum."""
    first = half[0].re
    if r > LARGEST_DIRECT_REAL:
        return real_parts([z.conj() for z in half] + [Complex(0.0, 0.0)] * (r - len(half)), _smooth)
    if r == 2:
        return [first + half[1].re, first - half[1].re]
    if r == 4:
        a, b = first + half[2].re, first - half[2].re
        return [a + half[1].re, b - half[1].im, a - half[1].re, b + half[1].im]
    pairs = range(1, r // 2 + 1)
    out = [first] * r
    for k in pairs:
        out[0] = out[0] + half[k].re
    for j in pairs:
        even: Number = first
        odd: Number = 0.0
        for k in pairs:
            c, s = root(j * k, r)
            even, odd = even + half[k].re * c, odd + half[k].im * s
        out[j], out[r - j] = even + odd, even - odd
    return out


def _to_real_between(z: list[Complex], r: int) -> list[Number]:
    """Undoes :func:`_butterfly_between`: r real points from the frequencies 0 <= j <= (r - 1) / 2, weighted."""
    if r == 2:
        return [z[0].re, -z[0].im]
    if r == 4:
        s, t = z[0].re - z[1].re, z[0].im + z[1].im
        return [z[0].re + z[1].re, (s - t) * SQRT_HALF, z[1].im - z[0].im, (-s - t) * SQRT_HALF]
    reals = _to_real([value.conj() for value in reversed(z)], r)
    return [-v if q % 2 else v for q, v in enumerate(reals)]


def _irfft_split(half: Sequence[Complex], n: int, choose: Choose) -> list[Number]:
    q, h = n // 4, n // 2
    a, b = half[0].re - half[h].re, -half[q].im
    even = [Complex(0.0, 0.0)] * (q + 1)
    even[0], even[q] = Complex(half[0].re + half[h].re, 0.0), Complex(half[q].re, 0.0)
    one, three = [Complex(a + b, 0.0)], [Complex(a - b, 0.0)]
    for k in range(1, (q + 1) // 2):
        even[k], even[q - k] = half[k] + half[h - k].conj(), half[q - k] + half[q + k].conj()
        s, d = half[k] - half[h - k].conj(), (half[q - k].conj() - half[q + k]).over_i()
        one.append((s + d).turn(-k, n))
        three.append((s - d).turn(-3 * k, n))
    if q % 2 == 0:
        low, high = half[q // 2], half[h - q // 2]
        even[q // 2] = Complex(low.re + high.re, low.im - high.im)
        re, im = low.re - high.re, low.im + high.im
        one.append(Complex((re - im) * SQRT_HALF, 0.0))
        three.append(Complex((-re - im) * SQRT_HALF, 0.0))
    out: list[Number] = [0.0] * n
    out[0::2] = _irfft(even, h, choose)
    out[1::4], out[3::4] = _irfft(one, q, choose), _irfft(three, q, choose)
    return out
