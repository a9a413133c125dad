"""Whoever recorded it: old and new categories, other accelerators, other frameworks, none at all."""

from __future__ import annotations

from typing import Any

import pytest

from cdvft_bench.timing.trace import analyse_events
from cdvft_bench.timing.traces.analysis import analyse
from cdvft_bench.timing.traces.events.model import from_events
from cdvft_bench.timing.traces.events.roles import is_read
from tests.timing import cuda_trace as made

US = 1e-6
Event = dict[str, Any]


def meta(kind: str, said: str, pid: object, tid: object = 0) -> Event:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"labels" if "labels" in kind else "name": said}}


def renamed(events: list[Event], names: dict[str, str]) -> list[Event]:
    return [{**e, "cat": names.get(e["cat"], e["cat"])} if "cat" in e else e for e in events]


def test_the_first_versions_categories_are_the_same_things() -> None:
    old = {
        "cpu_op": "Operator",
        "user_annotation": "Operator",
        "cuda_runtime": "Runtime",
        "kernel": "Kernel",
        "gpu_memset": "Memset",
        "gpu_memcpy": "Memcpy",
    }
    events = renamed(made.training_step(), old)
    for event in events:  # and what else they wrote
        args = event.get("args", {})
        if event.get("cat") in ("Kernel", "Memset"):
            event["tid"] = f"stream {args.pop('stream')}"
        if "Sequence number" in args:
            args["External id"], args["Device"] = 5, 24572
    found, new = analyse_events(events), analyse_events(made.training_step())
    differing = {k for k in new.__dataclass_fields__ if getattr(found, k) != getattr(new, k)}
    assert differing == set()


def on(accelerator: str, runtime: str, kernel: str, launch: str) -> list[Event]:
    """Two operators on an accelerator: kernels 20-60 and 70-100 us, launched at 10 and 30."""
    return [
        meta("process_name", "python", 5),
        meta("process_labels", "CPU", 5),
        meta("process_labels", f"{accelerator} 0", 0),
        made.event("cpu_op", "aten::mm", 0, 25, (5, 5), **{"External id": 1}),
        made.event("cpu_op", "aten::add", 25, 45, (5, 5), **{"External id": 2}),
        made.event(runtime, launch, 10, 15, (5, 5), correlation=1),
        made.event(runtime, launch, 30, 35, (5, 5), correlation=2),
        made.event(kernel, "first_kernel", 20, 60, (0, 3), correlation=1, device=0, stream=3),
        made.event(kernel, "second_kernel", 70, 100, (0, 3), correlation=2, device=0, stream=3),
    ]


@pytest.mark.parametrize(
    ("accelerator", "runtime", "kernel", "launch", "named"),
    [
        ("GPU", "cuda_runtime", "kernel", "cudaLaunchKernel", "cuda"),
        ("GPU", "cuda_driver", "kernel", "cuLaunchKernelEx", "cuda"),
        ("GPU", "cuda_runtime", "kernel", "hipExtModuleLaunchKernel", "cuda"),
        ("XPU", "xpu_runtime", "kernel", "urEnqueueKernelLaunch", "xpu"),
        ("XPU", "xpu_driver", "kernel", "zeCommandListAppendLaunchKernel", "xpu"),
        ("MTIA", "mtia_runtime", "mtia_ccp_events", "mtiaLaunchKernel", "mtia"),
        ("HPU", "hpu_op", "hpu_op", "synLaunch", "hpu"),
        ("NPU", "privateuse1_runtime", "kernel", "aclrtLaunchKernel", "privateuse1"),
        ("MUSA", "musa_runtime", "musa_kernel", "musaLaunchKernel", "musa"),
        ("GCU", "gcu_runtime", "GCU_MEMCPY", "topsLaunchKernel", "gcu"),
        ("GPU", "runtime of somebody", "work of somebody", "cudaLaunchKernel", "cuda"),
    ],
)
def test_other_accelerators_are_devices(accelerator, runtime, kernel, launch, named) -> None:
    found = analyse(from_events(on(accelerator, runtime, kernel, launch)))
    s = found.summary
    assert s.device == named
    assert s.launches == 2
    assert s.launch_calls == 2
    assert s.by_operator == {"mm": 1, "add": 1}
    assert s.families == pytest.approx({"matmul": 40 * US, "elementwise": 30 * US})
    assert s.busy_fraction == 0.7
    assert found.detail.devices[0].name == f"{accelerator} 0"
    assert s.notes == ()


