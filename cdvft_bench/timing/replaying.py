"""Replays of cases in a process of their own: a capture that fails takes nothing else with it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from cdvft_bench.core.case import Case, case_from
from cdvft_bench.core.helper import Helper, NoAnswerError, serve
from cdvft_bench.core.io.decode import decode
from cdvft_bench.core.timed import Replays
from cdvft_bench.timing.built import Built, beside
from cdvft_bench.timing.clock import collect
from cdvft_bench.timing.graphs import UNCAPTURED, time_replays

STARTING_S = 120.0
"""Seconds that an answer may take beside its timing: to start, to build, to compile kernels, to capture."""
COMMAND = (sys.executable, "-m", "cdvft_bench.timing.replaying")

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
        text = " ".join(str(error).split())[:300]
        made = Replays(None, 0, {}, (f"no replays: {type(error).__name__}: {text}",))
    collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {"replays": asdict(made), "broken": made.timing is None or bool(made.notes)}


if __name__ == "__main__":
    serve(answer)
