"""What bounds the work: each verdict from a trace made for it, and "unknown" where a trace cannot tell."""

from __future__ import annotations

from typing import Any

import pytest

from cdvft_bench.timing.trace import analyse_events
from cdvft_bench.timing.traces.analysis import Analysis, analyse
from cdvft_bench.timing.traces.events.model import from_events
from tests.timing import cuda_trace as made
from tests.timing.traces.test_counts import call, on

US = 1e-6
Event = dict[str, Any]
F = {"Input Dims": [[64, 64], [64, 64]], "Input type": ["float", "float"]}
BIG = {"Input Dims": [[4096, 4096], [4096, 4096]], "Input type": ["c10::BFloat16"] * 2}


def analysed(events: list[Event], **document: Any) -> Analysis:
    return analyse(from_events(events, document))


def eager(
    n: int,
    every: float,
    runs: float,
    name: str = made.MUL,
    op: str = "aten::mul",
    lead: float = 5,
    shapes: dict[str, Any] = F,
    first: int = 0,
    at: float = 0.0,
) -> list[Event]:
    """``n`` operators, one every so many microseconds, each with a kernel that runs for some, begun ``lead`` later."""
    events = []
    for i in range(n):
        t, c = at + every * i, first + i
        events += [
            made.event("cpu_op", op, t, t + 0.9 * every, **shapes),
            call(1, "cudaLaunchKernel", t, t + 1, c),
            on(0, 7, name, t + lead, t + lead + runs, c),
        ]
    return events


def queued(
    n: int,
    runs: float,
    name: str = made.MUL,
    op: str = "aten::mul",
    shapes: dict[str, Any] = F,
    first: int = 0,
    at: float = 0.0,
    free: float = 0.0,
) -> list[Event]:
    """``n`` operators launched a microsecond apart, whose kernels follow one another without gaps from ``free`` on."""
    begin = max(at + 5, free)
    return [
        e
        for i in range(n)
        for e in (
            made.event("cpu_op", op, at + i, at + i + 0.9, **shapes),
            call(1, "cudaLaunchKernel", at + i, at + i + 0.5, first + i),
            on(0, 7, name, begin + runs * i, begin + runs * (i + 1), first + i),
        )
    ]


def test_many_gaps_and_a_short_queue_are_launch_bound() -> None:
    found = analysed(eager(200, every=20, runs=4)).summary
    assert found.verdict == "launch-bound"
    assert found.queue_depth == 0
    assert found.idle["launch"] > 0.95 * sum(found.idle.values())


def stalled(range_name: str = "image preprocessing", cat: str = "user_annotation", gap: float = 5000) -> list[Event]:
    """Bursts of 500 kernels whose queue is deep, and between them the host does something else for long."""
    events: list[Event] = []
    at = 0.0
    for burst in range(5):
        events += queued(500, runs=2, first=1000 * burst, at=at)
        end = at + 5 + 1000
        if burst < 4:
            events.append(made.event(cat, range_name, end + 10, end + gap - 20))
        at = end + gap
    return events


def test_few_long_gaps_are_a_stall_of_the_host_and_named() -> None:
    found = analysed(stalled())
    s = found.summary
    assert s.verdict == "host stall"
    assert "4 of 5 gaps hold 100% of the waiting" in s.reason
    assert s.queue_depth is not None
    assert s.queue_depth > 100
    assert [g.host for g in found.detail.gaps[:4]] == [("image preprocessing",)] * 4
    assert all(g.seconds == pytest.approx(5005 * US) and g.host_share > 0.9 for g in found.detail.gaps[:4])
    assert found.detail.gaps[0].after == found.detail.gaps[0].before == "vectorized_elementwise_kernel<BinaryFunctor>"


def test_python_functions_name_what_the_host_did() -> None:
    found = analysed(stalled("PIL/Image.py(1): resize", "python_function"))
    assert found.summary.verdict == "host stall"
    assert found.detail.gaps[0].host == ("PIL/Image.py(1): resize",)
    inside = [
        made.event("user_annotation", "prepare", 1010, 5990),
        made.event("python_function", "loop.py: step", 900, 6100),
        made.event("python_function", "resize", 1100, 5900),
        made.event("python_function", "short", 1200, 1300),
    ]
    named = analysed([*stalled("x", "ac2g"), *inside]).detail.gaps
    assert ("prepare", "resize") in [g.host for g in named]


