"""The store: records and environments in one SQLite file, transactional."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from cdvft_bench.core.case import Case
from cdvft_bench.core.counted import Counted
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.decode import unknown_field
from cdvft_bench.core.io.files import is_file, is_folder, make_folders, remove_folders, shown, unwritable
from cdvft_bench.core.io.reading import reason_of
from cdvft_bench.core.record import Predicted, Record, Status, check_record
from cdvft_bench.core.timed import Timed
from cdvft_bench.sweep.storage.textform import (
    UnstorableError,
    decode,
    encode,
    no_record,
    read_text,
    storable,
    write_text,
)

SCHEMA = 3
"""Of the tables. 1: a case once. 2: a case once for every environment. 3: a record has its sequence."""
OPENING = 5.0
"""Seconds to wait for a file that another process holds, when it is opened; 30 for each transaction after that."""
ADVICE = "give a file that 'cdvft-bench sweep' or 'export' wrote"

_TABLES = """
CREATE TABLE meta (schema INTEGER NOT NULL);
CREATE TABLE environments (key TEXT PRIMARY KEY, environment TEXT NOT NULL);
CREATE TABLE records (
    key TEXT NOT NULL, "case" TEXT NOT NULL, status TEXT NOT NULL, label TEXT NOT NULL,
    predicted TEXT, counted TEXT, timed TEXT, error TEXT,
    environment TEXT NOT NULL REFERENCES environments (key), created TEXT NOT NULL, seconds REAL NOT NULL,
    sequence INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (key, environment)
);
"""
_COLUMNS = '"case", status, label, predicted, counted, timed, error, environment, created, seconds, sequence'


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
        self._select = _COLUMNS
        self._text_form = text_form = self.path.name.endswith((".jsonl", ".jsonl.gz"))
        if text_form and create:
            raise UserError(f"store {shown(path)} is in the text form, which is read only; give an .sqlite file")
        if is_folder(path):
            raise UserError(f"store {shown(path)} is a folder and cannot be used as a store; give the file in it")
        there = is_file(path)
        if not there and (text_form or not create):
            way = f"'cdvft-bench {'export STORE' if text_form else 'sweep GRID --store'} {shown(path)}' makes one"
            raise UserError(f"store {shown(path)} is not there; {way}")
        made = [] if there or text_form else self._folders()
        try:
            at = ":memory:" if text_form else self.path
            self._db = sqlite3.connect(at, timeout=OPENING, isolation_level=None)
        except (OSError, ValueError, sqlite3.Error) as error:
            remove_folders(made)
            raise UserError(f"store {shown(path)} cannot be used: {reason_of(error)}; {ADVICE}") from error
        try:
            with self._reading():
                self._db.execute("PRAGMA foreign_keys = ON")
                self._db.execute("PRAGMA synchronous = FULL")
                self._open()
                self._db.execute("PRAGMA busy_timeout = 30000")
            if text_form:
                self.import_text(self.path)
        except UserError:
            self._db.close()
            remove_folders(made)
            raise

    def _folders(self) -> list[Path]:
        try:
            return make_folders(self.path.parent)
        except (OSError, ValueError) as error:
            raise UserError(unwritable(self.path, error)) from error

    def _open(self) -> None:
        if not self._tables():
            with self._transaction():
                if not self._tables():  # another process may have been faster
                    for statement in filter(str.strip, _TABLES.split(";")):
                        self._db.execute(statement)
                    self._db.execute("INSERT INTO meta VALUES (?)", (SCHEMA,))
        if not {"meta", "records", "environments"} <= self._tables():
            raise UserError(f"{shown(self.path)} is an SQLite file, but no store of this suite; {ADVICE}")
        schema = self._db.execute("SELECT max(schema) FROM meta").fetchone()[0]
        if isinstance(schema, int) and schema > SCHEMA:
            raise UserError(
                f"{shown(self.path)} has schema {schema}, this version reads up to {SCHEMA}; update cdvft-bench"
            )
        if not isinstance(schema, int) or schema < 1:
            raise self._damaged(f"its schema is {schema!r:.40}")
        if schema < SCHEMA:
            try:
                self._update(schema)
            except UserError:
                if schema == 1:
                    raise
                self._select = _COLUMNS.replace("sequence", "0")  # of schema 2 where it may not be written: it is read

    def _update(self, schema: int) -> None:
        """From an older schema."""
        with self._transaction():
            if schema == 1:
                older = _COLUMNS.removesuffix(", sequence")
                self._db.execute("ALTER TABLE records RENAME TO older")
                self._db.execute(next(t for t in _TABLES.split(";") if "TABLE records" in t))
                self._db.execute(f"INSERT INTO records (key, {older}) SELECT key, {older} FROM older")
                self._db.execute("DROP TABLE older")
            else:
                self._db.execute("ALTER TABLE records ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0")
            self._db.execute("UPDATE meta SET schema = ?", (SCHEMA,))

    def _tables(self) -> set[str]:
        return {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def _damaged(self, reason: object) -> UserError:
        return UserError(f"store {shown(self.path)} is damaged: {reason}; restore the file, or {ADVICE}")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Whatever SQLite says of the file is one line."""
        try:
            yield
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            name = getattr(error, "sqlite_errorname", "")
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                way = "another process holds it; wait until that is done, or give another file"
            elif name == "SQLITE_READONLY_DBMOVED":
                way = "it was removed or replaced while it was in use; put it back, and run the same command again"
            elif name.startswith("SQLITE_READONLY") or name.startswith("SQLITE_CANTOPEN"):
                way = "it cannot be written there; give a file in a folder of yours"
            elif name == "SQLITE_NOTADB":
                way = f"it is no SQLite file; {ADVICE}"
            elif name.startswith("SQLITE_CONSTRAINT"):
                way = f"it refuses the record: {error}; put its environment first"
            elif name == "SQLITE_FULL":
                way = "the disk is full; free some space, and run the same command again"
            else:
                raise self._damaged(reason_of(error)) from error
            raise UserError(f"store {shown(self.path)} cannot be used: {way}") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block or nothing; a failing write (read-only or full disk, lock) is a UserError."""
        with self._reading():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
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
        self._db.execute("INSERT OR IGNORE INTO environments VALUES (?, ?)", (key, encode(environment)))

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

    def _put(self, record: Record, checked: bool = False) -> None:
        if not record.sequence:
            (last,) = self._db.execute("SELECT max(sequence) FROM records").fetchone()
            record = replace(record, sequence=max(record.order, (last or 0) + 1))
        parts = (record.case, record.predicted, record.counted, record.timed)
        case, *sources = (encode(part, checked) for part in parts)
        try:
            if not checked:
                check_record(record)
        except ValueError as error:
            raise UnstorableError(f"record {record.case.key}: {error}") from error
        self._db.execute(
            f"INSERT OR REPLACE INTO records (key, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.case.key,
                case,
                record.status,
                storable(record.label),
                *sources,
                storable(record.error),
                record.environment,
                record.created,
                record.seconds,
                record.sequence,
            ),
        )

    def get(self, key: str, environment: str | None = None) -> Record | None:
        """The record of a case's key, of that environment or else the newest finished one; None where there is none."""
        where, given = ("", (key,)) if environment is None else (" AND environment = ?", (key, environment))
        rows = self._rows(f"SELECT key, {self._select} FROM records WHERE key = ?{where}", given)
        return max(map(self._record, rows), key=lambda r: (r.status == "ok", r.order), default=None)

    def keys(self, status: Status | None = None) -> set[str]:
        """Keys of all cases, or of those that are finished ("ok") or have failed wherever they ran ("failed")."""
        if status == "failed":
            return self.keys() - self.keys("ok")
        where, given = ("", ()) if status is None else (" WHERE status = ?", (status,))
        return {key for (key,) in self._rows(f"SELECT DISTINCT key FROM records{where}", given)}

    def records(self) -> Iterator[Record]:
        """All records, in the order of their keys and environments."""
        for row in self._rows(f"SELECT key, {self._select} FROM records ORDER BY key, environment"):
            yield self._record(row)

    def environments(self) -> dict[str, Environment]:
        """Environments by key."""
        found = {}
        for key, text in self._rows("SELECT key, environment FROM environments ORDER BY key"):
            try:
                found[str(key)] = msgspec.json.decode(text, type=Environment)
            except (msgspec.DecodeError, TypeError, UnicodeError, RecursionError) as error:
                raise self._damaged(f"environment {key!r:.40}: {reason_of(error)}") from error
        return found

    def _rows(self, query: str, given: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
        with self._reading():
            for row in self._db.execute(query, given):  # noqa: UP028 - "yield from" would close the cursor
                yield row

    def unknown_field(self) -> str | None:
        """The place of a field that a newer version has written and this one would not keep; None where there is none.

        A store in the text form has lost such fields when it was read; ask ``textform.unknown_in_text``.
        """
        kinds = {"case": Case, "predicted": Predicted, "counted": Counted, "timed": Timed}
        columns = ", ".join(f'"{name}"' for name in kinds)
        for row in self._rows(f"SELECT key, {columns} FROM records"):
            for (name, kind), text in zip(kinds.items(), row[1:], strict=True):
                try:
                    found = None if text is None else unknown_field(kind, msgspec.json.decode(text), name)
                except (msgspec.DecodeError, RecursionError) as error:
                    raise self._damaged(f"record {row[0]!r:.40}: {reason_of(error)}") from error
                if found is not None:
                    return f"{found} of the record {row[0]}"
        return None

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
                if mine is None or (mine.status == "ok", mine.order) < (record.status == "ok", record.order):
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
                        self._put(line.record, checked=True)
                except UserError as error:
                    raise UserError(no_record(path, number, error)) from error

    def intact(self) -> bool:
        """Whether SQLite finds the file sound."""
        return next(iter(self._rows("PRAGMA integrity_check"))) == ("ok",)

    def _record(self, row: tuple[Any, ...]) -> Record:
        key, case, status, label, predicted, counted, timed, error, environment, created, seconds, sequence = row
        try:
            record = Record(
                case=msgspec.json.decode(case, type=Case),
                status=status,
                label=label,
                predicted=decode(predicted, Predicted),
                counted=decode(counted, Counted),
                timed=decode(timed, Timed),
                error=error,
                environment=environment,
                created=created,
                seconds=float(seconds),
                sequence=int(sequence),
            )
            if not self._text_form:  # whose records were checked when they were read
                check_record(record)
            if record.case.key != key:
                raise ValueError("its case is not that of its key")
        except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as fault:
            raise self._damaged(f"record {key!r:.40}: {reason_of(fault)}") from fault
        return record
