"""A rehearsal of a campaign: every method for a few steps, end to end; and from that what the whole will take.

Short runs of a method, alike but for training steps or scored examples, give the core-seconds of its start, of a step
and of a scored example. What a step or an example takes does not depend on how many there are, so sums of them
say what a campaign takes, before its first run.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cdvft_bench.accuracy.preset import Contender, Preset
from cdvft_bench.accuracy.results import contender_of
from cdvft_bench.accuracy.training.trial import BASE, Trial, TrialResult, with_setting, with_start
from cdvft_bench.core.case import todays_label
from cdvft_bench.core.errors import UserError
from cdvft_bench.documents import read_document

NAME = "rehearsal.json"
STEPS, SCORED, MORE = 3, 16, 48
"""Training steps of a longer run beside its first; scored examples of a run, and of a longer one beside these."""
ENOUGH, GROWTH = 3.0, 4
"""Core-seconds that a longer run must take beyond the shortest to be told from it; how it grows until it does."""


@dataclass(frozen=True)
class MethodCost:
    """Core-seconds of one method: of a run before its first step, of a training step, of a scored example."""

    label: str
    start_s: float
    step_s: float
    example_s: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", todays_label(self.label))

    def of(self, trial: Trial) -> float:
        """Of a whole run."""
        steps = 0 if trial.method == BASE else math.ceil(trial.examples / trial.batch) * trial.epochs
        return self.start_s + steps * self.step_s + trial.scored * self.example_s


@dataclass(frozen=True)
class Rehearsal:
    """What a preset's methods take, and the environment that it was measured in.

    Attributes:
        preset, model, task: what ran. device, threads: where. costs: one a method.
    """

    preset: str
    model: str
    task: str
    device: str
    threads: int
    costs: tuple[MethodCost, ...]
    environment: Mapping[str, Any] = field(default_factory=dict)


def label_of(contender: Contender) -> str:
    """What results call a contender."""
    return with_start(contender.trial.label, contender.trial)


def rehearsed(
    preset: Preset,
    run: Callable[[Trial], TrialResult],
    environment: Mapping[str, Any],
    device: str = "cpu",
    threads: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> Rehearsal:
    """Run every method of a preset for a few steps and read what it takes.

    Args:
        preset: whose methods. run: runs a trial. environment: kept with the result. device, threads: likewise.
        say: told of each method.

    Raises:
        UserError: a package is missing, or a method cannot run here.
    """
    costs: list[MethodCost] = []
    for contender in preset.contenders:
        batch = contender.trial.batch
        once = with_setting(contender.trial, contender.trial.lr, 0, "test")
        once = replace(once, examples=batch, epochs=1, scored=SCORED)
        if not costs:
            run(once)  # loads packages and data, which later runs find ready
        base = _core_seconds(run(once))

        def steps(n: int, once: Trial = once) -> Trial:
            return replace(once, examples=(n + 1) * once.batch)

        def examples(n: int, once: Trial = once) -> Trial:
            return replace(once, scored=SCORED + n)

        most = math.ceil(contender.trial.examples / batch) * contender.trial.epochs
        step = 0.0 if once.method == BASE else _each(run, steps, base, STEPS, most)
        example = _each(run, examples, base, MORE, contender.trial.scored)
        cost = MethodCost(label_of(contender), max(0.0, base - step - SCORED * example), step, example)
        costs.append(cost)
        say(f"{cost.label}: {cost.step_s:.3g} core-seconds a step, {cost.example_s:.3g} a scored example")
    first = preset.contenders[0].trial
    return Rehearsal(preset.name, first.model, first.task, device, threads, tuple(costs), dict(environment))


def _each(run: Callable[[Trial], TrialResult], longer: Callable[[int], Trial], base: float, n: int, most: int) -> float:
    """Core-seconds of one step or example: of ``n`` more of them, or of so many that they are told from the start's."""
    while True:
        beyond = _core_seconds(run(longer(n))) - base
        if beyond >= ENOUGH or n >= most:
            return max(0.0, beyond / n)
        n = min(GROWTH * n, most)


def _core_seconds(result: TrialResult) -> float:
    if result.error is not None:
        raise UserError(f"{contender_of(result)} does not run here: {result.error}")
    return result.cpu_seconds or result.seconds


def read_rehearsal(path: Path) -> Rehearsal:
    """Read what ``cdvft-bench rehearse`` wrote.

    Raises:
        UserError: the file cannot be read, or is no such file.
    """
    return read_document(path, Rehearsal, "rehearsal", "cdvft-bench rehearse")
