"""The third witness, and accuracy: both read what was recorded, and measure nothing themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from cdvft_bench.accuracy.published import PublishedRun, published_runs
from cdvft_bench.claims.point import MethodSubject, Point, Subject, Value
from cdvft_bench.claims.resolve import FROZEN
from cdvft_bench.claims.silence import Silent
from cdvft_bench.claims.text import setting
from cdvft_bench.errors import UserError
from cdvft_bench.methods import make_method
from cdvft_bench.sweep.case import Case, CasePass
from cdvft_bench.sweep.grid import make_case, subject_shapes
from cdvft_bench.sweep.record import Record

STORES = (".sqlite", ".jsonl", ".jsonl.gz")

# A hyperparameter's name in this suite, and in the configurations that tables of runs quote.
_ALIASES = {"rank": "r", "n_frequency": "n"}


def read_records(paths: Iterable[str | Path]) -> tuple[list[Record], list[PublishedRun]]:
    """Timed records from stores, and fine-tuning runs from tables (.csv).

    Raises:
        UserError: a file is of no known kind, cannot be read, or is not as it should be.
    """
    timed: list[Record] = []
    runs: list[PublishedRun] = []
    for path in map(Path, paths):
        if not path.is_file():
            raise UserError(f"records {str(path)!r}: there is no such file")
        if path.name.endswith(".csv"):
            runs += published_runs(path)
        elif path.name.endswith(STORES):
            from cdvft_bench.sweep.store import Store

            with Store(path) as store:
                timed += [r for r in store.records() if r.timed is not None]
        else:
            raise UserError(f"records {str(path)!r} must end in {', '.join(STORES)} or .csv")
    return timed, runs


@dataclass(frozen=True)
class Clock:
    """Speaks of recorded times: the median over the frozen subject's, from the same interleaved run."""

    records: Sequence[Record]

    def say(self, point: Point, subject: Subject | None) -> tuple[float, ...]:
        """The ratio of a subject's time to the frozen subject's; of several records the newest.

        Raises:
            Silent: no record is of this case.
        """
        assert isinstance(subject, MethodSubject)  # check_point refuses anything else
        if subject.targets:
            raise Silent("records are of a model's default targets only", "leave 'targets' out")
        options = dict(point.options)
        if subject.name == FROZEN:
            return (1.0,)
        pass_: CasePass = "forward" if options["pass"] == "forward" else "step"
        wanted = _fixed(
            make_case(
                subject.name, scalars(subject), point.kind, point.place, 1, point.tokens, point.dtype, pass_,
                str(options["device"]),
            )
        )  # fmt: skip
        ratios = [
            (r.created, r.timed.timing.ratios["frozen"].value)
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
        return (max(ratios)[1],)


@dataclass(frozen=True)
class Accuracy:
    """Speaks of recorded fine-tuning runs: of a method's configurations the best, each the mean of its runs."""

    runs: Sequence[PublishedRun]

    def say(self, point: Point, subject: Subject | None) -> tuple[float, ...]:
        """Test accuracy, 0 to 1, of a method with the hyperparameters that the ledger names.

        Raises:
            Silent: there is no run of it.
        """
        assert isinstance(subject, MethodSubject)
        found: dict[str, list[float]] = {}
        for run in self.runs:
            if _method_of(run) == _plain(subject.name) and _has(run, subject):
                configuration = repr((sorted(run.hyperparameters.items()), run.target_modules, run.lr, run.steps))
                found.setdefault(configuration, []).append(run.test_accuracy)
        if not found:
            raise Silent(
                f"no recorded fine-tuning run of {_name(subject)}",
                "give a table of runs (.csv, the columns of accuracy.published) with --records",
            )
        return (max(fmean(group) for group in found.values()),)


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
