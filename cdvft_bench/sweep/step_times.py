"""What training steps of a preset's methods take, as a file: read where nothing runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cdvft_bench.core.case import todays_label
from cdvft_bench.core.interval import Interval
from cdvft_bench.documents import read_document


@dataclass(frozen=True)
class StepCost:
    """What a training step of one method takes.

    Attributes:
        label: the method. seconds: median over the rounds with a 95 % bootstrap interval.
        ratio: its time over that of ``StepTimes.against``, paired by round; None of that one itself.
        peak_bytes: the most that tensors take beside the model's weights: the step's own peak and AdamW's moments.
        joules: of the GPU for a step; None where it cannot be read.
        launches: operators of a step of the whole model that launch a kernel, counted as they are dispatched; None in
            files from before they were counted.
    """

    label: str
    seconds: Interval
    ratio: Interval | None
    peak_bytes: int
    joules: float | None
    launches: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", todays_label(self.label))


@dataclass(frozen=True)
class StepTimes:
    """Steps of a preset's methods, side by side.

    Attributes:
        preset, model, task: what ran. batch: examples a step. device, threads, method: of the clock.
        rounds: kept. against: the method of the ratios. memory: how it was read. energy: how, or why not.
        costs: one a method. warnings: of the clock. environment: of the machine.
    """

    preset: str
    model: str
    task: str
    batch: int
    device: str
    threads: int
    method: str
    rounds: int
    against: str
    memory: str
    energy: str
    costs: tuple[StepCost, ...]
    warnings: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)


def read_steps(path: Path) -> StepTimes:
    """Read what ``cdvft-bench steps`` wrote.

    Raises:
        UserError: the file cannot be read, or is no such file.
    """
    return read_document(path, StepTimes, "steps", "cdvft-bench steps")
