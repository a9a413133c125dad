"""A process that answers one question after the other, in lines of JSON; one that dies or hangs costs one answer."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from cdvft_bench.core.io.log import encode_line, parse_line

ENDING_S = 10.0
"""Seconds that a process may take to end; one that hangs in a driver may never, and is left behind."""


class NoAnswerError(RuntimeError):
    """The process died, or took too long."""


class Helper:
    """Starts a process when it is first asked, and a new one after one that gave no answer.

    Args:
        command: that runs :func:`serve`. environment: of the process; None for this one's.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._command, self._environment = [*command], environment
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None

    def ask(self, question: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Its answer.

        Raises:
            NoAnswerError: there is none within so many seconds, or the process died: with the last line that it said.
        """
        process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # what died is found out below
            process.stdin.write(encode_line(question))
            process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], limit_s)
        line = process.stdout.readline() if ready else b""
        if line:
            return parse_line(line)
        reason = self._last_line() if ready else f"it took longer than {limit_s:g} s"
        self.close()
        raise NoAnswerError(reason)

    def close(self) -> None:
        """End the process, and those that it may have started; it may be asked again."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDING_S)
            self._process = None
        if self._said is not None:
            self._said.close()
            self._said = None

    def _started(self) -> subprocess.Popen[bytes]:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 -- it lives as long as the process
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=self._environment,
            start_new_session=True,
        )
        return self._process

    def _last_line(self) -> str:
        assert self._process is not None
        assert self._said is not None
        try:
            code = self._process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            return "it gives no answer any more, and does not end"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"it ended with {code}"


def serve(answer: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Answer questions until there are no more; what else is printed goes where errors go."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr  # and at once: what is kept until the end would follow the error
    for line in sys.stdin.buffer:
        answers.write(encode_line(answer(parse_line(line))))
        answers.flush()


def _end_with(parent: int) -> None:
    """End when whoever asks has: it may have been killed, while a kernel hangs here."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
