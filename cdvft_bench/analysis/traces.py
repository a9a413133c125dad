"""A trace's analysis as pandas data frames.

>>> from cdvft_bench.analysis import traces
>>> found = traces.read("trace.json.gz")            # doctest: +SKIP
>>> traces.kernels(found).groupby("family").seconds.sum()  # doctest: +SKIP

Times are seconds from the trace's first event; one row is what the function's name says.
"""

from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cdvft_bench.timing.traces.analysis import Analysis, Change, analyse_file, compare
from cdvft_bench.timing.traces.events.columns import NONE, Ints
from cdvft_bench.timing.traces.events.linking import Links, link
from cdvft_bench.timing.traces.events.model import SECOND, Trace
from cdvft_bench.timing.traces.events.roles import Role
from cdvft_bench.timing.traces.events.windows import windows
from cdvft_bench.timing.traces.names.families import family_of
from cdvft_bench.timing.traces.summary.devices import queue_series
from cdvft_bench.timing.traces.summary.result import (
    DeviceTimes,
    Gap,
    KernelTimes,
    OperatorTimes,
    QueueLength,
    StepTimes,
    StreamTimes,
)


def read(path: str | Path) -> Analysis:
    """Analyse a Chrome trace file.

    Raises:
        UserError: see ``timing.traces.analysis.analyse_file``.
    """
    return analyse_file(path)


def _frame(rows: Iterable[Any], kind: type) -> pd.DataFrame:
    names = [f.name for f in fields(kind)]
    return pd.DataFrame([[getattr(row, name) for name in names] for row in rows], columns=pd.Index(names))


def kernels(found: Analysis) -> pd.DataFrame:
    """Kernels by name and family (of a CPU: leaf operators): launches, seconds, share; longest first."""
    return _frame(found.detail.kernels, KernelTimes)


def operators(found: Analysis) -> pd.DataFrame:
    """Operators by name: calls, self seconds on the host, launches, device seconds, share."""
    return _frame(found.detail.operators, OperatorTimes)


def families(found: Analysis) -> pd.DataFrame:
    """Kernel families: launches, seconds, share of all, bytes that their operators moved (missing where unknown)."""
    summary = found.summary
    frame = pd.DataFrame({"seconds": pd.Series(summary.families, dtype=float)})
    frame["launches"] = pd.Series(summary.family_launches, dtype=float)
    frame["share"] = frame.seconds / frame.seconds.sum() if len(frame) else frame.seconds
    frame["bytes"] = pd.Series(summary.family_bytes, dtype=float)
    return frame.rename_axis("family").sort_values("seconds", ascending=False)


def steps(found: Analysis) -> pd.DataFrame:
    """The profiler's steps: seconds on the host, device seconds, busy, communication and what of it is alone."""
    return _frame(found.detail.steps, StepTimes)


def devices(found: Analysis) -> pd.DataFrame:
    """Devices: window, busy share, gaps, communication; a column of idle seconds for each cause."""
    frame = _frame(found.detail.devices, DeviceTimes)
    idle = pd.DataFrame([d.idle_seconds for d in found.detail.devices], index=frame.index).add_prefix("idle: ")
    return frame.drop(columns="idle_seconds").join(idle.fillna(0.0))


def streams(found: Analysis) -> pd.DataFrame:
    """Streams: launches, seconds, and the statistics of their queues' lengths (missing where unknown)."""
    frame = _frame(found.detail.streams, StreamTimes)
    queues = [asdict(s.queue) if s.queue else {} for s in found.detail.streams]
    columns = [f.name for f in fields(QueueLength)]
    return frame.drop(columns="queue").join(
        pd.DataFrame(queues, index=frame.index, columns=pd.Index(columns)).add_prefix("queue_")
    )


def gaps(found: Analysis) -> pd.DataFrame:
    """The longest idle stretches, and what the host did in each."""
    return _frame(found.detail.gaps, Gap)


def scopes(found: Analysis) -> pd.DataFrame:
    """Annotated ranges: launches and seconds, backward ones with their forward."""
    frame = pd.DataFrame({"launches": pd.Series(found.summary.scopes, dtype=float)})
    frame["seconds"] = pd.Series(found.summary.scope_seconds, dtype=float)
    return frame.rename_axis("scope").sort_values("seconds", ascending=False)


def activities(found: Analysis) -> pd.DataFrame:
    """Every kernel, copy and fill: when, where, its family, what launched it and when (missing where unknown)."""
    trace, links, origin = _parts(found)
    device = trace.device
    operator = [trace.name(e) if e != NONE else "" for e in links.operator.tolist()]
    names = [trace.names[n] for n in device.name.tolist()]
    launched = np.full(len(device), np.nan)
    known = links.call != NONE
    launched[known] = (trace.host.start[links.call[known]] - origin) / SECOND
    return pd.DataFrame(
        {
            "name": names,
            "family": [family_of(k, o) for k, o in zip(names, operator, strict=True)],
            "device": [trace.devices[d] for d in device.device.tolist()],
            "stream": [trace.streams[s][1] for s in device.stream.tolist()],
            "start": (device.start - origin) / SECOND,
            "seconds": device.duration / SECOND,
            "launched": launched,
            "call": [trace.name(e) if e != NONE else "" for e in links.call.tolist()],
            "operator": operator,
        }
    )


def events(found: Analysis) -> pd.DataFrame:
    """Every operator, range and runtime call of the host, with its row among them that encloses it (-1 at the top)."""
    trace, _, origin = _parts(found)
    host, forest = trace.host, trace.forest
    return pd.DataFrame(
        {
            "name": [trace.names[n] for n in host.name.tolist()],
            "role": [Role(r).name.lower() for r in host.role.tolist()],
            "process": [trace.tracks[t][0] for t in host.track.tolist()],
            "thread": [trace.tracks[t][1] for t in host.track.tolist()],
            "start": (host.start - origin) / SECOND,
            "seconds": (host.end - host.start) / SECOND,
            "self_seconds": forest.own / SECOND,
            "parent": forest.parent,
        }
    )


def queue(found: Analysis) -> pd.DataFrame:
    """Lengths of every stream's queue at each moment at which they change: device, stream, time, length."""
    trace, links, origin = _parts(found)
    frames = []
    for number, (device, stream) in enumerate(trace.streams):
        mine: Ints = np.flatnonzero(trace.device.stream == number)
        times, length = queue_series(trace, links, mine)
        frames.append(
            pd.DataFrame(
                {"device": trace.devices[device], "stream": stream, "time": (times - origin) / SECOND, "length": length}
            )
        )
    if not frames:
        return pd.DataFrame(columns=pd.Index(["device", "stream", "time", "length"]))
    return pd.concat(frames, ignore_index=True)


def changes(found: Analysis, other: Analysis) -> pd.DataFrame:
    """What changed from the other trace to this one, by kernel and family: seconds and launches, largest first."""
    rows = compare(found, other).kernels
    return _frame(rows, Change).assign(difference=[row.difference for row in rows])


def _parts(found: Analysis) -> tuple[Trace, Links, int]:
    links = link(found.trace)
    return found.trace, links, windows(found.trace, links).span[0]
