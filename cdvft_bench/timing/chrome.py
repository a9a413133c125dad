"""Chrome traces as torch.profiler exports them: recording, reading, and the tree of what called what."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch.profiler import ProfilerActivity, profile

from cdvft_bench.core.errors import UserError

EventKind = Literal["operator", "annotation", "runtime", "kernel"]

_KINDS: dict[str, EventKind] = {
    "cpu_op": "operator",
    "user_annotation": "annotation",
    "cuda_runtime": "runtime",
    "cuda_driver": "runtime",
    "kernel": "kernel",
    "gpu_memcpy": "kernel",
    "gpu_memset": "kernel",
}
LATEST = 1e17  # µs: 3,000 years; no time is later, and NaN fails the comparison too
LARGEST = 1_000_000  # bytes of a trace that is kept, compressed
_READ = ("Sequence number", "Fwd thread id", "Input Dims", "Input type", "Input Strides", "Concrete Inputs",
         "correlation", "device", "stream")  # fmt: skip
_GZIP = b"\x1f\x8b"
_WAY_OUT = "give a trace exported by torch.profiler's export_chrome_trace (.json or .json.gz)"
_NOISE = (b"USDT:", b"Memory block of unknown size")  # lines that torch writes to stderr for every profile


@dataclass(eq=False)
class Event:
    """Something that lasted: an operator, an annotated range, a runtime call, or a kernel on the device.

    Attributes:
        name, kind: what.
        start, end: ns.
        track: process and thread, or device and stream.
        args: as recorded.
        parent: the innermost host event around it; None at the top, and for kernels.
        children: host events directly inside, in time's order.
    """

    name: str
    kind: EventKind
    start: int
    end: int
    track: tuple[str, str]
    args: Mapping[str, Any]
    parent: Event | None = None
    children: list[Event] = field(default_factory=list)

    @property
    def duration(self) -> int:
        """ns."""
        return self.end - self.start

    def number(self, key: str) -> int | None:
        """An integer among the arguments; None where there is none."""
        value = self.args.get(key)
        return value if isinstance(value, int) else None

    def above(self) -> Iterator[Event]:
        """This event, then its parents up to the top."""
        event: Event | None = self
        while event is not None:
            yield event
            event = event.parent


@dataclass(frozen=True)
class Trace:
    """Events of a trace: on the host (a forest, in order of start) and on the device (in order of start).

    ``malformed`` events said what they are, but not when they were.
    """

    host: tuple[Event, ...]
    device: tuple[Event, ...]
    malformed: int


def parse(events: Sequence[Any]) -> Trace:
    """Make events of a Chrome trace's ``traceEvents``; other categories than those of interest are left out."""
    host: list[Event] = []
    device: list[Event] = []
    malformed = 0
    for raw in events:
        kind = _KINDS.get(str(raw.get("cat"))) if isinstance(raw, Mapping) and raw.get("ph") == "X" else None
        if kind is None:
            continue
        start, duration, args = raw.get("ts"), raw.get("dur"), raw.get("args")
        if not (_number(start) and _number(duration) and duration >= 0):
            malformed += 1
            continue
        event = Event(
            name=str(raw.get("name", "")),
            kind=kind,
            start=round(start * 1000),
            end=round((start + duration) * 1000),
            track=(str(raw.get("pid")), str(raw.get("tid"))),
            args=args if isinstance(args, Mapping) else {},
        )
        (device if kind == "kernel" else host).append(event)
    # Of events that start together the longest is outside; sorting keeps the recorded order of equals.
    host.sort(key=lambda e: (e.start, -e.end))
    device.sort(key=lambda e: e.start)
    _nest(host)
    return Trace(tuple(host), tuple(device), malformed)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LATEST


def _nest(events: Sequence[Event]) -> None:
    stacks: dict[tuple[str, str], list[Event]] = {}
    for event in events:
        stack = stacks.setdefault(event.track, [])
        while stack and not (event.start < stack[-1].end or event.end <= stack[-1].end):
            stack.pop()
        if stack:
            event.parent = stack[-1]
            stack[-1].children.append(event)
        stack.append(event)


