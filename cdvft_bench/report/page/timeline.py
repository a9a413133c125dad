"""Launch sequences from traces that were kept beside a store: what ran when, for the page's timeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cdvft_bench.core.record import Record
from cdvft_bench.core.text import clean
from cdvft_bench.report.page.dataset import Column
from cdvft_bench.timing.traces.columns import MICRO
from cdvft_bench.timing.traces.families import coarse, family, operator_family, short_kernel
from cdvft_bench.timing.traces.host_analysis import HostWork
from cdvft_bench.timing.traces.linking import link
from cdvft_bench.timing.traces.model import Trace
from cdvft_bench.timing.traces.operators import bare
from cdvft_bench.timing.traces.reading import read

FOLDER = "traces"
MAX_TRACES, MAX_LAUNCHES = 24, 3000


@dataclass(frozen=True)
class Launch:
    """One launch: what, its family, where ("host" or "device"), and when, in microseconds from the first."""

    name: str
    family: str
    lane: str
    start: float
    duration: float


@dataclass(frozen=True)
class Timeline:
    """A trace's launches in order of their start.

    Attributes:
        name: of the file, without suffix. title: the record it is of, or the name. key: of that record, or "".
        launches: the first of them. left_out: how many more there are.
    """

    name: str
    title: str
    key: str
    launches: tuple[Launch, ...]
    left_out: int


def kept_traces(store: Path) -> list[Path]:
    """Chrome traces in the folder ``traces`` beside a store, at most ``MAX_TRACES``, in order of their names."""
    return sorted(p for p in (store.parent / FOLDER).glob("*.json*") if p.is_file())[:MAX_TRACES]


def timeline(path: Path, records: Mapping[str, Record]) -> Timeline:
    """Read one trace; a file whose name ends or begins with a record's key is that record's.

    Raises:
        UserError: the file is no trace.
    """
    launches = sorted(_launches(read(path)), key=lambda one: one.start)
    name = clean(path.name.split(".json")[0])
    record = records.get(name[-16:]) or records.get(name[:16])
    title = name
    if record is not None:
        case = record.case
        title = f"{record.label}, {case.subject}, {case.pass_}, {case.batch} × {case.sequence}, {case.device}"
    first = launches[0].start if launches else 0.0
    shown = tuple(
        Launch(one.name, one.family, one.lane, one.start - first, one.duration) for one in launches[:MAX_LAUNCHES]
    )
    return Timeline(name, title, record.case.key if record else "", shown, max(0, len(launches) - len(shown)))


def timeline_columns(timelines: Sequence[Timeline]) -> list[Column]:
    """One row a launch."""
    rows = [(one, launch) for one in timelines for launch in one.launches]
    return [
        Column("trace", "trace", "", "text", [one.title for one, _ in rows]),
        Column("key", "row key", "", "text", [one.key for one, _ in rows]),
        Column("name", "launch", "", "text", [launch.name for _, launch in rows]),
        Column("family", "family", "", "text", [launch.family for _, launch in rows]),
        Column("lane", "where", "", "text", [launch.lane for _, launch in rows]),
        Column("start", "start", "µs", "number", [launch.start for _, launch in rows]),
        Column("duration", "duration", "µs", "number", [launch.duration for _, launch in rows]),
    ]


def _launches(trace: Trace) -> Iterator[Launch]:
    """Kernels where the trace has any, beside the calls that launch them; else the leaf operators of the host."""
    links = link(trace)
    if len(trace.device):
        device, host = trace.device, trace.host
        for k in range(len(device)):
            name = trace.names[device.name[k]]
            yield _launch(short_kernel(name), family(name), "device", int(device.start[k]), int(device.end[k]))
        for e in links.launching.nonzero()[0].tolist():
            name = trace.name(e)
            yield _launch(name, family(name), "host", int(host.start[e]), int(host.end[e]))
        return
    work = HostWork(trace, links)
    for leaf in work.leaves.tolist():
        start = int(trace.host.start[leaf])
        for clone in work.clones.get(leaf, ()):
            yield _operator(trace, clone, int(trace.host.start[clone]))
            start = int(trace.host.end[clone])
        yield _operator(trace, leaf, start)


def _operator(trace: Trace, event: int, start: int) -> Launch:
    name = bare(trace.name(event))
    return _launch(name, operator_family(name), "host", start, int(trace.host.end[event]))


def _launch(name: str, label: str, lane: str, start: int, end: int) -> Launch:
    return Launch(clean(name), coarse(label), lane, start / MICRO, (end - start) / MICRO)
