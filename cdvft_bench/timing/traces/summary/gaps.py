"""Idle stretches of a device in its window: how long nothing was launched, why, and what the host did meanwhile."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.timing.traces.events.columns import MICRO, NONE, Ints
from cdvft_bench.timing.traces.events.intervals import Stretches, union, union_of
from cdvft_bench.timing.traces.events.linking import Links
from cdvft_bench.timing.traces.events.model import SECOND, Trace
from cdvft_bench.timing.traces.events.roles import Role
from cdvft_bench.timing.traces.summary.result import Gap

LAUNCH, STALL, INPUT, OVERHEAD, WAITING, UNTOLD = ("launch", "host stall", "input", "profiler", "waiting", "untold")
"""Why a device was idle: its next kernel was launched only just, or after the host had done something else, or after
the next batch had come, or after the profiler had seen to itself; or it was launched and waited for something; or the
trace does not tell when it was launched."""

LONG = 10.0
"""A gap is a stall of the host where nothing was launched for this many times the usual interval of launches."""
SHORTEST = 100 * MICRO
"""And for as long as this, picoseconds."""
_LATENCY = 20 * MICRO  # from a call to its kernel's start at most, where nothing is in the way
_INPUT = re.compile(
    r"data_?loader|_next_data|__next__.*(?:Iter|Loader)|next_batch|get_batch|fetch_next|train_dataloader_next|"
    r"batch_to_device|collate|torch/utils/data|tf_?data|IteratorGetNext|dali|webdataset|data_?loading|"
    r"load_?(?:data|batch|image)|prefetcher|data_?fetch|data_?wait",
    re.I,
)


@dataclass(frozen=True)
class Idle:
    """A device's idle time.

    Attributes:
        start, end: of the stretches in its window, picoseconds. causes: why, for each.
        starved: picoseconds of each in which what ran next had not been launched. next: what ran next, ``NONE`` for
            nothing. between: whether each lies between two activities.
    """

    start: Ints
    end: Ints
    causes: NDArray[np.str_]
    starved: Ints
    next: Ints
    between: NDArray[np.bool_]

    def by_cause(self) -> dict[str, int]:
        """Picoseconds by cause."""
        length = self.end - self.start
        return {cause: int(length[self.causes == cause].sum()) for cause in np.unique(self.causes).tolist()}


class Host:
    """What of the host the gaps are held against."""

    def __init__(self, trace: Trace, links: Links) -> None:
        self.trace, self.links = trace, links
        launches = links.launching & (trace.host.role == Role.RUNTIME)
        self.interval = _usual_interval(trace, launches)
        known = links.call != NONE
        delays = trace.device.start[known] - trace.host.start[links.call[known]]
        delays = delays[delays >= 0]
        self.latency = int(min(np.quantile(delays, 0.1), _LATENCY)) if len(delays) else 0
        self.overhead = union(trace.overhead.start, trace.overhead.end)
        self.input = _input(trace)


def _usual_interval(trace: Trace, launches: NDArray[np.bool_]) -> float:
    """Median picoseconds between the starts of launches that follow one another on a thread."""
    index = np.flatnonzero(launches)
    same = trace.host.track[index][1:] == trace.host.track[index][:-1]
    steps = np.diff(trace.host.start[index])[same]
    return float(np.median(steps)) if len(steps) else 0.0


def _input(trace: Trace) -> Stretches:
    """When some thread was busy getting data."""
    named = np.array([bool(_INPUT.search(name)) for name in trace.names], np.bool_)
    host, python = trace.host, trace.python
    mine = named[host.name] & (host.role != Role.RUNTIME)
    other = named[python.name]
    return union(
        np.concatenate((host.start[mine], python.start[other])), np.concatenate((host.end[mine], python.end[other]))
    )


def idle(host: Host, device: int, busy: Stretches, window: Stretches) -> Idle:
    """Idle stretches of a device.

    Args:
        host: of the trace. device: which. busy: when it ran anything, in the whole trace. window: of it.
    """
    trace, links = host.trace, host.links
    stretches = window.without(busy)
    start, end = stretches.start, stretches.end
    mine = np.flatnonzero(trace.device.device == device)
    # What runs next; of kernels that start together, the one that was launched first.
    at = np.searchsorted(trace.device.start[mine], end, side="left")
    following = np.where(at < len(mine), mine[np.minimum(at, len(mine) - 1)], NONE)
    launched = _launch_times(trace, links, mine)
    when = np.where(at < len(mine), launched[np.minimum(at, len(mine) - 1)], end)
    told = (following == NONE) | (links.call[following] != NONE)
    starved = np.where(told, np.clip(when - start, 0, end - start), 0)
    late = np.clip(when + host.latency - start, 0, end - start)
    half = (end - start) / 2
    long = max(LONG * host.interval, SHORTEST)
    causes = np.select(
        [
            ~told,
            host.overhead.overlap(start, end) >= np.maximum(half, 1),
            (late >= half) & (host.input.overlap(start, end) >= np.maximum(half, 1)),
            late < half,
            starved >= long,
        ],
        [UNTOLD, OVERHEAD, INPUT, WAITING, STALL],
        LAUNCH,
    )
    first, last = (busy.start[0], busy.end[-1]) if len(busy) else (0, 0)
    between = (start >= first) & (end <= last) if len(busy) else np.zeros(len(start), np.bool_)
    return Idle(start, end, causes, starved, following, between)


def _launch_times(trace: Trace, links: Links, kernels: Ints) -> Ints:
    """When each kernel, or one that starts together with it, was launched."""
    calls = links.call[kernels]
    own = trace.device.start[kernels]
    times = np.where(calls == NONE, own, np.minimum(trace.host.start[calls], own)) if len(trace.host) else own.copy()
    new = np.concatenate(([True], own[1:] != own[:-1])) if len(own) else np.zeros(0, np.bool_)
    if len(own):
        first = np.minimum.reduceat(times, np.flatnonzero(new))
        times = first[np.cumsum(new) - 1]
    return np.asarray(times, np.int64)


def between_kernels(trace: Trace, links: Links, device: int, busy: Stretches) -> tuple[Ints, int]:
    """Lengths of all gaps between a device's activities, and the part in which the next was not launched; ps."""
    gaps = busy.gaps()
    mine = np.flatnonzero(trace.device.device == device)
    at = np.searchsorted(trace.device.start[mine], gaps.end, side="left")
    known = links.call[mine[at]] != NONE
    when = _launch_times(trace, links, mine)[at]
    lengths = gaps.end - gaps.start
    starved = np.where(known, np.clip(when - gaps.start, 0, lengths), 0)
    return lengths, int(starved.sum())


