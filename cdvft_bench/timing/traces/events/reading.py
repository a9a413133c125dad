"""A trace of a file or of decoded events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cdvft_bench.core.errors import UserError
from cdvft_bench.timing.traces.events.columns import Builder
from cdvft_bench.timing.traces.events.model import Trace, make_trace
from cdvft_bench.timing.traces.files.decoding import plain_events
from cdvft_bench.timing.traces.files.notes import Notes
from cdvft_bench.timing.traces.files.scanning import Scanner
from cdvft_bench.timing.traces.files.source import WAY_OUT, blocks

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
