"""The third witness, and accuracy: both read what was recorded, and measure nothing themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import variance

from cdvft_bench.accuracy.published import PublishedRun, published_runs
from cdvft_bench.accuracy.results import read_results
from cdvft_bench.accuracy.trial import TrialResult
from cdvft_bench.claims.ledger.fits import t_value
from cdvft_bench.claims.ledger.laws import Figure
from cdvft_bench.claims.ledger.point import MethodSubject, Point, Subject
from cdvft_bench.claims.ledger.resolve import FROZEN
from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.claims.ledger.text import plural, setting
from cdvft_bench.claims.sources.availability import Silent
from cdvft_bench.claims.sources.trained import accuracy, fieller, is_results, ratio, score_of, workload_of
from cdvft_bench.core.case import Case, CasePass
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.core.ties import mean_share
from cdvft_bench.methods import make_method
from cdvft_bench.sweep.grid import make_case, subject_shapes

STORES = (".sqlite", ".jsonl", ".jsonl.gz")
TABLE = "a table of runs"
"""Workload of runs that come as a table, which does not say what they train on."""

# A hyperparameter's name in this suite, and in the configurations that tables of runs quote.
_ALIASES = {"rank": "r", "n_frequency": "n"}


@dataclass(frozen=True)
class Records:
    """What was recorded: times, fine-tuning runs from tables, and such as ``cdvft-bench train`` writes."""

    timed: Sequence[Record] = ()
    runs: Sequence[PublishedRun] = ()
    results: Sequence[TrialResult] = ()


def read_records(paths: Iterable[str | Path]) -> Records:
    """Timed records from stores, and fine-tuning runs from tables (.csv) or from results of ``cdvft-bench train``.

    Raises:
        UserError: a file is of no known kind, cannot be read, or is not as it should be.
    """
    timed: list[Record] = []
    runs: list[PublishedRun] = []
    results: list[TrialResult] = []
    for path in map(Path, paths):
        if not path.is_file():
            raise UserError(f"records {str(path)!r}: there is no such file")
        if path.name.endswith(".csv"):
            runs += published_runs(path)
        elif path.name.endswith(".jsonl") and is_results(path):
            results += read_results(path)[0]
        elif path.name.endswith(STORES):
            from cdvft_bench.sweep.store import Store

            with Store(path) as store:
                timed += [r for r in store.records() if r.timed is not None]
        else:
            raise UserError(f"records {str(path)!r} must end in {', '.join(STORES)} or .csv")
    return Records(timed, runs, results)


@dataclass(frozen=True)
class Clock:
    """Speaks of recorded times: the median over the frozen subject's, from the same interleaved run."""

    records: Sequence[Record]

    def say(self, point: Point, subject: Subject | None) -> tuple[float, ...]:
        """The ratio of a subject's time to the frozen subject's; of several records the newest.

        Raises:
            Silent: no record is of this case.
        """
        return (self._ratio(point, subject)[0],)

    def measured(self, point: Point) -> Figure:
        """The same with its interval, of the two sides' own bounds where the point has two.

        Raises:
            Silent: no record is of this case.
        """
        remedy = "time it longer, on a quiet machine"
        value, low, high = self._ratio(point, point.subject)
        if point.against is None:
            return Figure(None, (value,), None, (low, high), remedy=remedy)
        other, least, most = self._ratio(point, point.against)
        interval = (low / most, high / least) if least > 0 else (-math.inf, math.inf)
        return Figure(None, (value,), (other,), interval, remedy=remedy)

    def _ratio(self, point: Point, subject: Subject | None) -> tuple[float, float, float]:
        """Value, low and high; infinite bounds where none were recorded."""
        assert isinstance(subject, MethodSubject)  # check_point refuses anything else
        if subject.targets:
            raise Silent("records are of a model's default targets only", "leave 'targets' out")
        options = dict(point.options)
        if subject.name == FROZEN:
            return (1.0, 1.0, 1.0)
        pass_: CasePass = "forward" if options["pass"] == "forward" else "step"
        wanted = _fixed(
            make_case(
                subject.name, scalars(subject), point.kind, point.place, 1, point.tokens, point.dtype, pass_,
                str(options["device"]),
            )
        )  # fmt: skip
        ratios = [
            (r.created, r.timed.timing.ratios["frozen"])
            for r in self.records
            if r.timed is not None
            and r.timed.timing is not None
            and "frozen" in r.timed.timing.ratios
            and r.case.method == subject.name
            and _is(r.case, wanted)
        ]
        if not ratios:
            raise Silent(
                f"no record times {_name(subject)} on {point.place}, {point.tokens} tokens, {options['device']}",
                "time it with 'cdvft-bench sweep' and give the store with --records",
            )
        _, newest = max(ratios, key=lambda found: found[0])
        if newest.low is None or newest.high is None:
            return newest.value, -math.inf, math.inf
        return newest.value, newest.low, newest.high