@pytest.mark.parametrize(
    ("name", "cat"),
    [
        ("enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__", "user_annotation"),
        ("enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", "cpu_op"),
        ("[pl][profile][_TrainingEpochLoop].train_dataloader_next", "user_annotation"),
        ("torch/utils/data/dataloader.py(628): __next__", "python_function"),
    ],
)
def test_waiting_for_data_is_input_bound(name: str, cat: str) -> None:
    assert analysed(stalled(name, cat)).summary.verdict == "input-bound"


def test_copies_from_the_host_alone_are_input_bound() -> None:
    events = (
        queued(100, runs=2)
        + [call(1, "cudaMemcpyAsync", 210 + 100 * i, 211 + 100 * i, 900 + i) for i in range(10)]
        + [
            on(0, 7, "Memcpy HtoD (Pageable -> Device)", 211 + 100 * i, 309 + 100 * i, 900 + i, "gpu_memcpy")
            for i in range(10)
        ]
    )
    assert analysed(events).summary.verdict == "input-bound"


def test_the_profiler_s_own_work_is_its_overhead() -> None:
    assert analysed(stalled("Activity Buffer Request", "overhead")).summary.verdict == "profiler overhead"


def communicating(beside: bool) -> list[Event]:
    events = queued(100, runs=2, op="aten::mm", name=made.GEMM)
    for i in range(5):
        t = 205 + 200 * i
        events += [
            call(1, "cudaLaunchKernel", t - 150 * (not i) - 1, t - 150 * (not i), 500 + i),
            on(0, 20, "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)", t, t + 200, 500 + i),
        ]
        if beside:
            events += queued(100, runs=2, op="aten::mm", name=made.GEMM, first=1000 * (i + 1), at=t - 20, free=t)
    return events


def test_communication_alone_bounds_and_beside_compute_does_not() -> None:
    found = analysed(communicating(beside=False))
    assert found.summary.verdict == "communication-bound"
    assert found.detail.communication.seconds == pytest.approx(1000 * US)
    assert found.detail.communication.overlapped == 0
    assert found.detail.communication.kernels[0].launches == 5
    hidden = analysed(communicating(beside=True))
    assert hidden.detail.communication.overlapped == pytest.approx(1)
    assert hidden.summary.exposed_seconds == 0
    assert hidden.summary.verdict == "unknown"
    assert "ridge point" in hidden.summary.reason


def test_bandwidth_and_arithmetic_need_shapes_of_half_the_device_time() -> None:
    shapes_of_all = analysed(queued(100, runs=9)).summary
    assert shapes_of_all.verdict == "bandwidth-bound"
    assert shapes_of_all.evidence == 1
    assert shapes_of_all.bytes_per_second == pytest.approx(100 * 3 * 64 * 64 * 4 / 900e-6)
    product = analysed(queued(100, runs=9, op="aten::mm", name=made.GEMM, shapes=BIG)).summary
    assert product.verdict == "compute-bound"
    for known, verdict in ((60, "bandwidth-bound"), (40, "unknown")):
        events = queued(known, runs=9) + queued(100 - known, 9, shapes={}, first=1000, at=known, free=5 + 9 * known)
        partly = analysed(events).summary
        assert partly.evidence == pytest.approx(known / 100)
        assert partly.verdict == verdict, partly.reason
        assert partly.bytes_per_second == pytest.approx(shapes_of_all.bytes_per_second)
        assert f"{known}% of device time" in partly.reason
        assert partly.notes == (
            f"{100 - known} of 100 operators have no shapes in the trace: the bytes are without theirs",
        )


def test_operators_of_a_recording_of_a_graph_give_no_bandwidth() -> None:
    """Their kernels were never timed: the graph's replay has one call for all of them."""
    events = [call(1, "cudaStreamBeginCapture", 0, 1, 9000)]
    events += [e for e in queued(50, runs=1, at=10, op="aten::mm", shapes=BIG) if e["cat"] != "kernel"]
    events += [call(1, "cudaStreamEndCapture", 100, 101, 9001), call(1, "cudaGraphLaunch", 110, 115, 9002)]
    events += [on(0, 7, made.GEMM, 120 + 10 * i, 130 + 10 * i, 9002) for i in range(50)]
    s = analysed(events).summary
    assert (s.moved_bytes, s.bytes_per_second, s.evidence) == (None, None, 0)
    assert s.verdict == "unknown"


def test_a_copy_s_own_bytes_are_evidence() -> None:
    events = queued(1, runs=9)
    events += [
        made.event("gpu_memcpy", "Memcpy DtoD (Device -> Device)", 20, 90, made.GPU, stream=7, device=0, bytes=4096)
    ]
    assert analysed(events).summary.evidence == pytest.approx(1)


