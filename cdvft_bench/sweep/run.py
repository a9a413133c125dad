"""Run cases, each in a process of its own (``sweep.isolation``), into a store.

Whatever happens in such a process costs its case alone and is recorded with its cause. A record is
written in one transaction when its case is done: killing the sweep at any instant loses the case in
flight, and Ctrl-C ends it the same way. No process of a case outlives its sweep.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdvft_bench.core.case import Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.sweep.engines.isolation import isolated, server
from cdvft_bench.sweep.grid import Grid, LeftOut, Limits, read_grid
from cdvft_bench.sweep.progress import progress
from cdvft_bench.sweep.store import Store, UnstorableError

if TYPE_CHECKING:
    from cdvft_bench.core.counted import Counted
    from cdvft_bench.core.record import Predicted
    from cdvft_bench.core.timed import SelfTest, Timed
    from cdvft_bench.timing.environment import Environment

    Evidence = tuple[str, Predicted | None, Counted | None, Timed | None]

Work = Callable[[Case, Limits], "Evidence"]
"""What is done in a case's process: returns the label and the three witnesses."""

PRELOAD = (
    "cdvft_bench.sweep.run", "cdvft_bench.sweep.evaluate", "cdvft_bench.counting.count", "cdvft_bench.timing.measure",
    "cdvft_bench.accuracy.models", "cdvft_reference", "peft", "transformers", "transformers.models.auto.modeling_auto",
)  # fmt: skip
"""Modules that the fork server imports, so that no case has to."""

COMPARISONS = 20
"""Of the clock with itself, at the start of a sweep."""


@dataclass(frozen=True)
class Outcome:
    """How a sweep went.

    Attributes:
        run, skipped: cases run now, and finished before.
        failed: cases of this sweep that are recorded as failed, now or before.
        left_out: combinations of the grid that do not fit their subject.
        left: cases that the budget did not reach.
    """

    run: int
    skipped: int
    failed: int
    left_out: int = 0
    left: int = 0


