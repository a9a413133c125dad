"""The sources that read what was recorded, and measure nothing themselves: the clock, and accuracy."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Self

from cdvft_bench.accuracy.analysis import Score
from cdvft_bench.accuracy.pilot import cannot_rank
from cdvft_bench.accuracy.published.reading import TABLES, is_published, read_published
from cdvft_bench.accuracy.results import read_results, unfinished, workloads
from cdvft_bench.accuracy.training.trial import TrialResult
from cdvft_bench.claims.ledger.figures import Figure
from cdvft_bench.claims.ledger.point import MethodSubject, Point, Subject
from cdvft_bench.claims.ledger.resolve import FROZEN
from cdvft_bench.claims.ledger.terms import Setting, Source
from cdvft_bench.claims.sources.source import FigureSource, NotAvailable
from cdvft_bench.claims.sources.trained import RunTable, accuracy, is_results, ratio, score_of, with_pilot
from cdvft_bench.core.case import Case, CasePass
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import is_file
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import plural
from cdvft_bench.core.timed import Timing
from cdvft_bench.methods import make_method
from cdvft_bench.sweep.grid import make_case, subject_shapes

STORES = (".sqlite", ".jsonl", ".jsonl.gz")
MACHINE, WORKLOAD = "machine", "workload"
"""Axes that records name and no claim opens: what is compared was recorded on one of them."""
_LORA, _LORA_NAME = MethodSubject("lora", (("rank", 8),)), "lora r=8"
"""The second baseline of every record, and its name there."""
UNNAMED = "a machine that the record does not name"


@dataclass(frozen=True)
class Records:
    """What was recorded: times with their machines, tables of fine-tuning runs, results of ``cdvft-bench train``."""

    timed: Sequence[tuple[Record, str]] = ()
    tables: Sequence[RunTable] = ()
    results: Sequence[TrialResult] = ()


_COMMITTED: dict[Source, str] = {
    "accuracy": "accuracy-*/results.jsonl",
    "clock": "*/records.jsonl.gz",
    "profile": "expressivity-*/findings.jsonl",
}


def committed_records(sources: Iterable[Source]) -> list[Path]:
    """The recorded profiles that come with the suite, of the sources that are asked for."""
    package = Path(__file__).parents[2]
    # In a checkout they stand beside the package, in a wheel inside of it.
    folder = next((f for f in (package / "profiles", package.parent / "profiles") if f.is_dir()), package)
    patterns = [_COMMITTED[name] for name in sources if name in _COMMITTED]
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def machine_of(environment: Environment | None) -> str:
    """A machine by what its times depend on: the processor, the vectors it uses, and threads."""
    if environment is None:
        return UNNAMED
    if environment.gpus:
        return environment.gpus[0]
    vectors = f"{environment.cpu_capability}, " if environment.cpu_capability else ""
    return f"{environment.cpu} ({vectors}{plural(environment.threads, 'thread')})"


def read_records(paths: Iterable[str | Path], columns: Mapping[str, str] | None = None) -> Records:
    """Timed records from stores, and fine-tuning runs from results of ``cdvft-bench train`` or made elsewhere.

    Args:
        paths: stores, results, tables of runs, PEFT's results or folders of those. columns: of the tables.

    Raises:
        UserError: a file is of no known kind, cannot be read, or is not as it should be.
    """
    timed: list[tuple[Record, str]] = []
    tables: list[RunTable] = []
    results: list[TrialResult] = []
    for path in map(Path, paths):
        if path.name.endswith(TABLES) or is_published(path):
            found = read_published(path, columns if path.name.endswith(TABLES) else None)
            if found.metric != "test_accuracy":
                raise UserError(f"records {str(path)!r} hold {found.metric}; claims are of test_accuracy")
            tables.append(RunTable(found.name, found.runs))
        elif not is_file(path):
            raise UserError(f"records {str(path)!r}: there is no such file, and no folder of PEFT's results")
        elif path.name.endswith(".jsonl") and is_results(path):
            results += read_results(path)[0]
        elif path.name.endswith(STORES):
            from cdvft_bench.sweep.storage.store import Store

            with Store(path) as store:
                machines = {key: machine_of(e) for key, e in store.environments().items()}
                timed += [(r, machines.get(r.environment, UNNAMED)) for r in store.records() if r.timed is not None]
        else:
            raise UserError(f"records {str(path)!r} must end in {', '.join((*STORES, *TABLES))}, or be results of PEFT")
    return Records(timed, tables, results)


class _Recorded(FigureSource):
    """A source whose figures can be compared within a group of records only."""

    axis: str

    def names(self) -> list[str]:
        """Names of the groups."""
        raise NotImplementedError

    def of(self, name: str) -> Self:
        """The source on the records of one group."""
        raise NotImplementedError

    @cached_property
    def _groups(self) -> dict[Setting, Self]:
        return {((self.axis, name),): self.of(name) for name in self.names()}

    def groups(self, point: Point) -> list[Setting]:
        return [group for group, source in self._groups.items() if _has(source, point)] or [()]

    def within(self, group: Setting) -> FigureSource:
        return self._groups[group] if group else self


def _has(source: FigureSource, point: Point) -> bool:
    try:
        source.figure(point)
    except NotAvailable:
        return False
    return True


@dataclass(frozen=True)
class ClockSource(_Recorded):
    """Gives recorded times: the median over the frozen subject's, from the same interleaved run; of several the newest.

    Attributes:
        records: each with the machine that it was made on.
    """

    records: Sequence[tuple[Record, str]]
    axis = MACHINE

    def names(self) -> list[str]:
        return sorted({machine for _, machine in self.records})

    def of(self, name: str) -> Self:
        return type(self)([r for r in self.records if r[1] == name])

    def figure(self, point: Point) -> Figure:
        """The ratio of the subject's time to the frozen one's, or to the other side's with the bounds of both."""
        remedy = "time it longer, on a quiet machine"
        if point.against == _LORA:
            with suppress(NotAvailable):  # timed in the same rounds: nearer than the quotient of two ratios
                value, low, high = self._ratio(point, point.subject, _LORA_NAME)
                return Figure((value,), (1.0,), interval=(low, high), remedy=remedy)
        value, low, high = self._ratio(point, point.subject)
        if point.against is None:
            return Figure((value,), interval=(low, high), remedy=remedy)
        other, least, most = self._ratio(point, point.against)
        interval = (low / most, high / least) if least > 0 else (-math.inf, math.inf)
        return Figure((value,), (other,), interval=interval, remedy=remedy)

    def _ratio(self, point: Point, subject: Subject | None, over: str = FROZEN) -> tuple[float, float, float]:
        """Value, low and high over a baseline; infinite bounds where none were recorded."""
        assert isinstance(subject, MethodSubject)  # check_point refuses anything else
        if subject.targets:
            raise NotAvailable("records are of a model's default targets only", "leave 'targets' out")
        options = dict(point.options)
        if subject.name == FROZEN:
            return (1.0, 1.0, 1.0)
        pass_: CasePass = "forward" if options["pass"] == "forward" else "step"
        values = {name: value for name, value in subject.values if not isinstance(value, tuple)}
        device = str(options["device"])
        case = make_case(subject.name, values, point.kind, point.place, 1, point.tokens, point.dtype, pass_, device)
        wanted = _resolved(case)
        ratios = [
            (r.order, timing.ratios[over])
            for r, _ in self.records
            if r.case.method == subject.name
            and (timing := _timing(r, str(options["mode"]))) is not None
            and over in timing.ratios
            and _resolved(r.case) == wanted
        ]
        if not ratios:
            how = "replays" if options["mode"] == "graph" else "times"
            raise NotAvailable(
                f"no record {how} {subject} on {point.place}, {point.tokens} tokens, {point.dtype}, {device}",
                "time it with 'cdvft-bench sweep' and give the store with --records",
            )
        _, newest = max(ratios, key=lambda found: found[0])
        if newest.low is None or newest.high is None:
            return newest.value, -math.inf, math.inf
        return newest.value, newest.low, newest.high


