"""Steps, kernels, operators, streams, queues, gaps and graphs by hand; two traces side by side; data frames."""

from __future__ import annotations

import pandas as pd
import pytest

from cdvft_bench.analysis import traces
from cdvft_bench.timing.traces.analysis import Analysis, analyse, compare
from cdvft_bench.timing.traces.events.model import from_events
from tests.timing import cuda_trace as made
from tests.timing.traces.test_counts import call, on
from tests.timing.traces.test_verdicts import communicating, queued, stalled, steps

US = 1e-6


def analysed(events: list[made.Event]) -> Analysis:
    return analyse(from_events(events))


def test_kernels_and_operators_by_time() -> None:
    detail = analysed(made.training_step()).detail
    assert [(k.label, k.family, k.launches) for k in detail.kernels] == [
        ("sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n", "matmul", 1),
        (made.GEMM, "matmul", 1),
        ("regular_fft", "fft", 1),
        ("Memset", "copy", 1),
        ("vectorized_elementwise_kernel<BinaryFunctor>", "elementwise", 1),
    ]
    assert sum(k.share for k in detail.kernels) == pytest.approx(1)
    operators = {o.name: o for o in detail.operators}
    assert operators["aten::addmm"].device_seconds == pytest.approx(50 * US)
    assert (operators["aten::linear"].launches, operators["aten::linear"].calls) == (0, 1)
    assert operators["aten::linear"].host_seconds == pytest.approx(20 * US)


def test_queues_are_counted_as_holistic_trace_analysis_does() -> None:
    """One more at a launch, one fewer when a kernel begins, over all those moments, each stream by itself."""
    events = [call(1, "cudaLaunchKernel", t, t + 1, i) for i, t in enumerate((0, 10, 20, 30))]
    events += [on(0, 7, "a", 5, 40, 0), on(0, 7, "b", 40, 50, 1), on(0, 7, "c", 50, 60, 2), on(0, 9, "d", 35, 70, 3)]
    first, second = analysed(events).detail.streams
    lengths = [1, 0, 1, 2, 1, 0]
    described = pd.Series(lengths).describe()
    assert first.queue is not None
    assert (first.queue.changes, first.queue.maximum, first.queue.minimum) == (6, 2, 0)
    assert (first.queue.mean, first.queue.std) == pytest.approx((described["mean"], described["std"]))
    assert (first.queue.quarter, first.queue.median, first.queue.three_quarters) == pytest.approx(
        (described["25%"], described["50%"], described["75%"])
    )
    assert second.queue is not None
    assert (second.stream, second.queue.maximum, second.queue.mean) == ("9", 1, 0.5)
    series = traces.queue(analysed(events))
    assert series[series.stream == "7"].length.tolist() == lengths
    assert series.time.tolist()[:3] == pytest.approx([0, 5 * US, 10 * US])
    assert analysed([on(0, 7, "a", 0, 1, None)]).detail.streams[0].queue is None


def test_gaps_and_what_lies_outside_of_kernels_make_up_the_window() -> None:
    found = analysed(made.training_step())
    (device,) = found.detail.devices
    assert device.busy_seconds + sum(device.idle_seconds.values()) == pytest.approx(device.window_seconds)
    lengths = sorted((g.seconds for g in found.detail.gaps), reverse=True)
    assert lengths == pytest.approx([170 * US, 50 * US, 45 * US, 20 * US, 15 * US, 10 * US])
    longest = found.detail.gaps[0]
    assert (longest.start_seconds, longest.starved_seconds) == pytest.approx((190 * US, 150 * US))
    assert longest.host[-1] == "aten::mm"
    edges = [g for g in found.detail.gaps if not g.after or not g.before]
    assert [g.host[:2] for g in edges] == [("ProfilerStep#3", "base"), ("ProfilerStep#3", "cudaDeviceSynchronize")]


def test_ten_gaps_are_kept_and_all_are_counted() -> None:
    found = analysed(stalled(gap=3000) + queued(30, runs=1, first=90_000, at=40_000))
    assert len(analysed([on(0, 7, "k", 10 * i, 10 * i + 5, i) for i in range(50)]).detail.gaps) == 10
    assert found.summary.gaps == 5


def test_steps_say_what_communication_is_alone() -> None:
    events = [made.event("user_annotation", "ProfilerStep#1", 0, 500), *communicating(beside=False)]
    (step,) = analysed(events).detail.steps
    assert step.communication_seconds == pytest.approx(295 * US)
    assert step.exposed_seconds == pytest.approx(295 * US)
    assert step.busy_seconds == pytest.approx(495 * US)


def test_two_traces_side_by_side() -> None:
    before, now = analysed(steps(1000, 1000)), analysed(steps(800, 800, 800, runs=0.25))
    found = compare(now, before)
    assert (found.basis, found.steps) == ("a step", (2, 3))
    (family,) = found.families
    assert (family.name, family.before, family.after) == (
        "elementwise",
        pytest.approx(500 * US),
        pytest.approx(200 * US),
    )
    assert family.difference == pytest.approx(-300 * US)
    assert (family.launches_before, family.launches_after) == (10, 10)
    assert found.times[0].name == "steps on the host"
    assert (found.times[0].before, found.times[0].after) == pytest.approx((1000 * US, 800 * US))
    whole = compare(analysed(made.training_step()), analysed(made.graph_replay()))
    assert whole.basis == "the whole trace"
    assert any("not both traces" in note for note in whole.notes)
    assert {k.name for k in whole.kernels if not k.before} >= {made.GEMM, "regular_fft"}
    assert [abs(k.difference) for k in whole.kernels] == sorted(
        (abs(k.difference) for k in whole.kernels), reverse=True
    )
    assert all(row.difference == 0 for row in compare(now, now).kernels)


def test_data_frames_add_up() -> None:
    found = analysed([*communicating(beside=True), made.event("user_annotation", "ProfilerStep#1", 0, 1500)])
    s = found.summary
    assert traces.kernels(found).seconds.sum() == pytest.approx(s.device_seconds)
    assert traces.operators(found).launches.sum() == s.launches - s.by_operator.get("(no operator)", 0)
    families = traces.families(found)
    assert families.seconds.to_dict() == pytest.approx(s.families)
    assert families.loc["matmul", "bytes"] == s.family_bytes["matmul"]
    assert len(traces.steps(found)) == 1
    devices = traces.devices(found)
    assert devices.filter(like="idle: ").sum(axis=1).iloc[0] == pytest.approx(sum(s.idle.values()))
    assert traces.streams(found).queue_maximum.max() > 1
    assert len(traces.gaps(found)) == len(found.detail.gaps)
    assert traces.scopes(found).launches.sum() == s.launches
    activities = traces.activities(found)
    assert activities.groupby("family").seconds.sum().to_dict() == pytest.approx(s.families)
    assert (activities.start >= activities.launched).all()
    events = traces.events(found)
    assert events[events.role == "operator"].self_seconds.sum() == pytest.approx(s.host_seconds)
    inner = events[events.parent >= 0]
    assert (inner.start.to_numpy() >= events.start.to_numpy()[inner.parent]).all()
    assert traces.changes(found, found).difference.abs().sum() == 0


def test_data_frames_of_a_cpu_s_trace_are_empty_where_nothing_is() -> None:
    found = analysed([made.op("aten::mm", 0, 10)])
    for name in ("devices", "streams", "gaps", "steps", "activities", "queue"):
        assert len(getattr(traces, name)(found)) == 0
    assert traces.kernels(found).name.tolist() == ["mm"]
    assert traces.events(found).role.tolist() == ["operator"]
