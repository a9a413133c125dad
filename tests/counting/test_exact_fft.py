"""FFTs over counting numbers: values against numpy, counts against the literature's exact ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.fft.algorithms import (
    LARGEST_DIRECT,
    LARGEST_DIRECT_REAL,
    NAIVE_LIMIT,
    fft,
    ifft,
    irfft_of_weighted,
    rfft,
    weighted,
)
from cdvft_bench.counting.fft.bluestein import smooth_length
from cdvft_bench.counting.fft.exact import (
    ALGORITHMS,
    FFTCount,
    circulant_product,
    circulant_product_count,
    compare_with_convention,
    count_fft,
)
from cdvft_bench.counting.tallied import Complex, Number, Real, Tally, root

FAST = [a for a in ALGORITHMS if a != "naive"]
LENGTHS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 20, 24, 28, 30, 36, 48, 60, 61, 64, 77, 96, 128]
POWERS = [4, 8, 16, 32, 64, 128, 256, 512, 1024]


def takes(algorithm: str, n: int) -> bool:
    return algorithm != "radix-2" or n & (n - 1) == 0


def reals(values: NDArray[np.float64], tally: Tally) -> list[Number]:
    return [Real(float(v), tally) for v in values]


def complexes(values: NDArray[np.complex128], tally: Tally) -> list[Complex]:
    return [Complex(Real(float(v.real), tally), Real(float(v.imag), tally)) for v in values]


def distance(found: list[Complex] | list[Number] | list[float], expected: NDArray[np.generic]) -> float:
    values = np.array([complex(v) if isinstance(v, Complex) else float(v) for v in found])
    return float(np.linalg.norm(values - expected) / np.linalg.norm(expected))


def check_values(algorithm: str, n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n)
    z = x + 1j * generator.normal(size=n)
    assert distance(fft(complexes(z, Tally()), algorithm), np.fft.fft(z)) < 1e-13
    assert distance(ifft(complexes(z, Tally()), algorithm), n * np.fft.ifft(z)) < 1e-13
    half = rfft(reals(x, Tally()), algorithm)
    assert distance(half, np.fft.rfft(x)) < 1e-13
    assert distance(irfft_of_weighted(weighted(half, n), n, algorithm), x) < 1e-13


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_values_are_those_of_numpy(algorithm: str) -> None:
    for n in filter(lambda n: takes(algorithm, n), LENGTHS):
        check_values(algorithm, n, seed=n)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 300), seed=st.integers(0, 2**32 - 1))
def test_values_at_any_length(n: int, seed: int) -> None:
    for algorithm in ("mixed-radix", "split-radix"):
        check_values(algorithm, n, seed)


@pytest.mark.parametrize("n", [384, 768, 1000, 4096])
def test_values_at_the_widths_of_models(n: int) -> None:
    check_values("split-radix", n, seed=1)
    check_values("mixed-radix", n, seed=2)


# 79 is transformed by a chirp, unless its data are real; 131 always; the others have such factors.
@pytest.mark.parametrize("n", [79, 113, 131, 2 * 79, 4 * 127, 3 * 131, 251, 509])
def test_values_at_large_primes(n: int) -> None:
    check_values("split-radix", n, seed=n)
    check_values("mixed-radix", n, seed=n)


def test_lengths_of_convolutions() -> None:
    shortest = {k: min(q * 2**a for q in (1, 3, 5) for a in range(12) if q * 2**a >= k) for k in range(1, 1500)}
    assert {k: smooth_length(k) for k in shortest} == shortest


# --- exact counts from the literature -----------------------------------------------------


@pytest.mark.parametrize(("n", "length"), [(131, 320), (257, 640), (509, 1024)])
def test_bluestein_count(n: int, length: int) -> None:
    """Two transforms of the longer length, its products with the chirp's spectrum, and 2 (n - 1) with the chirp."""
    assert smooth_length(2 * n - 1) == length
    chirps, products, transforms = 2 * (n - 1) * 6, length * 6, 2 * count_fft(length).flops
    free = chirps + products + transforms - count_fft(n).flops
    assert 0 <= free <= 0.01 * count_fft(n).flops  # a few entries of a chirp and of its spectrum are 1, -1 or alike
    real, inverse = count_fft(n, real=True), count_fft(n, real=True, inverse=True)
    assert transforms + products < real.flops < count_fft(n).flops
    assert transforms + products < inverse.flops < count_fft(n).flops


