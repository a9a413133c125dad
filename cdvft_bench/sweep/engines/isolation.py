"""Run work in a process of its own, with a limit of time and memory.

The process is forked from a server that has the heavy packages imported already, so it starts in a fraction of a
second. Whatever happens in it (an exception, a crash, a hang, memory without end) comes back as a cause in one line.
It leads a process group, which is killed when it ends or its sweep does, and its temporary files lie in a folder that
goes with it: nothing outlives the sweep. A fork server that was killed is started again.
"""

import contextlib
import fcntl
import multiprocessing
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import reduction, util
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from cdvft_bench.core.case import Case
from cdvft_bench.core.errors import UserError, one_line
from cdvft_bench.core.io.lock import process_lives
from cdvft_bench.sweep.grid import Limits

T = TypeVar("T")

SCRATCH = "cdvft-bench-"
"""Start of the names of folders for temporary files; the process that made one follows, see :func:`sweep_scratch`."""
_MARK = struct.Struct("<qq")
_ATTEMPTS = 3
_SOCKET = 107 - len("/") - 8 - len("/listener-") - 8
"""Bytes of a folder whose random name, and that of a socket in it, the kernel takes."""


@dataclass(frozen=True)
class Failure:
    """Why a process did not end well: ``at`` what it was working, -1 for nothing in particular, and the cause."""

    at: int
    cause: str

    @property
    def outside(self) -> bool:
        """Whether something killed it that is no fault of its work; 255 is told where its fork server was killed."""
        return self.cause.startswith(("killed by SIGKILL", "killed by SIGTERM", "ended with exit code 255 and"))


class Report:
    """What a process tells its sweep while it works: answers, and what it is about to do."""

    def __init__(self, send: Connection, marks: int) -> None:
        self._send, self._marks, self._count = send, marks, 0

    def __call__(self, answer: object) -> None:
        """Send an answer, which stands whatever happens later."""
        self._send.send(("answer", answer))

    def at(self, what: int) -> None:
        """Begin with ``what``: if the process dies, hangs or fails, that is the cause."""
        self._count += 1
        os.pwrite(self._marks, _MARK.pack(self._count, what), 0)


class _Handle:
    """A file descriptor that goes along with a process that is started."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __getstate__(self) -> Any:
        return reduction.DupFd(self.fd)

    def __setstate__(self, state: Any) -> None:
        self.fd = state.detach()


def server(preload: Sequence[str]) -> Any:
    """A context whose processes are forked from a server that has imported ``preload``; it is started, and warm."""
    # torch then asks the driver's library whether there is a GPU: asking CUDA itself would leave the server with a
    # context that none of its children could use.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    context = multiprocessing.get_context("forkserver")
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    start = f"{SCRATCH}{os.getpid()}-"
    short = len(os.fsencode(tempfile.gettempdir())) + len(start) < _SOCKET
    if config.get("tempdir") is None and short:  # of the server's socket: in a folder that is known as this suite's
        config["tempdir"] = tempfile.mkdtemp(prefix=start)
        util.Finalize(None, shutil.rmtree, (config["tempdir"], True), exitpriority=-100)
    context.set_forkserver_preload([__name__, *preload])  # what a child's target lies in, too, or it imports torch anew
    first = context.Process(target=_nothing, daemon=True)  # the imports take seconds, which are not the first case's
    first.start()
    first.join()
    return context


def isolated(
    context: Any, case: Case, limits: Limits, work: Callable[[Case, Limits], T]
) -> tuple[T | None, str | None]:
    """Run the work in a process of its own: what it returns, or the cause of its failure."""
    found: list[T] = []
    failure = streamed(context, partial(_once, work, case, limits), limits, found.append, steady=True)
    return (found[0], None) if failure is None else (None, failure.cause)


def _once(work: Callable[[Case, Limits], Any], case: Case, limits: Limits, report: Report) -> None:
    report(work(case, limits))


def streamed(
    context: Any, work: Callable[[Report], None], limits: Limits, each: Callable[[Any], None], steady: bool = False
) -> Failure | None:
    """Run the work in a process of its own.

    Args:
        context: of :func:`server`. work: importable by the process. each: gets every answer as it comes.
        limits: its timeout is for each thing that the work marks, or for all of it where ``steady``.

    Returns:
        None where the work came to its end.
    """
    with tempfile.TemporaryFile() as log, tempfile.TemporaryFile() as marks, _scratch() as folder:
        os.pwrite(marks.fileno(), _MARK.pack(0, -1), 0)
        receive, send = context.Pipe(duplex=False)
        handles = (_Handle(log.fileno()), _Handle(marks.fileno()))
        process = None
        try:
            process = _started(context, (send, work, limits.memory_gib, *handles, folder))
            send.close()
            return _listen(process, receive, marks.fileno(), limits.timeout_s, each, steady, log.fileno())
        finally:  # an interrupt of the sweep, too, ends the process and what it has started
            if process is not None:
                _kill(process)
            receive.close()


def _started(context: Any, arguments: tuple[Any, ...]) -> Any:
    """A process, by a fork server that is started again where it was killed."""
    for attempt in range(_ATTEMPTS):
        process = context.Process(target=_child, args=arguments, daemon=True)
        try:
            process.start()
            return process
        except (EOFError, OSError):
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.2)
    raise AssertionError("unreachable")


def _kill(process: Any) -> None:
    """End a process and those that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):  # whose fork server is gone, too
        if process.is_alive():
            process.kill()
    process.join()


