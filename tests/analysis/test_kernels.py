"""Compiled kernels by path: what is shown is what was recorded."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from cdvft_bench.analysis.inputs import read
from cdvft_bench.analysis.kernels import by_path, kernels_frame, read_kernels
from cdvft_bench.core.errors import UserError
from cdvft_bench.report.page.build import page
from cdvft_bench.report.page.cards import kernel_table

PROFILES = Path(__file__).parents[2] / "profiles"


def row(rng: random.Random, path: str, target: str, **given: Any) -> dict[str, Any]:
    made = {"path": path, "kernel": f"{path}_kernel", "target": target, "picked": path != "triton"}
    made |= {"registers": rng.randint(16, 255), "shared_bytes": rng.randint(0, 9999), "local_bytes": 0}
    return made | {"occupancy": rng.uniform(0.1, 1), "constants": {"P": 4}} | given


def test_a_line_sums_up_all_configurations_of_a_kernel() -> None:
    rng = random.Random(5)
    spilling = row(rng, "triton", "sm_90", local_bytes=3152, registers=255)
    late = {"path": "triton", "kernel": "triton_kernel", "target": "sm_90", "picked": False, "error": "not compiled: x"}
    plain = [row(rng, "merged", "sm_90") for _ in range(7)]
    (first, second) = by_path([spilling, late, *plain])
    assert (first.path, first.picked, first.configurations, first.spilling, first.failed) == ("merged", True, 7, 0, 0)
    assert first.registers == max(r["registers"] for r in plain)
    assert first.shared_bytes == max(r["shared_bytes"] for r in plain)
    assert first.occupancy == min(r["occupancy"] for r in plain)
    assert (second.picked, second.configurations, second.spilling, second.failed) == (False, 2, 1, 1)
    assert second.local_bytes == 3152
    (nothing,) = by_path([late])
    assert (nothing.registers, nothing.occupancy) == (0, None)
    told = kernel_table([first, second, nothing])
    assert "Of the 7 that path auto may launch 0 keep registers off chip" in told.caption
    assert [cells[5] for cells in told.rows] == ["0", "1, and 1 not compiled", "0, and 1 not compiled"]
    assert len(kernels_frame([spilling, late])) == 2


def test_what_is_no_compiled_kernel_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    for bad in ({"path": 3}, row(random.Random(1), "merged", "sm_90") | {"registers": "many"}):
        good = row(random.Random(2), "merged", "sm_80")
        path.write_text("".join(json.dumps(entry) + "\n" for entry in ({"log": 2}, good, bad)))
        with pytest.raises(UserError, match=r"kernels\.jsonl, row 2 is no compiled kernel"):
            read_kernels(path)


def test_a_row_bears_the_most_that_a_program_of_its_kernel_and_dtype_moves(tmp_path: Path) -> None:
    path, traffic = tmp_path / "kernels.jsonl", tmp_path / "traffic.jsonl"
    rows = [row(random.Random(3), "merged", "sm_90", dtype=dtype) for dtype in ("bfloat16", "float32")]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in ({"log": 2}, *rows)))
    assert by_path(read_kernels(path))[0].loads is None
    launches = [{"kernel": "merged_kernel", "loads": [1, n], "stores": [2, 90 - n]} for n in (7, 70, 8)]
    moved = {"layer": {"dtype": "bfloat16"}, "launches": launches}
    traffic.write_text("".join(json.dumps(entry) + "\n" for entry in ({"log": 2}, moved)))
    first, second = read_kernels(path)
    assert (first["loads"], first["stores"], "loads" in second) == (70, 83, False)
    assert by_path([second, first])[0].loads == 70
    for bad in ({"launches": 3}, {**moved, "launches": [{"kernel": "k", "loads": [], "stores": []}]}):
        traffic.write_text("".join(json.dumps(entry) + "\n" for entry in ({"log": 2}, moved, bad)))
        with pytest.raises(UserError, match=r"traffic\.jsonl, row 2 is no traffic of kernels"):
            read_kernels(path)


def test_the_page_shows_the_recorded_table_and_counts_every_row() -> None:
    campaign = read(PROFILES / "gpu-static")
    lines = by_path(campaign.kernels)
    assert sum(line.configurations for line in lines) == len(campaign.kernels) > 500
    html = page(campaign, title="t", command="c")
    part = html[html.index('<section id="kernels">') :].split("</section>")[0]
    for line in lines:
        assert line.loads > line.stores > 0
        assert f"{line.loads:,}</td>" in part
        assert f"{line.kernel}</td>" in part
        assert f"{line.registers:,}</td>" in part
    assert "How long one runs: not measured." in part
    assert '<section id="kernels">' not in page(read(PROFILES / "cpu-quick-avx512"), title="t", command="c")
