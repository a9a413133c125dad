"""Traces of GPU work with known answers; recording and keeping them."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from cdvft_bench.core.errors import UserError
from cdvft_bench.timing import trace as recording
from cdvft_bench.timing.trace import analyse_events, export_trace, read_trace, trace_call
from tests.timing import cuda_trace as made

US = 1e-6


def test_launches_are_tied_to_operators_and_scopes() -> None:
    s = analyse_events(made.training_step())
    assert s.device == "cuda"
    assert s.launches == 5
    assert s.launch_calls == 5
    assert s.launch_seconds == pytest.approx(37 * US)
    assert s.operators == 6
    assert s.dispatched == 4
    assert s.by_operator == {"addmm": 1, "_fft_r2c": 1, "mul": 1, "mm": 1, "(no operator)": 1}
    assert s.by_kernel["regular_fft"] == 1
    assert s.by_kernel["vectorized_elementwise_kernel"] == 1
    assert s.scopes == {"base": 2, "adapter": 2, "unscoped": 1}
    assert s.scope_seconds == pytest.approx({"base": 150 * US, "adapter": 30 * US, "unscoped": 10 * US})
    assert s.notes == ()


def test_time_is_summed_by_family() -> None:
    s = analyse_events(made.training_step())
    assert s.family_launches == {"matmul": 2, "fft": 1, "elementwise": 1, "copy": 1}
    expected = {"matmul": 150 * US, "fft": 20 * US, "elementwise": 10 * US, "copy": 10 * US}
    assert s.families == pytest.approx(expected)
    assert s.device_seconds == pytest.approx(190 * US)
    # Self time of linear, addmm, _fft_r2c, view, mul and mm, without the launching calls inside.
    assert s.host_seconds == pytest.approx((20 + 40 + 30 + 3 + 25 + 50) * US)


def test_gaps_and_queue_are_exact() -> None:
    s = analyse_events(made.training_step())
    assert s.span_seconds == pytest.approx(480 * US)
    assert s.busy_fraction == pytest.approx(190 / 500)  # of the step, which is longer than what it launched
    assert s.gaps == 4
    assert s.gap_seconds == pytest.approx(250 * US)
    assert s.largest_gap_seconds == pytest.approx(170 * US)
    assert s.starved_seconds == pytest.approx(190 * US)
    assert s.queue_delay_seconds == pytest.approx(20 * US)
    assert s.queue_depth == 0
    assert s.verdict == "launch-bound"
    assert "38%" in s.reason
    assert "60%" in s.reason


def test_a_replayed_graph_is_one_call_and_many_launches() -> None:
    s = analyse_events(made.graph_replay())
    assert (s.launches, s.launch_calls) == (3, 1)
    assert s.queue_delay_seconds == pytest.approx(10 * US)
    assert (s.gaps, s.starved_seconds) == (1, 0.0)
    assert s.gap_seconds == pytest.approx(2 * US)
    assert s.verdict == "unknown"  # element-wise, but how much they move nobody recorded
    assert "few FLOPs a byte" in s.reason


def test_overlapping_kernels_are_busy_once() -> None:
    events = [made.launch(0, 1, 1), made.launch(1, 2, 2), made.kernel("a", 10, 50, 1), made.kernel("b", 30, 60, 2)]
    s = analyse_events(events)
    assert s.device_seconds == pytest.approx(70 * US)
    assert s.busy_fraction == pytest.approx(50 / 60)
    assert s.gaps == 0
    assert s.queue_depth == 0.5  # none when the first was launched, one when the second was


@pytest.mark.parametrize(
    ("product", "verdict", "said"),
    [
        ((4096, 4096, 4096, "c10::BFloat16"), "compute-bound", "1.37e+03 FLOPs a byte"),
        ((1, 4096, 4096, "float"), "bandwidth-bound", "0.5 FLOPs a byte"),
        ((256, 4096, 4096, "float"), "unknown", "ridge point"),
        ((4096, 4096, 4096, "float", False), "unknown", "shapes were not recorded"),
        ((4096, 4096, 4096, "novel"), "unknown", "shapes were not recorded"),
    ],
)
def test_products_are_judged_by_their_intensity(product, verdict, said) -> None:
    s = analyse_events(made.one_product(*product))
    assert s.verdict == verdict
    assert said in s.reason


def test_waiting_with_work_in_the_queue_is_not_called_launch_bound() -> None:
    events = [made.launch(t, t + 1, t + 1) for t in (0, 1)]
    events += [made.kernel(made.GEMM, 10, 20, 1), made.kernel(made.GEMM, 90, 100, 2)]
    s = analyse_events(events)
    assert s.verdict == "unknown"
    assert "synchronisation" in s.reason


def test_kernels_without_a_launching_call_are_noted() -> None:
    s = analyse_events([made.kernel(made.MUL, 0, 10, 1), made.kernel(made.GEMM, 10, 20, 2), made.launch(0, 1, 2)])
    assert s.by_operator == {"(no operator)": 2}
    assert any("1 of 2 kernels have no launching call" in n for n in s.notes)


def test_kernels_of_several_devices_are_noted() -> None:
    events = made.graph_replay()
    events[1]["args"]["device"] = 1
    assert any("2 devices" in n for n in analyse_events(events).notes)


def test_unfamiliar_kernels_take_the_family_of_their_operator() -> None:
    events = [made.op("aten::mm", 0, 50), made.launch(10, 20, 1), made.kernel("mystery_42", 30, 40, 1)]
    assert analyse_events(events).families == {"matmul": pytest.approx(10 * US)}


def test_malformed_events_are_left_out_and_counted() -> None:
    events = made.training_step()
    broken = [{**events[3], "dur": -1}, {**events[3], "ts": math.nan}, {**events[3], "ts": "now"}, {"ph": "X"}, 7, None]
    s = analyse_events([*events, *broken])
    assert s.notes == ("4 events without a time were left out",)
    assert s.launches == 5


@pytest.mark.parametrize("events", [[], [{"ph": "M"}], made.training_step()[1:3]])
def test_nothing_to_sum_up_is_an_error(events) -> None:
    with pytest.raises(UserError, match="neither operators nor kernels"):
        analyse_events(events)


# --- files ---------------------------------------------------------------------------------


def test_plain_compressed_and_bare_files_read_alike(tmp_path: Path) -> None:
    events = made.training_step()
    document = json.dumps({"schemaVersion": 1, "traceEvents": events}).encode()
    (tmp_path / "plain.json").write_bytes(document)
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress(document))
    (tmp_path / "misnamed.json").write_bytes(gzip.compress(document))
    (tmp_path / "bare.json").write_text(json.dumps(events))
    found = [read_trace(p) for p in sorted(tmp_path.iterdir())]
    assert len(found) == 4
    assert all(s == analyse_events(events) for s in found)


def test_an_exported_trace_reads_back_and_names_no_machine(tmp_path: Path) -> None:
    x = torch.randn(16, 16)
    path = tmp_path / "new" / "trace.json.gz"
    summary = export_trace(lambda: x @ x, path)
    assert summary == read_trace(path)
    assert summary.by_operator == {"mm": 1}
    document = json.loads(gzip.decompress(path.read_bytes()))
    assert document["traceEvents"]
    assert not {"host_name", "traceName", "distributedInfo"} & set(document)
    assert "/tmp" not in gzip.decompress(path.read_bytes()).decode()


def test_exports_must_be_named_compressed_and_be_writable(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must be named \.json\.gz"):
        export_trace(lambda: torch.ones(2) + 1, tmp_path / "trace.json")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        export_trace(lambda: torch.ones(2) + 1, tmp_path / "file" / "trace.json.gz")


def test_a_recording_that_lacks_kernels_is_made_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUPTI before 13.1 drops the first kernels of a recording; the better of two is kept."""
    whole = {"traceEvents": made.training_step()}
    lacking = {"traceEvents": [e for e in made.training_step() if e.get("cat") != "kernel"]}
    partly = {"traceEvents": made.training_step()[:-4]}

    def recorded(*documents: dict[str, Any]) -> tuple[dict[str, Any], int]:
        left = list(documents)
        monkeypatch.setattr(recording, "_profiled", lambda *_: left.pop(0))
        monkeypatch.setattr(recording, "_settle_cuda_profiler", lambda: None)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
        return recording.record(lambda: None, "cuda"), len(left)

    assert recorded(whole, lacking) == (whole, 1)
    assert recorded(lacking, whole) == (whole, 0)
    assert recorded(partly, lacking) == (partly, 0)
    assert recorded(lacking, lacking, whole) == (lacking, 1)
    assert recorded({"traceEvents": []}, whole) == ({"traceEvents": []}, 1)


def test_a_recording_says_how_long_its_thread_worked() -> None:
    document = recording.record(lambda: torch.ones(200, 200) @ torch.ones(200, 200))
    said = document["cdvft_bench"]
    assert said["thread_seconds"] > 0
    assert said["wall_seconds"] > 0
    assert trace_call(lambda: torch.ones(300, 300).exp()).host_working is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trace_ties_kernels_to_scopes() -> None:
    x = torch.randn(256, 256, device="cuda", requires_grad=True)

    def step() -> None:
        with torch.profiler.record_function("adapter"):
            y = torch.fft.rfft(x).abs().sum() + (x @ x).sum()
        y.backward()

    s = trace_call(step, "cuda")
    assert s.device == "cuda"
    assert s.launches >= s.dispatched > 0
    assert s.families["fft"] > 0
    assert s.families["matmul"] > 0
    assert s.scopes["adapter"] > s.launches / 2
    assert s.queue_delay_seconds is not None
    assert s.queue_delay_seconds > 0