@dataclass(frozen=True)
class Accuracy:
    """Speaks of recorded fine-tuning runs, of one workload at a time.

    Attributes:
        runs: of tables: of a method's configurations the best, each the mean of its runs.
        results: of ``cdvft-bench train``, see :mod:`cdvft_bench.claims.sources.trained`.
    """

    runs: Sequence[PublishedRun] = ()
    results: Sequence[TrialResult] = ()

    def workloads(self, point: Point) -> list[str]:
        """Those on which every side of the point was run."""
        found = [TABLE] if self.runs else []
        found += sorted({workload_of(r) for r in self.results})
        return [name for name in found if self.only(name)._speaks(point)]

    def only(self, workload: str) -> Accuracy:
        """The witness of one workload."""
        if workload == TABLE:
            return Accuracy(self.runs)
        return Accuracy((), [r for r in self.results if workload_of(r) == workload])

    def _speaks(self, point: Point) -> bool:
        try:
            self.measured(point)
        except Silent:
            return False
        return True

    def say(self, point: Point, subject: Subject | None) -> tuple[float, ...]:
        """Test accuracy, 0 to 1, of a method with the hyperparameters that the ledger names.

        Raises:
            Silent: there is no run of it.
        """
        assert isinstance(subject, MethodSubject)
        return (score_of(self.results, subject).mean if self.results else mean_share(self._best(subject)),)

    def measured(self, point: Point) -> Figure:
        """The same, or the ratio of two, with its interval.

        Raises:
            Silent: there is no run of a side.
        """
        one, other = point.subject, point.against
        assert isinstance(one, MethodSubject)
        assert other is None or isinstance(other, MethodSubject)
        if self.results:
            score = score_of(self.results, one)
            return accuracy(score) if other is None else ratio(score, score_of(self.results, other))
        a = self._best(one)
        b = [1.0] if other is None else self._best(other)
        note = f"{plural(len(a), 'run')}" + ("" if other is None else f" and {len(b)}, not paired")
        interval = (-math.inf, math.inf)
        if len(a) > 1 and (other is None or len(b) > 1):
            interval = fieller(lambda rho: _apart(a, b, rho))
        remedy = "give a table with several runs of every configuration"
        return Figure(None, (mean_share(a),), None if other is None else (mean_share(b),), interval, note, remedy)

    def _best(self, subject: MethodSubject) -> list[float]:
        """Accuracies of the best configuration's runs; of equals the first in the table."""
        found: dict[str, list[float]] = {}
        for run in self.runs:
            if _method_of(run) == _plain(subject.name) and _has(run, subject):
                configuration = repr((sorted(run.hyperparameters.items()), run.target_modules, run.lr, run.steps))
                found.setdefault(configuration, []).append(run.test_accuracy)
        if not found:
            raise Silent(
                f"no recorded fine-tuning run of {_name(subject)}",
                "give results of 'cdvft-bench train' (.jsonl), or a table of runs (.csv), with --records",
            )
        return max(found.values(), key=mean_share)


def _apart(a: Sequence[float], b: Sequence[float], rho: float) -> tuple[float, float]:
    """Mean and half-width of ``a - rho b``, not paired (Welch); one value is taken as exact."""
    parts = [(scale * variance(v) / len(v), len(v) - 1) for v, scale in ((a, 1.0), (b, rho * rho)) if len(v) > 1]
    total = sum(v for v, _ in parts)
    freedom = total**2 / sum(v**2 / n for v, n in parts if n) if total else 1
    return mean_share(a) - rho * mean_share(b), t_value(int(freedom)) * math.sqrt(total) if total else 0.0


def _is(case: Case, wanted: Case) -> bool:
    try:
        return _fixed(case) == wanted
    except UserError:  # a store of another version may hold what this one does not know
        return False


def _fixed(case: Case) -> Case:
    """A case with its hyperparameters as they are on its layers, and batch and seed, which do not matter, fixed."""
    method = make_method(case.method, dict(case.hyperparameters))
    shapes = subject_shapes(case.kind, case.subject)
    resolved = tuple((f"{i}.{name}", str(v)) for i, s in enumerate(shapes) for name, v in method.resolved(s).items())
    return replace(case, hyperparameters=resolved, batch=1, sequence=case.tokens, seed=0)


def scalars(subject: MethodSubject) -> dict[str, int | float | str | bool]:
    """Hyperparameters of a method; none of them is a list."""
    return {name: value for name, value in subject.values if not isinstance(value, tuple)}


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _method_of(run: PublishedRun) -> str:
    """The run's method as this suite names it; PEFT makes DoRA and rsLoRA switches of LoRA."""
    for name in ("dora", "rslora"):
        if run.hyperparameters.get(f"use_{name}") is True:
            return name
    return _plain(run.method)


def _has(run: PublishedRun, subject: MethodSubject) -> bool:
    def given(name: str) -> Value | None:
        value = run.hyperparameters.get(name, run.hyperparameters.get(_ALIASES.get(name, name)))
        return value if isinstance(value, int | float | str) else None

    return all(given(name) == value for name, value in subject.values)


def _name(subject: MethodSubject) -> str:
    return f"{subject.name} ({setting(subject.values)})" if subject.values else subject.name
