"""Student's t against published tables and scipy, and intervals that hold as often as they say."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdvft_bench.core.interval import LEAST_SEEDS, Interval
from cdvft_bench.core.student import half_width, joint_freedom, mean_interval, t_value, tail


@pytest.mark.parametrize(
    ("freedom", "confidence", "value"),
    [
        (1, 0.95, 12.706),
        (2, 0.95, 4.303),
        (3, 0.95, 3.182),
        (4, 0.99, 4.604),
        (9, 0.90, 1.833),
        (30, 0.95, 2.042),
        (120, 0.95, 1.980),
        (math.inf, 0.95, 1.960),
    ],
)
def test_published_quantiles(freedom: float, confidence: float, value: float) -> None:
    assert t_value(freedom, confidence) == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize(("t", "freedom", "chance"), [(0.0, 3, 1.0), (1.0, 1, 0.5), (2.0, 2, 0.1835034190722739)])
def test_tails_that_have_a_closed_form(t: float, freedom: int, chance: float) -> None:
    assert tail(t, freedom) == tail(-t, freedom) == pytest.approx(chance, rel=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.floats(0.3, 1e6), st.floats(-1e3, 1e3))
def test_tails_are_scipy_s(freedom: float, t: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert tail(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-6, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.floats(0.5, 9_999), st.floats(0.0, 0.9999))
def test_quantiles_are_scipy_s_and_give_their_tail(freedom: float, confidence: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    value = t_value(freedom, confidence)
    assert value == pytest.approx(stats.t.ppf((1 + confidence) / 2, freedom), rel=1e-7, abs=1e-9)
    assert tail(value, freedom) == pytest.approx(1 - confidence, rel=1e-9)


def test_no_freedom_no_interval_and_much_is_the_normal_distribution() -> None:
    assert math.isinf(t_value(0))
    assert t_value(math.inf) == pytest.approx(1.959963984540054, rel=1e-9)
    assert t_value(9_999.0) == pytest.approx(t_value(10_001.0), rel=1e-7)
    assert tail(1.959963984540054, math.inf) == pytest.approx(0.05)


@pytest.mark.parametrize("n", [3, 6])
def test_an_interval_of_a_mean_covers_it_as_often_as_it_says(n: int) -> None:
    draws = np.random.default_rng(n).normal(3.0, 2.0, (4000, n))
    assert 0.935 <= np.mean([mean_interval(values).within(3.0, 3.0) is not False for values in draws]) <= 0.965


def test_the_interval_of_a_mean_is_the_textbook_s() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = random.Random()
    values = [rng.gauss(3, 2) for _ in range(rng.randint(LEAST_SEEDS, 12))]
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_too_few_draws_make_no_interval() -> None:
    assert mean_interval([3.0]) == Interval(3.0)
    assert mean_interval([3.0, 5.0]) == Interval(4.0)
    assert mean_interval([3.0, 5.0], least=2).low == pytest.approx(4 - 12.7062047)
    with pytest.raises(ValueError, match="no value"):
        mean_interval([])
    assert mean_interval([2.0] * 3) == Interval(2.0, 2.0, 2.0)


VARIANCES = st.lists(st.tuples(st.floats(0, 1e3), st.integers(1, 2000)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(VARIANCES)
def test_joint_degrees_of_freedom_give_the_root_of_the_sum_of_squares(parts: list[tuple[float, int]]) -> None:
    freedom = joint_freedom(parts)
    degrees = [f for _, f in parts]
    assert min(degrees) <= freedom <= max(degrees)
    total = math.sqrt(math.fsum(v for v, _ in parts))
    squares = math.fsum(half_width(math.sqrt(v), f) ** 2 for v, f in parts)
    assert half_width(total, freedom) == pytest.approx(math.sqrt(squares), rel=1e-5, abs=1e-12)
