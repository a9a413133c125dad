"""Random traces of several processes, devices and streams, counted once more: an instant at a time, with fractions."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdvft_bench.core.errors import UserError
from cdvft_bench.timing.traces.analysis import Analysis, analyse
from cdvft_bench.timing.traces.events.model import from_events
from tests.timing import cuda_trace as made

Event = dict[str, Any]
Span = tuple[Fraction, Fraction]
KERNELS = {
    made.GEMM: "matmul",
    made.MUL: "elementwise",
    "ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)": "communication",
    made.FFT: "fft",
    "Memset (Device)": "copy",
    "my_kernel": "other",
}
OPERATORS = ("aten::mm", "aten::add", "aten::linear", "aten::view", "MulBackward0", "aten::sum")

quarters = st.integers(0, 400).map(lambda n: n / 4)
lengths = st.integers(0, 60).map(lambda n: n / 4)


@st.composite
def synthetic(draw: st.DrawFn) -> list[Event]:
    """Operators that nest and overlap, launches that work, get lost or wait, kernels that overlap, steps or none.

    Of the host no two events begin at one moment, and calls do not overlap: what encloses what would be open.
    """
    origin = draw(st.sampled_from([0.0, 1000.0, 5_930_452.25]))
    events: list[Event] = []
    for process in range(1, draw(st.integers(1, 2)) + 1):
        for start in draw(st.lists(st.integers(0, 400), max_size=6, unique=True)):
            begin, thread = start / 4 + 0.125, draw(st.integers(1, 2))
            events.append(made.op(draw(st.sampled_from(OPERATORS)), begin, begin + draw(lengths), (process, thread)))
        for i, start in enumerate(sorted(draw(st.lists(st.integers(0, 200), max_size=8, unique=True)))):
            events.append(made.launch(start / 2, start / 2 + 0.25, 100 * process + i, (process, 1)))
            if draw(st.integers(0, 9)):
                wait, stream = draw(lengths), draw(st.sampled_from([7, 20]))
                args = {"correlation": 100 * process + i, "device": process - 1, "stream": stream}
                name = draw(st.sampled_from(list(KERNELS)))
                begin = start / 2 + wait
                events.append(made.event("kernel", name, begin, begin + draw(lengths), (process - 1, stream), **args))
        if draw(st.booleans()):
            begin = draw(st.integers(0, 400)) / 4 + 0.0625
            length = draw(st.integers(1, 200)) / 4
            events.append(made.event("user_annotation", f"ProfilerStep#{process}", begin, begin + length, (process, 3)))
    for i in range(draw(st.integers(0, 3))):  # kernels whose launches the trace has lost
        start, device = draw(quarters), draw(st.integers(0, 2))
        args = {"correlation": 900 + i, "device": device, "stream": 7}
        events.append(made.event("kernel", "my_kernel", start, start + draw(lengths), (device, 7), **args))
    return [{**e, "ts": e["ts"] + origin} for e in draw(st.permutations(events))]


def span(event: Event) -> Span:
    start = Fraction(event["ts"])
    return start, start + Fraction(event["dur"])


def instants(*groups: list[Span]) -> list[Span]:
    """Elementary stretches: no event begins or ends inside one."""
    points = sorted({t for spans in groups for s in spans for t in s})
    return list(pairwise(points))


def inside(piece: Span, spans: list[Span]) -> bool:
    return any(s <= piece[0] and piece[1] <= e for s, e in spans)


def measure(pieces: list[Span]) -> Fraction:
    return sum((e - s for s, e in pieces), Fraction(0))


def of(events: list[Event], *categories: str) -> list[Event]:
    return [e for e in events if e["cat"] in categories]


def us(value: Fraction | float) -> float:
    return float(value) * 1e-6


def near(value: Fraction) -> Any:
    return pytest.approx(us(value), rel=1e-9, abs=1e-15)


def windows_of(events: list[Event]) -> dict[int, list[Span]]:
    """The window of each device: its process's step, else any process's, else the whole span."""
    steps = {e["pid"]: span(e) for e in of(events, "user_annotation")}
    kernels = of(events, "kernel")
    counted = [span(e) for e in events if e["cat"] in ("cpu_op", "kernel")]
    first = min(s for s, _ in counted + [span(e) for e in of(events, "cuda_runtime")])
    whole = (first, max(e for _, e in counted))
    found = {}
    for device in {k["args"]["device"] for k in kernels}:
        mine = [k for k in kernels if k["args"]["device"] == device]
        process = device + 1 if any(k["args"]["correlation"] < 900 for k in mine) else None
        window = [steps[process]] if process in steps else list(steps.values()) or [whole]
        pieces = [p for p in instants(window, [span(k) for k in mine]) if inside(p, window)]
        busy = [p for p in pieces if inside(p, [span(k) for k in mine])]
        found[device] = window if busy or not steps else [whole]
    return found


@given(events=synthetic())
@settings(max_examples=150, deadline=None)
def test_an_independent_recount_agrees(events: list[Event]) -> None:
    kernels, calls, operators = of(events, "kernel"), of(events, "cuda_runtime"), of(events, "cpu_op")
    try:
        found = analyse(from_events(events))
    except UserError:
        assert not kernels + calls + operators
        return
    s, detail = found.summary, found.detail
    json.dumps(asdict(s), allow_nan=False)
    host = self_times(operators + of(events, "user_annotation") + calls)
    assert s.host_seconds == near(sum((host[id(e)] for e in operators if e["name"].startswith("aten::")), Fraction(0)))
    if not kernels:
        return
    assert s.launches == len(kernels)
    assert s.launch_calls == len(calls)
    assert s.device_seconds == near(sum((Fraction(k["dur"]) for k in kernels), Fraction(0)))
    times: Counter[str] = Counter()
    for k in kernels:
        times[family_in(k, calls, operators)] += Fraction(k["dur"])  # type: ignore[assignment] # a Counter of fractions
    assert s.families == {name: near(Fraction(t)) for name, t in times.items()}
    made_by = {k["args"]["correlation"] for k in kernels}
    assert s.lost == sum(c["args"]["correlation"] not in made_by for c in calls)
    recount_devices(found, events)
    assert sum(s.by_operator.values()) == sum(s.scopes.values()) == sum(s.family_launches.values()) == s.launches
    assert sum(k.launches for k in detail.kernels) == sum(d.launches for d in detail.devices) == s.launches
    assert sum(st_.launches for st_ in detail.streams) == s.launches
    assert sum(o.device_seconds for o in detail.operators) <= s.device_seconds * (1 + 1e-9)
    assert sum(k.seconds for k in detail.kernels) == pytest.approx(s.device_seconds)
    for stream in detail.streams:
        assert stream.queue is None or stream.queue.minimum >= 0


def family_in(kernel: Event, calls: list[Event], operators: list[Event]) -> str:
    """A kernel without a telling name is of its operator's family."""
    label = KERNELS[kernel["name"]]
    if label not in ("other", "elementwise") or kernel["args"]["correlation"] >= 900:
        return label
    call = next(c for c in calls if c["args"]["correlation"] == kernel["args"]["correlation"])
    around = [o for o in operators if (o["pid"], o["tid"]) == (call["pid"], call["tid"]) and encloses(o, call)]
    inner = max(around, key=lambda o: (span(o)[0], -Fraction(o["dur"]), operators.index(o)), default=None)
    by_name = {"aten::mm": "matmul", "aten::add": "elementwise", "aten::linear": "matmul", "aten::sum": "reduction"}
    theirs = by_name.get(inner["name"], "other") if inner else "other"
    # Being element-wise tells less than being a product, and as much as being a sum.
    return theirs if label == "other" or theirs == "matmul" else label


