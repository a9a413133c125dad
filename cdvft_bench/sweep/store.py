"""The store: records and environments in one SQLite file, transactional."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from cdvft_bench.counting.result import Counted
from cdvft_bench.errors import UserError
from cdvft_bench.sweep.case import Case
from cdvft_bench.sweep.record import Predicted, Record
from cdvft_bench.timing.environment import Environment
from cdvft_bench.timing.result import Timed

SCHEMA = 1
T = TypeVar("T")

_TABLES = """
CREATE TABLE meta (schema INTEGER NOT NULL);
CREATE TABLE environments (key TEXT PRIMARY KEY, environment TEXT NOT NULL);
CREATE TABLE records (
    key TEXT PRIMARY KEY, "case" TEXT NOT NULL, status TEXT NOT NULL, label TEXT NOT NULL,
    predicted TEXT, counted TEXT, timed TEXT, error TEXT,
    environment TEXT NOT NULL REFERENCES environments (key), created TEXT NOT NULL, seconds REAL NOT NULL
);
"""
_COLUMNS = '"case", status, label, predicted, counted, timed, error, environment, created, seconds'


class _Line(msgspec.Struct, omit_defaults=True):
    """One line of the text form: an environment with its key, or a record."""

    key: str | None = None
    environment: Environment | None = None
    record: Record | None = None


def _encode(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _decode(text: str | None, kind: type[T]) -> T | None:
    return None if text is None else msgspec.json.decode(text, type=kind)


class Store:
    """Records of one campaign. Open it as a context manager.

    Args:
        path: SQLite file, or a ".jsonl" / ".jsonl.gz" file in the text form, which is read into memory.
        create: make the file (and its folders) where there is none.

    Raises:
        UserError: the file is missing, is no store, or was made by a newer version.
    """

    def __init__(self, path: str | Path, create: bool = False) -> None:
        self.path = Path(path)
        text_form = self.path.name.endswith((".jsonl", ".jsonl.gz"))
        if not self.path.is_file() and (text_form or not create):
            raise UserError(f"store {str(path)!r} is not there; 'cdvft-bench sweep GRID --store {path}' makes one")
        try:
            if not text_form:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(":memory:" if text_form else self.path, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.execute("PRAGMA synchronous = FULL")
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"{path} cannot be used as a store: {error}") from error
        if text_form:
            self.import_text(self.path)

    def _open(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        names = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not names:
            for statement in filter(str.strip, _TABLES.split(";")):
                self._db.execute(statement)
            self._db.execute("INSERT INTO meta VALUES (?)", (SCHEMA,))
        elif not {"meta", "records", "environments"} <= names:
            raise UserError(f"{self.path} is an SQLite file, but no store of this suite")
        else:
            (schema,) = self._db.execute("SELECT schema FROM meta").fetchone()
            if schema > SCHEMA:
                raise UserError(
                    f"{self.path} has schema {schema}, this version reads up to {SCHEMA}; update cdvft-bench"
                )
        self._db.execute("COMMIT")

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def put_environment(self, environment: Environment) -> str:
        """Keep an environment; returns its key."""
        self._db.execute("INSERT OR IGNORE INTO environments VALUES (?, ?)", (environment.key, _encode(environment)))
        return environment.key

    def put(self, record: Record) -> None:
        """Keep a record, in one transaction; an older one of the same case is replaced."""
        self._db.execute(
            f"INSERT OR REPLACE INTO records (key, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.case.key, _encode(record.case), record.status, record.label, _encode(record.predicted),
                _encode(record.counted), _encode(record.timed), record.error, record.environment, record.created,
                record.seconds,
            ),
        )  # fmt: skip

    def get(self, key: str) -> Record | None:
        """The record of a case's key, or None."""
        row = self._db.execute(f"SELECT {_COLUMNS} FROM records WHERE key = ?", (key,)).fetchone()
        return None if row is None else _record(row)

    def keys(self, status: str | None = None) -> set[str]:
        """Keys of all records, or of those with a status."""
        query = "SELECT key FROM records" + ("" if status is None else " WHERE status = ?")
        return {key for (key,) in self._db.execute(query, () if status is None else (status,))}

    def records(self) -> Iterator[Record]:
        """All records, in the order of their keys."""
        for row in self._db.execute(f"SELECT {_COLUMNS} FROM records ORDER BY key"):
            yield _record(row)

    def environments(self) -> dict[str, Environment]:
        """Environments by key."""
        rows = self._db.execute("SELECT key, environment FROM environments ORDER BY key")
        return {key: msgspec.json.decode(text, type=Environment) for key, text in rows}

    def merge(self, other: Store) -> int:
        """Take over the other store's records (newer ones win) and environments; returns how many came."""
        self._db.execute("BEGIN IMMEDIATE")
        for environment in other.environments().values():
            self.put_environment(environment)
        taken = 0
        for record in other.records():
            mine = self.get(record.case.key)
            if mine is None or mine.created < record.created:
                self.put(record)
                taken += 1
        self._db.execute("COMMIT")
        return taken

    def export_text(self, path: str | Path) -> None:
        """Write the text form: JSON lines, sorted, compressed where the name ends in .gz; same content, same bytes."""
        encoder = msgspec.json.Encoder(order="sorted")
        lines = [encoder.encode(_Line(key=k, environment=e)) for k, e in self.environments().items()]
        lines += [encoder.encode(_Line(record=r)) for r in self.records()]
        data = b"\n".join(lines) + b"\n"
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)

    def import_text(self, path: str | Path) -> None:
        """Read the text form, all of it or nothing.

        Raises:
            UserError: a line is not a record; the message has its number.
        """
        path = Path(path)
        try:
            data = path.read_bytes()
            lines = (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()
        except (OSError, EOFError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        self._db.execute("BEGIN IMMEDIATE")
        for number, line in enumerate(lines, 1):
            try:
                entry = msgspec.json.decode(line, type=_Line)
                if entry.environment is not None:
                    self._db.execute(
                        "INSERT OR IGNORE INTO environments VALUES (?, ?)", (entry.key, _encode(entry.environment))
                    )
                if entry.record is not None:
                    self.put(entry.record)
            except (msgspec.DecodeError, sqlite3.Error) as error:
                self._db.execute("ROLLBACK")
                raise UserError(f"{path}, line {number} is no record: {error}") from error
        self._db.execute("COMMIT")

    def intact(self) -> bool:
        """Whether SQLite finds the file sound."""
        return bool(self._db.execute("PRAGMA integrity_check").fetchone() == ("ok",))


def _record(row: tuple[str, ...]) -> Record:
    case, status, label, predicted, counted, timed, error, environment, created, seconds = row
    return Record(
        case=msgspec.json.decode(case, type=Case),
        status=status,  # type: ignore[arg-type]
        label=label,
        predicted=_decode(predicted, Predicted),
        counted=_decode(counted, Counted),
        timed=_decode(timed, Timed),
        error=error,
        environment=environment,
        created=created,
        seconds=float(seconds),
    )
