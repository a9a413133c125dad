"""Of which time busy shares are taken: the profiler's steps without warm-up, or the whole trace where it has none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.timing.traces.events.columns import NONE
from cdvft_bench.timing.traces.events.intervals import Stretches, union, union_of
from cdvft_bench.timing.traces.events.linking import Links
from cdvft_bench.timing.traces.events.model import Trace
from cdvft_bench.timing.traces.events.roles import STEP, Role

WARM_UP = 2.0
"""A step at the beginning that takes this many times as long as the median one is warm-up."""
_FEW = 3  # steps from which on there is a median to speak of


@dataclass(frozen=True)
class Step:
    """A range of the profiler around one iteration: its name, process, start and end (picoseconds)."""

    name: str
    process: int
    start: int
    end: int
    warm_up: bool


def steps(trace: Trace, links: Links) -> tuple[Step, ...]:
    """The profiler's steps in order of their start, each once."""
    host = trace.host
    found: dict[tuple[int, str], tuple[int, int]] = {}
    for i in np.flatnonzero(_named(trace) & (host.role == Role.RANGE)).tolist():
        key = (int(host.process[i]), trace.name(i))
        low, high = found.get(key, (int(host.start[i]), int(host.end[i])))
        found[key] = (min(low, int(host.start[i])), max(high, int(host.end[i])))
    result: list[Step] = []
    for process in sorted({process for process, _ in found}):
        mine = sorted((span, name) for (owner, name), span in found.items() if owner == process)
        warm = _warm_ups(trace, links, [span for span, _ in mine])
        result += [Step(name, process, *span, i < warm) for i, (span, name) in enumerate(mine)]
    return tuple(sorted(result, key=lambda step: (step.start, step.process)))


def _named(trace: Trace) -> NDArray[np.bool_]:
    """Host events that are called as the profiler's steps."""
    return np.array([bool(STEP.match(name)) for name in trace.names], np.bool_)[trace.host.name]


def _warm_ups(trace: Trace, links: Links, spans: Sequence[tuple[int, int]]) -> int:
    """How many steps at the beginning are much longer than the median, or have launches without kernels."""
    if len(spans) < _FEW:
        return 0
    median = float(np.median([end - start for start, end in spans]))
    lost = np.sort(trace.host.start[links.lost])
    made = np.sort(trace.host.start[links.call[links.call != NONE]])
    for i, (start, end) in enumerate(spans):
        missing = int(np.searchsorted(lost, end) - np.searchsorted(lost, start))
        there = int(np.searchsorted(made, end) - np.searchsorted(made, start))
        if end - start <= WARM_UP * median and missing <= there:
            return i if i <= len(spans) // 2 else 0
    return 0


@dataclass(frozen=True)
class Windows:
    """The time that shares are taken of.

    Attributes:
        span: picoseconds from the first operator, range or launch to the last end of anything.
        whole: the window of the host. by_device: that of each device.
        steps: the profiler's; empty where there are none.
    """

    span: tuple[int, int]
    whole: Stretches
    by_device: tuple[Stretches, ...]
    steps: tuple[Step, ...]


def windows(trace: Trace, links: Links) -> Windows:
    """The windows of a trace."""
    span = _span(trace, links)
    found = steps(trace, links)
    kept = [step for step in found if not step.warm_up]
    whole = union_of((step.start, step.end) for step in kept) if kept else union_of([span])
    by_device = []
    for device in range(len(trace.devices)):
        mine = trace.device.device == device
        made = links.call[mine & (links.call != NONE)]
        processes = set(np.unique(trace.host.process[made]).tolist())
        owned = [step for step in kept if step.process in processes]
        window = union_of((step.start, step.end) for step in owned or kept) if kept else whole
        busy = union(trace.device.start[mine], trace.device.end[mine])
        if kept and int(busy.overlap(window.start, window.end).sum()) == 0:
            window = union_of([span])  # its work is outside of all steps
        by_device.append(window)
    return Windows(span, whole, tuple(by_device), found)


def _span(trace: Trace, links: Links) -> tuple[int, int]:
    host, device = trace.host, trace.device
    working = (host.role == Role.OPERATOR) | ((host.role == Role.RANGE) & ~_named(trace))
    starts = [host.start[working | links.launching], device.start]
    ends = [host.end[working], device.end]
    low = min((int(s.min()) for s in starts if len(s)), default=0)
    high = max((int(e.max()) for e in ends if len(e)), default=low)
    return low, max(high, low)