def _listen(
    process: Any,
    receive: Connection,
    marks: int,
    timeout_s: float,
    each: Callable[[Any], None],
    steady: bool,
    log: int,
) -> Failure | None:
    since, last, ended = time.monotonic(), (0, -1), False
    while True:
        wait([receive] if ended else [receive, process.sentinel], timeout=0 if ended else min(0.5, timeout_s))
        try:
            while receive.poll(0):
                kind, value = receive.recv()
                if kind == "answer":
                    each(value)
                else:
                    return None if kind == "end" else Failure(_mark(marks)[1], value)
            if ended:
                return Failure(_mark(marks)[1], _death(process.exitcode, log))
        except (EOFError, OSError):
            process.join(timeout=10)  # it has closed its end: it is dying, not hanging
            return Failure(_mark(marks)[1], _death(process.exitcode, log))
        if wait([process.sentinel], timeout=0):
            process.join()
            ended = True  # what it sent before is read once more
            continue
        mark = _mark(marks)
        if mark != last and not steady:
            since, last = time.monotonic(), mark
        if time.monotonic() - since > timeout_s:
            return Failure(mark[1], f"timed out after {timeout_s:g} s")


def _mark(marks: int) -> tuple[int, int]:
    count, what = _MARK.unpack(os.pread(marks, _MARK.size, 0))
    return count, what


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """A folder for the temporary files of a process, which may be killed before it removes them."""
    folder = tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_scratch() -> None:
    """Remove folders of temporary files whose sweep was killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*-*"):
        owner = path.name.removeprefix(SCRATCH).partition("-")[0]
        with contextlib.suppress(OSError):
            if (
                owner.isdigit()
                and path.is_dir()
                and path.stat().st_uid == os.getuid()
                and not process_lives(int(owner))
            ):
                shutil.rmtree(path, ignore_errors=True)


def _death(exitcode: int | None, log: int) -> str:
    size = os.fstat(log).st_size
    lines = os.pread(log, 4096, max(0, size - 4096)).decode(errors="replace").strip().splitlines()
    tail = f": {lines[-1][:200]}" if lines else ""
    if exitcode is not None and exitcode < 0:
        try:
            name = signal.Signals(-exitcode).name
        except ValueError:  # most real-time signals have no name
            name = f"signal {-exitcode}"
        outside = ", which came from outside, as when memory runs out" if name == "SIGKILL" else ""
        return f"killed by {name}{outside}{tail}"
    return f"ended with exit code {exitcode} and no result{tail}"


def _child(
    send: Connection,
    work: Callable[[Report], None],
    memory_gib: float | None,
    log: _Handle,
    marks: _Handle,
    folder: str,
) -> None:
    os.setsid()  # what it starts is killed with it
    # Locks that libraries make, as for progress bars, then have no name, of which the resource tracker would warn.
    multiprocessing.set_start_method("fork", force=True)
    _quiet(log.fd)
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the sweep, which ends its case
    _die_with_parent()
    with contextlib.suppress(OSError):  # where memory runs out, this process goes first, not the sweep
        Path("/proc/self/oom_score_adj").write_text("1000")
    if memory_gib is not None:
        _limit_memory(int(memory_gib * 2**30))
    try:
        work(Report(send, marks.fd))
        send.send(("end", None))
    except UserError as error:
        send.send(("failed", one_line(error, "UserError")))
    except MemoryError as error:
        limit = None if memory_gib is None else f"limit {memory_gib:g} GiB"
        send.send(("failed", one_line(limit or error, "out of memory")))
    except Exception as error:
        out_of_memory = "can't allocate memory" in str(error) or "out of memory" in str(error)
        send.send(("failed", one_line(error, "out of memory" if out_of_memory else "")))


def _nothing() -> None:
    """What the fork server is warmed up with."""


def _quiet(log: int) -> None:
    """Libraries print what they like into the log, not into the user's table."""
    sys.stdout.flush()
    for stream in (1, 2):
        os.dup2(log, stream)


def _die_with_parent() -> None:
    """A sweep that is killed takes its case along.

    The sweep's end closes a pipe. A thread watches it, and where the kernel can (Linux) it is asked to kill
    this process group at that moment: foreign code that holds the interpreter's lock stops every thread.
    (The fork server's own end is no help: it lives as long as the processes that it forked.)
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    with contextlib.suppress(AttributeError, OSError):
        pipe = parent.sentinel
        fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)

    def watch() -> None:
        wait([parent.sentinel])
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _limit_memory(extra: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
