"""Equal shares are equal however they are added up, and rounding errors decide no order."""

import json
import math
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.core.ties import DIGITS, EXAMPLES, exact, mean_share, steady
from cdvft_bench.documents import write_document

counts = st.integers(1, EXAMPLES).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_a_share_is_the_fraction_it_was_divided_from(count: tuple[int, int]) -> None:
    right, examples = count
    assert exact(right / examples) == Fraction(right, examples)


@given(st.integers(0, 10**6))
def test_a_decimal_of_six_digits_is_itself(millionths: int) -> None:
    assert exact(float(f"{millionths / 1e6:.6f}")) == Fraction(millionths, 10**6)


def test_other_floats_stand_for_themselves_and_what_is_no_number_is_refused() -> None:
    assert exact(math.pi) == Fraction(math.pi)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not a finite number"):
            exact(value)
    with pytest.raises(ValueError, match="no share"):
        mean_share([])


@given(st.lists(counts, min_size=1, max_size=12), st.randoms(use_true_random=False), st.integers(1, 4))
def test_means_do_not_hang_on_order_or_repetition(found: list[tuple[int, int]], draw: random.Random, k: int) -> None:
    shares = [right / n for right, n in found]
    mean = mean_share(shares)
    assert mean == float(sum(Fraction(*count) for count in found) / len(found))
    repeated = shares * k
    draw.shuffle(repeated)
    assert mean_share(repeated) == mean


def test_sums_of_floats_break_ties_that_shares_keep() -> None:
    """The old rule, the mean of the floats, tells many pairs apart that have as many right answers."""
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(200):
        n, total = 800, int(rng.integers(300, 2100))
        pair = []
        for _ in range(2):
            first = int(rng.integers(max(0, total - 2 * n), min(n, total) + 1))
            second = int(rng.integers(max(0, total - first - n), min(n, total - first) + 1))
            pair.append([first / n, second / n, (total - first - second) / n])
        assert mean_share(pair[0]) == mean_share(pair[1])
        broken += sum(pair[0]) / 3 != sum(pair[1]) / 3
    assert broken > 20


@given(st.floats(1e-9, 1e15), st.integers(-8, 8))
def test_rounding_errors_are_no_order(value: float, steps: int) -> None:
    near = value
    for _ in range(abs(steps)):
        near = math.nextafter(near, math.copysign(math.inf, steps))
    assert steady(near) == pytest.approx(steady(value), rel=10.0 ** (1 - DIGITS))
    short = float(f"{value:.6e}")  # away from the middle between two kept values
    assert steady(short * (1 + 4e-16 * steps)) == steady(short) == short
    assert steady(short * (1 + 1e-6)) > short


@pytest.mark.parametrize("value", [0.0, -0.0, math.inf, -math.inf])
def test_steady_leaves_what_has_no_digits(value: float) -> None:
    assert steady(value) == value
    assert math.isnan(steady(math.nan))


def test_a_document_of_fits_is_the_same_where_their_last_bits_differ(tmp_path: Path) -> None:
    one, other = {"seconds": [0.1 + 0.2, 1e-300, 7]}, {"seconds": [0.3, math.nextafter(1e-300, 1), 7]}
    for name, value in (("one", one), ("other", other)):
        write_document(value, tmp_path / name, digits=6)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    write_document(one, tmp_path / "whole")
    assert json.loads((tmp_path / "whole").read_text()) == one
