"""Run cases, each in a process of its own, into a store.

A process is forked from a server that has torch, transformers and PEFT imported already, so it
starts in a fraction of a second. Whatever happens in it (an exception, a crash, a hang, memory
without end) costs that case alone and is recorded with its cause. A record is written in one
transaction when its case is done: killing the sweep at any instant loses the case in flight, and
Ctrl-C ends it the same way. No process of a case outlives its sweep.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdvft_bench.errors import UserError
from cdvft_bench.sweep.case import Case
from cdvft_bench.sweep.grid import LeftOut, Limits, read_grid
from cdvft_bench.sweep.record import Record
from cdvft_bench.sweep.store import Store, UnstorableError

if TYPE_CHECKING:
    from cdvft_bench.counting.result import Counted
    from cdvft_bench.sweep.record import Predicted
    from cdvft_bench.timing.environment import Environment
    from cdvft_bench.timing.result import Timed

    Evidence = tuple[str, Predicted | None, Counted | None, Timed | None]

Work = Callable[[Case, Limits], "Evidence"]
"""What is done in a case's process: returns the label and the three witnesses."""

PRELOAD = (
    "cdvft_bench.sweep.witness", "cdvft_bench.counting.count", "cdvft_bench.timing.clock", "cdvft_bench.timing.trace",
    "cdvft_bench.timing.memory", "cdvft_bench.accuracy.models", "cdvft_reference", "peft", "transformers",
    "transformers.models.auto.modeling_auto",
)  # fmt: skip
"""Modules that the fork server imports, so that no case has to."""


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


def evaluate(case: Case, limits: Limits) -> Evidence:
    """Hear the three witnesses of a case."""
    from cdvft_bench.sweep import witness

    predicted = witness.predict(case)
    counted = witness.count(case)
    timed = witness.time_case(case, budget_s=limits.budget_s, precision=limits.precision)
    return witness.label(case), predicted, counted, timed


