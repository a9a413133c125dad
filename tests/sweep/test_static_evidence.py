"""Evidence about kernels without a GPU: what is compiled, that recording goes on, and what claims make of it."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cdvft_bench.claims.sources import kernels
from cdvft_bench.claims.sources.source import NotAvailable
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.log import read_log
from cdvft_bench.counting.occupancy import TARGETS
from cdvft_bench.execution.planner import NOT_PICKED
from cdvft_bench.sweep.probes import static_evidence, static_traffic
from cdvft_bench.sweep.probes.static_evidence import Job, jobs, record
from cdvft_bench.sweep.probes.static_traffic import Layer

NEEDS_TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="the package triton is not there")
PROFILE = Path(__file__).parents[2] / "profiles" / "gpu-static"
FACTS: dict[str, Any] = {
    "registers": 72,
    "local_bytes": 0,
    "spills": False,
    "shared_bytes": 0,
    "mix": {"load 128": 4},
    "occupancy": 0.5,
    "limit": "registers",
    "compile_s": 1.0,
}


def test_every_kernel_is_asked_for_every_target_and_only_once() -> None:
    found = list(jobs())
    assert len({job.key for job in found}) == len(found)
    kernels_ = {"merged_weight_kernel", "fold_kernel", "fold_sums_kernel", "filter_kernel", "moment_kernel"}
    for target in TARGETS:
        assert {job.launch.kernel for job in found if job.target == target} == kernels_
    first_left = next(i for i, job in enumerate(found) if job.launch.path in NOT_PICKED)
    assert all(job.launch.path in NOT_PICKED for job in found[first_left:])  # what auto may pick comes first
    for name in ("merged_weight_kernel", "fold_kernel"):
        picked = [job.launch for job in found if job.launch.kernel == name]
        pairs = {(launch.constants["DIAGONALS"], launch.constants["ROW"]) for launch in picked}
        assert pairs == {(a, b) for a in (True, False) for b in (True, False)}


def test_recording_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    path, asked = tmp_path / "kernels.jsonl", []

    def stopped(job: Job, limit_s: float) -> dict[str, Any]:
        asked.append(job.key)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return FACTS if len(asked) != 2 else {"error": "not compiled within 150 s"}

    with pytest.raises(KeyboardInterrupt):
        record(path, stopped)
    made = record(path, lambda job, limit_s: asked.append(job.key) or FACTS)
    total = len(list(jobs()))
    assert (made, len(set(asked))) == (total - 2, total)
    rows = [row for _, row in read_log(path)]
    text = static_evidence.readme(rows, "")
    assert "1 spill or did not compile" in text
    assert "not compiled within 150 s" in text


def test_claims_see_a_spill_a_failure_and_a_byte_too_many(tmp_path: Path, monkeypatch) -> None:
    row = {"picked": True, "dtype": "bfloat16", "target": "sm_90", "spills": False}
    rows = [
        row,
        {**row, "spills": True},
        {**row, "picked": False, "spills": True},
        {**row, "target": "sm_80"},
        {"picked": True, "dtype": "float32", "target": "sm_90", "error": "not compiled"},
    ]
    monkeypatch.setattr(kernels, "_rows", lambda name: rows)
    assert kernels.kernels_that_spill("bfloat16", "sm_90") == 1
    assert kernels.kernels_that_spill("bfloat16", "sm_80") == 0
    assert kernels.kernels_that_spill("float32", "sm_90") == 1
    with pytest.raises(NotAvailable):
        kernels.kernels_that_spill("float16", "sm_90")
    # 4 x 4 in float32 with vectors of 4: by hand.
    vectors = {"first": 99, "last": 99, "c": 999}
    kinds = [{"ran": 2, "read": {"weight": 16, **vectors}, "written": {"out": 16}}]
    merged = {"kernel": "merged_weight_kernel", "programs": 4, "sizes": dict.fromkeys(vectors, 16), "kinds": kinds}
    others = [{**merged, "kernel": name} for name in ("fold_kernel", "fold_sums_kernel")]
    layer = {"d_in": 4, "d_out": 4, "p": 4, "diagonals": 2, "dtype": "float32", "tokens": 5}
    rows[:] = [{"layer": layer, "launches": [merged, *others]}]
    assert kernels.bytes_beside_closed_form("merged_weight_kernel") == 0  # half of the programs ran, all alike
    kinds.append({**kinds[0], "read": {"weight": 20}})
    assert kernels.bytes_beside_closed_form("merged_weight_kernel") == 8  # all ran, two of them read more
    kinds[0]["ran"] = 1
    assert kernels.bytes_beside_closed_form("merged_weight_kernel", 4) == float("inf")  # who knows of the fourth?
    for other in ("filter_kernel", "merged_weight_kernel"):
        with pytest.raises(NotAvailable, match=f"no traffic of {other}"):
            kernels.bytes_beside_closed_form(other, 5)
    merged["kernel"] = "fold_kernel"
    with pytest.raises(NotAvailable, match="where a step launches merged_weight_kernel"):
        kernels.bytes_beside_closed_form("merged_weight_kernel")


def test_the_recorded_profile_holds_what_the_ledger_says() -> None:
    """Every kernel that auto may pick, as it is launched now, was compiled for every target, and spills nothing."""
    from cdvft_bench.claims.judge import verify_ledger

    rows = [row for _, row in read_log(PROFILE / "kernels.jsonl")]
    wanted = {job.key for job in jobs() if job.launch.path not in NOT_PICKED}
    assert wanted <= {row["key"] for row in rows}
    assert {v.claim.id: v.word for v in verify_ledger("kernels").verdicts} == {
        "no-kernel-spills": "holds",
        "traffic-of-kernels": "holds",
    }
    traffic = [row for _, row in read_log(PROFILE / "traffic.jsonl")]
    assert {row["key"] for row in traffic} == {layer.key for layer in static_traffic.LAYERS}
    assert static_evidence.readme(rows, static_traffic.table(traffic)) == (PROFILE / "README.md").read_text()


def test_without_triton_the_way_out_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install cdvft-bench\[triton\]"):
        record(tmp_path / "kernels.jsonl")


@NEEDS_TRITON
def test_a_compiler_that_takes_too_long_is_a_row_and_the_next_kernel_goes_on() -> None:
    job, compiler = next(jobs()), static_evidence.Compiler()
    try:
        assert compiler(job, 1e-3) == {"error": "not compiled: it took longer than 0.001 s"}
        assert compiler(job, 120.0)["spills"] is False
        assert "error" in compiler(replace(job, target="sm_1"), 120.0)
        broken = replace(job.launch, constants={**job.launch.constants, "COLUMNS": 3})  # no power of two
        assert "power" in str(compiler(replace(job, launch=broken), 120.0)["error"])
    finally:
        compiler.close()


@NEEDS_TRITON
def test_traffic_is_that_of_the_closed_forms(tmp_path: Path, monkeypatch) -> None:
    """Of ragged blocks and rows, where all programs run, and of a width at which some do."""
    shapes = ((40, 70, 33, 9), (30, 48, 48, 7), (160, 160, 160, 640), (1024, 1024, 1024, 512))
    layers = tuple(Layer(*s[:3], m, dtype, s[3]) for s in shapes for m, dtype in ((2, "bfloat16"), (0, "float32")))
    assert static_traffic.record(tmp_path / "traffic.jsonl", layers) == 8
    assert static_traffic.record(tmp_path / "traffic.jsonl", layers) == 0
    rows = [row for _, row in read_log(tmp_path / "traffic.jsonl")]
    monkeypatch.setattr(kernels, "_rows", lambda name: rows)
    for name in ("merged_weight_kernel", "fold_kernel", "fold_sums_kernel", "filter_kernel", "moment_kernel"):
        assert kernels.bytes_beside_closed_form(name) == 0
    ran = {sum(kind["ran"] for kind in launch["kinds"]) < launch["programs"] for launch in rows[-1]["launches"]}
    assert ran == {True, False}
    assert "| `moment_kernel` | 1024x1024 p=1024 m=2 bfloat16 512 tokens | 256 |" in static_traffic.table(rows)
    with pytest.raises(UserError, match=r"the kernels of .*m=1 .* cannot be interpreted: .*m = 1"):
        static_traffic.record(tmp_path / "traffic.jsonl", (Layer(8, 8, 8, 1, "float32", 1),))