def steps(*lengths: float, runs: float = 0.5) -> list[Event]:
    """Steps one after another, each half full of kernels that are launched ahead of time."""
    events: list[Event] = []
    at = 0.0
    for i, length in enumerate(lengths):
        events.append(made.event("user_annotation", f"ProfilerStep#{i + 3}", at, at + length))
        events += queued(10, runs=runs * length / 10, at=at + 1, first=100 * i, free=at + 10)
        at += length
    return events


def test_busy_shares_are_of_the_steps_without_warm_up() -> None:
    found = analysed(steps(9000, 1000, 1000, 1000))
    assert found.summary.busy_fraction == pytest.approx(0.5)
    assert found.detail.window_seconds == pytest.approx(3000 * US)
    assert [s.warm_up for s in found.detail.steps] == [True, False, False, False]
    assert [s.launches for s in found.detail.steps] == [10] * 4
    assert [s.device_seconds for s in found.detail.steps] == pytest.approx([4500 * US, *[500 * US] * 3])
    assert [s.busy_seconds / s.seconds for s in found.detail.steps] == pytest.approx([0.5] * 4)
    even = analysed(steps(1000, 1000, 1000))
    assert not any(s.warm_up for s in even.detail.steps)
    late = analysed(steps(1000, 1000, 9000, 1000))
    assert not any(s.warm_up for s in late.detail.steps)


def test_the_share_is_never_of_the_first_to_the_last_kernel_alone() -> None:
    """A step in which one kernel runs for a tenth of the time is busy for a tenth."""
    events = [made.event("user_annotation", "ProfilerStep#1", 0, 1000), *queued(1, runs=100, at=400)]
    assert analysed(events).summary.busy_fraction == pytest.approx(0.1)
    without = analysed([made.op("aten::mm", 0, 1000), *queued(1, runs=100, at=400)])
    assert without.summary.busy_fraction == pytest.approx(0.1)


def test_steps_of_several_processes_are_their_devices_windows() -> None:
    events = []
    for p in (1, 2):
        shift = 500 * p
        events.append(made.event("user_annotation", "ProfilerStep#1", shift, shift + 1000, (p, 1)))
        events += [
            call(p, "cudaLaunchKernel", shift + 5, shift + 6, p),
            on(p - 1, 7, "k", shift + 10, shift + 110 * p, p),
        ]
    found = analysed(events)
    assert [d.window_seconds for d in found.detail.devices] == pytest.approx([1000 * US] * 2)
    assert [d.busy_fraction for d in found.detail.devices] == pytest.approx([0.1, 0.21])


# --- a CPU's trace ---------------------------------------------------------------------------


def on_cpu(busy: float, op: str = "aten::mul") -> list[Event]:
    return [made.event("cpu_op", op, 100 * i, 100 * i + 100 * busy, **F) for i in range(50)]


@pytest.mark.parametrize(
    ("busy", "worked", "verdict", "said"),
    [
        (0.2, None, "unknown", "whether the host worked or waited"),
        (0.98, None, "unknown", "whether the host worked or waited"),
        (0.2, 0.99, "launch-bound", "Python, dispatch, autograd"),
        (0.2, 0.25, "host stall", "waited"),
        (0.98, 0.97, "bandwidth-bound", "few FLOPs a byte"),
    ],
)
def test_a_cpu_s_trace_needs_the_host_s_working_time(busy, worked, verdict, said) -> None:
    document = {} if worked is None else {"cdvft_bench": {"wall_seconds": 2.0, "thread_seconds": 2.0 * worked}}
    s = analysed(on_cpu(busy), **document).summary
    assert (s.verdict, said in s.reason) == (verdict, True), s.reason
    assert s.host_working == (None if worked is None else pytest.approx(worked))
    for odd in ({"wall_seconds": 0}, {"wall_seconds": "1", "thread_seconds": 1}, 3):
        assert analysed(on_cpu(busy), cdvft_bench=odd).summary.host_working is None


def test_busy_shares_of_a_cpu_are_of_the_steps() -> None:
    events = [
        made.event("user_annotation", "ProfilerStep#0", 0, 5000),
        made.event("user_annotation", "ProfilerStep#1", 5000, 7000),
    ]
    s = analyse_events([*on_cpu(0.5), *events])
    assert s.busy_fraction == pytest.approx(2500 / 7000)