def _timing(record: Record, mode: str) -> Timing | None:
    """A record's times, eagerly or as replayed graphs; None where it has none."""
    timed = record.timed
    if timed is None or mode == "eager":
        return timed.timing if timed else None
    return timed.replays.timing if timed.replays else None


@dataclass(frozen=True)
class AccuracySource(_Recorded):
    """Gives recorded accuracies of fine-tuning, of one workload at a time.

    Attributes:
        tables: of runs. results: of ``cdvft-bench train``, see :mod:`cdvft_bench.claims.sources.trained`.
    """

    tables: Sequence[RunTable] = ()
    results: Sequence[TrialResult] = ()
    axis = WORKLOAD

    def names(self) -> list[str]:
        return [table.name for table in self.tables] + sorted(workloads(self.results))

    def of(self, name: str) -> Self:
        return type(self)([table for table in self.tables if table.name == name], workloads(self.results).get(name, []))

    def groups(self, point: Point) -> list[Setting]:
        """Workloads that have the figure: where some have all seeds of it or can rank methods, these alone."""
        found = super().groups(point)
        found = [group for group in found if group and not self._groups[group].early(point)] or found
        able = [group for group in found if group and not self._groups[group].doubt]
        return able if any(self._groups[group].results for group in able) else found

    @cached_property
    def doubt(self) -> str:
        """Why the workload of the results is not shown to rank methods."""
        return cannot_rank(self.results) if self.results else ""

    def early(self, point: Point) -> bool:
        """Whether the runs of a side are not finished, while others' of the workload are."""
        waiting = unfinished(self.results)
        sides = [side for side in (point.subject, point.against) if isinstance(side, MethodSubject)] if waiting else []
        return any(self._score(side).label in waiting for side in sides)

    def figure(self, point: Point) -> Figure:
        """Test accuracy, 0 to 1, of a method with the hyperparameters that the ledger names, or the ratio of two."""
        one, other = point.subject, point.against
        assert isinstance(one, MethodSubject)
        assert other is None or isinstance(other, MethodSubject)
        if self.results:
            score = self._score(one)
            figure = accuracy(score) if other is None else ratio(score, self._score(other))
            return with_pilot(figure, self.results) if self.doubt else figure
        table = self.tables[0] if self.tables else RunTable("", ())
        return table.figure(one, other)

    @cached_property
    def _scores(self) -> dict[MethodSubject, Score]:
        return {}

    def _score(self, subject: MethodSubject) -> Score:
        if subject not in self._scores:
            self._scores[subject] = score_of(self.results, subject)
        return self._scores[subject]


@cache
def _resolved(case: Case) -> Case | None:
    """A case with its hyperparameters as they are on its layers, and batch and seed, which do not matter, fixed.

    None where a store of another version holds what this one does not know.
    """
    try:
        method = make_method(case.method, dict(case.hyperparameters))
        shapes = subject_shapes(case.kind, case.subject)
    except UserError:
        return None
    resolved = tuple((f"{i}.{name}", str(v)) for i, s in enumerate(shapes) for name, v in method.resolved(s).items())
    return replace(case, hyperparameters=resolved, batch=1, sequence=case.tokens, seed=0)
