"""The case in flight, in a small file that outlives the process: who finds it knows with what the last one died."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from cdvft_bench.core.case import Case, case_from
from cdvft_bench.core.io.files import write_file
from cdvft_bench.core.io.log import encode_line, parse_line

DIED = "the process that was at it hung or was killed; --retry-failed tries it again"


class InFlight:
    """The case in flight of one file of rows, whose name it has with ".begun".

    Args:
        output: the rows' file. limit_s: seconds after which this process ends with the case; None for no limit.
    """

    def __init__(self, output: Path, limit_s: float | None) -> None:
        self._path, self._limit_s = output.with_name(f"{output.name}.begun"), limit_s

    def left(self) -> Case | None:
        """The case with which the last process died; None where it came to an end of its own."""
        try:
            return case_from(parse_line(self._path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or a damaged one
            return None

    def clear(self) -> None:
        """Nothing is in flight."""
        self._path.unlink(missing_ok=True)

    @contextmanager
    def noted(self, case: Case) -> Iterator[None]:
        """A block in which a case is at work."""
        write_file(self._path, encode_line(asdict(case)))
        if self._limit_s is not None:  # a thread of C's, which needs no lock of Python's, says where it hung, and exits
            faulthandler.dump_traceback_later(self._limit_s, exit=True)
        try:
            yield
        finally:
            if self._limit_s is not None:
                faulthandler.cancel_dump_traceback_later()
            self.clear()
