"""What Triton's kernels must move: never above the prediction, and written down as a table."""

import pytest

from cdvft_bench.execution.costs import FastLayer
from cdvft_bench.execution.floors import floors, floors_markdown
from cdvft_bench.execution.planner import BUILT_IN, Problem


def test_a_floor_is_the_traffic_at_full_bandwidth() -> None:
    found = {f.kernel: f for f in floors(768, 1024, BUILT_IN["cuda"])}
    one = 768 * 1024 * 2  # bytes of the activations
    assert found["filter_kernel forward"].bytes == 3 * one  # x and the frozen product in, the output out
    assert found["filter_kernel for x, a_1"].bytes == 4 * one  # g, x and the frozen product in, the gradient out
    assert found["filter_kernel for a_3"].bytes == found["moment_kernel for c"].bytes == 2 * one
    assert found["merged_weight_kernel"].bytes == 2 * 768 * 768 * 2 + 3 * 768 * 4
    assert all(0 < f.floor_s <= f.predicted_s for f in found.values())


@pytest.mark.parametrize(("m", "transforms"), [(2, 6), (0, 4)])
def test_products_of_the_triton_kernels_by_hand(m: int, transforms: int) -> None:
    # 768 = 48 * 16, padded to 64 * 16: a transform of a row is two products with the first DFT matrix, 64 * 64 * 16
    # multiply-adds each, and four with the second, 64 * 16 * 16.
    problem = Problem(768, 768, 768, m, 100, "bfloat16", "cuda")
    layer = FastLayer(problem.layer, 100, "bfloat16", problem.factors, m, 1.0, "triton", "cuda")
    assert sum(k.macs for k in layer.forward()[:-1]) == 100 * 768 * 768
    assert layer.forward()[-1].macs == 2 * 100 * (2 * 64**2 * 16 + 4 * 64 * 16**2)
    assert sum(k.macs for k in layer.backward()[1:]) == transforms * 100 * (2 * 64**2 * 16 + 4 * 64 * 16**2)
    assert layer.saved_bytes == 100 * 768 * 2 + 2 * 64 * 16 * 4


def test_the_table_says_that_nothing_was_measured() -> None:
    rows = [line for line in floors_markdown().splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 9 * 12
    assert all(row.endswith("| not measured |") for row in rows[1:])
