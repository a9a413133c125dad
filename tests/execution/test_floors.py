"""What Triton's kernels must move: never above the prediction, and written down as a table."""

from __future__ import annotations

from cdvft_bench.execution.floors import floors, main
from cdvft_bench.execution.planner import BUILT_IN


def test_a_floor_is_the_traffic_at_full_bandwidth() -> None:
    found = {f.kernel: f for f in floors(768, 1024, BUILT_IN["cuda"])}
    assert found["forward_kernel"].bytes == 3 * 768 * 1024 * 2  # x and the frozen product in, the output out
    assert found["backward_kernel"].bytes == 4 * 768 * 1024 * 2
    assert found["merged_weight_kernel"].bytes == 2 * 768 * 768 * 2 + 3 * 768 * 4
    assert all(0 < f.floor_s <= f.predicted_s for f in found.values())


def test_the_table_says_that_nothing_was_measured(capsys) -> None:
    assert main([]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 4 * 12
    assert all(row.endswith("| not measured |") for row in rows[1:])
