"""Counts and times of devices, streams, processes and threads that must not be mixed up, and of what is no launch."""

from __future__ import annotations

from typing import Any

import pytest

from cdvft_bench.timing.trace import analyse_events
from cdvft_bench.timing.traces.analysis import Analysis, analyse
from cdvft_bench.timing.traces.events.model import from_events
from tests.timing import cuda_trace as made

US = 1e-6
Event = dict[str, Any]


def analysed(events: list[Event]) -> Analysis:
    return analyse(from_events(events))


def on(
    device: int, stream: int, name: str, start: float, end: float, correlation: int | None, cat: str = "kernel"
) -> Event:
    args = {"device": device, "stream": stream} | ({} if correlation is None else {"correlation": correlation})
    return made.event(cat, name, start, end, (device, stream), **args)


def call(process: int, name: str, start: float, end: float, correlation: int | None, thread: int = 1) -> Event:
    args = {} if correlation is None else {"correlation": correlation}
    return made.event("cuda_runtime", name, start, end, (process, thread), **args)


# --- times ---------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [0, 0.3, 5_930_452_123.25, 1_700_000_000_000_000, 1_700_000_000_000_000.25])
def test_a_thousand_short_kernels_add_up_whatever_the_time_is(origin: float) -> None:
    events = [on(0, 7, "k", origin + 10 * i, 0, i) | {"dur": 1.1} for i in range(1000)]
    s = analyse_events(events)
    assert s.device_seconds == 0.0011
    assert s.families == {"other": 0.0011}
    assert s.gaps == 999
    assert s.gap_seconds == pytest.approx(999 * 8.9 * US)


def test_parts_of_nanoseconds_are_rounded_once_at_the_end() -> None:
    events = [on(0, 7, "k", 1.7e15 + 10 * i, 0, i) | {"dur": 1.0004} for i in range(1000)]
    assert analyse_events(events).device_seconds == pytest.approx(1000.4 * US, rel=1e-12)


def test_operators_that_overlap_on_a_thread_never_give_negative_time() -> None:
    """The second begins in the first and ends after it; the third lies in the second alone."""
    events = [
        made.op("aten::mm", 0, 100),
        made.op("aten::add", 60, 150),
        made.op("aten::sum", 120, 140),
        made.op("aten::cat", 10, 20),
        made.op("aten::cat", 10, 20),
    ]
    s = analyse_events(events)
    assert s.families == pytest.approx(
        {"matmul": 50 * US, "elementwise": 70 * US, "reduction": 20 * US, "copy": 10 * US}
    )
    assert s.host_seconds == pytest.approx(150 * US)


# --- devices, streams, processes -----------------------------------------------------------------


def test_two_devices_that_alternate_are_each_busy_a_third() -> None:
    events = [call(9, "cudaLaunchKernel", 0, 1, 0)]
    events += [on(d, 7, "k", 30 * i + 15 * d, 30 * i + 15 * d + 10, 2 * i + d) for i in range(10) for d in (0, 1)]
    found = analysed([*events, made.op("aten::mm", 0, 300, (9, 1))])
    assert [d.busy_fraction for d in found.detail.devices] == pytest.approx([1 / 3, 1 / 3])
    assert found.summary.busy_fraction == pytest.approx(1 / 3)
    assert found.summary.gaps == 18
    assert [d.gap_seconds for d in found.detail.devices] == pytest.approx([180 * US, 180 * US])


def test_streams_of_a_device_are_busy_together_and_listed_apart() -> None:
    events = [call(9, "cudaLaunchKernel", t, t + 1, t) for t in (0, 2)]
    found = analysed([*events, on(0, 7, "a", 10, 50, 0), on(0, 20, "b", 30, 60, 2)])
    assert found.summary.busy_fraction == pytest.approx(50 / 60)
    assert [(s.stream, s.launches, s.device_seconds) for s in found.detail.streams] == [
        ("7", 1, pytest.approx(40 * US)),
        ("20", 1, pytest.approx(30 * US)),
    ]


def two_processes(devices: tuple[int, int], streams: tuple[int, int] = (7, 7)) -> list[Event]:
    """Two processes that use the same ids, the second's calls 50 us after the first's; kernels begin 10 us later."""
    events: list[Event] = []
    for i in range(20):
        for p, (device, stream) in enumerate(zip(devices, streams, strict=True)):
            t = 100 * i + 50 * p
            events += [
                made.op(("aten::mm", "aten::add")[p], t, t + 8, (p + 1, 1)),
                call(p + 1, "cudaLaunchKernel", t + 2, t + 5, i),
                on(device, stream, ("gemm", "plus")[p], t + 12, t + 40, i),
            ]
    return events


@pytest.mark.parametrize(("devices", "streams"), [((0, 1), (7, 7)), ((0, 0), (7, 13)), ((0, 0), (7, 7))])
def test_equal_ids_of_two_processes_are_not_mixed_up(devices, streams) -> None:
    s = analyse_events(two_processes(devices, streams))
    assert s.by_operator == {"mm": 20, "add": 20}
    assert s.families == pytest.approx({"matmul": 560 * US, "elementwise": 560 * US})
    assert s.queue_depth == 0
    assert s.queue_delay_seconds == pytest.approx(10 * US)
    assert s.notes[-1:] == (("2 devices: the busy share is their mean",) if devices == (0, 1) else ())


def test_equal_ids_of_processes_with_deep_queues_are_not_mixed_up() -> None:
    """Every call comes long before its kernel, and the other process's call lies between."""
    events = two_processes((0, 1))
    for event in events:
        event["ts"] += 10_000 if event["cat"] == "kernel" else 0
    s = analyse_events(events)
    assert s.by_operator == {"mm": 20, "add": 20}
    assert s.queue_delay_seconds == pytest.approx(10_010 * US)
    assert s.queue_depth == 9.5


