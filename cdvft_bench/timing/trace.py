"""Sum up torch.profiler traces: launches, kernel families, scopes, gaps, queue, and what bounds the call.

On a GPU a launch is a kernel, copy or fill on the device, tied to the host call that made it by its
correlation id. On a CPU it is a leaf operator: one that reaches a kernel, as a TorchDispatchMode
sees it below autograd. The two ways of counting agree, forward and backward, but for these:

- under a dispatch mode autograd works out of place: it sees ``add`` and ``index_put`` where a trace has ``add_``
  and ``_index_put_impl_``;
- a trace without input types misses the copy of a conjugated operand, unless an element-wise operator takes it;
- a trace counts operators on empty tensors, which launch nothing;
- operators of other namespaces than ATen are seen only through the ATen operators that they call, and
  torch.compile's generated CPU code, which calls none, not at all;
- an operator that the installed torch does not know is taken for a leaf.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.timed import TraceSummary
from cdvft_bench.timing.attribution import UNSCOPED, Scopes, shares
from cdvft_bench.timing.chrome import Event, Trace, parse, read_events, record, write_document
from cdvft_bench.timing.families import bare, family, is_operator, kind, short_kernel
from cdvft_bench.timing.traffic import moved
from cdvft_bench.timing.verdict import judge, products

NO_OPERATOR = "(no operator)"


def trace_call(
    call: Callable[[], object], device: str | torch.device = "cpu", *, warm_ups: int = 1, shapes: bool = True
) -> TraceSummary:
    """Profile one call and sum it up.

    Args:
        call: what to profile. Ranges of ``torch.profiler.record_function`` in it become scopes.
        device: "cpu" or "cuda".
        warm_ups: calls made before.
        shapes: record input shapes, which the verdict on matrix products needs; costs host time.
    """
    for _ in range(warm_ups):
        call()
    return analyse_events(record(call, device, shapes=shapes)["traceEvents"], device=_kind_of(device))


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
    return analyse_events(document["traceEvents"], device=_kind_of(device))


def read_trace(path: str | Path) -> TraceSummary:
    """Sum up a Chrome trace file of torch.profiler, plain or compressed, whoever made it.

    Raises:
        UserError: the file cannot be read, is no Chrome trace, or holds neither operators nor kernels.
    """
    try:
        return analyse_events(read_events(path))
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"trace {str(path)!r}: {error}") from error


def _kind_of(device: str | torch.device) -> Literal["cpu", "cuda"]:
    return "cuda" if torch.device(device).type == "cuda" else "cpu"


def analyse_events(events: Sequence[Any], device: Literal["cpu", "cuda"] | None = None) -> TraceSummary:
    """Sum up the ``traceEvents`` of a Chrome trace.

    Args:
        events: as loaded from JSON.
        device: "cpu" or "cuda"; None for "cuda" where there are kernels or launches, else "cpu".

    Raises:
        UserError: there are neither operators nor kernels.
    """
    trace = parse(events)
    operators = [e for e in trace.host if e.kind == "operator"]
    aten = [e for e in operators if is_operator(e.name)]
    runtime = [e for e in trace.host if e.kind == "runtime"]
    if not operators and not trace.device:
        raise UserError("it holds neither operators nor kernels; record with ProfilerActivity.CPU or CUDA")
    leaves = [leaf for e in trace.host if e.parent is None for leaf in leaf_operators(e)]
    scopes_of = Scopes(operators)
    notes: list[str] = []
    if trace.malformed:
        notes.append(f"{trace.malformed} events without a time were left out")
    launching = [e for e in runtime if _launches(e)]
    starts = [e.start for e in (*operators, *launching, *trace.device)]
    span = max(e.end for e in (*operators, *trace.device)) - min(starts)
    host = sum(_self(e) for e in aten) / 1e9
    dispatched = [name for _, names in leaves for name in names]
    common: dict[str, Any] = {"operators": len(aten), "host_seconds": host, "dispatched": len(dispatched),
                              "span_seconds": span / 1e9}  # fmt: skip
    work = products(leaf for leaf, _ in leaves)
    moving = [one for leaf, names in leaves for one in (leaf, *leaf.children[: len(names) - 1])]
    traffic, unknown = moved(moving)
    if 0 < unknown < len(moving):
        notes.append(f"{unknown} of {len(moving)} operators have no shapes in the trace: the bytes are without theirs")
    if unknown < len(moving):
        common |= {"moved_bytes": sum(traffic.values()), "family_bytes": traffic}
    if device == "cpu" or (device is None and not trace.device and not launching):
        seconds: Counter[str] = Counter()
        for e in aten:
            seconds[family(_bare(e))] += _self(e)
        scopes, scope_seconds = _tally((scopes_of.of(leaf), len(names), leaf.duration) for leaf, names in leaves)
        parts = shares(scopes_of, ((leaf, [family(n) for n in names], leaf.duration) for leaf, names in leaves))
        busy = _union(leaf for leaf, _ in leaves)
        fraction = _total(busy) / span if span else None
        families = _seconds(seconds)
        verdict, reason = judge("cpu", fraction, None, families, work)
        return TraceSummary(
            **common,
            launches=len(dispatched),
            device_seconds=0.0,
            families=families,
            by_operator=_sorted(Counter(dispatched)),
            device="cpu",
            family_launches=_sorted(Counter(map(family, dispatched))),
            scopes=scopes,
            scope_seconds=scope_seconds,
            busy_fraction=fraction,
            bytes_per_second=_rate(common, busy),
            verdict=verdict,
            reason=reason,
            notes=tuple(notes),
            parts=parts,
        )
    return _on_device(trace, launching, scopes_of, common, work, notes)


# --- the device ----------------------------------------------------------------------------


def _on_device(
    trace: Trace,
    launching: Sequence[Event],
    scopes_of: Scopes,
    common: Mapping[str, Any],
    work: tuple[float, float] | None,
    notes: list[str],
) -> TraceSummary:
    calls = {e.number("correlation"): e for e in launching if e.number("correlation") is not None}
    made_by = [calls.get(k.number("correlation")) for k in trace.device]
    orphans = made_by.count(None)
    if orphans:
        notes.append(f"{orphans} of {len(made_by)} kernels have no launching call in the trace: no scope, no operator")
    if len({k.number("device") for k in trace.device}) > 1:
        notes.append("kernels of several devices are taken together")
    seconds: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    by_operator: Counter[str] = Counter()
    labels: list[str] = []
    for kernel, call in zip(trace.device, made_by, strict=True):
        operator = _launcher(call)
        label = family(kernel.name)
        if label == "other" and operator != NO_OPERATOR:
            label = family(operator)
        labels.append(label)
        counts[label] += 1
        seconds[label] += kernel.duration
        by_operator[operator] += 1
    scopes, scope_seconds = _tally(
        (scopes_of.of(call) if call else UNSCOPED, 1, kernel.duration)
        for kernel, call in zip(trace.device, made_by, strict=True)
    )
    parts = shares(
        scopes_of,
        ((call, [label], k.duration) for k, call, label in zip(trace.device, made_by, labels, strict=True)),
    )
    busy = _union(trace.device)
    span = round(common["span_seconds"] * 1e9)
    fraction = _total(busy) / span if span else None
    idle = _idle(trace.device, made_by, busy)
    families = _seconds(seconds)
    verdict, reason = judge("cuda", fraction, idle.starved / 1e9, families, work, common["span_seconds"])
    return TraceSummary(
        **common,
        launches=len(trace.device),
        device_seconds=sum(k.duration for k in trace.device) / 1e9,
        families=families,
        by_operator=_sorted(by_operator),
        device="cuda",
        family_launches=_sorted(counts),
        by_kernel=_sorted(Counter(short_kernel(k.name) for k in trace.device)),
        scopes=scopes,
        scope_seconds=scope_seconds,
        busy_fraction=fraction,
        launch_calls=len(launching),
        launch_seconds=sum(e.duration for e in launching) / 1e9,
        gaps=len(idle.gaps),
        gap_seconds=sum(idle.gaps) / 1e9,
        largest_gap_seconds=max(idle.gaps, default=0) / 1e9,
        starved_seconds=idle.starved / 1e9,
        queue_delay_seconds=_queue_delay(trace.device, made_by),
        queue_depth=_queue_depth(trace.device, made_by),
        bytes_per_second=_rate(common, busy),
        verdict=verdict,
        reason=reason,
        notes=tuple(notes),
        parts=parts,
    )


def _launches(event: Event) -> bool:
    """Whether a runtime call puts work on the device: cudaLaunchKernel, cuLaunchKernelEx, cudaGraphLaunch, …"""
    return any(part in event.name for part in ("Launch", "Memcpy", "Memset"))


def _launcher(call: Event | None) -> str:
    """Name of the operator that made a launching call: the leaf one where there is one, else the innermost."""
    above = [e for e in (call.above() if call else ()) if e.kind == "operator"]
    aten = [_bare(e) for e in above if is_operator(e.name)]
    for name in reversed(aten):
        if kind(name) == "kernel":
            return name
    return aten[0] if aten else above[0].name if above else NO_OPERATOR


@dataclass(frozen=True)
class _Idle:
    gaps: list[int]
    starved: int


def _idle(kernels: Sequence[Event], made_by: Sequence[Event | None], busy: Sequence[tuple[int, int]]) -> _Idle:
    """Idle stretches between kernels, and how much of them passed before the next kernel was launched; ns."""
    launched: dict[int, int] = {}
    for kernel, call in zip(kernels, made_by, strict=True):
        if call is not None:
            launched[kernel.start] = min(call.start, launched.get(kernel.start, call.start))
    gaps, starved = [], 0
    for (_, end), (start, _) in pairwise(busy):
        gaps.append(start - end)
        starved += min(max(launched.get(start, end) - end, 0), start - end)
    return _Idle(gaps, starved)


def _queue_delay(kernels: Sequence[Event], made_by: Sequence[Event | None]) -> float | None:
    """Median seconds from a launching call's start to the start of the first kernel it launched."""
    first: dict[int, int] = {}
    for kernel, call in zip(kernels, made_by, strict=True):
        if call is not None:
            first.setdefault(id(call), kernel.start - call.start)  # kernels come in order of start
    return median(first.values()) / 1e9 if first else None


