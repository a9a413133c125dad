"""How far a sweep, or a series of fine-tuning runs, is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from cdvft_bench.core.record import Record


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

    def tell(self, left: int, text: str) -> None:
        """One more is done and ``left`` are to come: for work whose extent shows as it goes."""
        self.done += 1
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, total=self.done + left, description=text)
        else:
            print(f"{left} left: {text}", flush=True)

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()


class Stages:
    """Progress of a run in few long stages: a bar with the time to go on a terminal, nothing elsewhere."""

    def __init__(self, total: int) -> None:
        self.total, self.count = total, 0
        self._bar: Any = None

    def __enter__(self) -> Stages:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self.total)
        return self

    def begin(self, text: str) -> None:
        """Say what is being done."""
        self._show(description=text)

    def done(self) -> None:
        """One stage is over."""
        self.count += 1
        self._show(completed=self.count)

    def more(self, stages: int = 1) -> None:
        """So many stages have turned up."""
        self.total += stages
        self._show(total=self.total)

    def _show(self, **what: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, **what)

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()
