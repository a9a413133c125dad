"""What a sweep keeps: records, those of failures among them, and chosen traces."""

import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cdvft_bench.core.case import Case
from cdvft_bench.core.io.files import write_file
from cdvft_bench.core.record import Record
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.sweep.storage.textform import UnstorableError


@dataclass(frozen=True)
class SweepResult:
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

    def keep(self, record: Record, data: bytes | None, error: str | None) -> None:
        """Write a trace, whole or not at all, or a line that says why there is none."""
        if data is None:
            print(f"no trace of {record.label} on {record.case.subject}: {error}", file=sys.stderr)
        else:
            write_file(self.path(record), data)


def keep(store: Store, record: Record) -> Record:
    """Put a record into the store, or one that says why it cannot be kept; returns what is there now."""
    try:
        store.put(record)
    except UnstorableError as error:
        why = f"what was measured cannot be kept: {error}"
        record = failure(record.case, why, record.environment, record.seconds)
        store.put(record)
    return record


def failure(case: Case, error: str, environment: str, seconds: float = 0.0) -> Record:
    """A record that says why a case has no sources."""
    return Record(case, "failed", case.plain_label, None, None, None, error, environment, now(), seconds)


def now() -> str:
    """UTC time of a record, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
