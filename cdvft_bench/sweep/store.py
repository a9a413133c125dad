"""The store: records and environments in one SQLite file, transactional."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from cdvft_bench.core.case import Case
from cdvft_bench.core.counted import Counted
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Predicted, Record, Status
from cdvft_bench.core.timed import Timed
from cdvft_bench.sweep.textform import no_record, read_text, write_text

SCHEMA = 2
T = TypeVar("T")

_TABLES = """
CREATE TABLE meta (schema INTEGER NOT NULL);
CREATE TABLE environments (key TEXT PRIMARY KEY, environment TEXT NOT NULL);
CREATE TABLE records (
    key TEXT NOT NULL, "case" TEXT NOT NULL, status TEXT NOT NULL, label TEXT NOT NULL,
    predicted TEXT, counted TEXT, timed TEXT, error TEXT,
    environment TEXT NOT NULL REFERENCES environments (key), created TEXT NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (key, environment)
);
"""
_COLUMNS = '"case", status, label, predicted, counted, timed, error, environment, created, seconds'


class UnstorableError(UserError):
    """A record that JSON cannot give back as it was: a figure is not finite, or a text is no Unicode."""


def _encode(value: object) -> str | None:
    if value is None:
        return None
    try:
        plain = msgspec.to_builtins(value)
        for where, number in _not_finite(plain, ""):
            # JSON has no such number: it would come back as null.
            raise UnstorableError(f"{where} = {number} is no finite number, so it is no measurement to keep")
        return msgspec.json.encode(plain).decode()
    except (TypeError, OverflowError, UnicodeError) as error:
        raise UnstorableError(f"a {type(value).__name__} cannot be written as JSON: {error}") from error


def _not_finite(value: object, where: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield where, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _not_finite(part, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _not_finite(part, f"{where}[{i}]")


def _decode(text: str | None, kind: type[T]) -> T | None:
    return None if text is None else msgspec.json.decode(text, type=kind)


class Store:
    """Records of one campaign, a case once for every environment. Open it as a context manager.

    Args:
        path: SQLite file, or a ".jsonl" / ".jsonl.gz" file in the text form, which is read into memory.
        create: make the file (and its folders) where there is none; only an SQLite file can be written to.

    Raises:
        UserError: the file is missing, cannot be used, is no store, or was made by a newer version.
    """

    def __init__(self, path: str | Path, create: bool = False) -> None:
        self.path = Path(path)
        text_form = self.path.name.endswith((".jsonl", ".jsonl.gz"))
        if text_form and create:
            raise UserError(f"store {str(path)!r} is in the text form, which is read only; give an .sqlite file")
        if text_form and not self.path.is_file():
            raise UserError(f"store {str(path)!r} is not there; 'cdvft-bench export STORE {path}' makes one")
        if not self.path.exists() and not create:
            raise UserError(f"store {str(path)!r} is not there; 'cdvft-bench sweep GRID --store {path}' makes one")
        if self.path.is_dir():
            raise UserError(f"store {str(path)!r} is a folder and cannot be used as a store; give the file in it")
        try:
            if not text_form:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(":memory:" if text_form else self.path, timeout=30, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"{path} cannot be used as a store: {error}") from error
        try:
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.execute("PRAGMA synchronous = FULL")
            self._open()
            if text_form:
                self.import_text(self.path)
        except sqlite3.Error as error:
            self._db.close()
            raise UserError(
                f"{path} cannot be used as a store: {error}; give a file that 'cdvft-bench sweep' or 'export' wrote"
            ) from error
        except UserError:
            self._db.close()
            raise

    def _open(self) -> None:
        if not self._tables():
            with self._transaction():
                if not self._tables():  # another process may have been faster
                    for statement in filter(str.strip, _TABLES.split(";")):
                        self._db.execute(statement)
                    self._db.execute("INSERT INTO meta VALUES (?)", (SCHEMA,))
        if not {"meta", "records", "environments"} <= self._tables():
            raise UserError(f"{self.path} is an SQLite file, but no store of this suite")
        schema = self._db.execute("SELECT max(schema) FROM meta").fetchone()[0]
        if not isinstance(schema, int) or schema > SCHEMA:
            raise UserError(f"{self.path} has schema {schema}, this version reads up to {SCHEMA}; update cdvft-bench")
        if schema == 1:
            self._update()

    def _update(self) -> None:
        """From schema 1, which held a case once."""
        with self._transaction():
            self._db.execute("ALTER TABLE records RENAME TO older")
            self._db.execute(next(t for t in _TABLES.split(";") if "TABLE records" in t))
            self._db.execute(f"INSERT INTO records (key, {_COLUMNS}) SELECT key, {_COLUMNS} FROM older")
            self._db.execute("DROP TABLE older")
            self._db.execute("UPDATE meta SET schema = ?", (SCHEMA,))

    def _tables(self) -> set[str]:
        return {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block or nothing; a failing write (read-only or full disk, lock) is a UserError."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise UserError(f"{self.path} cannot be written: {error}") from error
            raise

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
        with self._transaction():
            self._put_environment(environment.key, environment)
        return environment.key

    def _put_environment(self, key: str, environment: Environment) -> None:
        # The key that the records hold, not today's: an environment of an older version may lack a field.
        self._db.execute("INSERT OR IGNORE INTO environments VALUES (?, ?)", (key, _encode(environment)))

    def put(self, record: Record) -> None:
        """Keep a record, in one transaction; one of the same case and environment, or a failed one, is replaced.

        Raises:
            UnstorableError: it holds a NaN, an infinity, or a text that is no Unicode; the message has the place.
            UserError: the file cannot be written, or does not hold the record's environment.
        """
        self.put_all((record,))

    def put_all(self, records: Iterable[Record]) -> None:
        """Keep several records in one transaction, each as :meth:`put` does."""
        with self._transaction():
            for record in records:
                self._db.execute("DELETE FROM records WHERE key = ? AND status = 'failed'", (record.case.key,))
                self._put(record)

    def _put(self, record: Record) -> None:
        self._db.execute(
            f"INSERT OR REPLACE INTO records (key, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.case.key, _encode(record.case), record.status, _text(record.label), _encode(record.predicted),
                _encode(record.counted), _encode(record.timed), _text(record.error), record.environment,
                record.created, record.seconds,
            ),
        )  # fmt: skip

    def get(self, key: str, environment: str | None = None) -> Record | None:
        """The record of a case's key, of that environment or else the newest finished one; None where there is none."""
        where, given = ("", (key,)) if environment is None else (" AND environment = ?", (key, environment))
        order = "ORDER BY status = 'ok' DESC, created DESC LIMIT 1"
        row = self._db.execute(f"SELECT {_COLUMNS} FROM records WHERE key = ?{where} {order}", given).fetchone()
        return None if row is None else self._record(row)

    def keys(self, status: Status | None = None) -> set[str]:
        """Keys of all cases, or of those that are finished ("ok") or have failed wherever they ran ("failed")."""
        if status is None:
            return {key for (key,) in self._db.execute("SELECT DISTINCT key FROM records")}
        if status == "failed":
            return self.keys() - self.keys("ok")
        return {key for (key,) in self._db.execute("SELECT DISTINCT key FROM records WHERE status = ?", (status,))}

    def records(self) -> Iterator[Record]:
        """All records, in the order of their keys and environments."""
        for row in self._db.execute(f"SELECT {_COLUMNS} FROM records ORDER BY key, environment"):
            yield self._record(row)

    def environments(self) -> dict[str, Environment]:
        """Environments by key."""
        rows = self._db.execute("SELECT key, environment FROM environments ORDER BY key")
        return {key: msgspec.json.decode(text, type=Environment) for key, text in rows}

    def merge(self, other: Store) -> int:
        """Take over the other store's environments and records, see :meth:`take`."""
        return self.take(other.environments(), other.records())

    def take(self, environments: Mapping[str, Environment], records: Iterable[Record]) -> int:
        """Take over environments and records, in one transaction; returns how many records came.

        Records of other environments stand beside those that are here. Of two of one case and one environment a
        finished one is better than a failed one, and of two alike the newer is: the order of merging does not matter.
        """
        taken = 0
        with self._transaction():
            for key, environment in environments.items():
                self._put_environment(key, environment)
            for record in records:
                mine = self.get(record.case.key, record.environment)
                if mine is None or (mine.status == "ok", mine.created) < (record.status == "ok", record.created):
                    self._put(record)
                    taken += 1
        return taken

    def export_text(self, path: str | Path) -> None:
        """Write the text form: JSON lines, sorted, compressed where the name ends in .gz; same content, same bytes.

        The file appears when it is complete: an older one stands until then.

        Raises:
            UserError: the file cannot be written.
        """
        write_text(path, self.environments(), self.records())

    def import_text(self, path: str | Path) -> None:
        """Read the text form, all of it or nothing.

        Raises:
            UserError: a line is not a record; the message has its number.
        """
        known: set[str] = set()
        with self._transaction():
            for number, line in read_text(path):
                try:
                    if line.environment is not None:
                        key = line.key or line.environment.key
                        self._put_environment(key, line.environment)
                        known.add(key)
                    if line.record is not None:
                        if line.record.environment not in known:
                            raise UserError(f"no line before it holds its environment {line.record.environment!r}")
                        self._put(line.record)
                except UserError as error:
                    raise UserError(no_record(path, number, error)) from error

    def intact(self) -> bool:
        """Whether SQLite finds the file sound."""
        return bool(self._db.execute("PRAGMA integrity_check").fetchone() == ("ok",))

    def _record(self, row: tuple[str, ...]) -> Record:
        case, status, label, predicted, counted, timed, error, environment, created, seconds = row
        try:
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
        except msgspec.DecodeError as fault:
            raise UserError(f"{self.path} holds a record ({label}) that this version cannot read: {fault}") from fault


def _text(text: str | None) -> str | None:
    try:
        return None if text is None else text.encode().decode()
    except UnicodeError as error:
        raise UnstorableError(f"text {text!r} is no Unicode: {error}") from error
