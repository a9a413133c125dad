"""What a GPU starts and moves beside what the dispatcher shows: hidden copies, and transforms that leave the chip."""

from dataclasses import replace

import pytest

from cdvft_bench.analytic.kernels import copy, fft
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.roofline import ON_CHIP, kernel_seconds, traffic
from cdvft_bench.methods import make_method
from cdvft_bench.predictor.devices import find_target

RATES = find_target("l40s").rates


def test_a_block_diagonal_matrix_is_copied_block_by_block() -> None:
    """Of a 3072 x 3072 layer in blocks of 4: zeros and 768 copies, one after the other."""
    cost = make_method("boft", {"block_size": 4}).cost(LinearShape(3072, 3072, bias=False), 64, device="cuda")
    (kernel,) = (k for k in cost.forward if k.op == "block_diag")
    assert kernel.launches == 1
    assert kernel.starts == 769
    assert kernel_seconds(kernel, RATES, "float32") == pytest.approx(769 * RATES.launch_s)
    assert kernel_seconds(replace(kernel, starts=1), RATES, "float32") < 100 * RATES.launch_s
    assert kernel_seconds(copy("clone", 10, "float32"), RATES, "float32") == RATES.launch_s


@pytest.mark.parametrize(("length", "steps"), [(64, 1), (ON_CHIP, 1), (ON_CHIP + 1, 2), (3072 * 3072, 2), (2**27, 3)])
def test_a_long_transform_goes_through_memory_once_a_step(length: int, steps: int) -> None:
    kernel = fft("_fft_c2c", length, 2, "float32")
    once = float(kernel.read + kernel.written)
    assert traffic(kernel, RATES) == steps * once
    assert traffic(kernel, replace(RATES, asynchronous=False)) == once  # a CPU's rates were measured as a whole
