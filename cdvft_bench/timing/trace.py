"""Record a call with torch.profiler and sum it up: launches, kernel families, scopes, gaps, queue, what bounds it.

What the figures are, ``timing.traces.analysis`` says.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch.profiler import ProfilerActivity, profile

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import write_file
from cdvft_bench.core.timed import TraceSummary
from cdvft_bench.timing.traces.analysis import analyse, analyse_file
from cdvft_bench.timing.traces.events.linking import link
from cdvft_bench.timing.traces.events.model import from_events
from cdvft_bench.timing.traces.events.roles import is_read
from cdvft_bench.timing.traces.files.decoding import READ


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
) -> TraceSummary:
    """Profile one call into a compressed Chrome trace, without the machine's name, and sum it up.

    Raises:
        UserError: the path does not end in .json.gz or cannot be written.
    """
    for _ in range(warm_ups):
        call()
    document = record(call, device)
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


# --- files -----------------------------------------------------------------------------------


LARGEST = 1_000_000  # bytes of a trace that is kept, compressed
_NOISE = (b"USDT:", b"Memory block of unknown size")  # lines that torch writes to stderr for every profile


def write_document(document: Mapping[str, Any], path: str | Path) -> None:
    """Write a recorded trace compressed, at most 1 MB, without the names of the machine and of its folders.

    A larger one is kept without what no summary reads: arrows, allocations, strides, what a viewer shows beside it.
    One "in" a .tar goes into that archive, which is replaced as a whole: killed meanwhile, the older one stands.

    Raises:
        UserError: the path does not end in .json.gz, cannot be written, or the trace is too large even so.
    """
    path = Path(path)
    if not path.name.endswith(".json.gz"):
        raise UserError(f"trace {str(path)!r} must be named .json.gz: it is written compressed")
    kept = {k: v for k, v in document.items() if k not in ("host_name", "traceName", "distributedInfo")}
    data = _packed(kept)
    if len(data) > LARGEST:
        data = _packed({**kept, "traceEvents": [_slim(e) for e in kept["traceEvents"] if is_read(str(e.get("cat")))]})
    if len(data) > LARGEST:
        raise UserError(
            f"trace {str(path)!r} would take {len(data):,} bytes, more than {LARGEST:,}; trace a smaller call"
        )
    if path.parent.suffix == ".tar":
        path, data = path.parent, _archived(path.parent, path.name, data)
    write_file(path, data)


def _archived(archive: Path, name: str, data: bytes) -> bytes:
    """An archive, or a new one, with a further file, which takes the place of one of its name."""
    packed = io.BytesIO()
    try:
        with tarfile.open(fileobj=packed, mode="w") as made:
            if archive.exists():
                with tarfile.open(archive) as before:
                    for member in before:
                        if member.isfile() and Path(member.name).name != name:
                            made.addfile(member, before.extractfile(member))
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{archive} is no archive to add a trace to: {error}; move it away") from error
    return packed.getvalue()


def _packed(document: Mapping[str, Any]) -> bytes:
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0)


def _slim(event: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: event[k] for k in ("ph", "cat", "name", "pid", "tid", "ts", "dur") if k in event}
    args = event.get("args", {})
    return {**kept, "args": {k: args[k] for k in args if k in READ}}


# --- recording -----------------------------------------------------------------------------


def record(
    call: Callable[[], object], device: str | torch.device = "cpu", *, shapes: bool = True, memory: bool = False
) -> dict[str, Any]:
    """Profile one call and return the Chrome trace as torch.profiler exports it.

    Under "cdvft_bench" it says how long the call took and for how long of that its thread worked. On a device, a
    recording that lacks kernels of some launches is made once more.

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
    document = _profiled(call, device, activities, shapes, memory)
    if cuda and _lost(document):
        again = _profiled(call, device, activities, shapes, memory)
        document = min(document, again, key=_lost)
    return document


def _profiled(
    call: Callable[[], object],
    device: str | torch.device,
    activities: list[ProfilerActivity],
    shapes: bool,
    memory: bool,
) -> dict[str, Any]:
    profiler = profile(activities=activities, record_shapes=shapes, profile_memory=memory)
    with _quiet(), profiler:
        began, worked = time.perf_counter(), _thread_seconds()
        call()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        lasted, working = time.perf_counter() - began, _thread_seconds() - worked
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        document = json.loads(path.read_text(encoding="utf-8", errors="replace"), strict=False)
    return {**document, "cdvft_bench": {"wall_seconds": lasted, "thread_seconds": working}}


def _thread_seconds() -> float:
    """Seconds that this thread has worked, those among them in which it wanted to and other processes had the CPU."""
    try:
        _, waited, *_ = Path("/proc/thread-self/schedstat").read_text(encoding="utf-8").split()
        return time.thread_time() + int(waited) / 1e9
    except (OSError, ValueError):  # not this system's way
        return time.thread_time()


def _lost(document: Mapping[str, Any]) -> int:
    """Launches whose kernels a recording lacks."""
    try:
        return len(link(from_events(document["traceEvents"])).lost)
    except UserError:  # it holds no work at all
        return 0


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