def _queue_depth(kernels: Sequence[Event], made_by: Sequence[Event | None]) -> float | None:
    """Median number of kernels launched but not finished at the moments when another is launched."""
    known = [(call.start, kernel.end) for kernel, call in zip(kernels, made_by, strict=True) if call is not None]
    launched, ended = sorted(t for t, _ in known), sorted(t for _, t in known)
    moments = sorted(set(launched))
    return float(median(bisect_left(launched, t) - bisect_right(ended, t) for t in moments)) if moments else None


# --- the host ------------------------------------------------------------------------------


def _bare(event: Event) -> str:
    return bare(event.name)


def _self(event: Event) -> int:
    """ns inside the event and in none of its children."""
    return event.duration - sum(c.duration for c in event.children)


def leaf_operators(event: Event) -> Iterator[tuple[Event, list[str]]]:
    """Leaf operators at or under ``event``, each with the names that the dispatcher sees for it.

    The first name is the operator's own; the others are clones, which its first children are. A composite operator
    (linear, matmul, reshape) stands for the ones inside it; what a kernel calls on its own account is part of it.
    """
    left = [event]
    while left:
        one = left.pop()
        what = kind(_bare(one)) if is_operator(one.name) else "composite"
        if what == "kernel":
            yield one, [_bare(one), *["clone"] * _conjugations(one)]
        elif what == "composite":
            left.extend(reversed(one.children))


