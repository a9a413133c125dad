"""Statistics of fine-tuning runs: paired differences, corrected for many comparisons, and fronts with uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cdvft_bench.accuracy.search import final_runs, tuning_runs
from cdvft_bench.accuracy.trial import TrialResult
from cdvft_bench.errors import UserError

DRAWS = 2000


@dataclass(frozen=True)
class Score:
    """A method's runs on the test split.

    Attributes:
        label: the method. method: its name in the suite. accuracies: by seed. diverged: runs that did not end.
        mean: of the accuracies. low, high: 95 % interval of the mean over seeds (Student's t); None for one seed.
        lr: the chosen learning rate. at_edge: it is the smallest or largest that was tried.
        parameters, step_flops, step_seconds: of a run.
    """

    label: str
    method: str
    accuracies: tuple[float, ...]
    diverged: int
    mean: float
    low: float | None
    high: float | None
    lr: float
    at_edge: bool
    parameters: int
    step_flops: float | None
    step_seconds: float | None


@dataclass(frozen=True)
class Difference:
    """Accuracy of one method less another's, paired by seed.

    Attributes:
        label, against: the methods. mean: of the differences. low, high: 95 % interval (Student's t).
        p: of a paired t test. p_holm: corrected for all comparisons with ``against`` (Holm).
    """

    label: str
    against: str
    mean: float
    low: float
    high: float
    p: float
    p_holm: float


def scores(results: Sequence[TrialResult]) -> list[Score]:
    """One score a method that has runs on the test split, best first."""
    tried = tuning_runs(results)
    found = []
    for label, runs in final_runs(results).items():
        accuracies = tuple(r.accuracy for r in runs if r.accuracy is not None)
        if not accuracies:
            continue
        first = runs[0]
        mean = float(np.mean(accuracies))
        half = _half_width(np.array(accuracies))
        rates = [r.trial.lr for r in tried.get(label, [])]
        seconds = [r.step_seconds for r in runs if r.step_seconds is not None]
        found.append(
            Score(
                label, first.trial.method, accuracies, sum(r.diverged for r in runs), mean,
                None if half is None else mean - half, None if half is None else mean + half, first.trial.lr,
                len(rates) > 1 and first.trial.lr in (min(rates), max(rates)), first.parameters, first.step_flops,
                float(np.median(seconds)) if seconds else None,
            )
        )  # fmt: skip
    return sorted(found, key=lambda s: -s.mean)


def _student() -> Any:
    """Student's t distribution.

    Raises:
        UserError: scipy is not installed.
    """
    try:
        from scipy.stats import t
    except ImportError as error:
        raise UserError("intervals need the package scipy; pip install 'cdvft-bench[train]'") from error
    return t


def _half_width(values: np.ndarray) -> float | None:
    if len(values) < 2:
        return None
    return float(_student().ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def differences(results: Sequence[TrialResult], against: str) -> list[Difference]:
    """Every method against one, paired by seed; smallest corrected p first.

    Raises:
        UserError: ``against`` has no run, or no method shares two seeds with it.
    """
    t = _student()
    runs = final_runs(results)
    if against not in runs:
        raise UserError(f"{against!r} has no run on the test split; there are {', '.join(runs) or 'none'}")
    base = {r.trial.seed: r.accuracy for r in runs[against] if r.accuracy is not None}
    raw: list[tuple[str, np.ndarray]] = []
    for label, others in runs.items():
        pairs = [r.accuracy - base[r.trial.seed] for r in others if r.accuracy is not None and r.trial.seed in base]
        if label != against and len(pairs) > 1:
            raw.append((label, np.array(pairs)))
    if not raw:
        raise UserError(f"no method shares two seeds with {against!r}; run more seeds")
    ps = []
    for _, values in raw:
        spread = values.std(ddof=1) / math.sqrt(len(values))
        if spread == 0:
            ps.append(1.0 if values.mean() == 0 else 0.0)
        else:
            ps.append(float(2 * t.sf(abs(values.mean()) / spread, len(values) - 1)))
    corrected = holm(ps)
    found = []
    for (label, values), p, p_holm in zip(raw, ps, corrected, strict=True):
        half = _half_width(values) or 0.0
        mean = float(values.mean())
        found.append(Difference(label, against, mean, mean - half, mean + half, p, p_holm))
    return sorted(found, key=lambda d: (d.p_holm, -abs(d.mean)))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p values for many comparisons."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    corrected = [0.0] * len(ps)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = highest
    return corrected


def front_shares(found: Sequence[Score], costs: Mapping[str, float], scored: int, seed: int = 0) -> dict[str, float]:
    """How often each method is on the front of accuracy against a cost, over random draws of what might have been.

    A draw takes each method's seeds with replacement and adds the binomial noise of a test split of ``scored``
    examples to their mean, which seeds alone do not show.

    Args:
        found: scores. costs: by label; methods without one are left out. scored: examples of the test split.
        seed: of the draws.
    """
    points = [s for s in found if s.label in costs]
    if not points:
        return {}
    rng = np.random.default_rng(seed)
    hits = dict.fromkeys((s.label for s in points), 0)
    for _ in range(DRAWS):
        drawn = []
        for s in points:
            mean = float(rng.choice(s.accuracies, len(s.accuracies)).mean())
            drawn.append(mean + float(rng.normal(0, math.sqrt(max(mean * (1 - mean), 0) / scored))))
        for s, accuracy in zip(points, drawn, strict=True):
            cost = costs[s.label]
            beaten = any(
                costs[o.label] <= cost and a >= accuracy and (costs[o.label] < cost or a > accuracy)
                for o, a in zip(points, drawn, strict=True)
                if o is not s
            )
            hits[s.label] += not beaten
    return {label: n / DRAWS for label, n in hits.items()}