def run_grid(
    grid: str,
    store_path: Path,
    retry_failed: bool = False,
    *,
    budget_s: float | None = None,
    device: str | None = None,
    engine: str = "local",
    address: str | None = None,
) -> Outcome:
    """Run a preset or a grid file into a store, with a progress bar.

    Args:
        grid, store_path, retry_failed: what, where to, and whether failed cases are run again.
        budget_s: see :func:`run`.
        device: to run every case on, instead of the grid's own.
        engine: "local", or "ray" for a cluster at ``address`` (None starts one here).

    Raises:
        UserError: the grid or the store is not usable.
    """
    read = read_grid(grid)
    entries = list(read.unfold())
    cases = [entry for entry in entries if isinstance(entry, Case)]
    cases = [replace(case, device=device) for case in cases] if device is not None else cases
    left_out = [entry for entry in entries if isinstance(entry, LeftOut)]
    if left_out:
        reason = f"{left_out[0].method} on {left_out[0].subject}: {left_out[0].reason}"
        print(f"{len(left_out)} combinations of {grid} left out, such as {reason}", file=sys.stderr)
    if not cases:
        raise UserError(f"grid {grid!r} has no case that fits its subject; change its hyperparameters or subjects")
    if engine == "local" and address is not None:
        raise UserError(f"an address ({address}) belongs to engine 'ray'; add --engine ray")
    with Store(store_path, create=True) as store:
        if engine == "ray":
            from cdvft_bench.sweep import ray_engine

            outcome = ray_engine.run(
                cases, store, read.limits, address=address, retry_failed=retry_failed, budget_s=budget_s
            )
        else:
            outcome = run(cases, store, read.limits, retry_failed=retry_failed, budget_s=budget_s)
    return replace(outcome, left_out=len(left_out))


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
            so far, is not begun, but one is always made. None is no limit.
    """
    from cdvft_bench.timing.environment import read_environment

    limits = limits or Limits()
    cases = list({case.key: case for case in cases}.values())
    done = store.keys("ok") if retry_failed else store.keys()
    todo = [case for case in cases if case.key not in done]
    key = store.put_environment(environment or read_environment())
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    if todo:  # the server's imports take seconds, which are not the first case's
        first = context.Process(target=_nothing, daemon=True)
        first.start()
        first.join()
    started, longest, made = time.monotonic(), 0.0, 0
    with progress(len(todo)) as advance:
        for case in todo:
            if made and budget_s is not None and time.monotonic() - started + longest > budget_s:
                break
            record = run_case(context, case, limits, work, key)
            try:
                store.put(record)
            except UnstorableError as error:
                record = failure(case, f"what was measured cannot be kept: {error}", key, record.seconds)
                store.put(record)
            advance(record)
            made, longest = made + 1, max(longest, record.seconds)
    keys = {case.key for case in cases}
    failed = len(keys & store.keys("failed"))
    return Outcome(made, len(cases) - len(todo), failed, left=len(todo) - made)


def run_case(context: Any, case: Case, limits: Limits, work: Work, environment: str) -> Record:
    """Run a case in a process of its own; whatever happens there, this returns its record.

    Args:
        context: multiprocessing's, of a fork server. case, limits, work: what to do. environment: key of its row.
    """
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


def failure(case: Case, error: str, environment: str, seconds: float = 0.0) -> Record:
    """A record that says why a case has no witnesses."""
    created = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Record(case, "failed", _plain_label(case), None, None, None, error, environment, created, seconds)


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
        try:
            return _answer(process, receive, limits.timeout_s) or (None, _death(process.exitcode, Path(log.name)))
        finally:  # an interrupt of the sweep, too, ends its case
            if process.is_alive():
                process.kill()
            process.join()
            receive.close()


def _answer(process: Any, receive: Connection, timeout_s: float) -> tuple[Evidence | None, str | None] | None:
    """What the process sends, or a timeout; None when it ended without a word."""
    try:
        if wait([receive, process.sentinel], timeout=timeout_s) and receive.poll(0.5):
            answer: tuple[Evidence | None, str | None] = receive.recv()
            process.join(timeout=5)  # one that has answered, but does not end, is killed
            return answer
    except (EOFError, OSError):
        process.join(timeout=10)  # it has closed its end: it is dying, not hanging
    if not wait([process.sentinel], timeout=0.2):
        return None, f"timed out after {timeout_s:g} s"
    process.join()
    return None


def _death(exitcode: int | None, log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    tail = f": {lines[-1][:200]}" if lines else ""
    if exitcode is not None and exitcode < 0:
        try:
            name = signal.Signals(-exitcode).name
        except ValueError:  # most real-time signals have no name
            name = f"signal {-exitcode}"
        outside = ", which came from outside, as when memory runs out" if name == "SIGKILL" else ""
        return f"killed by {name}{outside}{tail}"
    return f"ended with exit code {exitcode} and no result{tail}"


def _child(send: Connection, case: Case, limits: Limits, work: Work, log: str) -> None:
    _quiet(log)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the sweep, which ends its case
    _die_with_parent()
    with contextlib.suppress(OSError):  # where memory runs out, this process goes first, not the sweep
        Path("/proc/self/oom_score_adj").write_text("1000")
    if limits.memory_gib is not None:
        _limit_memory(int(limits.memory_gib * 2**30))
    try:
        send.send((work(case, limits), None))
    except UserError as error:
        send.send((None, _one_line("UserError", error)))
    except MemoryError as error:
        limit = None if limits.memory_gib is None else f"limit {limits.memory_gib:g} GiB"
        send.send((None, _one_line("out of memory", limit or error)))
    except Exception as error:
        out_of_memory = "can't allocate memory" in str(error) or "out of memory" in str(error)
        send.send((None, _one_line("out of memory" if out_of_memory else type(error).__name__, error)))


def _one_line(kind: str, cause: object) -> str:
    text = " ".join(str(cause).split())[:500].encode(errors="backslashreplace").decode()
    return f"{kind}: {text}" if text else kind


def _nothing() -> None:
    """What the fork server is warmed up with."""


def _quiet(log: str) -> None:
    """Libraries print what they like into the log, not into the user's table."""
    target = os.open(log, os.O_WRONLY | os.O_APPEND)
    sys.stdout.flush()
    for stream in (1, 2):
        os.dup2(target, stream)


def _die_with_parent() -> None:
    """A sweep that is killed takes its case along.

    The sweep's end closes a pipe. A thread watches it, and where the kernel can (Linux) it is asked to kill
    this process at that moment: foreign code that holds the interpreter's lock stops every thread.
    (The fork server's own end is no help: it lives as long as the processes that it forked.)
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    with contextlib.suppress(AttributeError, OSError):
        pipe = parent.sentinel
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _limit_memory(extra: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class progress:  # noqa: N801 - used as a with statement
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
