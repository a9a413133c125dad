"""Run cases here in groups: all settings of one subject and workload side by side, in one process after the other.

A group is timed in one process, in rounds that all its settings share, and then in at least two more, since a process
has a ratio of its own. After each its records are written in one transaction: a run that is killed goes on with the
process that it was in. A setting that crashes, hangs or takes too much memory costs itself alone: the group is run
again without it, and it is tried by itself beside the two baselines.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cdvft_bench.core.budget import Budget
from cdvft_bench.core.case import FROZEN, Case, baselines
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.record import Record
from cdvft_bench.core.timed import Timed, Timing
from cdvft_bench.sweep.engines.isolation import Failure, server, streamed
from cdvft_bench.sweep.engines.work import PRELOAD, DescribeWork, TimeWork, describe_cases, time_cases
from cdvft_bench.sweep.grid import Limits
from cdvft_bench.sweep.progress import Stages
from cdvft_bench.sweep.storage.keeping import SweepResult, failure, keep, now
from cdvft_bench.sweep.storage.store import Store

PROCESSES = 3
"""In which a group is timed: fewer say nothing of the next one."""


@dataclass
class Group:
    """Cases that share their baselines and their rounds.

    Attributes:
        cases: that records are kept of.
        key: the same for all of their records, see ``Timing.group``.
        processes: in which they have been timed. seconds: that the last of them took, if it was in this run.
    """

    cases: list[Case]
    key: str
    processes: int = 0
    seconds: float = 0.0

    @property
    def title(self) -> str:
        """For a progress bar."""
        first = self.cases[0]
        return f"{first.subject}, {first.pass_}, {first.batch} × {first.sequence} tokens"

    def contenders(self) -> list[Case]:
        """What is timed: the two baselines, then the other cases."""
        return list(dict.fromkeys((*beside(self.cases[0]).values(), *self.cases)))


def beside(case: Case) -> dict[str, Case]:
    """The baselines of a case's group, by the names that timings have for them."""
    plain = replace(case, method=FROZEN, hyperparameters=())
    return {FROZEN: plain, **baselines(plain)}


def workload(case: Case) -> Case:
    """What all cases of a group have in common."""
    return replace(case, method=FROZEN, hyperparameters=())


def new_key(cases: Iterable[Case], environment: str, created: str) -> str:
    """A key of a group that has not been timed yet."""
    words = [environment, created, *sorted(case.key for case in cases)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]


def timing_of(record: Record | None) -> Timing | None:
    """A record's timing, if it was timed in a group."""
    timing = record.timed.timing if record is not None and record.timed is not None else None
    return timing if timing is not None and timing.group else None


def grouped(
    cases: Iterable[Case], found: Mapping[str, Record], environment: str, created: str, retry_failed: bool = False
) -> Iterator[Group]:
    """Groups of cases; those that have been timed together stay together, the others of a workload make a new one.

    Args:
        cases: in the order in which they are to be run. found: their records on this machine, by key.
        environment, created: of the run, for keys. retry_failed: whether failed cases are to be run again.
    """
    made: dict[tuple[Case, str, int], list[Case]] = {}
    for case in dict.fromkeys(cases):
        record = found.get(case.key)
        if record is not None and record.status == "failed" and not retry_failed:
            continue
        timing = timing_of(record)
        place = (workload(case), "", 0) if timing is None else (workload(case), timing.group, timing.processes)
        made.setdefault(place, []).append(case)
    for (_, key, processes), members in made.items():
        yield Group(members, key or new_key(members, environment, created), processes)


MOST_PROCESSES = 40
FIRST = 0.8
"""Share of a case's budget in a group's first process: a first table comes early."""
SETTLING = 0.6
"""Share of the time taken so far that further processes may take, for groups with rows less precise than asked."""
UNSETTLED = 0.1
"""Share of a group's rows that may be."""


@dataclass(frozen=True)
class _Run:
    """What all groups of a run have in common."""

    store: Store
    limits: Limits
    context: Any
    environment: str
    retry_failed: bool
    budget: Budget
    stages: Stages
    timing: TimeWork
    describing: DescribeWork


