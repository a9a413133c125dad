"""The case, the frozen layer and LoRA as CUDA graphs, their replays interleaved: which adapter costs less on a GPU.

Eager Python takes longer than the kernels of a narrow layer, whichever adapter it has: only replays compare kernels.
Each contender is captured over all its inputs in turn, more than the L2 cache holds twice; one replay is one call a
turn. A capture that fails may leave CUDA and its generator broken, so this runs in a process of its own
(``timing.graphs``), and says which operator was the last.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cdvft_bench.core.case import Case, case_from
from cdvft_bench.core.errors import UserError, one_line
from cdvft_bench.core.helper import Helper, NoAnswerError, serve
from cdvft_bench.core.io.decode import decode
from cdvft_bench.core.timed import Replays, Samples, Timing
from cdvft_bench.timing.built import Built, Target, beside, freed
from cdvft_bench.timing.clock import Contender, require_device, time_interleaved
from cdvft_bench.timing.modes import capture, warm_up

EAGER = "eager"
"""Name of the case's eager calls among the replays: what a replay saves of them is the cost of launching."""


WARM_TURNS, WARM_CALLS = 2, 3
"""Turns round several inputs before a capture, and calls with one input: the first makes what is made once."""
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
        [
            *(Contender(one.target.name, one.replay, queued=True) for one in ordered),
            Contender(EAGER, _turns(targets[0]), awaited=False),  # as noisy as the host: replays need not wait for it
        ],
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
    warm_up(turns, WARM_TURNS if target.turns > 1 else WARM_CALLS)
    eager = [g.detach().clone() for g in target.gradients()]
    last = LastOperator()  # type: ignore[no-untyped-call]
    try:
        with last:
            replay = capture(turns, warm_ups=0)
    except Exception as error:  # whatever a graph cannot hold is a finding, of all sizes; other faults are of this one
        found_out = UNCAPTURED if isinstance(error, UserError) else "failed in its capture"
        notes.append(f"{target.name} {found_out}: after {last.name}: {one_line(error, most=300)}")
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


# --- in a process of their own ---------------------------------------------------------------


STARTING_S = 120.0
"""Seconds that an answer may take beside its timing: to start, to build, to compile kernels, to capture."""
COMMAND = (sys.executable, "-m", "cdvft_bench.timing.graphs")

Build = Callable[[Case], Built]


class Replayer:
    """Times the replays of one case after the other in another process, and in a new one after what broke it.

    Args:
        build: "module:function" that builds a case. command: what to run instead, for tests.
    """

    def __init__(self, build: str, command: Sequence[str] = ()) -> None:
        self._build, self._helper = build, Helper(command or COMMAND)
        self._refused: dict[tuple[str, object], str] = {}

    def __call__(self, case: Case, budget_s: float, precision: float) -> Replays:
        """A case's replays; what goes wrong there is a note.

        A way of executing a method that could not be captured is not tried again on other sizes: each try costs a
        process.

        Args:
            case: on a CUDA device. budget_s, precision: of the timing.
        """
        way = (case.method, dict(case.hyperparameters).get("path"))
        if way in self._refused:
            return Replays(None, 0, {}, (f"no replays: as before, {self._refused[way]}",))
        asked = {"case": asdict(case), "build": self._build, "budget_s": budget_s, "precision": precision}
        try:
            answer = self._helper.ask(asked, STARTING_S + 2 * budget_s)
        except NoAnswerError as error:
            return Replays(None, 0, {}, (f"no replays: {error}",))
        if answer["broken"]:
            self.close()
        found: Replays = decode(Replays, answer["replays"])
        refused = next((note for note in found.notes if note.startswith(f"{case.plain_label} {UNCAPTURED}")), None)
        if refused is not None:
            self._refused[way] = refused
        return found

    def close(self) -> None:
        """End the process; it may be used again."""
        self._helper.close()


def replays(case: Case, build: Build, budget_s: float, precision: float) -> Replays:
    """Time a case's replays in this process, which a failed capture may leave unfit for more."""
    targets = [build(case).target(case.plain_label, case.pass_), *beside(case, build)]
    return time_replays(targets, device=case.device, budget_s=budget_s, precision=precision, seed=case.seed)


def named(name: str) -> Any:
    """A function by its "module:function"."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the process says of one case."""
    try:
        made = replays(case_from(asked["case"]), named(asked["build"]), asked["budget_s"], asked["precision"])
    except Exception as error:  # whatever a case cannot do is its row's to say
        made = Replays(None, 0, {}, (f"no replays: {one_line(error, most=300)}",))
    freed()
    return {"replays": asdict(made), "broken": made.timing is None or bool(made.notes)}


if __name__ == "__main__":
    serve(answer)