def test_a_chirp_takes_over_where_it_takes_less() -> None:
    def sums(r: int) -> int:  # (r - 1)^2 / 2 products of real and imaginary parts, and as many sums, and 4 (r - 1)
        return 2 * (r - 1) ** 2 + 4 * (r - 1)

    assert count_fft(LARGEST_DIRECT).flops == sums(LARGEST_DIRECT)
    assert count_fft(79).flops < sums(79)
    assert count_fft(LARGEST_DIRECT_REAL, real=True).flops < sums(LARGEST_DIRECT_REAL) / 2
    assert count_fft(127, real=True).flops < sums(127) / 2


@pytest.mark.parametrize("n", POWERS)
def test_radix_2_count(n: int) -> None:
    assert count_fft(n, "radix-2").flops == 5 * n * math.log2(n) - 10 * n + 16
    assert count_fft(n, "radix-2", real=True).flops == 2.5 * n * math.log2(n) - 6 * n + 10


@pytest.mark.parametrize("n", [4, 16, 64, 256, 1024])
def test_mixed_radix_of_a_power_of_four_is_radix_4(n: int) -> None:
    assert 12 * count_fft(n, "mixed-radix").flops == 51 * n * math.log2(n) - 86 * n + 128


@pytest.mark.parametrize("n", [2, *POWERS])
def test_split_radix_count(n: int) -> None:
    k = int(math.log2(n))
    sign = 2 * (-1) ** k
    additions, multiplications = 24 * n * k - 16 * n + 18 - sign, 12 * n * k - 38 * n + 54 + sign  # ninths
    assert count_fft(n, "split-radix") == FFTCount(additions // 9, multiplications // 9)
    assert count_fft(n, "split-radix").flops == 4 * n * k - 6 * n + 8
    assert count_fft(n, "split-radix", real=True).flops == 2 * n * k - 4 * n + 6


@pytest.mark.parametrize(
    ("n", "complex_count", "real_count"),
    [(2, (4, 0), (2, 0)), (3, (12, 4), (4, 2)), (4, (16, 0), (6, 0)), (5, (32, 16), (12, 8))],
)
def test_small_transforms(n: int, complex_count: tuple[int, int], real_count: tuple[int, int]) -> None:
    assert count_fft(n, "mixed-radix") == FFTCount(*complex_count)
    assert count_fft(n, "mixed-radix", real=True) == FFTCount(*real_count)


def test_naive_count_without_void_products() -> None:
    # n = 3: four complex products by general constants, six complex sums.
    assert count_fft(3, "naive") == FFTCount(4 * 2 + 6 * 2, 4 * 4)
    # n = 8 has quarter turns, free, and odd eighths: rows 1, 3, 5, 7 hold four of these each.
    assert count_fft(8, "naive") == FFTCount(8 * 7 * 2 + 16 * 2, 16 * 2)


@pytest.mark.parametrize("algorithm", FAST)
def test_two_real_transforms_and_their_parting_make_one_complex(algorithm: str) -> None:
    for n in filter(lambda n: takes(algorithm, n), LENGTHS[1:]):
        parting = 2 * (n - 2 if n % 2 == 0 else n - 1)
        assert count_fft(n, algorithm).flops == 2 * count_fft(n, algorithm, real=True).flops + parting


@pytest.mark.parametrize("algorithm", FAST)
def test_an_inverse_takes_what_its_forward_takes(algorithm: str) -> None:
    for n in filter(lambda n: takes(algorithm, n), [*LENGTHS, 384]):
        for real in (False, True):
            assert count_fft(n, algorithm, real, inverse=True) == count_fft(n, algorithm, real)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_count_does_not_depend_on_the_data(algorithm: str) -> None:
    def spent(values: NDArray[np.float64]) -> FFTCount:
        tally = Tally()
        rfft(reals(values, tally), algorithm)
        return tally.count()

    special = np.array([0.0, 1.0, -1.0, 0.0, 2.0, 0.5, 1.0, 1.0])
    assert spent(special) == spent(np.random.default_rng(0).normal(size=8)) == count_fft(8, algorithm, real=True)


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


# --- prices and products ------------------------------------------------------------------


def test_comparison_with_rules_of_thumb() -> None:
    rows = {(r.algorithm, r.rule): r for r in compare_with_convention(4096)}
    assert rows["split-radix", "5 n log2 n"].ratio == (4 * 4096 * 12 - 6 * 4096 + 8) / (5 * 4096 * 12)
    assert rows["split-radix", "n log2 n"].ratio == 172040 / (4096 * 12)
    assert {r.algorithm for r in compare_with_convention(768, real=True)} == {"mixed-radix", "split-radix"}
    assert {r.rule for r in compare_with_convention(768, real=True)} == {"2.5 n log2 n", "n log2 n"}
    assert {r.algorithm for r in compare_with_convention(64)} == set(ALGORITHMS)
    # The defining sums cost more than the rule by far, every fast algorithm less.
    for row in compare_with_convention(64):
        assert row.rule == "n log2 n" or (row.ratio > 10) == (row.algorithm == "naive")


def circulant(c: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.roll(c, s) for s in range(len(c))], axis=1)


