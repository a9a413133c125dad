"""Floors of the compiled kernels beside their times, by target."""

import pytest
import torch

from cdvft_bench.execution import native
from cdvft_bench.sweep.probes.cpu_floors import Found, measure_here, table


@pytest.mark.skipif(bool(native.missing(torch.float32)), reason="no compiled kernels")
def test_a_width_is_measured() -> None:
    forward, backward = measure_here([64], 0.1)
    assert (forward.kernel, backward.kernel) == ("forward", "backward")
    for found in (forward, backward):
        assert min(found.flops, found.bytes, found.measured_s) > 0
        assert min(found.arithmetic_s, found.traffic_s) > 0
        assert found.lanes in (4, 8, 16)
    # Two transforms of a pair and one of c, against the backward pass's four and two.
    assert backward.traffic_s / forward.traffic_s == pytest.approx((4 * 64 + 2) / (2 * 64 + 1))
    assert backward.arithmetic_s > 1.5 * forward.arithmetic_s


def test_the_table() -> None:
    rows = [
        Found("native", 16, 768, "backward", 2e11, 4e11, 12.8e-6, 6.4e-6, 25.6e-6),
        Found("avx2", 8, 768, "forward", 1e11, 4e11, 6.4e-6, 12.8e-6, 64e-6),
    ]
    assert table(rows).splitlines()[2:] == [
        "| forward | 768 | avx2 | 8 | 100 | 400 | 50 | 100 | 500 | 5.00 x |",
        "| backward | 768 | native | 16 | 200 | 400 | 100 | 50 | 200 | 2.00 x |",
    ]
