"""What the fronts of fine-tuning set accuracy against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cdvft_bench.accuracy.analysis import CostOf, Score, front_shares
from cdvft_bench.core.text import NOT_MEASURED
from cdvft_bench.core.ties import steady
from cdvft_bench.sweep.steps import StepCost, StepTimes

FLOAT_BYTES = 4


@dataclass(frozen=True)
class CostKind:
    """A cost that a front is drawn against.

    Attributes:
        name: of its figure. what: as a sentence calls it. axis: of the figure. short: heads a column.
        of: a method's cost from its score and, where its steps were timed side by side, from that; None unknown.
        missing: what the page says where no two methods have it.
    """

    name: str
    what: str
    axis: str
    short: str
    of: Callable[[Score, StepCost | None], CostOf | None]
    missing: str = ""


def _exact(value: float | None) -> CostOf | None:
    return CostOf(float(value)) if value else None


def _time(score: Score, step: StepCost | None) -> CostOf | None:
    return None if step is None else CostOf(step.seconds.value, step.seconds.low, step.seconds.high)


_STEPS = "not measured: run 'cdvft-bench steps' on the preset and give its file to 'cdvft-bench pareto --steps'"

COSTS = (
    CostKind("parameters", "trained parameters beside the classifier", "trained parameters [count]", "parameters",
             lambda s, _: _exact(s.parameters)),
    CostKind("flops", "FLOPs of a training step by formula, convention flop", "FLOPs a step", "FLOPs",
             lambda s, _: _exact(steady(s.step_flops) if s.step_flops else None)),
    CostKind("time", "the time of a training step, measured side by side", "time a step [s]", "time", _time, _STEPS),
    CostKind("memory", "the measured peak memory of a training step beside the model's weights",
             "peak memory beside the weights [bytes]", "peak memory",
             lambda s, step: _exact(step.peak_bytes if step else None), _STEPS),
    CostKind("held", "what training holds beside the model's weights, counted",
             "held for the backward pass, gradients, AdamW [bytes]", "held bytes",
             lambda s, _: _exact(s.training_bytes)),
    CostKind("bytes", "the bytes of a stored adapter, its trained parameters in float32", "adapter [bytes]",
             "adapter bytes", lambda s, _: _exact(FLOAT_BYTES * s.parameters)),
    CostKind("energy", "the GPU's energy for a training step", "energy a step [J]", "energy",
             lambda s, step: _exact(step.joules if step else s.joules),
             "not measured: it is read from NVIDIA GPUs only"),
)  # fmt: skip


@dataclass(frozen=True)
class Front:
    """Accuracy against one cost.

    Attributes:
        kind: the cost. costs: by label, of the methods that have one. shares: by label, of random draws in which the
            method is on the front. said: why there are none.
    """

    kind: CostKind
    costs: Mapping[str, CostOf]
    shares: Mapping[str, float]
    said: str = ""


def fronts_of(found: Sequence[Score], steps: StepTimes | None) -> list[Front]:
    """One front a cost; where it is not known of two methods, or the same for all, without costs and shares."""
    timed = {c.label: c for c in steps.costs} if steps else {}
    made = []
    for kind in COSTS:
        costs = {s.label: cost for s in found if (cost := kind.of(s, timed.get(s.label))) is not None}
        alike = len(costs) > 1 and len(set(costs.values())) == 1
        if len(costs) > 1 and not alike:
            made.append(Front(kind, costs, front_shares(found, costs)))
        else:
            made.append(Front(kind, {}, {}, "the same for every method" if alike else kind.missing or NOT_MEASURED))
    return made
