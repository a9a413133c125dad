"""Run cases, each in a process of its own, into a store.

A process is forked from a server that has torch, transformers and PEFT imported already, so it
starts in a fraction of a second. Whatever happens in it (an exception, a crash, a hang, memory
without end) costs that case alone and is recorded with its cause. A record is written in one
transaction when its case is done: killing the sweep at any instant loses the case in flight.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdvft_bench.errors import UserError
from cdvft_bench.sweep.case import Case
from cdvft_bench.sweep.grid import Limits, read_grid
from cdvft_bench.sweep.record import Record
from cdvft_bench.sweep.store import Store

if TYPE_CHECKING:
    from cdvft_bench.counting.result import Counted
    from cdvft_bench.sweep.record import Predicted
    from cdvft_bench.timing.environment import Environment
    from cdvft_bench.timing.result import Timed

    Evidence = tuple[str, Predicted | None, Counted | None, Timed | None]

Work = Callable[[Case, Limits], "Evidence"]
"""What is done in a case's process: returns the label and the three witnesses."""

_PRELOAD = [
    "cdvft_bench.sweep.witness", "cdvft_bench.counting.count", "cdvft_bench.timing.clock", "cdvft_bench.timing.trace",
    "cdvft_bench.timing.memory", "cdvft_bench.accuracy.models", "cdvft_reference", "peft", "transformers",
    "transformers.models.auto.modeling_auto",
]  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """How a sweep went: cases run now, finished before, and recorded as failed in all."""

    run: int
    skipped: int
    failed: int


def evaluate(case: Case, limits: Limits) -> Evidence:
    """Hear the three witnesses of a case."""
    from cdvft_bench.sweep import witness

    predicted = witness.predict(case)
    counted = witness.count(case)
    timed = witness.time_case(case, budget_s=limits.budget_s, precision=limits.precision)
    return witness.label(case), predicted, counted, timed


def run_grid(grid: str, store_path: Path, retry_failed: bool = False) -> Outcome:
    """Run a preset or a grid file into a store, with a progress bar.

    Raises:
        UserError: the grid or the store is not usable.
    """
    read = read_grid(grid)
    cases = list(read)
    with Store(store_path, create=True) as store:
        return run(cases, store, read.limits, retry_failed=retry_failed)


def run(
    cases: Iterable[Case],
    store: Store,
    limits: Limits | None = None,
    *,
    retry_failed: bool = False,
    work: Work = evaluate,
    environment: Environment | None = None,
) -> Outcome:
    """Run cases that the store does not hold yet.

    Args:
        cases: finished ones are skipped.
        store: records go here, each in a transaction.
        limits: of every case.
        retry_failed: run cases again that are recorded as failed.
        work: what to do in the case's process; importable from a module.
        environment: of this machine; read if not given.
    """
    from cdvft_bench.timing.environment import read_environment

    limits = limits or Limits()
    cases = list(cases)
    done = store.keys("ok") if retry_failed else store.keys()
    todo = [case for case in cases if case.key not in done]
    key = store.put_environment(environment or read_environment())
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    if todo:  # the server's imports take seconds, which are not the first case's
        first = context.Process(target=_nothing, daemon=True)
        first.start()
        first.join()
    with _progress(len(todo)) as advance:
        for case in todo:
            record = _run_case(context, case, limits, work, key)
            store.put(record)
            advance(record)
    keys = {case.key for case in cases}
    return Outcome(len(todo), len(cases) - len(todo), len(keys & store.keys("failed")))


def _run_case(context: Any, case: Case, limits: Limits, work: Work, environment: str) -> Record:
    start = time.perf_counter()
    evidence, error = _isolated(context, case, limits, work)
    label, predicted, counted, timed = evidence or (_plain_label(case), None, None, None)
    return Record(
        case=case,
        status="ok" if error is None else "failed",
        label=label,
        predicted=predicted,
        counted=counted,
        timed=timed,
        error=error,
        environment=environment,
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        seconds=round(time.perf_counter() - start, 3),
    )


def _plain_label(case: Case) -> str:
    values = " ".join(f"{k}={v}" for k, v in case.hyperparameters)
    return f"{case.method} {values}".strip()


def _isolated(context: Any, case: Case, limits: Limits, work: Work) -> tuple[Evidence | None, str | None]:
    """Run the work in a process of its own: its evidence, or the cause of its failure."""
    receive, send = context.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile(prefix="cdvft-bench-", suffix=".log") as log:
        process = context.Process(target=_child, args=(send, case, limits, work, log.name), daemon=True)
        process.start()
        send.close()
        answer: tuple[Evidence | None, str | None] | None = None
        try:
            if wait([receive, process.sentinel], timeout=limits.timeout_s) and receive.poll(0.5):
                answer = receive.recv()
        except (EOFError, OSError):
            process.join(timeout=10)  # it has closed its end: it is dying, not hanging
        if answer is None and not wait([process.sentinel], timeout=0.2):
            process.kill()
            process.join()
            return None, f"timed out after {limits.timeout_s:g} s"
        process.join(timeout=5)
        if process.is_alive():  # it has answered, but does not end
            process.kill()
            process.join()
        receive.close()
        if answer is not None:
            return answer
        return None, _death(process.exitcode, Path(log.name))


def _death(exitcode: int | None, log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    tail = f": {lines[-1][:200]}" if lines else ""
    if exitcode is not None and exitcode < 0:
        return f"killed by {signal.Signals(-exitcode).name}{tail}"
    return f"ended with exit code {exitcode} and no result{tail}"


def _child(send: Connection, case: Case, limits: Limits, work: Work, log: str) -> None:
    _quiet(log)
    _die_with_parent()
    if limits.memory_gib is not None:
        _limit_memory(int(limits.memory_gib * 2**30))
    try:
        send.send((work(case, limits), None))
    except UserError as error:
        send.send((None, f"UserError: {error}"))
    except MemoryError:
        send.send((None, f"out of memory: limit {limits.memory_gib:g} GiB"))
    except Exception as error:
        text = " ".join(str(error).split())[:500]
        if "can't allocate memory" in text or "out of memory" in text:
            text = f"out of memory: {text}"
        send.send((None, f"{type(error).__name__}: {text}"))


def _nothing() -> None:
    """What the fork server is warmed up with."""


def _quiet(log: str) -> None:
    """Libraries print what they like into the log, not into the user's table."""
    target = os.open(log, os.O_WRONLY | os.O_APPEND)
    sys.stdout.flush()
    for stream in (1, 2):
        os.dup2(target, stream)


def _die_with_parent() -> None:
    """A sweep that is killed takes its case along."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _limit_memory(extra: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class _progress:  # noqa: N801 - used as a with statement
    """A progress bar on a terminal, a line every so often elsewhere."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.failed, self.started, self.said = total, 0, 0, time.monotonic(), 0.0
        self.bar: Any = None

    def __enter__(self) -> Callable[[Record], None]:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task("", total=self.total)
        return self.advance

    def advance(self, record: Record) -> None:
        self.done += 1
        self.failed += record.status == "failed"
        text = f"{record.case.subject} {record.label}" + (f" ({self.failed} failed)" if self.failed else "")
        if self.bar is not None:
            self.bar.update(self.task, advance=1, description=text)
        elif time.monotonic() - self.said > 15 or self.done == self.total:
            self.said = time.monotonic()
            print(
                f"{self.done}/{self.total} cases, {self.said - self.started:.0f} s: {text}", file=sys.stderr, flush=True
            )

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()