def test_sequence_numbers_are_a_process_s_own() -> None:
    events = []
    for p, scope in ((1, "base"), (2, "adapter")):
        events += [
            made.event("user_annotation", scope, 0, 50, (p, 1)),
            made.op("aten::mm", 10, 20, (p, 1), seq=5),
            made.op("MmBackward0", 60, 90, (p, 2), seq=5, fwd=1),
            call(p, "cudaLaunchKernel", 70, 72, p, 2),
            on(p, 7, "gemm", 80, 100, p),
        ]
    assert analyse_events(events).scopes == {"base": 1, "adapter": 1}


def test_kernels_without_correlation_are_tied_by_the_ids_of_operators() -> None:
    events = [
        made.event("cpu_op", "aten::mm", 0, 50, **{"External id": 4}),
        made.event("cuda_runtime", "cudaLaunchKernel", 10, 15, **{"External id": 4}),
        made.event("cuda_runtime", "cudaLaunchKernel", 20, 25, **{"External id": 4}),
        made.event("cpu_op", "aten::add", 50, 60, **{"External id": 5}),
        *[
            made.event("kernel", n, t, t + 5, made.GPU, stream=7, **{"External id": e})
            for n, t, e in (("a", 30, 4), ("b", 40, 4), ("c", 55, 5))
        ],
    ]
    s = analyse_events(events)
    assert s.by_operator == {"mm": 2, "add": 1}
    assert s.queue_delay_seconds == pytest.approx(20 * US)


# --- what is a launch ---------------------------------------------------------------------------


def test_launch_time_is_time_spent_launching() -> None:
    events = [
        call(1, "cudaLaunchKernel", 0, 10, 1),
        call(1, "cudaMemcpyAsync", 10, 5000, 2),
        call(1, "cudaLaunchHostFunc", 5000, 6000, 3),
        call(1, "cudaMemsetAsync", 6000, 6004, 4),
        call(1, "cudaGraphInstantiate", 6004, 9000, 5),
        call(1, "cudaGraphLaunch", 9000, 9020, 6),
        call(1, "cudaStreamSynchronize", 9020, 9900, 7),
        on(0, 7, "k", 20, 30, 1),
        on(0, 7, "Memcpy HtoD (Pageable -> Device)", 40, 50, 2, "gpu_memcpy"),
        on(0, 7, "Memset (Device)", 6010, 6020, 4, "gpu_memset"),
        on(0, 7, "k", 9030, 9040, 6),
        on(0, 7, "k", 9040, 9050, 6),
    ]
    found = analysed(events)
    s = found.summary
    assert s.launch_seconds == pytest.approx((10 + 4 + 20) * US)
    assert s.launch_calls == 4
    assert s.runtime == pytest.approx(
        {
            "launch": 10 * US,
            "copy": 4990 * US,
            "host function": 1000 * US,
            "fill": 4 * US,
            "graph recording": 2996 * US,
            "graph launch": 20 * US,
            "wait": 880 * US,
        }
    )
    assert found.detail.graphs.replays == 1
    assert found.detail.graphs.launches == 2
    assert found.detail.graphs.device_seconds == pytest.approx(20 * US)


def test_launches_while_a_graph_is_recorded_are_recording() -> None:
    events = [call(1, "cudaStreamBeginCapture", 0, 5, 100)]
    events += [call(1, "cudaLaunchKernel", 10 * i, 10 * i + 2, i) for i in range(1, 9)]
    events += [call(1, "cudaStreamEndCapture", 100, 130, 101), call(1, "cudaGraphLaunch", 200, 210, 102)]
    events += [on(0, 7, "k", 220 + 10 * i, 225 + 10 * i, 102) for i in range(8)]
    found = analysed(events)
    assert (found.summary.launches, found.summary.launch_calls, found.summary.lost) == (8, 1, 0)
    assert found.summary.launch_seconds == pytest.approx(10 * US)
    assert (found.detail.graphs.recorded, found.detail.graphs.captures) == (8, 1)
    assert found.summary.runtime["graph recording"] == pytest.approx((5 + 16 + 30) * US)


def test_a_driver_s_call_inside_of_the_runtime_s_is_one_launch() -> None:
    events = [
        call(1, "cudaLaunchKernel", 0, 10, 1),
        made.event("cuda_driver", "cuLaunchKernel", 2, 8, (1, 1), correlation=2),
        on(0, 7, "k", 20, 30, 2),
    ]
    s = analyse_events(events)
    assert (s.launch_calls, s.lost, s.launch_seconds) == (1, 0, pytest.approx(10 * US))


def test_lost_kernels_are_counted() -> None:
    events = [call(1, "cudaLaunchKernel", 10 * i, 10 * i + 3, i) for i in range(20)]
    events += [on(0, 7, "k", 10 * i + 5, 10 * i + 9, i) for i in range(19)]
    s = analyse_events(events)
    assert s.lost == 1
    assert any(n.startswith("1 launches have no kernel in the trace") for n in s.notes)
    assert "incomplete" not in s.reason
    few = analyse_events(events[:30])
    assert few.lost == 10
    assert (few.verdict, "10 of 20 launches" in few.reason) == ("unknown", True)


def test_launches_without_any_kernel_mean_that_recording_failed() -> None:
    s = analyse_events([made.op("aten::mm", 0, 50), call(1, "cudaLaunchKernel", 10, 20, 1)])
    assert (s.device, s.launches, s.lost) == ("cuda", 0, 1)
    assert s.busy_fraction is None
    assert s.verdict == "unknown"
    assert "recording failed" in s.reason
