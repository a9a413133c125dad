"""Split-radix transforms over counting numbers: values against numpy, counts against the literature's exact ones."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.split_radix import (
    LARGEST_DIRECT,
    LARGEST_DIRECT_REAL,
    count_fft,
    fft,
    rfft,
    smooth_length,
)
from cdvft_bench.counting.tallied import SQRT_HALF, Complex, FFTCount, Number, Real, Tally, root

LENGTHS = [2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 20, 24, 28, 30, 36, 48, 60, 61, 64, 77, 96, 128]


def reals(values: NDArray[np.float64], tally: Tally) -> list[Number]:
    return [Real(float(v), tally) for v in values]


def complexes(values: NDArray[np.complex128], tally: Tally) -> list[Complex]:
    return [Complex(Real(float(v.real), tally), Real(float(v.imag), tally)) for v in values]


def distance(found: list[Complex] | list[Number], expected: NDArray[np.generic]) -> float:
    values = np.array([complex(v) if isinstance(v, Complex) else float(v) for v in found])
    return float(np.linalg.norm(values - expected) / np.linalg.norm(expected))


def check_values(n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n)
    z = x + 1j * generator.normal(size=n)
    assert distance(fft(complexes(z, Tally())), np.fft.fft(z)) < 1e-13
    assert distance(rfft(reals(x, Tally())), np.fft.rfft(x)) < 1e-13


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
def test_values_at_any_length(n: int, seed: int) -> None:
    check_values(n, seed)


# 79 is transformed by a chirp, unless its data are real; 131 always; the others have such factors, or are usual widths.
@pytest.mark.parametrize("n", [79, 113, 131, 2 * 79, 4 * 127, 3 * 131, 251, 509, 384, 768, 1000, 4096])
def test_values_at_large_primes_and_the_widths_of_models(n: int) -> None:
    check_values(n, seed=n)


def test_lengths_of_convolutions() -> None:
    shortest = {k: min(q * 2**a for q in (1, 3, 5) for a in range(12) if q * 2**a >= k) for k in range(1, 1500)}
    assert {k: smooth_length(k) for k in shortest} == shortest


# --- exact counts from the literature -----------------------------------------------------


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024])
def test_split_radix_count(n: int) -> None:
    k = int(math.log2(n))
    sign = 2 * (-1) ** k
    additions, multiplications = 24 * n * k - 16 * n + 18 - sign, 12 * n * k - 38 * n + 54 + sign  # ninths
    assert count_fft(n) == FFTCount(additions // 9, multiplications // 9)
    assert count_fft(n).flops == 4 * n * k - 6 * n + 8
    assert count_fft(n, real=True).flops == 2 * n * k - 4 * n + 6


@pytest.mark.parametrize(
    ("n", "complex_count", "real_count"),
    [(2, (4, 0), (2, 0)), (3, (12, 4), (4, 2)), (4, (16, 0), (6, 0)), (5, (32, 16), (12, 8))],
)
def test_small_transforms(n: int, complex_count: tuple[int, int], real_count: tuple[int, int]) -> None:
    assert count_fft(n) == FFTCount(*complex_count)
    assert count_fft(n, real=True) == FFTCount(*real_count)


@pytest.mark.parametrize(("n", "length"), [(131, 320), (257, 640), (509, 1024)])
def test_bluestein_count(n: int, length: int) -> None:
    """Two transforms of the longer length, its products with the chirp's spectrum, and 2 (n - 1) with the chirp."""
    assert smooth_length(2 * n - 1) == length
    chirps, products, transforms = 2 * (n - 1) * 6, length * 6, 2 * count_fft(length).flops
    free = chirps + products + transforms - count_fft(n).flops
    assert 0 <= free <= 0.01 * count_fft(n).flops  # a few entries of a chirp and of its spectrum are 1, -1 or alike
    assert transforms + products < count_fft(n, real=True).flops < count_fft(n).flops


