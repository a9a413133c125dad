"""Devices and their streams: busy, idle and why, in communication, and how long their queues were."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.timing.traces.events.columns import NONE, Ints
from cdvft_bench.timing.traces.events.intervals import Stretches, union
from cdvft_bench.timing.traces.events.linking import Links
from cdvft_bench.timing.traces.events.model import SECOND, Trace
from cdvft_bench.timing.traces.events.windows import Windows
from cdvft_bench.timing.traces.summary.gaps import Host, Idle, between_kernels, idle
from cdvft_bench.timing.traces.summary.result import DeviceTimes, QueueLength, StreamTimes


@dataclass(frozen=True)
class Account:
    """One device's time.

    Attributes:
        window: of which shares are taken. busy: with anything running, in the whole trace. communicating: in the
            window. exposed, copying: of the window in communication alone, in copies from the host alone.
        idle: of the window. gaps: lengths of all gaps between activities, starved: of them with nothing launched.
    """

    window: Stretches
    busy: Stretches
    busy_in_window: int
    communicating: int
    exposed: int
    copying: int
    idle: Idle
    gaps: Ints
    starved: int

    @property
    def computing(self) -> int:
        """Picoseconds of the window with anything else than communication and copies from the host."""
        return self.busy_in_window - self.exposed - self.copying


def accounts(
    trace: Trace,
    links: Links,
    windows: Windows,
    host: Host,
    communication: NDArray[np.bool_],
    incoming: NDArray[np.bool_],
) -> list[Account]:
    """The account of every device.

    Args:
        trace, links, windows, host: of the trace.
        communication: activities that are communication. incoming: that are copies from the host.
    """
    start, end = trace.device.start, trace.device.end
    found = []
    for number, window in enumerate(windows.by_device):
        mine = trace.device.device == number
        busy = union(start[mine], end[mine])

        def covered(chosen: NDArray[np.bool_], window: Stretches = window) -> Stretches:
            return union(start[chosen], end[chosen]).within(window)

        within = busy.within(window)
        working = covered(mine & ~communication & ~incoming)
        talking = covered(mine & communication)
        quiet = covered(mine & ~communication)
        copying = covered(mine & incoming)
        exposed = talking.total - talking.within(quiet).total
        found.append(
            Account(
                window=window,
                busy=busy,
                busy_in_window=within.total,
                communicating=talking.total,
                exposed=exposed,
                copying=copying.total - copying.within(working).total,
                idle=idle(host, number, busy, window),
                gaps=(lengths := between_kernels(trace, links, number, busy))[0],
                starved=lengths[1],
            )
        )
    return found


def device_times(trace: Trace, found: list[Account]) -> tuple[DeviceTimes, ...]:
    """The accounts as plain values."""
    result = []
    for number, (name, one) in enumerate(zip(trace.devices, found, strict=True)):
        mine = trace.device.device == number
        window = one.window.total
        result.append(
            DeviceTimes(
                name=name,
                window_seconds=window / SECOND,
                busy_seconds=one.busy_in_window / SECOND,
                busy_fraction=one.busy_in_window / window if window else None,
                launches=int(mine.sum()),
                device_seconds=int(trace.device.duration[mine].sum()) / SECOND,
                gaps=len(one.gaps),
                gap_seconds=int(one.gaps.sum()) / SECOND,
                communication_seconds=one.communicating / SECOND,
                exposed_seconds=one.exposed / SECOND,
                idle_seconds={cause: time / SECOND for cause, time in sorted(one.idle.by_cause().items())},
            )
        )
    return tuple(result)


# --- queues ---------------------------------------------------------------------------------


def stream_times(trace: Trace, links: Links) -> tuple[StreamTimes, ...]:
    """Every stream in order of its device and its name."""
    result = []
    for number, (device, name) in enumerate(trace.streams):
        mine = np.flatnonzero(trace.device.stream == number)
        result.append(
            StreamTimes(
                device=trace.devices[device],
                stream=name,
                launches=len(mine),
                device_seconds=int(trace.device.duration[mine].sum()) / SECOND,
                busy_seconds=union(trace.device.start[mine], trace.device.end[mine]).total / SECOND,
                queue=_queue_length(trace, links, mine),
            )
        )
    return tuple(sorted(result, key=lambda s: (s.device, s.stream.rjust(20))))


def queue_series(trace: Trace, links: Links, kernels: Ints) -> tuple[Ints, Ints]:
    """Moments at which a stream's queue changes, picoseconds, and its length after each.

    One more when work is launched, one fewer when it begins: as Holistic Trace Analysis counts it.
    """
    known = kernels[links.call[kernels] != NONE]
    begin = trace.device.start[known]
    launched = np.minimum(trace.host.start[links.call[known]], begin) if len(known) else begin
    times = np.concatenate((launched, begin))
    change = np.concatenate((np.ones(len(known), np.int64), -np.ones(len(known), np.int64)))
    order = np.lexsort((-change, times))  # launched before begun, where both are told for one moment
    return times[order], np.cumsum(change[order])


def _queue_length(trace: Trace, links: Links, kernels: Ints) -> QueueLength | None:
    _, length = queue_series(trace, links, kernels)
    if not len(length):
        return None
    quarter, median, three = np.quantile(length, [0.25, 0.5, 0.75])
    return QueueLength(
        changes=len(length),
        mean=float(length.mean()),
        std=float(length.std(ddof=1)) if len(length) > 1 else 0.0,
        minimum=int(length.min()),
        quarter=float(quarter),
        median=float(median),
        three_quarters=float(three),
        maximum=int(length.max()),
    )


def queue_delay(trace: Trace, links: Links) -> float | None:
    """Median seconds from a launching call's start to the start of the first activity it launched."""
    known = np.flatnonzero(links.call != NONE)
    if not len(known):
        return None
    _, first = np.unique(links.call[known], return_index=True)  # activities come in order of start
    first = known[first]
    delays = np.maximum(trace.device.start[first] - trace.host.start[links.call[first]], 0)
    return float(np.median(delays)) / SECOND


def queue_depth(trace: Trace, links: Links) -> float | None:
    """Median number of a device's activities launched but not finished at the moments when another is launched."""
    depths = []
    for number in range(len(trace.devices)):
        known = np.flatnonzero((trace.device.device == number) & (links.call != NONE))
        if len(known):
            launched = np.sort(np.minimum(trace.host.start[links.call[known]], trace.device.start[known]))
            ended = np.sort(trace.device.end[known])
            moments = np.unique(launched)
            depths.append(np.searchsorted(launched, moments, "left") - np.searchsorted(ended, moments, "right"))
    return float(np.median(np.concatenate(depths))) if depths else None
