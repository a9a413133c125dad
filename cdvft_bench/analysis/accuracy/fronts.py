"""Accuracy against cost: what fronts are drawn against, and how often each method is on them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from cdvft_bench.accuracy.analysis import Score
from cdvft_bench.accuracy.draws import CostOf, front_shares_of
from cdvft_bench.accuracy.pilot import REFERENCES
from cdvft_bench.analysis.accuracy.pairs import State, beyond_chance, states
from cdvft_bench.core.text import NOT_MEASURED, clean, listed, plural
from cdvft_bench.core.ties import steady
from cdvft_bench.sweep.step_times import StepCost, StepTimes

FLOAT_BYTES = 4
SHOWN = 8
"""Names that a sentence lists at most."""


@dataclass(frozen=True)
class CostKind:
    """A cost that a front is drawn against.

    Attributes:
        name: for programs. what: as a sentence calls it. short: heads a column or an axis, with its unit.
        of: a method's cost from its score and, where its steps were timed side by side, from that; None unknown.
        missing: what the page says where no two methods have it.
    """

    name: str
    what: str
    short: str
    of: Callable[[Score, StepCost | None], CostOf | None]
    missing: str = ""


def _exact(value: float | None) -> CostOf | None:
    return CostOf(float(value)) if value else None


def _time(score: Score, step: StepCost | None) -> CostOf | None:
    return None if step is None else CostOf(step.seconds.value, step.seconds.low, step.seconds.high)


LEAST = 0.02
"""Share of right answers that a front shows beside its means, at least where it knows no intervals."""

_STEPS = "not measured: run 'cdvft-bench steps' on the preset and give its file to 'cdvft-bench pareto --steps'"

COSTS = (
    CostKind(
        "parameters",
        "trained parameters beside the classifier",
        "trained parameters",
        lambda s, _: _exact(s.parameters),
    ),
    CostKind(
        "flops",
        "FLOPs of a training step by formula, convention flop",
        "FLOPs a step",
        lambda s, _: _exact(steady(s.step_flops) if s.step_flops else None),
    ),
    CostKind("time", "the time of a training step, measured side by side", "time a step [s]", _time, _STEPS),
    CostKind(
        "memory",
        "the measured peak memory of a training step beside the model's weights",
        "peak memory [bytes]",
        lambda s, step: _exact(step.peak_bytes if step else None),
        _STEPS,
    ),
    CostKind(
        "launches",
        "launches of a training step: its operators that launch a kernel, counted",
        "launches a step",
        lambda _, step: _exact(step.launches if step else None),
        _STEPS,
    ),
    CostKind(
        "held",
        "what training holds beside the model's weights (saved for backward, gradients, AdamW), counted",
        "held bytes",
        lambda s, _: _exact(s.training_bytes),
    ),
    CostKind(
        "bytes",
        "the bytes of a stored adapter, its trained parameters in float32",
        "adapter [bytes]",
        lambda s, _: _exact(FLOAT_BYTES * s.parameters),
    ),
    CostKind(
        "energy",
        "the GPU's energy for a training step",
        "energy a step [J]",
        lambda s, step: _exact(step.joules if step else s.joules),
        "not measured: it is read from NVIDIA GPUs only",
    ),
)


@dataclass(frozen=True)
class Front:
    """Accuracy against one cost.

    Attributes:
        kind: the cost. costs: by label, of the methods that have one.
        shares: by label, of random draws in which the method is on the front.
        states: by label, whether it is on the front beyond chance. said: why there are none.
    """

    kind: CostKind
    costs: Mapping[str, CostOf]
    shares: Mapping[str, float]
    states: Mapping[str, State]
    said: str = ""

    @property
    def told(self) -> str:
        """What can be told apart on it and what cannot, in a sentence; empty where there is no front."""
        if not self.costs:
            return ""
        return (
            f"Against {self.kind.short.partition(' [')[0]}, on the front beyond chance: {self._named('on')}; "
            f"beaten beyond chance: {self._named('off')}; not told: {self._named('open')}."
        )

    def _named(self, state: State) -> str:
        names = [clean(label) for label, found in self.states.items() if found == state]
        return plural(len(names), "method") if len(names) > SHOWN else listed(names) or "none"


def fronts_of(found: Sequence[Score], steps: StepTimes | None, untimed: str = "") -> list[Front]:
    """One front a cost; where it is not known of two methods, or the same for all, without costs and shares.

    None has any while only the references are scored, as after a pilot.

    Args:
        found: scores. steps: their training steps; None where none were timed that go with them.
        untimed: why that is, where there are some that do not.
    """
    if all(score.method in REFERENCES for score in found):
        return [Front(kind, {}, {}, {}, f"{NOT_MEASURED}: no method but the references has ended") for kind in COSTS]
    timed = {c.label: c for c in steps.costs} if steps else {}
    costs = {
        kind.name: {s.label: cost for s in found if (cost := kind.of(s, timed.get(s.label))) is not None}
        for kind in COSTS
    }
    telling = {name: one for name, one in costs.items() if len(one) > 1 and len(set(one.values())) > 1}
    shares = front_shares_of(found, telling)
    better = {(one, other) for _, one, other in beyond_chance({"": {s.label: s for s in found}})}
    made = []
    for kind in COSTS:
        if kind.name in telling:
            told = states(list(telling[kind.name]), telling[kind.name], better)
            made.append(Front(kind, telling[kind.name], shares[kind.name], told))
        else:
            alike = "the same for every method" if len(costs[kind.name]) > 1 else ""
            missing = untimed if untimed and kind.missing == _STEPS else kind.missing or NOT_MEASURED
            made.append(Front(kind, {}, {}, {}, alike or missing))
    return made


@dataclass(frozen=True)
class Line:
    """Where a front names a reference: at its mean, or at an edge on whose ``side`` ("above" or "below") that lies."""

    score: Score
    at: float
    side: str


@dataclass(frozen=True)
class Window:
    """The part of the accuracies that a front shows, as shares.

    Attributes:
        low, high: between them lie all means but the references', and most intervals.
        lines: the references; those further off than the other means lie apart do not widen the window.
    """

    low: float
    high: float
    lines: tuple[Line, ...]


def window_of(found: Sequence[Score]) -> Window:
    """What fronts of these scores show, which have others than the references among them."""
    references = [score for score in found if score.method in REFERENCES]
    others = [score for score in found if score.method not in REFERENCES]
    means = [score.mean for score in others]
    half = median([LEAST, *((s.high - s.low) / 2 for s in others if s.high is not None and s.low is not None)])
    reach = max(max(means) - min(means), 2 * half)
    near = [s.mean for s in references if min(means) - reach <= s.mean <= max(means) + reach]
    low, high = min([*means, *near]), max([*means, *near])
    margin = max(half, 0.12 * (high - low))
    low, high = low - margin, high + margin
    sides = ["below" if s.mean < low else "above" if s.mean > high else "" for s in references]
    lines = (Line(s, min(max(s.mean, low), high), side) for s, side in zip(references, sides, strict=True))
    return Window(low, high, tuple(lines))
