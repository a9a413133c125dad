"""The OpenMP pool that torch uses: where it is, and how many threads of it a kernel may ask for."""

from __future__ import annotations

import ctypes
import os
import threading
from functools import lru_cache
from pathlib import Path

import torch


@lru_cache(maxsize=1)
def address() -> int | None:
    """Of the function that runs a region in the pool; None where it is not found."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text(encoding="utf-8").splitlines() if maps.is_file() else []
    paths = {line.split(maxsplit=5)[5] for line in lines if "omp" in line}
    own = str(Path(torch.__file__).parent)
    for path in sorted(paths, key=lambda path: (not path.startswith(own), path)):  # torch brings its own
        if "omp" in Path(path).name and Path(path).is_file():
            try:
                return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p).value
            except (OSError, AttributeError):
                continue
    return None


def threads() -> int:
    """Threads for a kernel: as many as torch is set to use, but one where the pool's were lost in a fork."""
    found = 1 if _forks.lost else torch.get_num_threads()
    _forks.used |= found > 1
    return found


def _foreign_threads() -> int:
    """Threads of this process that Python knows nothing of; 0 where nobody counts them."""
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir()) - threading.active_count()
    except OSError:
        return 0


class _Forks:
    """A child gets none of its parent's threads, but the pool that counts them: a region there would wait forever.

    So do torch's own products in such a child, unless torch is set to use one thread. Whether the parent had a pool is
    told by its threads (those that came since this module was imported), or by a kernel that used it.
    """

    def __init__(self) -> None:
        self.lost = self.used = False
        self._known = _foreign_threads()
        self._pool_at_fork = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before, after_in_child=self._in_child)

    def _before(self) -> None:
        self._pool_at_fork = self.used or _foreign_threads() > self._known

    def _in_child(self) -> None:
        self.lost = self.lost or self._pool_at_fork
        self.used, self._known = False, 0


_forks = _Forks()
