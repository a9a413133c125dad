"""Laws are judged by fits over a range; what obeys them passes, what does not fails."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.claims.ledger.figures import Figure, Outcome
from cdvft_bench.claims.ledger.fits import fit, slope
from cdvft_bench.claims.ledger.laws import (
    Absent,
    AtMost,
    Equals,
    Exponent,
    Identity,
    Law,
    Linear,
    NLogN,
    Present,
    Ratio,
)

WIDTHS = (64, 96, 128, 256, 384, 512, 1024, 2048)


def curve(law: Law, values: list[float], tolerance: float, xs: tuple[int, ...] = WIDTHS) -> Outcome:
    return law.judge([Figure((y,), x=float(x)) for x, y in zip(xs, values, strict=True)], tolerance)


@given(a=st.floats(0.1, 1e6), b=st.floats(0.1, 1e6))
def test_n_log_n_passes_and_is_no_line_and_no_square(a: float, b: float) -> None:
    values = [a * n * math.log2(n) + b * n for n in WIDTHS]
    assert curve(NLogN(), values, 0.01).holds
    squares = [a * n * n + b * n for n in WIDTHS]
    # b n hides a n^2 only where it is a thousand times larger on the whole range.
    assert not curve(NLogN(), squares, 0.01).holds or a * WIDTHS[-1] < 0.1 * b
    assert not curve(Linear(), squares, 0.01).holds or a * WIDTHS[-1] < 0.1 * b


@given(a=st.floats(0.1, 1e6), b=st.floats(0, 1e6))
def test_a_line_passes(a: float, b: float) -> None:
    outcome = curve(Linear(), [a * n + b for n in WIDTHS], 0.001)
    assert outcome.holds
    assert outcome.miss == 0


def test_n_log_n_is_no_line() -> None:
    assert not curve(Linear(), [n * math.log2(n) for n in WIDTHS], 0.01).holds


def test_a_small_square_term_is_found() -> None:
    values = [20 * n * math.log2(n) + 0.05 * n * n for n in WIDTHS]
    outcome = curve(NLogN(), values, 0.05)
    assert not outcome.holds
    assert "n^2 term beside it makes 32 %" in outcome.text
    share = 0.05 * 2048**2 / values[-1]
    assert share == pytest.approx(0.318, abs=0.002)


def test_noise_that_hides_a_square_settles_nothing() -> None:
    noise = np.random.default_rng(3).uniform(0.7, 1.3, len(WIDTHS))
    values = [n * math.log2(n) * e for n, e in zip(WIDTHS, noise, strict=True)]
    outcome = curve(NLogN(), values, 0.3)
    assert not outcome.holds
    assert "fits within 27 %" in outcome.text


@given(exponent=st.floats(-2, 3), scale=st.floats(1e-3, 1e6))
def test_exponents(exponent: float, scale: float) -> None:
    values = [scale * n**exponent for n in WIDTHS]
    assert curve(Exponent(expected=(exponent,)), values, 0.01).holds
    assert not curve(Exponent(expected=(exponent + 0.1,)), values, 0.01).holds


def test_an_exponent_needs_a_narrow_interval() -> None:
    noise = np.random.default_rng(0).uniform(0.5, 2.0, len(WIDTHS))
    values = [n * e for n, e in zip(WIDTHS, noise, strict=True)]
    outcome = curve(Exponent(expected=(1.0,)), values, 0.1)
    assert not outcome.holds
    assert "[" in outcome.text


def test_a_zero_among_the_figures_is_no_law() -> None:
    for law in (Exponent(expected=(1.0,)), Linear(), NLogN()):
        outcome = curve(law, [0.0, *map(float, WIDTHS[1:])], 0.5)
        assert not outcome.holds
        assert math.isinf(outcome.miss)


def test_the_interval_of_a_slope_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        y = [n**1.5 * math.exp(e) for n, e in zip(WIDTHS, generator.normal(0, 0.1, len(WIDTHS)), strict=True)]
        fitted = slope(WIDTHS, y)
        hits += abs(fitted.coefficients[0] - 1.5) <= fitted.half_widths[0]
    assert 0.92 <= hits / 400 <= 0.98


def test_a_fit_finds_the_coefficients() -> None:
    generator = np.random.default_rng(2)
    a, b, c = generator.uniform(1, 5, 3)
    fitted = fit(("n^2", "n log n", "1"), WIDTHS, [a * n * n + b * n * math.log2(n) + c for n in WIDTHS])
    assert fitted.coefficients == pytest.approx((a, b, c), rel=1e-6)
    assert fitted.residual < 1e-12


def one(law: Law, value: float | tuple[float, ...], against: float | None = None, tolerance: float = 0.0) -> Outcome:
    values = value if isinstance(value, tuple) else (value,)
    return law.judge([Figure(values, None if against is None else (against,))], tolerance)


def test_ratios() -> None:
    printed = Ratio(expected=(5.33,), digits=2)
    assert one(printed, 16.0, 3.0).holds
    assert not one(printed, 16.1, 3.0).holds
    assert one(Ratio(expected=(5.0,)), 10.2, 2.0, tolerance=0.03).holds
    assert not one(Ratio(expected=(5.0,)), 10.2, 2.0, tolerance=0.01).holds
    either = Ratio(expected=(51.81, 51.89), digits=2)
    assert one(either, 51.886, 1.0).holds
    assert not one(either, 51.85, 1.0).holds
    assert one(Ratio(low=0.5, high=2.0), 1.9, 1.0).holds
    beyond = one(Ratio(low=0.5, high=2.0), 3.0, 1.0)
    assert not beyond.holds
    assert beyond.miss == pytest.approx(0.5)
    assert one(Ratio(low=0.5), 0.25, 1.0).miss == pytest.approx(-0.5)
    assert math.isinf(one(Ratio(high=2.0), 3.0, 0.0).miss)


def test_single_figures() -> None:
    assert one(Equals(expected=(1, 2, 0)), (1.0, 2.0, 0.0)).holds
    assert not one(Equals(expected=(1, 2, 0)), (1.0, 0.0, 2.0)).holds
    assert one(AtMost(expected=(3.0,)), 3.0).holds
    assert one(AtMost(expected=(3.0,)), 4.5).miss == pytest.approx(0.5)
    assert one(Absent(fraction=0.5), 0.49).holds
    assert not one(Absent(fraction=0.5), 0.5).holds
    assert one(Present(), 1.0).holds
    assert not one(Present(), 0.9).holds
    assert one(Identity(), 1e-13, tolerance=1e-12).holds
    assert not one(Identity(), 1e-11, tolerance=1e-12).holds


def test_a_figure_at_the_bound_is_within_it() -> None:
    """Ten per cent off is within 10 %: 1.1 - 1 is more than 0.1 by its last bit."""
    assert 1.1 / 1.0 - 1 > 0.1
    for tenths in range(1, 10):
        bound = 1 + tenths / 10
        tolerance = tenths / 10
        assert one(AtMost(expected=(1.0,)), bound, tolerance=tolerance).holds
        assert one(Equals(expected=(1.0,)), bound, tolerance=tolerance).holds
        assert one(Equals(expected=(1.0,)), 2 - bound, tolerance=tolerance).holds
        assert one(Ratio(expected=(1.0,)), 3 * bound, 3.0, tolerance=tolerance).holds
        assert one(Ratio(high=bound), 3 * bound * (1 + 1e-15), 3.0).holds
        assert one(Ratio(low=bound), 3 * bound * (1 - 1e-15), 3.0).holds
        for law in (AtMost(expected=(1.0,)), Equals(expected=(1.0,))):
            assert not one(law, bound * (1 + 1e-6), tolerance=tolerance).holds


def test_what_is_claimed_exactly_is_not_rounded() -> None:
    count = 10**12
    assert one(Equals(expected=(count,)), float(count)).holds
    assert not one(Equals(expected=(count,)), float(count + 1)).holds
    assert not one(AtMost(expected=(count,)), float(count + 1)).holds


@pytest.mark.parametrize("half", [51.805, 51.815])
def test_a_ratio_between_two_printed_figures_is_either(half: float) -> None:
    """Of a half nobody knows how it was rounded; its last bit is not asked."""
    law = Ratio(expected=(51.81,), digits=2)
    for step in (-1e-14, 0.0, 1e-14):
        assert one(law, half + step, 1.0).holds
    assert not one(law, 51.804, 1.0).holds
    assert not one(law, 51.816, 1.0).holds


def test_an_interval_that_ends_at_the_bound_is_within() -> None:
    for end in (0.99, 0.99 * (1 - 1e-15)):
        figure = Figure((1.0,), (1.0,), interval=(end, 1.2))
        assert Ratio(low=0.99).judge([figure], 0.0).holds
    assert Ratio(low=0.99).judge([Figure((1.0,), (1.0,), interval=(0.989, 1.2))], 0.0).holds is None


def test_rounding_errors_are_not_printed() -> None:
    texts = {one(Identity(), value, tolerance=1e-6).text for value in (0.0, 8.6e-17, 3.1e-16, 2e-10)}
    assert texts == {"relative difference at most 1.0e-06"}
    assert one(Identity(), 0.25, tolerance=1e-6).text == "relative difference 0.25"
    texts = {one(Equals(expected=(1.0,)), 1 + e, tolerance=1e-6).text for e in (0.0, 1.1e-9, -4e-16, 2e-12)}
    assert texts == {"1"}
    assert one(Equals(expected=(1.0,)), 1.25).text == "1.250 (+25 %)"
    exact = curve(Exponent(expected=(0.5,)), [3 * n**0.5 for n in WIDTHS], 0.01)
    assert exact.text.startswith("exponent 0.5000 [0.5000, 0.5000]")
