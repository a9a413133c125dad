"""Fine-tuning runs of ``cdvft-bench train``: methods compared run by run, each workload by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from cdvft_bench.accuracy.analysis import Score, estimate, ratio_interval, scores
from cdvft_bench.accuracy.pilot import detectable, pilot_of
from cdvft_bench.accuracy.results import contender_of
from cdvft_bench.accuracy.training.trial import HEAD, TrialResult
from cdvft_bench.claims.ledger.figures import Figure
from cdvft_bench.claims.ledger.point import MethodSubject
from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.claims.sources.source import NotAvailable
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import LEAST_SEEDS
from cdvft_bench.core.io.log import read_lines
from cdvft_bench.core.text import plural
from cdvft_bench.methods import make_method, method_class

REMEDY = "run more seeds, or score more test examples, with 'cdvft-bench train'"


def is_results(path: Path) -> bool:
    """Whether a .jsonl file holds fine-tuning runs; a store's lines have other names."""
    try:
        first = next(iter(read_lines(path)), (0, b""))[1]
    except UserError:
        return False
    return first.startswith((b'{"environment_row"', b'{"trial"'))


def score_of(results: Sequence[TrialResult], subject: MethodSubject) -> Score:
    """The runs of a method with the hyperparameters that a ledger names; of several such the best on validation data.

    Of equals the one of fewer parameters, then the first by name. Where none was tuned, the best on the test split.

    Raises:
        NotAvailable: there is none. UserError: runs of a method scored different examples.
    """
    own = [r for r in results if _is(r, subject)]
    found = scores(own)
    if not found:
        raise NotAvailable(
            f"no fine-tuning run of {subject} on the test split",
            "let the preset of 'cdvft-bench train' have it",
        )
    validated = {
        s.label: max((r.accuracy for r in own if _tunes(r, s) and r.accuracy is not None), default=None) for s in found
    }
    if any(v is None for v in validated.values()):
        return found[0]
    return min(found, key=lambda s: (-(validated[s.label] or 0.0), s.parameters, s.label))


def accuracy(score: Score) -> Figure:
    """Mean accuracy on the test split, with its 95 % interval."""
    interval = (-math.inf, math.inf) if score.low is None or score.high is None else (score.low, score.high)
    return Figure((score.mean,), interval=interval, note=_note(score), remedy=REMEDY)


def ratio(one: Score, other: Score) -> Figure:
    """Accuracy of one over the other's, with the 95 % interval of pairs of runs (same seed, same test examples).

    The interval (Fieller's) holds every ratio that the pairs do not speak against. It is unbounded where fewer than
    three seeds are shared, or where a run of the first diverged, which no pair shows.
    """
    seeds = [s for s in one.seeds if s in other.seeds]
    value, against = (one.mean,), (other.mean,)
    if len(seeds) < LEAST_SEEDS or one.answers.shape[1] != other.answers.shape[1]:
        note = f"{plural(len(seeds), 'seed')} in common: no interval"
        return Figure(value, against, interval=(-math.inf, math.inf), note=note, remedy=REMEDY)
    a = one.answers[[one.seeds.index(s) for s in seeds]]
    b = other.answers[[other.seeds.index(s) for s in seeds]]

    note = f"{len(seeds)} paired seeds, {plural(a.shape[1], 'test example')}, {one.label} and {other.label}"
    for score in (one, other):
        note += f", {score.label} diverged {plural(score.diverged, 'time')}" if score.diverged else ""
        note += f", the learning rate of {score.label} at the edge of those tried" if score.at_edge else ""
    seen = detectable(estimate(a, b)) / other.mean if other.mean else math.inf
    note += f"; a true difference of {100 * seen:.2g} % is seen with a chance of 80 %" if math.isfinite(seen) else ""
    interval = (-math.inf, math.inf) if one.diverged else ratio_interval(a, b)
    return Figure((int(a.sum()) / a.size,), (int(b.sum()) / b.size,), interval=interval, note=note, remedy=REMEDY)


def with_pilot(figure: Figure, results: Sequence[TrialResult]) -> Figure:
    """A figure whose note says that its workload is not shown to rank methods: there, alike says little."""
    pilot = pilot_of(results)
    found = f"full fine-tuning is {100 * pilot.gain:.1f} points above training the least" if pilot else "no pilot"
    return replace(figure, note=f"{figure.note}; not shown to rank methods: {found}")


def _is(result: TrialResult, subject: MethodSubject) -> bool:
    """Whether a run is of this method, its hyperparameters as the ledger names them; others may be any."""
    trial = result.trial
    if trial.method != subject.name or trial.method == HEAD:
        return False
    try:
        method = make_method(trial.method, dict(trial.hyperparameters))
    except UserError:  # a file of another version may hold what this one does not know
        return False
    known = {f.name for f in fields(method_class(trial.method))}
    return all(name in known and _same(getattr(method, name), value) for name, value in subject.values)


def _same(a: object, b: Value) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _tunes(result: TrialResult, score: Score) -> bool:
    return result.trial.evaluate == "validation" and contender_of(result) == score.label


def _note(score: Score) -> str:
    seeds = plural(len(score.seeds), "seed")
    return f"{score.label}, {seeds}" + (f", diverged {plural(score.diverged, 'time')}" if score.diverged else "")
