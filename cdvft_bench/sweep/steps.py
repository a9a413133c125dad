"""Training steps of a preset's methods timed side by side, with their peak memory and energy.

A trial's own step times come from different minutes of a machine's day. Here every method's step runs on the same
batch, in random order round by round (``timing.clock``), so that ratios hold where absolute times drift.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from cdvft_bench.accuracy.preset import Preset
from cdvft_bench.accuracy.training.fit import Training
from cdvft_bench.accuracy.training.trial import BASE, with_start
from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.dispatch import count_dispatch
from cdvft_bench.sweep.step_times import StepCost, StepTimes
from cdvft_bench.timing.clock import Contender, fixed_threads, require_device, time_interleaved
from cdvft_bench.timing.machine.memory import measure_energy, optimizer_bytes, peak_memory
from cdvft_bench.timing.statistics import median_interval

AGAINST = "LoRA r=8"
RATE = 1e-6
"""Learning rate of the timed steps: weights stay where they are, so that no step of thousands diverges."""


def time_steps(
    preset: Preset,
    environment: Mapping[str, Any],
    *,
    budget_s: float = 240.0,
    device: str = "cpu",
    threads: int | None = None,
    max_rounds: int = 200,
    say: Callable[[str], None] = lambda text: None,
) -> StepTimes:
    """Time a training step of every method of a preset on its first batch, all in one interleaved run.

    Args:
        preset: whose methods, at their first setting. environment: of the machine, kept with the result.
        budget_s: seconds of timing; loading, memory and energy come on top. device: "cpu" or "cuda".
        threads: torch's CPU threads, None as they are. max_rounds: rounds kept at most. say: told of what goes on.

    Raises:
        UserError: a package is missing, no such device, or two methods have the same label.
    """
    place = require_device(device)
    with fixed_threads(threads):
        calls: dict[str, Callable[[], object]] = {}
        trainings: dict[str, Training] = {}
        for contender in preset.contenders:
            if contender.trial.method == BASE:
                continue  # it takes no step
            trial = replace(contender.trial, lr=RATE, head_lr=RATE)
            label = with_start(trial.label, trial)
            if label in calls:
                raise UserError(f"preset {preset.name}: {label} is there twice; its steps cannot be told apart")
            training = Training(trial, device)
            batch = training.workload.rows("train", trial.batch)[: trial.batch]
            trainings[label], calls[label] = training, partial(training.step, batch)
            say(f"{label} is ready")
        first = AGAINST if AGAINST in calls else next(iter(calls))
        ordered = [first, *(label for label in calls if label != first)]
        timing = time_interleaved(
            [Contender(label, calls[label]) for label in ordered],
            precision=0.01,
            budget_s=budget_s,
            max_rounds=max_rounds,
            device=device,
        )
        say(f"{timing.rounds} rounds of {len(ordered)} steps are timed")
        seconds = {s.name: median_interval(np.array(s.seconds)) for s in timing.samples}
        costs, how, energy = [], "", ""
        for label, call in calls.items():
            memory = peak_memory(call, place)
            used = measure_energy(call, place)
            how, energy = memory.how, used.how
            ratio = timing.ratios.get(label)  # the subject's time over this one's: a reader wants the inverse
            peak = memory.peak_bytes + sum(map(optimizer_bytes, trainings[label].optimizers))
            with count_dispatch() as counter:
                call()
            launches = counter.result().launches
            costs.append(StepCost(label, seconds[label], ratio and ratio.inverse(), peak, used.joules, launches))
    trial = preset.contenders[0].trial
    return StepTimes(
        preset.name,
        trial.model,
        trial.task,
        trial.batch,
        device,
        timing.threads,
        timing.method,
        timing.rounds,
        first,
        how,
        energy,
        tuple(costs),
        timing.warnings,
        dict(environment),
    )
