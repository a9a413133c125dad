"""A trace as the analysis sees it: what ran on the host, what on the devices, each in order, in columns."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.text import whole_number
from cdvft_bench.timing.traces.events.columns import NONE, Builder, Index, Ints, Table
from cdvft_bench.timing.traces.events.intervals import Forest, nest
from cdvft_bench.timing.traces.events.roles import Role, roles
from cdvft_bench.timing.traces.files.decoding import plain_events, shape
from cdvft_bench.timing.traces.files.notes import Notes
from cdvft_bench.timing.traces.files.scanning import Scanner
from cdvft_bench.timing.traces.files.source import WAY_OUT, blocks
from cdvft_bench.timing.traces.names.operators import bare, is_operator, kind, known

SECOND = 1e12  # picoseconds
_DEVICE = re.compile(r"(?:GPU|XPU|NPU|HPU|TPU|MTIA|MLU|GCU|IPU|MUSA|DCU)[\s:#]*\d+", re.I)
_ACCELERATOR = re.compile(r"(xpu|mtia|hpu|npu|tpu|mlu|gcu|ipu|musa|privateuse1)(?=[\s_:\d])", re.I)
_LEGACY = re.compile(r"functions$")


@dataclass(frozen=True)
class Host:
    """Operators, ranges and runtime calls, in preorder: by track, then by start, an event before what it encloses.

    Attributes:
        name, track, shape: index into the trace's tables, ``NONE`` without shapes. role: a ``Role``.
        start, end: picoseconds. process: index into the trace's processes.
        correlation, external, sequence, forward: as recorded, ``NONE`` where not.
    """

    name: Ints
    role: NDArray[np.int8]
    start: Ints
    end: Ints
    track: Ints
    process: Ints
    correlation: Ints
    external: Ints
    sequence: Ints
    forward: Ints
    shape: Ints

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True)
class Device:
    """Kernels, copies and fills in order of their start.

    Attributes:
        name: index into the trace's names. start, end: picoseconds.
        device, stream, track: index into the trace's devices, streams and tracks.
        correlation, external, graph, bytes: as recorded, ``NONE`` where not.
    """

    name: Ints
    start: Ints
    end: Ints
    device: Ints
    stream: Ints
    track: Ints
    correlation: Ints
    external: Ints
    graph: Ints
    bytes: Ints

    def __len__(self) -> int:
        return len(self.name)

    @property
    def duration(self) -> Ints:
        """Picoseconds."""
        return self.end - self.start


@dataclass(frozen=True)
class Spans:
    """Other events with a name, a track and a time: Python functions, or the profiler's own work."""

    name: Ints
    track: Ints
    start: Ints
    end: Ints