def run(
    cases: Iterable[Case],
    store: Store,
    limits: Limits | None = None,
    *,
    processes: int = PROCESSES,
    budget_s: float | None = None,
    retry_failed: bool = False,
    environment: Environment | None = None,
    preload: Sequence[str] = PRELOAD,
    first: Callable[[], None] = lambda: None,
    timing: TimeWork = time_cases,
    describing: DescribeWork = describe_cases,
) -> SweepResult:
    """Time groups in so many processes each, and describe their cases.

    Args:
        cases: in groups that are finished nothing is run; a case given twice is run once.
        store: records go here. limits: budget and precision of a case, timeout and memory of whatever one does.
        processes: of each group. A budget that is left buys more of them, of the group with the widest intervals.
        budget_s: seconds that this run may take; None ends after ``processes``.
        retry_failed, environment, preload: as in ``local.run``.
        first: called when every group has been timed once, and more processes are to come.
        timing, describing: what a process does; importable from a module.
    """
    from cdvft_bench.timing.machine.environment import read_environment

    given = list(dict.fromkeys(cases))
    key = store.put_environment(environment or read_environment())
    found = {case.key: record for case in given if (record := store.get(case.key, key)) is not None}
    groups = list(grouped(given, found, key, now(), retry_failed))
    undescribed = [g for g in groups if any(_undescribed(found.get(c.key)) for c in g.cases)]
    missing = sum(max(0, processes - g.processes) for g in groups)
    finished = sum(len(g.cases) for g in groups if g.processes >= processes and g not in undescribed)
    if missing or undescribed or budget_s is not None:
        with Stages(missing + len(undescribed)) as stages:
            context = server(preload)
            work = _Run(
                store, limits or Limits(), context, key, retry_failed, Budget(budget_s), stages, timing, describing
            )
            done = _all(work, groups, processes, first)
    else:
        done = True
    records = {case.key: store.get(case.key, key) for case in given}
    left = 0 if done else sum(not _whole(record, processes) for record in records.values())
    failed = sum(record is not None and record.status == "failed" for record in records.values())
    return SweepResult(len(given) - finished - left, finished, failed, left=left)


def _all(run: _Run, groups: list[Group], processes: int, first: Callable[[], None]) -> bool:
    """Time and describe the groups; whether the budget sufficed."""
    fresh = any(not group.processes for group in groups)
    for nth in range(1, processes + 1):
        for group in list(groups):
            if group.processes < nth:
                if run.budget.spent:
                    return False
                groups += _timed(run, group, processes)
        if nth == 1 and fresh and processes > 1:
            first()
    for group in groups:
        if any(_undescribed(run.store.get(case.key, run.environment)) for case in group.cases):
            if run.budget.spent:
                return False
            _described(run, group)
    _settle(run, groups)
    while run.budget.seconds is not None and not run.budget.spent:
        wide = max(groups, key=lambda group: _width(run, group), default=None)
        if wide is None or _width(run, wide) <= run.limits.precision / 5 or wide.processes >= MOST_PROCESSES:
            break
        run.stages.more()
        _timed(run, wide, wide.processes + 1)
    return True


def _settle(run: _Run, groups: Sequence[Group]) -> None:
    """Further processes for groups that this run has timed and that are not as precise as asked."""
    left = SETTLING * (time.monotonic() - run.budget.begun)
    while not run.budget.spent:
        fitting = [group for group in groups if 0 < group.seconds <= left and group.processes < MOST_PROCESSES]
        widest = max(fitting, key=lambda group: _unsettled(run, group), default=None)
        if widest is None or _unsettled(run, widest) <= UNSETTLED:
            return
        left -= widest.seconds
        run.stages.more()
        _timed(run, widest, widest.processes + 1)


def _unsettled(run: _Run, group: Group) -> float:
    """Share of a group's cases with a ratio that is not as precise as asked."""
    timings = [timing_of(run.store.get(case.key, run.environment)) for case in group.cases]
    wide = [t for t in timings if t and any(i.half_width > run.limits.precision for i in t.ratios.values())]
    return len(wide) / len(timings) if timings else 0.0


