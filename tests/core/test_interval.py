"""One rule for the side on which an interval lies."""

import math

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
    assert not Interval(1.0).within(0.0, 2.0)


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