def encloses(outer: Event, inner: Event) -> bool:
    """Whether an operator is open when a call begins; of two that begin together the longer is outside."""
    (a, b), (c, d) = span(outer), span(inner)
    return (a < c < b) or (a == c and d <= b) or (a <= c == b and d == c)


def self_times(events: list[Event]) -> dict[int, Fraction]:
    """Of the events open on a thread the one that began last has the instant."""
    found = {id(e): Fraction(0) for e in events}
    for track in {(e["pid"], e["tid"]) for e in events}:
        mine = [e for e in events if (e["pid"], e["tid"]) == track]
        for piece in instants([span(e) for e in mine]):
            open_ = [e for e in mine if inside(piece, [span(e)])]
            if open_:
                # Of those that began together the shorter is inside; ties have equal lives, so anyone may have it.
                top = max(open_, key=lambda e: (span(e)[0], -Fraction(e["dur"])))
                found[id(top)] += piece[1] - piece[0]
    return found


def recount_devices(found: Analysis, events: list[Event]) -> None:
    windows = windows_of(events)
    total_gaps, gap_time = 0, Fraction(0)
    for device, window in windows.items():
        mine = [k for k in of(events, "kernel") if k["args"]["device"] == device]
        talk = [span(k) for k in mine if KERNELS[k["name"]] == "communication"]
        rest = [span(k) for k in mine if KERNELS[k["name"]] != "communication"]
        pieces = [p for p in instants(window, talk, rest) if inside(p, window)]
        busy = [p for p in pieces if inside(p, talk + rest)]
        one = next(d for d in found.detail.devices if d.name == f"device {device}")
        assert one.launches == len(mine)
        length = measure([p for p in instants(window) if inside(p, window)])
        assert one.window_seconds == near(length)
        assert one.busy_seconds == near(measure(busy))
        assert one.busy_fraction is None or 0 <= one.busy_fraction <= 1 + 1e-12
        assert one.communication_seconds == near(measure([p for p in pieces if inside(p, talk)]))
        assert one.exposed_seconds == near(measure([p for p in pieces if inside(p, talk) and not inside(p, rest)]))
        assert sum(one.idle_seconds.values()) == near(length - measure(busy))
        assert all(seconds >= 0 for seconds in one.idle_seconds.values())
        # Gaps lie between kernels, in the whole trace; kernels of no length part them, too.
        reach, gaps = None, []
        for start, end in sorted(span(k) for k in mine):
            if reach is not None and start > reach:
                gaps.append(start - reach)
            reach = end if reach is None else max(reach, end)
        assert (one.gaps, one.gap_seconds) == (len(gaps), near(sum(gaps, Fraction(0))))
        total_gaps, gap_time = total_gaps + len(gaps), gap_time + sum(gaps, Fraction(0))
    s = found.summary
    assert len(found.detail.devices) == len(windows)
    assert (s.gaps, s.gap_seconds) == (total_gaps, near(gap_time))
    assert 0 <= s.starved_seconds <= s.gap_seconds * (1 + 1e-9)
    assert s.largest_gap_seconds <= s.gap_seconds * (1 + 1e-9)
    shares = [d.busy_fraction for d in found.detail.devices if d.busy_fraction is not None]
    assert s.busy_fraction == (pytest.approx(sum(shares) / len(shares)) if shares else None)


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=3)
)
names = st.sampled_from(
    [
        "aten::mm",
        "aten::add",
        "AddBackward0",
        "cudaLaunchKernel",
        "base",
        "novel",
        "ProfilerStep#1",
        "autograd::engine::evaluate_function: AddBackward0",
        "cudaStreamBeginCapture",
        "autograd::engine::evaluate_function: torch::autograd::AccumulateGrad",
    ]
)
categories = st.sampled_from(
    [
        "cpu_op",
        "kernel",
        "cuda_runtime",
        "user_annotation",
        "gpu_memset",
        "other",
        "Operator",
        "python_function",
        "overhead",
        "xpu_runtime",
        None,
    ]
)
raw_events = st.fixed_dictionaries(
    {"ph": st.sampled_from(["X", "i", "B", "E", "s", "f", "M"]), "cat": st.one_of(categories, values)},
    optional={
        "name": st.one_of(names, values),
        "ts": st.one_of(st.floats(0, 100), values),
        "dur": st.one_of(st.floats(0, 100), values),
        "pid": st.one_of(st.integers(0, 2), values),
        "tid": st.one_of(st.integers(0, 2), values),
        "args": st.one_of(
            values,
            st.dictionaries(
                st.sampled_from(
                    [
                        "correlation",
                        "Sequence number",
                        "Fwd thread id",
                        "Input Dims",
                        "Input type",
                        "device",
                        "stream",
                        "External id",
                        "bytes",
                        "graph id",
                        "name",
                    ]
                ),
                st.one_of(values, st.integers(0, 3), st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=3)),
            ),
        ),
    },
)


@given(events=st.lists(st.one_of(raw_events, values), max_size=12))
@settings(max_examples=250, deadline=None)
def test_any_events_give_a_summary_or_a_user_error(events: list[Any]) -> None:
    try:
        found = analyse(from_events(events))
    except UserError:
        return
    s = found.summary
    assert s.launches == sum(s.by_operator.values()) == sum(s.scopes.values()) == sum(s.family_launches.values())
    assert s.busy_fraction is None or 0 <= s.busy_fraction <= 1 + 1e-9
    assert min(s.families.values(), default=0) >= 0
    json.dumps(asdict(s), allow_nan=False)
    json.dumps(asdict(found.detail), allow_nan=False)