@dataclass(frozen=True)
class Traces:
    """Chrome traces that a sweep keeps: of which cases (their keys), and in which folder."""

    folder: Path
    keys: frozenset[str] = frozenset()

    def path(self, record: Record) -> Path:
        """File of a record's trace; its name ends in the key of the case."""
        case = record.case
        words = f"{record.label} {case.subject} {case.tokens} tokens {case.dtype} {case.pass_} {case.device}"
        slug = re.sub(r"[^A-Za-z0-9.=]+", "-", words).strip("-")[:120]
        return self.folder / f"{slug}-{case.key}.json.gz"

    def missing(self, record: Record | None) -> bool:
        """Whether a finished record is to have a trace and has none."""
        if record is None or record.case.key not in self.keys or record.status != "ok":
            return False
        return not self.path(record).exists()

    def write(self, record: Record, data: bytes) -> None:
        """Keep a trace, whole or not at all."""
        path = self.path(record)
        part = path.with_name(f"{path.name}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            part.replace(path)
        except OSError as error:
            raise UserError(f"trace {path} cannot be written: {error}") from error


def evaluate(case: Case, limits: Limits) -> Evidence:
    """Hear the three witnesses of a case."""
    from cdvft_bench.sweep import evaluate as witness

    predicted = witness.predict(case)
    counted = witness.count(case)
    timed = witness.time_case(
        case, budget_s=limits.budget_s, precision=limits.precision, modes=limits.modes, prepare_s=limits.timeout_s / 4
    )
    return witness.label(case), predicted, counted, timed


def trace(case: Case, limits: Limits) -> bytes:
    """The compressed trace of a case."""
    from cdvft_bench.sweep import evaluate as witness

    return witness.keep_trace(case)


def clock_itself(case: Case, limits: Limits, comparisons: int = COMPARISONS) -> SelfTest:
    """The clock against itself, on the device of the case and with as long as a case gets."""
    from cdvft_bench.timing.selftest import selftest

    return selftest(comparisons=comparisons, device=case.device, budget_s=min(1.0, limits.budget_s))


# --- a grid --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cases:
    """A grid's cases, as often as they are asked for, one by one; on another device if given."""

    grid: Grid
    device: str | None = None

    def __iter__(self) -> Iterator[Case]:
        return (self._placed(case) for case in self.grid)

    def traced(self) -> frozenset[str]:
        return frozenset(self._placed(case).key for case in self.grid.traced())

    def _placed(self, case: Case) -> Case:
        return case if self.device is None else replace(case, device=self.device)


def run_grid(
    grid: str,
    store_path: Path,
    retry_failed: bool = False,
    *,
    budget_s: float | None = None,
    precision: float | None = None,
    device: str | None = None,
    engine: str = "local",
    address: str | None = None,
) -> Outcome:
    """Run a preset or a grid file into a store, with a progress bar; kept traces go into "traces" beside it.

    Args:
        grid, store_path, retry_failed: what, where to, and whether failed cases are run again.
        budget_s: see :func:`run`.
        precision: of ratios, instead of the grid's own.
        device: to run every case on, instead of the grid's own.
        engine: "local", "ray" for a cluster at ``address`` (None starts one here), or "formula" for the closed forms
            alone: nothing is built, counted or timed, and cases stream through.

    Raises:
        UserError: the grid or the store is not usable.
    """
    read = read_grid(grid)
    limits = read.limits if precision is None else replace(read.limits, precision=precision)
    if not limits.precision > 0:
        raise UserError(f"precision = {limits.precision} is out of range; it must be a number > 0, as 0.02")
    cases = _Cases(read, device)
    first, fitting, left_out = _left_out(read)
    if first is not None:
        reason = f"{first.method} on {first.subject}: {first.reason}"
        print(f"{left_out} combinations of {grid} left out, such as {reason}", file=sys.stderr)
    if not fitting:
        raise UserError(f"grid {grid!r} has no case that fits its subject; change its hyperparameters or subjects")
    if engine != "ray" and address is not None:
        raise UserError(f"an address ({address}) belongs to engine 'ray'; add --engine ray")
    traces = Traces(store_path.parent / "traces", cases.traced())
    with Store(store_path, create=True) as store:
        if engine == "formula":
            from cdvft_bench.sweep.engines import formula as formula_engine

            outcome = formula_engine.run(cases, store, retry_failed=retry_failed, budget_s=budget_s)
        elif engine == "ray":
            from cdvft_bench.sweep.engines import ray as ray_engine

            outcome = ray_engine.run(
                cases, store, limits, address=address, retry_failed=retry_failed, budget_s=budget_s, traces=traces,
                comparisons=COMPARISONS,
            )  # fmt: skip
        else:
            outcome = run(
                cases, store, limits, retry_failed=retry_failed, budget_s=budget_s, traces=traces,
                comparisons=COMPARISONS,
            )  # fmt: skip
    return replace(outcome, left_out=left_out)


def _left_out(grid: Grid) -> tuple[LeftOut | None, int, int]:
    """The first combination that does not fit, how many cases do, and how many combinations do not."""
    first: LeftOut | None = None
    fitting = out = 0
    for entry in grid.unfold():
        if isinstance(entry, LeftOut):
            first, out = first or entry, out + 1
        else:
            fitting += 1
    return first, fitting, out


# --- cases ---------------------------------------------------------------------------------


def run(
    cases: Iterable[Case],
    store: Store,
    limits: Limits | None = None,
    *,
    retry_failed: bool = False,
    work: Work = evaluate,
    environment: Environment | None = None,
    preload: Sequence[str] = PRELOAD,
    budget_s: float | None = None,
    traces: Traces | None = None,
    comparisons: int = 0,
) -> Outcome:
    """Run cases that the store does not hold yet.

    Args:
        cases: finished ones are skipped, and a case given twice is run once.
        store: records go here, each in a transaction.
        limits: of every case.
        retry_failed: run cases again that are recorded as failed.
        work: what to do in the case's process; importable from a module.
        environment: of this machine; read if not given.
        preload: modules that the fork server imports when it starts, which it does once a process.
        budget_s: seconds that this run may take: a case that would exceed it, if it took as long as the longest
            so far, is not begun, and one that does exceed it is left for the next run; but one is always made.
            None is no limit.
        traces: to keep, also of cases that are finished and have none.
        comparisons: of the clock with itself, before the first case on a device; their figures go into its records.
    """
    from cdvft_bench.timing.environment import read_environment

    limits = limits or Limits()
    traces = traces or Traces(Path())
    unique = list({case.key: case for case in cases}.values())
    done = store.keys("ok") if retry_failed else store.keys()
    todo = [case for case in unique if case.key not in done]
    traced = {key for key in traces.keys & done if traces.missing(store.get(key))}
    key = store.put_environment(environment or read_environment())
    started, longest, made = time.monotonic(), 0.0, 0
    tested: dict[str, SelfTest | None] = {}
    context = server(preload) if todo or traced else None
    with progress(len(todo)) as advance:
        for case in unique:
            if case.key in done and case.key not in traced:
                continue
            if comparisons and case.device not in tested and case.key not in done:
                tested[case.device] = clock_test(context, case, limits, comparisons)
            begun = time.monotonic()
            rest = math.inf if budget_s is None else started + budget_s - begun
            if longest > 0 and longest > rest:
                break
            record = store.get(case.key) if case.key in done else None
            if record is None:
                cut = longest > 0 and rest < limits.timeout_s
                given = replace(limits, timeout_s=rest) if cut else limits
                record = run_case(context, case, given, work, key, tested.get(case.device))
                if cut and (record.error or "").startswith("timed out"):
                    break  # by this run's budget, not by its own limit
                record = keep(store, record)
                advance(record)
                made += 1
            if traces.missing(record):
                keep_trace(traces, record, *isolated(context, case, limits, trace))
            longest = max(longest, time.monotonic() - begun)
    failed = len({case.key for case in unique} & store.keys("failed"))
    return Outcome(made, len(unique) - len(todo), failed, left=len(todo) - made)


def clock_test(context: Any, case: Case, limits: Limits, comparisons: int) -> SelfTest | None:
    """The clock against itself in a process of its own; None, and a line that says why, where that fails."""
    found, error = isolated(context, case, limits, partial(clock_itself, comparisons=comparisons))
    if error is not None:
        print(f"the clock was not tested against itself: {error}", file=sys.stderr)
    return found


def run_case(
    context: Any, case: Case, limits: Limits, work: Work, environment: str, selftest: SelfTest | None = None
) -> Record:
    """Run a case in a process of its own; whatever happens there, this returns its record.

    Args:
        context: of :func:`isolation.server`. case, limits, work: what to do. environment: key of its row.
        selftest: of the clock that times it.
    """
    start = time.perf_counter()
    evidence, error = isolated(context, case, limits, work)
    label, predicted, counted, timed = evidence or (_plain_label(case), None, None, None)
    return Record(
        case=case,
        status="ok" if error is None else "failed",
        label=label,
        predicted=predicted,
        counted=counted,
        timed=timed if timed is None else replace(timed, selftest=selftest),
        error=error,
        environment=environment,
        created=now(),
        seconds=round(time.perf_counter() - start, 3),
    )


def keep(store: Store, record: Record) -> Record:
    """Put a record into the store, or one that says why it cannot be kept; returns what is there now."""
    try:
        store.put(record)
    except UnstorableError as error:
        why = f"what was measured cannot be kept: {error}"
        record = failure(record.case, why, record.environment, record.seconds)
        store.put(record)
    return record


def keep_trace(traces: Traces, record: Record, data: bytes | None, error: str | None) -> None:
    """Write a trace beside the store, or a line that says why there is none."""
    if data is None:
        print(f"no trace of {record.label} on {record.case.subject}: {error}", file=sys.stderr)
    else:
        traces.write(record, data)


def failure(case: Case, error: str, environment: str, seconds: float = 0.0) -> Record:
    """A record that says why a case has no witnesses."""
    return Record(case, "failed", _plain_label(case), None, None, None, error, environment, now(), seconds)


def now() -> str:
    """UTC time of a record, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _plain_label(case: Case) -> str:
    values = " ".join(f"{k}={v}" for k, v in case.hyperparameters)
    return f"{case.method} {values}".strip()