# --- what the host did ----------------------------------------------------------------------


def largest(host: Host, found: dict[int, Idle], kernel: Callable[[int], str], origin: int, count: int) -> list[Gap]:
    """The longest idle stretches of all devices, with what the host did in each.

    Args:
        host: of the trace. found: idle stretches by device. kernel: short name of an activity.
        origin: picoseconds that times are told from. count: how many.
    """
    candidates = [
        (int(one.end[i] - one.start[i]), -int(one.start[i]), device, i)
        for device, one in found.items()
        for i in np.argsort(one.start - one.end, kind="stable")[:count].tolist()
    ]
    gaps = []
    for length, _, device, i in sorted(candidates, reverse=True)[:count]:
        one = found[device]
        start, end = int(one.start[i]), int(one.end[i])
        following = int(one.next[i])
        before = _before(host.trace, device, start)
        did, share = host_activity(host, start, end, following)
        gaps.append(
            Gap(
                device=host.trace.devices[device],
                start_seconds=(start - origin) / SECOND,
                seconds=length / SECOND,
                starved_seconds=int(one.starved[i]) / SECOND,
                cause=str(one.causes[i]),
                after=kernel(before) if before != NONE else "",
                before=kernel(following) if following != NONE else "",
                host=did,
                host_share=share,
            )
        )
    return gaps


def _before(trace: Trace, device: int, start: int) -> int:
    """The activity of a device that ended last before a moment."""
    mine = np.flatnonzero((trace.device.device == device) & (trace.device.end <= start))
    return int(mine[np.argmax(trace.device.end[mine])]) if len(mine) else NONE


def host_activity(host: Host, start: int, end: int, following: int) -> tuple[tuple[str, ...], float]:
    """What the launching thread was in for most of a stretch, outermost first, and for which share of it."""
    trace, links = host.trace, host.links
    track = _thread(trace, links, following)
    if track == NONE:
        return (), 0.0
    names: dict[tuple[str, ...], int] = {}

    def add(path: tuple[str, ...], where: Stretches) -> None:
        """Time of a path, of which Python functions have their part: they tell more than a range."""
        left = where.total
        for function, length in _python(trace, track, where).items():
            names[(*path, function)] = names.get((*path, function), 0) + length
            left -= length
        names[path] = names.get(path, 0) + left

    events, forest = trace.host, trace.forest
    mine = np.flatnonzero((events.track == track) & (events.start < end) & (events.end > start))
    pieces = {int(i): (max(start, int(events.start[i])), min(end, int(events.end[i]))) for i in mine}
    inner: dict[int, list[tuple[int, int]]] = {}
    for i, piece in pieces.items():
        parent = int(forest.parent[i])
        if parent != NONE:
            inner.setdefault(parent, []).append(piece)
    for i, piece in pieces.items():
        alone = union_of([piece]).without(union_of(inner.get(i, [])))
        path = tuple(reversed([trace.name(k) for k in trace.above(i)]))
        if events.role[i] == Role.RANGE:
            add(path, alone)
        else:
            names[path] = names.get(path, 0) + alone.total
    add((), union_of([(start, end)]).without(union_of(pieces.values())))
    names.pop((), None)
    if not names:
        return (), 0.0
    path, length = max(names.items(), key=lambda item: (item[1], item[0]))
    return path, length / (end - start) if length else 0.0


def _thread(trace: Trace, links: Links, following: int) -> int:
    """The thread that launched an activity; for none, the one that launched most."""
    call = int(links.call[following]) if following != NONE else NONE
    if call != NONE:
        return int(trace.host.track[call])
    launches = trace.host.track[links.launching]
    tracks = launches if len(launches) else trace.host.track
    return int(np.bincount(tracks).argmax()) if len(tracks) else NONE


def _python(trace: Trace, track: int, rest: Stretches) -> dict[str, int]:
    """Innermost Python functions in stretches of time, picoseconds each."""
    python = trace.python
    found: dict[str, int] = {}
    for start, end in zip(rest.start.tolist(), rest.end.tolist(), strict=True):
        around = np.flatnonzero((python.track == track) & (python.start < end) & (python.end > start))
        if not len(around):
            continue
        length = np.minimum(python.end[around], end) - np.maximum(python.start[around], start)
        # Of those that fill most of the stretch the innermost, which began last.
        filling = around[length * 2 >= end - start]
        if len(filling):
            i = int(filling[np.argmax(python.start[filling])])
            name = trace.names[python.name[i]]
            found[name] = found.get(name, 0) + end - start
    return found