def _timed(run: _Run, group: Group, processes: int) -> list[Group]:
    """Time a group in one more process; returns groups of settings that are to be tried by themselves."""
    begun, alone = time.monotonic(), []
    budget_s = run.limits.budget_s * (1.0 if group.processes else FIRST)
    while group.cases:
        cases = group.contenders()
        run.stages.begin(f"{group.title}: process {group.processes + 1} of {processes}")
        found: list[Any] = []
        work = partial(run.timing, cases=cases, budget_s=budget_s, precision=run.limits.precision, seed=group.processes)
        failed = streamed(run.context, work, run.limits, found.append)
        if failed is not None and failed.outside:  # tried once more: what earlier processes timed stands
            failed = streamed(run.context, work, run.limits, found.append)
        if failed is None:
            _keep_rounds(run, group, found[0], time.monotonic() - begun)
            break
        culprit = cases[failed.at] if 0 <= failed.at < len(cases) else None
        if culprit is None or culprit in beside(cases[0]).values():
            _fail(run, group, group.cases, failed, culprit)
        elif group.processes or len(group.cases) == 1:
            _fail(run, group, [culprit], failed, None)
        else:
            group.cases.remove(culprit)
            alone.append(Group([culprit], new_key([culprit], run.environment, now())))
    group.seconds = time.monotonic() - begun
    run.budget.took(group.seconds)
    run.stages.done()
    run.stages.more(processes * len(alone))
    extra: list[Group] = []
    for single in alone:  # tried at once, so that every group has been timed as often
        extra += [single, *_timed(run, single, processes)]
    return [group for group in extra if group.cases]


def _fail(run: _Run, group: Group, cases: Sequence[Case], failed: Failure, culprit: Case | None) -> None:
    """Record cases as failed, and take them out of their group."""
    where = f" (baseline {culprit.plain_label})" if culprit is not None and culprit not in cases else ""
    later = f" in process {group.processes + 1}" if group.processes else ""
    for case in list(cases):
        keep(run.store, failure(case, f"{failed.cause}{later}{where}", run.environment))
        group.cases.remove(case)


def _keep_rounds(run: _Run, group: Group, rounds: Any, seconds: float) -> None:
    """Write what a process has timed, in one transaction."""
    from cdvft_bench.sweep.evaluate import label
    from cdvft_bench.timing.joined import joined

    records = []
    for case in group.cases:
        old = run.store.get(case.key, run.environment)
        old = old if old is not None and old.status == "ok" and timing_of(old) is not None else None
        others = {name: other.key for name, other in beside(case).items() if other != case}
        timing = joined(timing_of(old), rounds, case.key, label(case), others, group.key, run.limits.precision)
        took = round(seconds / len(group.cases) + (old.seconds if old else 0.0), 3)
        timed = replace(old.timed, timing=timing) if old and old.timed else Timed(timing, None, None)
        if old is not None:
            records.append(replace(old, timed=timed, created=now(), seconds=took))
        else:
            records.append(Record(case, "ok", label(case), None, None, timed, None, run.environment, now(), took))
    run.store.put_all(records)
    group.processes += 1


def _described(run: _Run, group: Group) -> None:
    """Count the cases of a group, and take their traces and memory; what fails is said in a case's notes."""
    begun = time.monotonic()
    run.stages.begin(f"{group.title}: counts and traces")
    todo = [case for case in group.cases if _undescribed(run.store.get(case.key, run.environment))]

    def put(answer: tuple[str, Any, Any, Timed]) -> None:
        at, predicted, counted, timed = answer
        record = run.store.get(at, run.environment)
        assert record is not None
        timing = record.timed.timing if record.timed else None
        keep(run.store, replace(record, predicted=predicted, counted=counted, timed=replace(timed, timing=timing)))
        todo[:] = [case for case in todo if case.key != at]

    killed = False
    while todo:
        cases = list(todo)
        failed = streamed(run.context, partial(run.describing, cases=cases, limits=run.limits), run.limits, put)
        if failed is None:
            break
        if failed.outside and not killed:
            killed = True
            continue
        for case in [cases[failed.at]] if 0 <= failed.at < len(cases) else cases:
            if case in todo:
                keep(run.store, failure(case, f"{failed.cause} while it was counted", run.environment))
                todo.remove(case)
                group.cases.remove(case)
    run.budget.took(time.monotonic() - begun)
    run.stages.done()


def _undescribed(record: Record | None) -> bool:
    return record is None or (record.status == "ok" and record.predicted is None)


def _whole(record: Record | None, processes: int) -> bool:
    if record is None or record.status == "failed":
        return record is not None
    timing = timing_of(record)
    return timing is not None and timing.processes >= processes and not _undescribed(record)


def _width(run: _Run, group: Group) -> float:
    """Median half-width of the ratios of a group's cases."""
    widths = sorted(
        max((i.half_width for i in timing.ratios.values()), default=0.0)
        for case in group.cases
        if (timing := timing_of(run.store.get(case.key, run.environment))) is not None
    )
    return widths[len(widths) // 2] if widths else 0.0