def _conjugations(leaf: Event) -> int:
    """Clones that the dispatcher itself made, before the leaf ran, of operands that were only marked as conjugated."""
    leading = list(takewhile(lambda child: child.name == "aten::clone", leaf.children))
    if any("Input type" in clone.args for clone in leading):
        return sum("complex" in str(clone.args.get("Input type")) for clone in leading)
    # Without recorded types, a clone inside another kind of operator may as well be the operator's own.
    return len(leading) if family(_bare(leaf)) == "elementwise" else 0


# --- sums ----------------------------------------------------------------------------------


def _union(events: Iterable[Event]) -> list[tuple[int, int]]:
    """Stretches of time that the events cover together, in order."""
    merged: list[tuple[int, int]] = []
    for e in sorted(events, key=lambda e: e.start):
        if merged and e.start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], e.end))
        else:
            merged.append((e.start, e.end))
    return merged


def _total(stretches: Iterable[tuple[int, int]]) -> int:
    return sum(end - start for start, end in stretches)


def _rate(common: Mapping[str, Any], busy: Iterable[tuple[int, int]]) -> float | None:
    """Bytes moved a second of the device's (on a CPU: the leaf operators') time."""
    seconds = _total(busy) / 1e9
    return common["moved_bytes"] / seconds if common.get("moved_bytes") and seconds else None


def _tally(entries: Iterable[tuple[str, int, int]]) -> tuple[dict[str, int], dict[str, float]]:
    counts: Counter[str] = Counter()
    time: Counter[str] = Counter()
    for scope, launches, ns in entries:
        counts[scope] += launches
        time[scope] += ns
    return _sorted(counts), _seconds(time)


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _seconds(ns: Mapping[str, int]) -> dict[str, float]:
    return {name: value / 1e9 for name, value in sorted(ns.items())}