# --- files ---------------------------------------------------------------------------------


def read_events(path: str | Path) -> list[Any]:
    """The events of a trace file, plain or compressed, an object with ``traceEvents`` or a bare list.

    Raises:
        UserError: the file cannot be read or is no Chrome trace.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
        # Kernel names may hold what strict JSON forbids: control characters, broken UTF-8.
        document = json.loads(data.decode(errors="replace"), strict=False)
    except FileNotFoundError as error:
        raise UserError(f"trace {str(path)!r} is not there; {_WAY_OUT}") from error
    except IsADirectoryError as error:
        raise UserError(f"trace {str(path)!r} is a folder; {_WAY_OUT}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"trace {str(path)!r} cannot be read: {error}; {_WAY_OUT}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"trace {str(path)!r} is not JSON: {error}; {_WAY_OUT}") from error
    events = document.get("traceEvents") if isinstance(document, dict) else document
    if not isinstance(events, list):
        raise UserError(f"trace {str(path)!r} has no list of traceEvents; {_WAY_OUT}")
    return events


def write_document(document: Mapping[str, Any], path: str | Path) -> None:
    """Write a recorded trace compressed, at most 1 MB, without the names of the machine and of its folders.

    A larger one is kept without what no summary reads: arrows, allocations, strides, what a viewer shows beside it.

    Raises:
        UserError: the path does not end in .json.gz, cannot be written, or the trace is too large even so.
    """
    path = Path(path)
    if not path.name.endswith(".json.gz"):
        raise UserError(f"trace {str(path)!r} must be named .json.gz: it is written compressed")
    kept = {k: v for k, v in document.items() if k not in ("host_name", "traceName", "distributedInfo")}
    data = _packed(kept)
    if len(data) > LARGEST:
        data = _packed(
            {**kept, "traceEvents": [_slim(e) for e in kept["traceEvents"] if _KINDS.get(str(e.get("cat")))]}
        )
    if len(data) > LARGEST:
        raise UserError(
            f"trace {str(path)!r} would take {len(data):,} bytes, more than {LARGEST:,}; trace a smaller call"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise UserError(f"trace {str(path)!r} cannot be written: {error}; name a file in a folder of yours") from error


def _packed(document: Mapping[str, Any]) -> bytes:
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0)


def _slim(event: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: event[k] for k in ("ph", "cat", "name", "pid", "tid", "ts", "dur") if k in event}
    args = event.get("args", {})
    return {**kept, "args": {k: args[k] for k in _READ if k in args}}


# --- recording -----------------------------------------------------------------------------


def record(
    call: Callable[[], object], device: str | torch.device = "cpu", *, shapes: bool = True, memory: bool = False
) -> dict[str, Any]:
    """Profile one call and return the Chrome trace as torch.profiler exports it.

    Args:
        call: what to record; warm it up before.
        device: "cuda" records kernels too and waits for them.
        shapes: record the operators' input shapes.
        memory: record allocations.
    """
    cuda = torch.device(device).type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
    if cuda:
        _settle_cuda_profiler()
        torch.cuda.synchronize(device)
    profiler = profile(activities=activities, record_shapes=shapes, profile_memory=memory)
    with _quiet(), profiler:
        call()
        if cuda:
            torch.cuda.synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        document = json.loads(path.read_text(errors="replace"), strict=False)
    return dict(document)


@cache
def _settle_cuda_profiler() -> None:
    """The first CUDA profile of a process sets its hooks up while it records; throw that one away."""
    with _quiet(), profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]):
        torch.cuda.synchronize()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's own lines about profiling off stderr; everything else written there comes out afterwards."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            file.seek(0)
            for line in file:
                if not any(noise in line for noise in _NOISE):
                    os.write(kept, line)
            os.close(kept)
