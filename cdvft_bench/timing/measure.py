"""Everything that is measured of a built case: times, trace, memory, energy, ways to run it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from cdvft_bench.core.case import FROZEN
from cdvft_bench.core.errors import one_line
from cdvft_bench.core.timed import Memory, Mode, Replays, Timed, TraceSummary
from cdvft_bench.timing.built import Target
from cdvft_bench.timing.clock import Contender, time_interleaved
from cdvft_bench.timing.machine.memory import measure_energy, optimizer_bytes, peak_memory, tensor_bytes
from cdvft_bench.timing.modes import time_modes
from cdvft_bench.timing.scopes import scoped
from cdvft_bench.timing.trace import export_trace, trace_call

T = TypeVar("T")
ON_GPU: tuple[Mode, ...] = ("eager", "graph", "compile")
ENERGY_S = 2.0


@dataclass(frozen=True)
class Plan:
    """How a case is measured.

    Attributes:
        budget_s: seconds of timing, and again of timing its modes. precision: of a ratio, at which to stop earlier.
        modes: ways to run it; None for all three on a GPU, eagerly alone elsewhere.
        energy_s: seconds of repeating a call for its energy (GPU only), 0 for none; None for 2.
        trace: also profile one call and take its memory. trace_to: file (.json.gz) that keeps that profile.
        prepare_s: seconds that capturing or compiling may take, each; None is no limit.
        threads: torch's CPU threads, None as they are.
        seed: of the order.
    """

    budget_s: float = 2.0
    precision: float = 0.05
    modes: tuple[Mode, ...] | None = None
    energy_s: float | None = None
    trace: bool = True
    trace_to: Path | None = None
    prepare_s: float | None = None
    threads: int | None = None
    seed: int = 0


def measure(
    target: Target,
    beside: Callable[[], Sequence[Target]],
    device: str,
    plan: Plan,
    notes: Sequence[str] = (),
    replays: Callable[[], Replays] | None = None,
) -> Timed:
    """Time a case beside others; then its energy, modes, replays, trace and memory.

    What fails after the times is left out and said in the notes.

    Args:
        target: the case.
        beside: makes what it is timed beside; they are dropped again before memory is measured. The one named
            "frozen" is the baseline of what the case keeps.
        device: "cpu" or "cuda".
        plan: how.
        notes: what a reader is to know of the case.
        replays: see :func:`describe`.
    """
    others = list(beside())
    timing = time_interleaved(
        [Contender(one.name, one.call) for one in (target, *others)],
        budget_s=plan.budget_s,
        precision=plan.precision,
        seed=plan.seed,
        device=device,
        threads=plan.threads,
    )
    frozen_bytes = next((tensor_bytes(one.module) for one in (target, *others) if one.name == FROZEN), None)
    del others
    if torch.device(device).type == "cuda" and replays is not None:
        gc.collect()  # what was timed beside it is built once more, in the process of the replays
        torch.cuda.empty_cache()
    return replace(describe(target, device, plan, frozen_bytes, notes, replays), timing=timing)


def describe(
    target: Target,
    device: str,
    plan: Plan,
    frozen_bytes: int | None = None,
    notes: Sequence[str] = (),
    replays: Callable[[], Replays] | None = None,
) -> Timed:
    """The energy, modes, replays, trace and memory of a case, without its times; what fails is said in the notes.

    The profiler comes last: once it has traced a GPU it stays attached to the process, and slows what is timed later.

    Args:
        target, device, plan, notes: see :func:`measure`. frozen_bytes: of the frozen subject, None where not known.
        replays: times the case as a CUDA graph beside its baselines; called where the plan has mode "graph" and the
            device is a GPU, in place of a graph of the case alone.
    """
    said = list(notes)
    timed = Timed(None, None, None)
    cuda = torch.device(device).type == "cuda"
    energy_s = (ENERGY_S if cuda else 0.0) if plan.energy_s is None else plan.energy_s
    if energy_s:
        energy = _tried("energy", lambda: measure_energy(target.call, device, seconds=energy_s), said)
        timed = replace(timed, energy=energy)
    ways = (ON_GPU if cuda else ("eager",)) if plan.modes is None else plan.modes
    if cuda and "graph" in ways and replays is not None:
        ways = tuple(way for way in ways if way != "graph")
        timed = replace(timed, replays=_tried("replays", replays, said))
    if set(ways) - {"eager"}:
        modes = _tried(
            "modes",
            lambda: time_modes(
                target.fixed,
                device=device,
                modes=ways,
                budget_s=plan.budget_s,
                precision=plan.precision,
                seed=plan.seed,
                threads=plan.threads,
                prepare_s=plan.prepare_s,
            ),
            said,
        )
        timed = replace(timed, modes=modes)
    if plan.trace:
        timed = replace(
            timed,
            trace=_tried("trace", lambda: _trace(target, device, plan.trace_to, said), said),
            memory=_tried("peak memory", lambda: _memory(target, device, frozen_bytes), said),
        )
    return replace(timed, notes=tuple(said))


def _trace(target: Target, device: str, path: Path | None, notes: list[str]) -> TraceSummary:
    def once() -> TraceSummary:
        return trace_call(target.call, device) if path is None else export_trace(target.call, path, device)

    with scoped(target.module) as scoping:
        summary = once()
        if summary.lost:  # the profiler drops what its buffers do not hold, now and then
            notes.append(f"{summary.lost:,} launches had no kernel in the first trace; it was recorded once more")
            summary = once()
    if scoping.bypassing:
        notes.append("adapted layers do not call their base: the trace has the base's product under adapter")
    return summary


def _memory(target: Target, device: str, frozen_bytes: int | None) -> Memory:
    found = peak_memory(target.call, device)
    if frozen_bytes is None:
        return found
    kept = tensor_bytes(target.module) - frozen_bytes + optimizer_bytes(target.optimizer)
    return replace(found, kept_bytes=kept)


def _tried(what: str, reading: Callable[[], T], notes: list[str]) -> T | None:
    try:
        return reading()
    except Exception as error:
        notes.append(f"no {what}: {one_line(error)}")
        return None
