"""The case, the frozen layer and LoRA as CUDA graphs, their replays interleaved: which adapter costs less on a GPU.

Eager Python takes longer than the kernels of a narrow layer, whichever adapter it has: only replays compare kernels.
Each contender is captured over all its inputs in turn, more than the L2 cache holds twice; one replay is one call a
turn. A capture that fails may leave CUDA and its generator broken, so this runs in a process of its own
(``timing.replaying``), and says which operator was the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.timed import Replays, Samples, Timing
from cdvft_bench.timing.built import Target
from cdvft_bench.timing.clock import Contender, require_device, time_interleaved
from cdvft_bench.timing.modes import capture

EAGER = "eager"
"""Name of the case's eager calls among the replays: what a replay saves of them is the cost of launching."""


UNCAPTURED = "cannot be captured"
"""What a note says of a contender, after its name."""


class LastOperator(TorchDispatchMode):
    """Remembers the operator that was dispatched last, for the one that broke a capture."""

    name = "none"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.name = str(func)
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class _Captured:
    target: Target
    replay: Callable[[], object]
    difference: float | None


def time_replays(
    targets: Sequence[Target], *, device: str = "cuda", budget_s: float = 2.0, precision: float = 0.05, seed: int = 0
) -> Replays:
    """Capture each target over all its turns and time the replays side by side, and the case's eager calls.

    Args:
        targets: the case first, then what it is compared with. device: a CUDA device.
        budget_s, precision, seed: see ``clock.time_interleaved``.

    Returns:
        Times of one call and ratios of the first target's to each other's and to its own eager calls. ``timing`` is
        None where the case or all others could not be captured; the notes say why.

    Raises:
        UserError: no such device, fewer than two targets, or not of the same number of inputs.
    """
    place = require_device(device)
    if len(targets) < 2:
        raise UserError("replays of one target have no ratio; give what it is compared with, too")
    if len({target.turns for target in targets}) > 1:
        raise UserError("targets have different numbers of inputs, and no ratio of their replays; give the same ones")
    notes: list[str] = []
    captured: dict[str, _Captured] = {}
    # The case last: what it breaks, the others have behind them.
    for target in (*targets[1:], targets[0]):
        found = _captured(target, notes)
        if found is not None:
            captured[target.name] = found
        elif not _generator_works(place):
            notes.append(f"the generator is broken since the capture of {target.name}; nothing was captured after it")
            break
    ordered = [captured[t.name] for t in targets if t.name in captured]
    differences = {one.target.name: one.difference for one in ordered}
    if targets[0].name not in captured or len(ordered) < 2:
        return Replays(None, targets[0].turns, differences, tuple(notes))
    timing = time_interleaved(
        [*(Contender(one.target.name, one.replay) for one in ordered), Contender(EAGER, _turns(targets[0]))],
        budget_s=budget_s,
        precision=precision,
        seed=seed,
        device=device,
    )
    return Replays(_a_call(timing, targets[0].turns), targets[0].turns, differences, tuple(notes))


def _turns(target: Target) -> Callable[[], None]:
    def turns() -> None:
        for _ in range(target.turns):
            target.call()

    return turns


def _captured(target: Target, notes: list[str]) -> _Captured | None:
    turns = _turns(target)
    turns()  # makes what is made once
    turns()
    eager = [g.detach().clone() for g in target.gradients()]
    last = LastOperator()  # type: ignore[no-untyped-call]
    try:
        with last:
            replay = capture(turns)
    except Exception as error:  # whatever a graph cannot hold is a finding
        notes.append(f"{target.name} {UNCAPTURED}: after {last.name}: {_one_line(error)}")
        return None
    replay()
    found = target.gradients()
    if len(found) != len(eager):
        notes.append(f"{target.name} leaves {len(found)} gradients after a replay, {len(eager)} eagerly: left out")
        return None
    return _Captured(target, replay, _apart(found, eager))


def _apart(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float | None:
    """Largest relative norm of the difference of two lists of gradients; None where there are none."""
    if not theirs:
        return None
    pairs = [(a.double(), b.double()) for a, b in zip(ours, theirs, strict=True)]
    return max(float((a - b).norm() / b.norm().clamp_min(1e-300)) for a, b in pairs)


def _generator_works(device: torch.device) -> bool:
    try:
        torch.empty(1, device=device).uniform_()
    except Exception:  # a generator that is left in a capture refuses, and nothing else does here
        return False
    return True


def _a_call(timing: Timing, turns: int) -> Timing:
    """The timing of replays as one of calls: every replay was so many."""

    def divided(s: Samples) -> Samples:
        seconds = tuple(t / turns for t in s.seconds)
        return replace(s, seconds=seconds, median=s.median / turns, q25=s.q25 / turns, q75=s.q75 / turns)

    return replace(timing, samples=tuple(map(divided, timing.samples)))


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
