"""Prices of what is counted: the counting side's own, equal to the closed forms' where both are right."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.analytic.conventions import convention
from cdvft_bench.core.counted import PassCount
from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.prices import Transform, butterfly_flops, exact_flops, flops_of
from cdvft_bench.counting.split_radix import count_fft

NOTHING = PassCount(macs=0, elementwise_flops=0, ffts=0, fft_flops=0.0, launches=0)


def test_a_butterfly_takes_ten() -> None:
    """A general turn is a complex product (4 and 2), then a complex sum and a difference (2 each)."""
    assert butterfly_flops() == 10


@given(st.integers(1, 5000), st.integers(1, 9), st.booleans(), st.sampled_from(["mac", "flop", "paper"]))
def test_both_sides_price_a_transform_alike(length: int, batch: int, real: bool, name: str) -> None:
    transform = Transform((length,), batch, real)
    assert flops_of(NOTHING, [transform], name) == pytest.approx(convention(name).fft(length, batch, real), rel=1e-12)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.sampled_from(["mac", "flop", "paper"]))
def test_both_sides_price_products_and_sums_alike(macs: int, elementwise: int, name: str) -> None:
    counted = PassCount(macs=macs, elementwise_flops=elementwise, ffts=0, fft_flops=0.0, launches=0)
    prices = convention(name)
    assert flops_of(counted, (), name) == prices.mac * macs + prices.elementwise * elementwise


def test_a_plane_is_its_rows_and_columns() -> None:
    plane = Transform((6, 8), 3, real=False)
    assert exact_flops(plane) == 3 * (8 * count_fft(6).flops + 6 * count_fft(8).flops)
    assert flops_of(NOTHING, [plane], "flop") == pytest.approx(3 * 5 * 48 * math.log2(48))
    assert exact_flops(Transform((64,), 2, real=True)) == 2 * count_fft(64, real=True).flops
    assert exact_flops(Transform((64,), 2, real=True), half=False) == 2 * count_fft(64).flops


def test_an_unknown_convention() -> None:
    with pytest.raises(UserError, match="'gold' is not known"):
        flops_of(NOTHING, (), "gold")