@dataclass(frozen=True)
class Trace:
    """A trace.

    Attributes:
        accelerator: what kind of devices: "cuda" (ROCm's, too), "xpu", "mtia", "hpu", …
        names, tracks, shapes: tables. processes: of the host. devices: their labels. streams: (device, label).
        host, device, python, overhead: the events.
        flows: arrows of traces without correlations, see ``columns.Table``.
        document: what the file says beside its events. notes: what was mended and left out.
    """

    accelerator: str
    names: tuple[str, ...]
    tracks: tuple[tuple[str, str], ...]
    shapes: tuple[bytes, ...]
    processes: tuple[str, ...]
    devices: tuple[str, ...]
    streams: tuple[tuple[int, str], ...]
    host: Host
    device: Device
    python: Spans
    overhead: Spans
    flows: tuple[tuple[str, int, int, bool], ...]
    document: Mapping[str, Any]
    notes: Notes
    _shapes: dict[int, tuple[Any, Any, Any, Any]] = field(default_factory=dict)

    @cached_property
    def forest(self) -> Forest:
        """What encloses what on the host."""
        return nest(self.host.track, self.host.start, self.host.end)

    @cached_property
    def operators(self) -> NDArray[np.bool_]:
        """Host events that are operators as a dispatch mode sees them."""
        mine = np.array([is_operator(name) for name in self.names], np.bool_)
        return np.asarray((self.host.role == Role.OPERATOR) & mine[self.host.name], np.bool_)

    @cached_property
    def leaves(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Leaf operators, which reach a kernel themselves, and the host events that lie inside of one."""
        host, forest = self.host, self.forest
        kinds = np.array([_KINDS[kind(bare(name))] for name in self.names], np.int8)[host.name]
        kinds[~self.operators] = _KINDS["composite"]
        # Where overloads of one name differ, an operator that calls others is the composite one.
        calls = np.zeros(len(host), np.bool_)
        inside = self.operators & (kinds != _KINDS["none"]) & (forest.parent >= 0)
        calls[forest.parent[inside]] = True
        either = kinds == _KINDS["either"]
        kinds[either] = np.where(calls[either], _KINDS["composite"], _KINDS["kernel"])
        leaf = np.zeros(len(host), np.bool_)
        covered = np.zeros(len(host), np.bool_)
        for depth, level in enumerate(forest.levels):
            if depth:
                above = forest.parent[level]
                covered[level] = covered[above] | (kinds[above] != _KINDS["composite"])
            leaf[level] = ~covered[level] & (kinds[level] == _KINDS["kernel"])
        return leaf, covered

    @cached_property
    def inner_calls(self) -> NDArray[np.bool_]:
        """Runtime calls inside of runtime calls, as the driver's are inside of the runtime's."""
        host, parent = self.host, self.forest.parent
        found = host.role == Role.RUNTIME
        # Two calls of no length at one moment follow one another.
        inside = (parent != NONE) & found[parent] & (host.end[parent] > host.start[parent])
        return np.asarray(found & inside, np.bool_)

    def shape(self, event: int) -> tuple[Any, Any, Any, Any]:
        """Dims, types, strides and concrete inputs of a host event; None each where they were not recorded."""
        index = int(self.host.shape[event])
        if index == NONE:
            return None, None, None, None
        found = self._shapes.get(index)
        if found is None:
            found = self._shapes[index] = shape(self.shapes[index])
        return found

    def name(self, event: int) -> str:
        """Name of a host event."""
        return self.names[int(self.host.name[event])]

    def above(self, event: int) -> Iterator[int]:
        """A host event, then what encloses it, up to the top."""
        parent = self.forest.parent
        while event != NONE:
            yield event
            event = int(parent[event])


_KINDS = {"composite": 0, "none": 1, "kernel": 2, "either": 3}


def make_trace(table: Table, document: Mapping[str, Any], notes: Notes) -> Trace:
    """Sort a table's events by what they are and by when they were."""
    role = roles(table, notes)
    names = _with_namespaces(table, role)
    end = table.start + table.duration  # a duration may be narrow, a start is not

    def take(chosen: NDArray[np.bool_], order: Sequence[Ints]) -> Ints:
        index = np.flatnonzero(chosen)
        return index[np.lexsort([key[index] for key in order])]

    on_host = (role == Role.OPERATOR) | (role == Role.RANGE) | (role == Role.RUNTIME)
    h = take(on_host, (-table.duration, table.start, table.track))
    processes = Index()
    process = np.array([processes[p] for p, _ in table.tracks], np.int32)
    host = Host(
        name=table.name[h],
        role=role[h],
        start=table.start[h],
        end=end[h],
        track=table.track[h],
        process=process[table.track[h]].astype(np.int64),
        correlation=table.correlation[h],
        external=table.external[h],
        sequence=table.sequence[h],
        forward=table.forward[h],
        shape=table.shape[h],
    )
    d = take(role == Role.ACTIVITY, (end, table.start))
    devices, streams, which, where = _places(table, d)
    device = Device(
        name=table.name[d],
        start=table.start[d],
        end=end[d],
        device=which,
        stream=where,
        track=table.track[d],
        correlation=table.correlation[d],
        external=table.external[d],
        graph=table.graph[d],
        bytes=table.bytes[d],
    )

    def spans(which: Role) -> Spans:
        i = take(role == which, (-table.duration, table.start))
        return Spans(table.name[i], table.track[i], table.start[i], end[i])

    return Trace(
        accelerator=_accelerator((*table.categories, *devices)),
        names=names,
        tracks=table.tracks,
        shapes=table.shapes,
        processes=tuple(processes),
        devices=devices,
        streams=streams,
        host=host,
        device=device,
        python=spans(Role.PYTHON),
        overhead=spans(Role.OVERHEAD),
        flows=table.flows,
        document=document,
        notes=notes,
    )


def _with_namespaces(table: Table, role: NDArray[np.int8]) -> tuple[str, ...]:
    """Names of the table; operators that a legacy profiler wrote without their namespace get it."""
    bare_category = np.array([not c for c in table.categories], np.bool_)
    chosen = np.unique(table.name[(role == Role.OPERATOR) & bare_category[table.category]]).tolist()
    names = list(table.names)
    for i in chosen:
        if "::" not in names[i] and known(names[i]):
            names[i] = f"aten::{names[i]}"
    return tuple(names)


def _places(table: Table, activities: Ints) -> tuple[tuple[str, ...], tuple[tuple[int, str], ...], Ints, Ints]:
    """Labels of devices and streams, and which of them each activity ran on."""
    devices, streams = Index(), Index()
    labels: list[str] = []
    found: dict[tuple[int, int, int], tuple[int, int]] = {}
    which = np.zeros(len(activities), np.int32)
    where = np.zeros(len(activities), np.int32)
    keys = zip(
        table.track[activities].tolist(),
        table.device[activities].tolist(),
        table.stream[activities].tolist(),
        strict=True,
    )
    for i, key in enumerate(keys):
        place = found.get(key)
        if place is None:
            track, number, stream = key
            process, thread = table.tracks[track]
            legacy = bool(_LEGACY.search(process))
            if legacy and number == NONE:
                told = whole_number(thread)
                number = NONE if told is None else told
            device = devices[process, number]
            if device == len(labels):
                labels.append(_label(table.processes.get(process, ""), process, number))
            line = str(stream) if stream != NONE else str(table.threads.get((process, thread), thread))
            line = line.strip().removeprefix("stream").strip() or line
            place = found[key] = (device, streams[device, "" if legacy else line])
        which[i], where[i] = place
    # Two that are called alike are told apart by their processes.
    seen = {label: labels.count(label) for label in labels}
    named = tuple(
        f"{label} ({process})" if seen[label] > 1 else label
        for label, (process, _) in zip(labels, devices, strict=True)
    )
    return named, tuple(streams), which, where  # type: ignore[return-value]


def _accelerator(said: Sequence[str]) -> str:
    found = (m.group(1).lower() for text in said if (m := _ACCELERATOR.match(text)))
    return next(found, "cuda")


def _label(said: str, process: str, number: int) -> str:
    found = _DEVICE.search(said)
    if found:
        return found.group().strip()
    return f"device {number}" if number != NONE else f"device {process}"


# --- from a file, or from events that are decoded already ------------------------------------


NOTHING = "it holds neither operators nor kernels; record with ProfilerActivity.CPU or CUDA"
_BATCH = 4096


def read(path: str | Path) -> Trace:
    """Read a Chrome trace file, plain, compressed or in an archive, whoever made it.

    It streams: memory holds columns of numbers, names and shapes once, and a block of text.

    Raises:
        UserError: the file cannot be read, or holds no events that anything could be said of.
    """
    path = Path(path)
    notes = Notes()
    scanner, builder = Scanner(blocks(path, notes), notes), Builder(notes)
    any_event = False
    for batch in scanner.batches():
        any_event = any_event or bool(batch)
        builder.add(batch)
    if not scanner.listed:
        raise UserError(f"trace {str(path)!r} has no list of traceEvents; {WAY_OUT}")
    if not any_event:
        raise UserError(f"trace {str(path)!r} holds no events; {WAY_OUT}")
    trace = make_trace(builder.finish(), scanner.document, notes)
    if not holds_work(trace):
        raise UserError(f"trace {str(path)!r}: {NOTHING}")
    return trace


def from_events(events: Sequence[Any], document: Mapping[str, Any] | None = None) -> Trace:
    """A trace of events that are decoded already.

    Args:
        events: the ``traceEvents`` of a Chrome trace, as JSON objects.
        document: what stands beside them.

    Raises:
        UserError: there are neither operators nor kernels.
    """
    notes = Notes()
    builder = Builder(notes)
    for low in range(0, len(events), _BATCH):
        builder.add(plain_events(events[low : low + _BATCH]))
    trace = make_trace(builder.finish(), document or {}, notes)
    if not holds_work(trace):
        raise UserError(NOTHING)
    return trace


def holds_work(trace: Trace) -> bool:
    """Whether a trace has operators, launches or kernels."""
    from cdvft_bench.timing.traces.events.roles import Role

    return len(trace.device) > 0 or bool((trace.host.role != Role.RANGE).any())
