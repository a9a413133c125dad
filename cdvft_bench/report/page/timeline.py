"""Launch sequences from traces that were kept beside a store: what ran when, for the page's timeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cdvft_bench.core.record import Record
from cdvft_bench.core.text import clean
from cdvft_bench.report.page.dataset import Column
from cdvft_bench.timing.chrome import Event, parse, read_events
from cdvft_bench.timing.families import bare, family, short_kernel
from cdvft_bench.timing.trace import leaf_operators

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
    launches = sorted(_launches(read_events(path)), key=lambda one: one.start)
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


def _launches(events: Sequence[object]) -> Iterator[Launch]:
    """Kernels where the trace has any, beside the calls that launch them; else the leaf operators of the host."""
    trace = parse(events)
    for event in trace.device:
        yield _launch(event, short_kernel(event.name), "device")
    if trace.device:
        for event in trace.host:
            if event.kind == "runtime" and any(part in event.name for part in ("Launch", "Memcpy", "Memset")):
                yield _launch(event, event.name, "host")
        return
    for top in (one for one in trace.host if one.parent is None):
        for leaf, names in leaf_operators(top):
            before = leaf.children[: len(names) - 1]
            for child in before:
                yield _launch(child, bare(child.name), "host")
            yield _launch(leaf, names[0], "host", before[-1].end if before else leaf.start)


def _launch(event: Event, name: str, lane: str, start: int | None = None) -> Launch:
    start = event.start if start is None else start
    return Launch(clean(name), family(name), lane, start / 1e3, (event.end - start) / 1e3)
