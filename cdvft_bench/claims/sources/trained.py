"""Test accuracies of fine-tuning: of ``cdvft-bench train``, paired run by run, and of tables of others' runs.

A run made elsewhere whose name or hyperparameters say something that is not known here is left out and named, never
pooled with the plain method, see ``accuracy.published.methods``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import variance

from cdvft_bench.accuracy.analysis import Score, estimate, ratio_interval, scores
from cdvft_bench.accuracy.pilot import detectable, pilot_of
from cdvft_bench.accuracy.published.methods import method_of, plain, spellings
from cdvft_bench.accuracy.published.run import PublishedRun
from cdvft_bench.accuracy.results import tuning_runs, validated
from cdvft_bench.accuracy.training.trial import HEAD, TrialResult
from cdvft_bench.claims.ledger.figures import Figure
from cdvft_bench.claims.ledger.point import MethodSubject
from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.claims.sources.source import NotAvailable
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import LEAST_SEEDS
from cdvft_bench.core.io.log import read_lines
from cdvft_bench.core.student import fieller, t_value
from cdvft_bench.core.text import plural
from cdvft_bench.core.ties import mean_share
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
    tuned = {label: validated(tried) for label, tried in tuning_runs(own).items()}
    if any(tuned.get(s.label) is None for s in found):
        return found[0]
    return min(found, key=lambda s: (-(tuned[s.label] or 0.0), s.parameters, s.label))


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
    named = ((name, _default_of(name, value)) for name, value in subject.values)
    return all(name in known and _same(getattr(method, name), value) for name, value in named)


def _default_of(name: str, value: Value) -> Value | None:
    """A value as runs record it: blocks as wide as the layer, "d" in a ledger, are the default there, None."""
    return None if (name, value) == ("block_size", "d") else value


def _same(a: object, b: Value | None) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _note(score: Score) -> str:
    seeds = plural(len(score.seeds), "seed")
    return f"{score.label}, {seeds}" + (f", diverged {plural(score.diverged, 'time')}" if score.diverged else "")


# --- of runs that others made ---------------------------------------------------------------


@dataclass(frozen=True)
class RunTable:
    """A table of runs.

    Attributes:
        name: of its file. runs: its rows.
    """

    name: str
    runs: Sequence[PublishedRun]

    def figure(self, one: MethodSubject, other: MethodSubject | None) -> Figure:
        """Accuracy of a method's best configuration, or of one over the other's, not paired.

        Raises:
            NotAvailable: there is no run of a side.
        """
        a = self.best(one)
        b = [1.0] if other is None else self.best(other)
        note = (
            plural(len(a), "run") + ("" if other is None else f" and {len(b)}, not paired") + self._left_out(one, other)
        )
        interval = (-math.inf, math.inf)
        if len(a) >= LEAST_SEEDS and (other is None or len(b) >= LEAST_SEEDS):
            interval = fieller(mean_share(a), mean_share(b), _spread(a), 0.0, _spread(b))
        remedy = "give a table with several runs of every configuration"
        against = None if other is None else (mean_share(b),)
        return Figure((mean_share(a),), against, interval=interval, note=note, remedy=remedy)

    def best(self, subject: MethodSubject) -> list[float]:
        """Accuracies of the best configuration's runs; of equals the first in the table.

        Raises:
            NotAvailable: there is no run of the method.
        """
        found: dict[str, list[float]] = {}
        for run in self.runs:
            name, unknown = method_of(run)
            if not unknown and plain(name) == plain(subject.name) and _has(run, subject):
                configuration = repr(
                    (sorted(run.hyperparameters.items(), key=str), run.target_modules, run.lr, run.steps)
                )
                found.setdefault(configuration, []).append(run.score)
        if not found:
            raise NotAvailable(
                f"no recorded fine-tuning run of {subject}{self._left_out(subject)}",
                "give results of 'cdvft-bench train' (.jsonl), or a table of runs (.csv), with --records",
            )
        return max(found.values(), key=mean_share)

    def _left_out(self, *subjects: MethodSubject | None) -> str:
        """Rows of the same PEFT type that are variants which the suite does not know, in words."""
        names = {plain(s.name) for s in subjects if s is not None}
        rows = [(run.experiment, *method_of(run)) for run in self.runs]
        said = [f"{experiment} ({unknown})" for experiment, name, unknown in rows if unknown and plain(name) in names]
        return f"; left out, since a variant is not known: {', '.join(said)}" if said else ""


def _spread(values: Sequence[float]) -> float:
    """Variance of a mean times its squared half-width in standard errors; one value is taken as exact."""
    n = len(values)
    return t_value(n - 1) ** 2 * variance(values) / n if n > 1 else 0.0


def _has(run: PublishedRun, subject: MethodSubject) -> bool:
    def given(name: str) -> Value | None:
        values = run.hyperparameters
        value = next((values[key] for key in spellings(subject.name, name) if key in values), None)
        return value if isinstance(value, int | float | str) else None

    return all(given(name) == value for name, value in subject.values)
