"""One rule for the side on which an interval lies."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.core.interval import Interval

FIGURES = st.floats(-1e6, 1e6)


def test_an_interval_beyond_the_figure_is_on_a_side_and_one_that_holds_it_is_not() -> None:
    assert Interval(1.2, 1.1, 1.3).side() == "above"
    assert Interval(0.8, 0.7, 0.9).side() == "below"
    assert Interval(1.02, 0.99, 1.05).side() == "undecided"
    assert Interval(1.2, 1.1, 1.3).side(margin=0.15) == "undecided"
    assert Interval(-2.0, -3.0, -1.0).side(of=0.0) == "below"
    assert Interval(1.0, 1.0, 1.1).side() == "undecided"


def test_an_estimate_without_an_interval_is_undecided_and_infinitely_wide() -> None:
    assert Interval(7.0).side() == "undecided"
    assert Interval(7.0).half_width == math.inf
    assert Interval(7.0).bounds is None
    assert Interval(1.0).within(0.0, 2.0) is None


@given(FIGURES, FIGURES, FIGURES)
def test_a_side_is_the_mirror_of_the_other(a: float, b: float, of: float) -> None:
    low, high = min(a, b), max(a, b)
    mirrored = {"above": "below", "below": "above", "undecided": "undecided"}
    assert Interval(-low, -high, -low).side(-of) == mirrored[Interval(low, low, high).side(of)]


def test_another_unit_keeps_the_relative_width() -> None:
    ms = Interval(0.5, 0.25, 0.75).scaled(1000)
    assert ms == Interval(500.0, 250.0, 750.0)
    assert ms.half_width == 0.5
    assert Interval(2.0).scaled(3) == Interval(6.0)


def test_a_range_is_met_missed_or_undecided() -> None:
    assert Interval(1.0, 0.9, 1.1).within(0.8, 1.2) is True
    assert Interval(1.0, 0.9, 1.1).within(1.2, 1.3) is False
    assert Interval(1.0, 0.9, 1.1).within(1.05, 1.3) is None
    assert Interval(1.0, -math.inf, math.inf).within(0.0, math.inf) is None


def test_a_quotient_s_logarithms_add_up_as_squares() -> None:
    rng = random.Random()
    a, b, da, db = (rng.uniform(0.1, 3) for _ in range(4))
    one, other = (Interval(v, v / math.exp(d), v * math.exp(d)) for v, d in ((a, da), (b, db)))
    found = one.over(other)
    assert found.value == pytest.approx(a / b)
    assert found.low is not None
    assert found.high is not None
    for bound in (found.low, found.high):
        assert abs(math.log(bound / found.value)) == pytest.approx(math.hypot(da, db))
    assert one.over(Interval(b)) == Interval(a / b)
    assert Interval(1.0, -0.1, 2.0).over(other) == Interval(1 / b)


def test_the_inverse_turns_the_bounds_round() -> None:
    assert Interval(2.0, 1.0, 4.0).inverse() == Interval(0.5, 0.25, 1.0)
    assert Interval(2.0).inverse() == Interval(0.5)
