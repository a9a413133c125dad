"""One writer at a time: a lock file that names its owner, and is taken over where the owner is gone."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import shown, unwritable


def take(file: int) -> bool:
    """Take the operating system's lock on an open file, until it is closed; False where there are no such locks.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows
        return False
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise BlockingIOError(*error.args) from error
        return False
    return True


class RunLock:
    """Held by the run that works on a file; open it as a context manager.

    The lock is the operating system's, so it ends with its owner whatever kills it; the file beside it says whose it
    is. Where a file system has no such locks, an owner on this host that no longer lives is stale and taken over.

    Args:
        path: what is worked on; the lock is ``<path>.lock``.

    Raises:
        UserError: another run holds it; names its process and host.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(f"{os.fspath(path)}.lock")
        self._of = path
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                try:
                    self._take()
                except BaseException:
                    os.close(self._fd)
                    raise
                if self._current():
                    break
                os.close(self._fd)  # the last owner removed it in between
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        except OSError as error:
            raise UserError(unwritable(self.path, error)) from error

    def _take(self) -> None:
        try:
            if take(self._fd):
                return
        except BlockingIOError as error:
            raise UserError(self._said(self._owner())) from error
        held = self._owner()
        if held.get("pid") and (held.get("host") != socket.gethostname() or process_lives(held["pid"])):
            raise UserError(self._said(held))

    def _said(self, owner: dict[str, Any]) -> str:
        who = f"process {owner['pid']} on {owner.get('host')}" if owner.get("pid") else "another process"
        return (
            f"{shown(self._of)} is in use: {who} is running into it; wait for it, or give another file "
            f"(if it is surely gone, remove {shown(self.path)})"
        )

    def _owner(self) -> dict[str, Any]:
        try:
            found = json.loads(os.pread(self._fd, 4096, 0))
        except ValueError:
            return {}
        known = isinstance(found, dict) and isinstance(found.get("pid"), int) and isinstance(found.get("host"), str)
        return found if known else {}

    def _current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(self._fd)

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def process_lives(pid: int) -> bool:
    """Whether a process of this host exists."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
