"""Intervals and rank tests against exact values."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdvft_bench.timing.statistics import (
    bootstrap_median,
    bootstrap_medians,
    drift,
    half_width,
    machine_speed,
    rank_test,
)

seconds = st.lists(st.floats(1e-6, 1e3), min_size=3, max_size=30)


def exact_quantiles(values: np.ndarray) -> tuple[float, float]:
    """2.5 and 97.5 % quantiles of the median of resamples of an odd number of distinct values."""
    n, ordered = len(values), np.sort(values)
    half = (n + 1) // 2
    below = [
        sum(math.comb(n, j) * (k / n) ** j * (1 - k / n) ** (n - j) for j in range(half, n + 1)) for k in range(n + 1)
    ]
    return ordered[np.searchsorted(below, 0.025) - 1], ordered[np.searchsorted(below, 0.975) - 1]


@pytest.mark.parametrize("n", [7, 11, 25])
def test_the_bootstrap_interval_is_the_exact_one(n) -> None:
    values = np.random.default_rng(n).normal(10, 1, n)
    interval = bootstrap_median(values)
    low, high = exact_quantiles(values)
    ordered = list(np.sort(values))
    assert interval.value == np.median(values)
    assert interval.low is not None
    assert interval.high is not None
    # Resampling may miss an exact quantile that falls close to a step by one step.
    assert abs(np.searchsorted(ordered, interval.low) - ordered.index(low)) <= 1
    assert abs(np.searchsorted(ordered, interval.high) - ordered.index(high)) <= 1


@given(values=seconds, scale=st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_an_interval_holds_its_median_and_scales(values, scale) -> None:
    array = np.array(values)
    interval = bootstrap_median(array)
    assert interval.low is not None
    assert interval.high is not None
    tolerance = 1e-12 * max(values)
    assert min(values) - tolerance <= interval.low <= interval.value + tolerance
    assert interval.value - tolerance <= interval.high <= max(values) + tolerance
    scaled = bootstrap_median(array * scale)
    assert scaled.low == pytest.approx(interval.low * scale)
    assert scaled.high == pytest.approx(interval.high * scale)


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_rounds_make_no_interval(n) -> None:
    interval = bootstrap_median(np.arange(1.0, n + 1))
    assert (interval.low, interval.high) == (None, None)
    assert half_width(interval) == math.inf


def test_columns_are_resampled_together_and_the_seed_counts() -> None:
    table = np.random.default_rng(0).lognormal(size=(20, 2))
    both = bootstrap_medians(table, seed=3)
    assert both == [bootstrap_median(table[:, i], seed=3) for i in (0, 1)]
    assert bootstrap_medians(table, seed=4) != both


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