def test_a_chirp_takes_over_where_it_takes_less() -> None:
    def sums(r: int) -> int:  # (r - 1)^2 / 2 products of real and imaginary parts, and as many sums, and 4 (r - 1)
        return 2 * (r - 1) ** 2 + 4 * (r - 1)

    assert count_fft(LARGEST_DIRECT).flops == sums(LARGEST_DIRECT)
    assert count_fft(79).flops < sums(79)
    assert count_fft(LARGEST_DIRECT_REAL, real=True).flops < sums(LARGEST_DIRECT_REAL) / 2
    assert count_fft(127, real=True).flops < sums(127) / 2


def test_two_real_transforms_and_their_parting_make_one_complex() -> None:
    for n in LENGTHS:
        parting = 2 * (n - 2 if n % 2 == 0 else n - 1)
        assert count_fft(n).flops == 2 * count_fft(n, real=True).flops + parting


def inverse(half: list[Complex], n: int) -> list[Number]:
    """``rfft`` of 2^k points run backwards, on a half spectrum weighted by 1/n at its ends and by 2/n in between."""
    if n == 1:
        return [half[0].re]
    if n == 2:
        return [half[0].re + half[1].re, half[0].re - half[1].re]
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
    out[0::2] = inverse(even, h)
    out[1::4], out[3::4] = inverse(one, q), inverse(three, q)
    return out


@pytest.mark.parametrize("n", [2, 4, 8, 16, 64, 256])
def test_an_inverse_takes_what_its_forward_takes(n: int) -> None:
    x = np.random.default_rng(n).normal(size=n)
    weighted = np.fft.rfft(x) * np.where(np.arange(n // 2 + 1) % (n // 2) == 0, 1 / n, 2 / n)
    tally = Tally()
    half = complexes(weighted, tally)
    for k in (0, n // 2):
        half[k] = Complex(half[k].re, 0.0)
    assert distance(inverse(half, n), x) < 1e-13
    assert tally.count() == count_fft(n, real=True)


def test_the_count_does_not_depend_on_the_data() -> None:
    def spent(values: NDArray[np.float64]) -> FFTCount:
        tally = Tally()
        rfft(reals(values, tally))
        return tally.count()

    special = np.array([0.0, 1.0, -1.0, 0.0, 2.0, 0.5, 1.0, 1.0])
    assert spent(special) == spent(np.random.default_rng(0).normal(size=8)) == count_fft(8, real=True)


def test_a_length_that_is_refused() -> None:
    with pytest.raises(UserError, match="n = 0"):
        count_fft(0)


# --- numbers that count -------------------------------------------------------------------


def test_constants_that_change_nothing_are_free_and_the_rest_counts() -> None:
    tally = Tally()
    a, b = Real(3.0, tally), Real(0.0, tally)
    assert [float(v) for v in (a + 0.0, 0.0 + a, a - 0.0, 0.0 - a, a * 1, a * -1, -a)] == [3, 3, 3, -3, 3, -3, -3]
    assert a * 0.0 == 0.0
    assert tally.count() == FFTCount(0, 0)
    assert [float(v) for v in (a + b, a - b, 2.0 + a, a - 2.0, 2.0 - a)] == [3, 3, 5, 1, -1]
    assert [float(v) for v in (a * b, a * 2.0, 0.5 * a)] == [0, 6, 1.5]
    assert tally.count() == FFTCount(5, 3)


def test_products_with_roots_of_unity() -> None:
    for n in (1, 2, 4, 8, 12, 7):
        for k in range(-n, 2 * n):
            tally = Tally()
            z = Complex(Real(0.3, tally), Real(-1.7, tally))
            assert abs(complex(z.turn(k, n)) - complex(z) * np.exp(-2j * np.pi * k / n)) < 1e-14
            quarter, eighth = 4 * k % n == 0, 8 * k % n == 0
            assert tally.count() == (FFTCount(0, 0) if quarter else FFTCount(2, 2) if eighth else FFTCount(2, 4))
    assert root(1, 4) == (0.0, -1.0)
