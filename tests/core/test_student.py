"""Quantiles of Student's t, against published tables and against draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cdvft_bench.core.student import t_value, tail


@pytest.mark.parametrize(
    ("freedom", "level", "value"),
    [
        (1, 0.95, 12.706),
        (2, 0.95, 4.303),
        (3, 0.95, 3.182),
        (4, 0.99, 4.604),
        (9, 0.90, 1.833),
        (30, 0.95, 2.042),
        (120, 0.95, 1.980),
    ],
)
def test_published_quantiles(freedom: int, level: float, value: float) -> None:
    assert t_value(freedom, level) == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize(("t", "freedom", "chance"), [(0.0, 3, 1.0), (1.0, 1, 0.5), (2.0, 2, 0.1835034190722739)])
def test_tails_that_have_a_closed_form(t: float, freedom: int, chance: float) -> None:
    assert tail(t, freedom) == tail(-t, freedom) == pytest.approx(chance, rel=1e-12)


@pytest.mark.parametrize("freedom", [1, 1.5, 4, 7.3, 40, 1234.5])
def test_quantiles_and_tails_are_scipy_s(freedom: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    for level in np.random.default_rng(int(freedom)).uniform(0.01, 0.999, 20):
        value = t_value(freedom, float(level))
        assert value == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)
        assert tail(value, freedom) == pytest.approx(1 - level, rel=1e-9)


def test_no_freedom_no_interval_and_much_is_normal() -> None:
    assert math.isinf(t_value(0))
    assert t_value(20_000) == pytest.approx(1.959964, abs=2e-4)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_an_interval_of_a_mean_covers_it_as_often_as_it_says(n: int) -> None:
    draws = np.random.default_rng(n).normal(3.0, 2.0, (4000, n))
    half = t_value(n - 1) * draws.std(axis=1, ddof=1) / math.sqrt(n)
    assert 0.935 <= np.mean(abs(draws.mean(axis=1) - 3.0) <= half) <= 0.965
