"""Intervals and rank tests against exact values."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdvft_bench.core.interval import LEAST_ROUNDS, Interval
from cdvft_bench.timing.statistics import (
    Looks,
    _depth,
    drift,
    lag1,
    machine_speed,
    median_interval,
    rank_test,
    ratio_interval,
)

seconds = st.lists(st.floats(1e-6, 1e3), min_size=LEAST_ROUNDS, max_size=30)


@pytest.mark.parametrize("n", [5, 6, 9, 10, 17, 25, 60])
def test_the_depth_is_that_of_the_sign_test(n: int) -> None:
    """Of the chances by which the ordered values hold the median, the least that is 95 % or more."""
    depth = _depth(n)
    outside = [2 * sum(math.comb(n, k) for k in range(d)) / 2**n for d in range(n // 2 + 2)]
    assert depth == 1 or outside[depth] <= 0.05
    assert outside[depth + 1] > 0.05


@given(values=seconds, scale=st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_an_interval_holds_its_median_and_scales(values: list[float], scale: float) -> None:
    array = np.array(values)
    found = median_interval(array)
    assert found.value == np.median(array)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low <= found.value * (1 + 1e-12)
    assert found.value * (1 - 1e-12) <= found.high
    scaled = median_interval(array * scale)
    assert scaled.low == pytest.approx(found.low * scale)
    assert scaled.high == pytest.approx(found.high * scale)
    turned = median_interval(1 / array) if len(array) % 2 else found.inverse()
    assert turned.low == pytest.approx(1 / found.high)


def test_differences_are_stretched_by_their_own_size() -> None:
    values = np.random.default_rng().uniform(-9, 0, 20)  # never an interval above zero, which is a ratio's
    found, shifted = median_interval(values), median_interval(values - 100)
    assert found.low is not None
    assert shifted.low == pytest.approx(found.low - 100)


@pytest.mark.parametrize("n", range(1, LEAST_ROUNDS))
def test_fewer_than_five_rounds_make_no_interval(n: int) -> None:
    values = np.arange(1.0, n + 1)
    assert median_interval(values) == Interval(float(np.median(values)))
    assert median_interval(values).half_width == math.inf
    assert lag1(values) is None


def test_rounds_that_resemble_their_neighbours_say_less() -> None:
    mixed = np.random.default_rng(3).permutation(np.linspace(1, 1.1, 40))
    ordered = np.sort(mixed)
    assert abs(lag1(mixed) or 0.0) < 0.35
    assert (lag1(ordered) or 0.0) > 0.9
    assert lag1(np.full(9, 2.0)) is None
    assert median_interval(ordered).half_width > 2 * median_interval(mixed).half_width


def test_the_lag_one_correlation_is_that_of_the_draws() -> None:
    rng = np.random.default_rng()
    for r in (0.0, 0.3, 0.6):
        values = rng.standard_normal(4000)
        for i in range(1, len(values)):
            values[i] = r * values[i - 1] + math.sqrt(1 - r * r) * values[i]
        found = lag1(values)
        assert found is not None
        # Spearman's of Pearson's, and five standard errors.
        assert found == pytest.approx(6 / math.pi * math.asin(r / 2), abs=0.08)


def test_three_processes_make_an_interval_of_their_own() -> None:
    rng = np.random.default_rng()
    own = [1.0, 1.1, 1.21]
    processes = [ratio * np.exp(1e-6 * rng.standard_normal(9)) for ratio in own]
    found = ratio_interval(processes)
    assert found.value == pytest.approx(1.1, rel=1e-5)
    expected = 4.302653 * math.log(1.1) / math.sqrt(3)
    assert found.low == pytest.approx(1.1 * math.exp(-expected), rel=1e-4)
    assert found.high == pytest.approx(1.1 * math.exp(expected), rel=1e-4)
    two = ratio_interval(processes[:2])
    assert two == median_interval(np.concatenate(processes[:2]))
    assert two.within(0.9, 1.2) is not False
    assert ratio_interval([np.array([1.0]), np.array([2.0]), np.array([3.0])]).bounds is None  # three rounds in all


def test_looks_need_two_narrow_intervals_apart() -> None:
    table = np.random.default_rng(0).lognormal(0, 0.001, (200, 2))
    looks, rounds = Looks(0.05), 1
    while not (looks.due(rounds) and looks.enough(table[:rounds])):
        rounds += 1
    assert rounds == 15  # narrow at the first look, at 10 rounds, and at the second
    wide = Looks(1e-9)
    seen = [n for n in range(1, 60) if wide.due(n) and not wide.enough(table[:n])]
    assert seen == [10, 13, 17, 22, 28, 35, 44, 55]


def rank_sums(first: list[float], last: list[float]) -> np.ndarray:
    """The rank statistic, less its mean, of every split of the values; the given split comes first."""
    values = first + last

    def statistic(chosen: tuple[int, ...]) -> float:
        rest = [values[i] for i in range(len(values)) if i not in chosen]
        return sum((values[i] > r) + (values[i] == r) / 2 for i in chosen for r in rest) - len(chosen) * len(rest) / 2

    return np.array([statistic(c) for c in combinations(range(len(values)), len(first))])


@pytest.mark.parametrize("seed", range(6))
def test_the_rank_test_is_close_to_the_exact_one(seed) -> None:
    rng = np.random.default_rng(seed)
    first = list(rng.integers(0, 30, 6) * 1.0)
    last = list(rng.integers(0, 30, 6) + 6.0 * seed)
    every = np.abs(rank_sums(first, last))
    exact = (every >= every[0] - 1e-9).mean()
    assert rank_test(np.array(first), np.array(last)) == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_the_rank_test_uses_the_exact_variance_under_ties(seed) -> None:
    rng = np.random.default_rng(seed)
    first, last = list(rng.integers(0, 3, 6) * 1.0), list(rng.integers(0, 3, 5) * 1.0)
    every = rank_sums(first, last)
    expected = math.erfc(abs(every[0]) / math.sqrt(2 * every.var()))
    assert rank_test(np.array(first), np.array(last)) == pytest.approx(expected)


def test_the_rank_test_of_equal_values_finds_nothing() -> None:
    assert rank_test(np.full(9, 2.0), np.full(9, 2.0)) == 1.0


def test_drift_needs_rounds_size_and_significance() -> None:
    steady = np.tile([1.0, 1.1, 0.9, 1.05, 0.95], 6)
    assert drift(steady, 0.05) is None
    grown = steady * np.linspace(1, 1.5, 30)
    found = drift(grown, 0.05)
    assert found is not None
    change, p = found
    assert 0.2 < change < 0.5
    assert p < 0.01
    assert drift(grown, 0.5) is None
    assert drift(np.linspace(1, 2, 14), 0.05) is None
    assert drift(np.linspace(1, 2, 15), 0.05) is not None


def test_machine_speed_is_what_contenders_share() -> None:
    shared = np.random.default_rng(1).lognormal(sigma=0.2, size=21)
    table = shared[:, None] * np.array([1e-3, 5.0, 70.0])
    assert machine_speed(table) == pytest.approx(shared / np.median(shared))