@pytest.mark.parametrize("p", [1, 2, 3, 4, 5, 12, 16, 30, 96, 384])
def test_circulant_product(p: int) -> None:
    generator = np.random.default_rng(p)
    c, x = generator.normal(size=p), generator.normal(size=p)
    for algorithm in ALGORITHMS:
        if not takes(algorithm, p) or (algorithm == "naive" and p > 96):
            continue
        y, count = circulant_product(c.tolist(), x.tolist(), algorithm)
        assert distance(y, circulant(c) @ x) < 1e-12
        assert count == circulant_product_count(p, algorithm)


@pytest.mark.parametrize("p", [8, 64, 1024])
def test_circulant_product_count(p: int) -> None:
    count, transform = circulant_product_count(p), count_fft(p, real=True)
    assert count.transform_c == count.transform_x == count.inverse == transform
    assert count.weights == FFTCount(0, p)
    assert count.product == FFTCount(2 * (p // 2 - 1), 4 * (p // 2 - 1) + 2)
    assert count.given_spectrum.flops == 2 * transform.flops + 3 * p - 4
    assert count.whole.flops == 3 * transform.flops + 4 * p - 4


# --- errors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "algorithm", "word"),
    [
        (0, "split-radix", "n = 0"),
        (12, "radix-2", "powers of two"),
        (8, "radix-3", "'radix-3'"),
        (NAIVE_LIMIT + 1, "naive", "n <= 512"),
    ],
)
def test_lengths_and_names_that_are_refused(n: int, algorithm: str, word: str) -> None:
    with pytest.raises(UserError, match=word):
        count_fft(n, algorithm)
    with pytest.raises(UserError, match=word):
        circulant_product_count(n, algorithm)


def test_mismatched_inputs_are_refused() -> None:
    with pytest.raises(UserError, match="n >= 2"):
        compare_with_convention(1)
    with pytest.raises(UserError, match="4 entries and x 5"):
        circulant_product([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0])
    with pytest.raises(UserError, match="half spectrum of 4 points"):
        irfft_of_weighted([Complex(1.0, 2.0)] * 4, 8)
