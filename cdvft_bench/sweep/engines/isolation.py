"""Run one case's work in a process of its own, with a limit of time and memory.

The process is forked from a server that has the heavy packages imported already, so it starts in a fraction of a
second. Whatever happens in it (an exception, a crash, a hang, memory without end) comes back as a cause in one line,
and it never outlives the sweep that it belongs to.
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
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from cdvft_bench.core.case import Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.sweep.grid import Limits

T = TypeVar("T")


def server(preload: Sequence[str]) -> Any:
    """A context whose processes are forked from a server that has imported ``preload``; it is started, and warm."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *preload])  # what a child's target lies in, too, or it imports torch anew
    first = context.Process(target=_nothing, daemon=True)  # the imports take seconds, which are not the first case's
    first.start()
    first.join()
    return context


def isolated(
    context: Any, case: Case, limits: Limits, work: Callable[[Case, Limits], T]
) -> tuple[T | None, str | None]:
    """Run the work in a process of its own: what it returns, or the cause of its failure."""
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


def _answer(process: Any, receive: Connection, timeout_s: float) -> tuple[Any, str | None] | None:
    """What the process sends, or a timeout; None when it ended without a word."""
    try:
        if wait([receive, process.sentinel], timeout=timeout_s) and receive.poll(0.5):
            answer: tuple[Any, str | None] = receive.recv()
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


def _child(send: Connection, case: Case, limits: Limits, work: Callable[[Case, Limits], Any], log: str) -> None:
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
