"""Events gathered into columns: a number each in place of an object each, names and shapes once.

Times are whole picoseconds from a moment of the trace: durations of 1.1 µs add up to what they should, and absolute
times in nanoseconds, for which a float is too coarse, stay exact.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.core.text import whole_number
from cdvft_bench.timing.traces.files.decoding import NO_TEXT, Event, PlainArgs, Text, shape_text
from cdvft_bench.timing.traces.files.decoding import NONE as NONE
from cdvft_bench.timing.traces.files.notes import Notes

Ints = NDArray[np.int64]
MICRO = 1_000_000
"""Picoseconds in a microsecond."""
LONGEST = 100 * 86_400_000_000
"""Microseconds, 100 days: as far as times may lie from the middle of a trace, and as long as an event may last."""
_FIELDS = (
    *("name", "category", "track", "whole", "part", "duration", "correlation", "external", "device", "stream"),
    *("sequence", "forward", "shape", "graph", "bytes"),
)
_WIDE = 1 << 31  # from which on numbers need eight bytes


class Index(dict[Any, int]):
    """Numbers things in the order in which they come."""

    def __missing__(self, key: Any) -> int:
        self[key] = number = len(self)
        return number


@dataclass(frozen=True)
class Table:
    """Events that lasted, in the order of the file.

    Attributes:
        names, categories: of events. tracks: (process, thread) of events.
        shapes: JSON text of dims, types, strides and concrete inputs.
        name, category, track, shape: index into those; ``NONE`` for an operator without shapes.
        start, duration: picoseconds.
        correlation, external, device, stream, sequence, forward, graph, bytes: as recorded, ``NONE`` where not.
        processes, threads: names, labels, sort order's aside, by process and by track, as the metadata have them.
        flows: arrows from an event to an event: (identifier, track, start, whether it ends there).
    """

    names: tuple[str, ...]
    categories: tuple[str, ...]
    tracks: tuple[tuple[str, str], ...]
    shapes: tuple[bytes, ...]
    name: Ints
    category: Ints
    track: Ints
    start: Ints
    duration: Ints
    correlation: Ints
    external: Ints
    device: Ints
    stream: Ints
    sequence: Ints
    forward: Ints
    shape: Ints
    graph: Ints
    bytes: Ints
    processes: dict[str, str]
    threads: dict[tuple[str, str], str]
    flows: tuple[tuple[str, int, int, bool], ...]

    def __len__(self) -> int:
        return len(self.name)


class Builder:
    """Gathers batches of events; ``finish`` makes the table of them."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._names, self._categories, self._tracks = Index(), Index(), Index()
        self._shapes = Index()
        self._columns: dict[str, array[int]] = {key: array("i") for key in _FIELDS}
        self._open: list[tuple[Any, Event]] = []  # events told by a begin and an end
        self._processes: dict[str, str] = {}
        self._threads: dict[tuple[str, str], str] = {}
        self._flows: list[tuple[str, int, int, int, bool]] = []

    def add(self, events: Sequence[Event]) -> None:
        """Take a batch; what is neither an event that lasted, nor an arrow, nor a name, is passed over."""
        lasted = [event for event in events if event.ph == "X"]
        for event in events if len(lasted) < len(events) else ():
            phase = event.ph
            if phase == "M":
                self._label(event)
            elif phase in ("B", "E"):
                self._open.append((phase, event))
            elif phase in ("s", "f") and str(event.cat).startswith("cpu_to_"):
                self._flow(event)
        if lasted:
            self._append(lasted)

    def _label(self, event: Event) -> None:
        kind, args = event.name, event.args
        said = getattr(args, "name" if kind in ("process_name", "thread_name") else "labels", None)
        if not said or said == NONE:
            return
        process, track = str(event.pid), (str(event.pid), str(event.tid))
        said = printable(said).strip()
        if kind in ("process_name", "process_labels") and said not in self._processes.get(process, ""):
            self._processes[process] = f"{self._processes.get(process, '')} {said}".strip()
        elif kind == "thread_name" and said not in self._threads.get(track, ""):
            self._threads[track] = f"{self._threads.get(track, '')} {said}".strip()

    def _flow(self, event: Event) -> None:
        time = _time(event.ts)
        if time is not None:
            track = self._tracks[str(event.pid), str(event.tid)]
            self._flows.append((str(event.id), track, *time, event.ph == "f"))

    # --- events that lasted ---------------------------------------------------------------

    def _append(self, events: Sequence[Event]) -> None:
        times = [e.ts for e in events]
        durations = [e.dur for e in events]
        whole, part, length, kept = self._times(times, durations)
        if not kept.all():
            self._notes.leave_out("events without a time were", int((~kept).sum()))
            events = [e for e, k in zip(events, kept, strict=True) if k]
            whole, part, length = whole[kept], part[kept], length[kept]
        if not events:
            return
        shapes = self._shapes
        empty: Any = PlainArgs({})
        args: list[Any] = [a if hasattr(a := e.args, "correlation") else empty for e in events]
        found: dict[str, Any] = {
            "name": _numbered(self._names, [e.name for e in events]),
            "category": _numbered(self._categories, [e.cat for e in events]),
            "track": _numbered(self._tracks, [(e.pid, e.tid) for e in events]),
            "whole": whole,
            "part": part,
            "duration": length,
            "correlation": _ids([a.correlation for a in args]),
            "external": _ids([a.external_old if a.external == NONE else a.external for a in args]),
            "device": _ids([a.device for a in args], bits=31),
            "stream": _ids([a.stream for a in args]),
            "sequence": _ids([a.sequence for a in args]),
            "forward": _ids([a.forward for a in args]),
            "graph": _ids([a.graph for a in args]),
            "bytes": _ids([a.bytes for a in args]),
            "shape": [NONE if a.types is NO_TEXT and a.dims is NO_TEXT else shapes[shape_text(a)] for a in args],
        }
        for key, values in found.items():
            if isinstance(values, list):  # indices are small
                self._columns[key].extend(values)
                continue
            if self._columns[key].typecode == "i" and max(int(values.max()), -int(values.min())) >= _WIDE:
                self._columns[key] = array("q", self._columns[key])
            column = self._columns[key]
            column.frombytes(values.astype(column.typecode).tobytes())

    def _times(self, times: list[Any], durations: list[Any]) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
        """Whole microseconds, picoseconds beyond them, durations in picoseconds, and which events have them."""
        try:
            start, length = _floats(times), _floats(durations)
        except (TypeError, ValueError, OverflowError):
            return self._spelled_times(times, durations)
        kept = np.isfinite(start) & np.isfinite(length) & (np.abs(start) < 1e17) & (length >= 0) & (length < LONGEST)
        start, length = np.where(kept, start, 0.0), np.where(kept, length, 0.0)
        whole = np.floor(start)
        part = np.rint((start - whole) * MICRO)
        return whole.astype(np.int64), part.astype(np.int64), np.rint(length * MICRO).astype(np.int64), kept

    def _spelled_times(self, times: list[Any], durations: list[Any]) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
        """The same where some are spelled out, or are no numbers."""
        strings = sum(isinstance(t, str) and not isinstance(t, Text) and _time(t) is not None for t in times)
        strings += sum(isinstance(d, str) and not isinstance(d, Text) and _time(d) is not None for d in durations)
        if strings:
            self._notes.mend("numbers written as strings", strings)
        found = np.zeros((len(times), 3), np.int64)
        kept = np.zeros(len(times), np.bool_)
        for i, (time, duration) in enumerate(zip(times, durations, strict=True)):
            begin, length = _time(time), _time(duration)
            if begin is not None and length is not None and 0 <= length[0] < LONGEST:
                found[i] = (*begin, length[0] * MICRO + length[1])
                kept[i] = True
        return found[:, 0], found[:, 1], found[:, 2], kept

    # --- the table ------------------------------------------------------------------------

    def finish(self) -> Table:
        """The table of all batches."""
        self._pair()
        columns = {key: np.frombuffer(column, column.typecode) for key, column in self._columns.items()}
        self._columns = {}
        whole = columns.pop("whole")
        base = int(np.median(whole)) if len(whole) else 0
        near = np.abs(whole.astype(np.int64) - base) < LONGEST
        if not near.all():
            self._notes.leave_out("events more than 100 days away from the others were", int((~near).sum()))
            whole = whole[near]
            columns = {key: column[near] for key, column in columns.items()}
        start = (whole.astype(np.int64) - base) * MICRO + columns.pop("part")
        tracks = Index()  # by the text of process and thread: 7 and "7" are the same
        index = [tracks[_track(key)] for key in self._tracks]
        columns["track"] = np.array(index, np.int32)[columns["track"]]
        flows = tuple(
            (identifier, index[track], (w - base) * MICRO + p, ends)
            for identifier, track, w, p, ends in self._flows
            if abs(w - base) < LONGEST
        )
        return Table(
            names=tuple(map(printable, self._names)),
            categories=tuple("" if c is None else printable(c) for c in self._categories),
            tracks=tuple(tracks),
            shapes=tuple(self._shapes),
            start=start,
            processes=self._processes,
            threads=self._threads,
            flows=flows,
            **columns,
        )

    def _pair(self) -> None:
        """Make events that lasted of begins and ends, innermost first, a thread at a time."""
        timed = [(t, i, phase, e) for i, (phase, e) in enumerate(self._open) if (t := _time(e.ts)) is not None]
        stacks: dict[tuple[str, str], list[tuple[tuple[int, int], Event]]] = {}
        whole: list[Event] = []
        unpaired = len(self._open) - len(timed)
        for time, _, phase, event in sorted(timed, key=lambda one: one[:2]):
            stack = stacks.setdefault((str(event.pid), str(event.tid)), [])
            if phase == "B":
                stack.append((time, event))
            elif stack:
                begin, first = stack.pop()
                picoseconds = (time[0] - begin[0]) * MICRO + time[1] - begin[1]
                first.dur = Text(f"{picoseconds // MICRO}.{picoseconds % MICRO:06d}")
                first.ts = Text(f"{begin[0]}.{begin[1]:06d}") if begin[0] >= 0 else first.ts
                whole.append(first)
            else:
                unpaired += 1
        unpaired += sum(map(len, stacks.values()))
        self._notes.leave_out("begins or ends of events without their counterpart were", unpaired)
        if whole:
            self._append(whole)
        self._open = []