def test_what_is_not_understood_is_named() -> None:
    events = [
        *made.training_step(),
        made.event("thermal_probe", "Tick", 0, 1),
        made.event("thermal_probe", "Tick", 1, 2),
    ]
    (note,) = analyse_events(events).notes
    assert "2 events of category 'thermal_probe'" in note
    for category in ("fwdbwd", "ac2g", "gpu_user_annotation", "Trace", "cuda_sync", "python_function", "overhead"):
        assert analyse_events([*made.training_step(), made.event(category, "x", 0, 1)]).notes == (), category


def legacy(name: str, start: float, end: float, pid: str, tid: int, flow: int | None = None) -> list[Event]:
    """As torch.autograd.profiler wrote: no categories, arrows from operators to kernels."""
    event = {"name": name, "ph": "X", "ts": start, "dur": end - start, "tid": tid, "pid": pid, "args": {}}
    if flow is None:
        return [event]
    phase = "s" if pid == "CPU functions" else "f"
    return [event, {"name": name, "ph": phase, "ts": start, "tid": tid, "pid": pid, "id": flow, "cat": "cpu_to_cuda"}]


@pytest.mark.parametrize("namespace", ["aten::", ""])
def test_files_of_the_legacy_profiler(namespace: str) -> None:
    events = [
        *legacy("model_inference", 0, 100, "CPU functions", 0),
        *legacy(f"{namespace}conv2d", 5, 60, "CPU functions", 0),
        *legacy(f"{namespace}cudnn_convolution", 10, 55, "CPU functions", 0, 1),
        *legacy(f"{namespace}relu", 61, 70, "CPU functions", 0, 2),
        *legacy("volta_scudnn_128x64_relu_interior_nn_v1", 20, 80, "CUDA functions", 0, 1),
        *legacy("some_kernel", 80, 90, "CUDA functions", 0, 2),
    ]
    found = analyse(from_events(events)).summary
    assert found.device == "cuda"
    assert found.operators == 3
    assert found.by_operator == {"cudnn_convolution": 1, "relu": 1}
    assert found.families == pytest.approx({"convolution": 60 * US, "elementwise": 10 * US})
    assert found.scopes == {"model_inference": 2}
    on_cpu = analyse_events(events[:6])
    assert (on_cpu.device, on_cpu.by_operator) == ("cpu", {"cudnn_convolution": 1, "relu": 1})


def test_devices_told_by_metadata_alone() -> None:
    """As JAX writes: no categories; lines that sum others up are no work of their own."""

    def line(name: str, start: float, end: float, pid: int, tid: int) -> Event:
        return {"ph": "X", "name": name, "pid": pid, "tid": tid, "ts": start, "dur": end - start}

    events = [
        meta("process_name", "/host:CPU", 1),
        meta("process_name", "/device:GPU:0", 2),
        meta("thread_name", "Stream #14(Compute)", 2, 14),
        meta("thread_name", "XLA Modules", 2, 1),
        meta("thread_name", "Framework Ops", 2, 2),
        meta("thread_name", "python", 1, 9),
        line("jit_step", 0, 100, 2, 1),
        line("dot_general", 0, 100, 2, 2),
        line("cutlass_gemm", 10, 50, 2, 14),
        line("loop_add_fusion", 60, 80, 2, 14),
        line("PjitFunction(step)", 0, 30, 1, 9),
    ]
    found = analyse(from_events(events))
    assert found.summary.launches == 2
    assert found.summary.device_seconds == pytest.approx(60 * US)
    assert found.summary.families == pytest.approx({"matmul": 40 * US, "elementwise": 20 * US})
    assert found.detail.streams[0].stream == "Stream #14(Compute)"


def test_events_told_by_begin_and_end() -> None:
    events = []
    for event in made.training_step():
        if event["ph"] == "X":
            begin = {k: v for k, v in event.items() if k != "dur"}
            events += [{**begin, "ph": "B"}, {**begin, "ph": "E", "ts": event["ts"] + event["dur"], "args": {}}]
    # In order of time as such files are; of one moment ends come first, the inner before the outer.
    events.sort(key=lambda e: (e["ts"], e["ph"] == "B"))
    events += [{"ph": "E", "name": "alone", "pid": 1, "tid": 3, "ts": 5}]
    found, whole = analyse_events(events), analyse_events(made.training_step())
    assert found.by_operator == whole.by_operator
    assert found.device_seconds == whole.device_seconds
    assert any("without their counterpart" in note for note in found.notes)


def test_what_a_recorder_may_drop_is_what_no_analysis_reads() -> None:
    for category in ("cpu_op", "cuda_runtime", "cuda_driver", "kernel", "gpu_memcpy", "gpu_memset", "user_annotation"):
        assert is_read(category)
    for category in ("ac2g", "fwdbwd", "cpu_instant_event", "gpu_user_annotation", "Trace", "None"):
        assert not is_read(category)
