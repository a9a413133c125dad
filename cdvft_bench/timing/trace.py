"""Record a call with torch.profiler and sum it up: launches, kernel families, scopes, gaps, queue, what bounds it.

What the figures are, ``timing.traces.analysis`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from cdvft_bench.core.timed import TraceSummary
from cdvft_bench.timing.traces.analysis import analyse, analyse_file
from cdvft_bench.timing.traces.events.model import from_events
from cdvft_bench.timing.traces.recording import record, write_document


def trace_call(
    call: Callable[[], object], device: str | torch.device = "cpu", *, warm_ups: int = 1, shapes: bool = True
) -> TraceSummary:
    """Profile one call and sum it up.

    Args:
        call: what to profile. Ranges of ``torch.profiler.record_function`` in it become scopes.
        device: "cpu" or "cuda".
        warm_ups: calls made before.
        shapes: record input shapes, on which bytes, bandwidth and verdict rest; costs host time.
    """
    for _ in range(warm_ups):
        call()
    return _summary(record(call, device, shapes=shapes), device)


def export_trace(
    call: Callable[[], object],
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    warm_ups: int = 1,
    shapes: bool = True,
) -> TraceSummary:
    """Profile one call into a compressed Chrome trace, without the machine's name, and sum it up.

    Raises:
        UserError: the path does not end in .json.gz or cannot be written.
    """
    for _ in range(warm_ups):
        call()
    document = record(call, device, shapes=shapes)
    write_document(document, path)
    return _summary(document, device)


def read_trace(path: str | Path) -> TraceSummary:
    """Sum up a Chrome trace file of torch.profiler, plain, compressed or in an archive, whoever made it.

    Raises:
        UserError: the file cannot be read, is no Chrome trace, or holds neither operators nor kernels.
    """
    return analyse_file(path).summary


def analyse_events(
    events: Sequence[Any], device: Literal["cpu", "cuda"] | None = None, document: Mapping[str, Any] | None = None
) -> TraceSummary:
    """Sum up the ``traceEvents`` of a Chrome trace.

    Args:
        events: as loaded from JSON. device: what ran the work, None as the events tell.
        document: what stands beside the events.

    Raises:
        UserError: there are neither operators nor kernels.
    """
    return analyse(from_events(events, document), device).summary


def _summary(document: dict[str, Any], device: str | torch.device) -> TraceSummary:
    kind: Literal["cpu", "cuda"] = "cuda" if torch.device(device).type == "cuda" else "cpu"
    return analyse_events(document["traceEvents"], kind, document)