def _track(key: tuple[object, object]) -> tuple[str, str]:
    return printable(key[0]), printable(key[1])


def _numbered(index: Index, values: list[Any]) -> list[int]:
    try:
        return [index[value] for value in values]
    except TypeError:  # a list or an object in a text's place
        return [index[tuple(map(str, v)) if isinstance(v, tuple) else str(v)] for v in values]


def printable(value: object) -> str:
    """Text that can be written as UTF-8: halves of surrogate pairs are joined, or replaced."""
    text = value if isinstance(value, str) else str(value)
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _floats(values: list[Any]) -> NDArray[np.float64]:
    """Raises: TypeError, ValueError: one is no plain number."""
    found = np.array(values)
    if found.dtype.kind not in "if" or found.ndim != 1:
        raise TypeError("not all of them are numbers")
    return found.astype(np.float64)


def _time(value: Any) -> tuple[int, int] | None:
    """Whole microseconds and picoseconds beyond them; None for what is no time."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, float):
        if not abs(value) < 1e17:  # NaN fails this, too
            return None
        whole = int(value // 1)
        return whole, round((value - whole) * MICRO)
    if isinstance(value, int):
        return (value, 0) if abs(value) < 10**17 else None
    if not isinstance(value, str):
        return None
    whole_text, _, fraction = value.strip().partition(".")
    if whole_text.isascii() and whole_text.isdigit() and len(whole_text) < 18 and (not fraction or fraction.isdigit()):
        return int(whole_text), round(float(f"0.{fraction or 0}") * MICRO)
    try:
        return _time(float(value))
    except ValueError:
        return None


def _ids(values: list[Any], bits: int = 63) -> Ints:
    """Integers, ``NONE`` for what is none."""
    try:
        found = np.array(values)
        if (
            found.dtype.kind == "i"
            and found.ndim == 1
            and (bits == 63 or not len(found) or int(np.abs(found).max()) < 1 << bits)
        ):
            return found.astype(np.int64)
    except (ValueError, OverflowError, TypeError):
        pass
    return np.array([_id(v, bits) for v in values], np.int64)


def _id(value: Any, bits: int) -> int:
    if isinstance(value, str):
        digits = value.strip().removeprefix("stream").strip()
        value = whole_number(digits, 18)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << bits:
        return NONE
    return value
