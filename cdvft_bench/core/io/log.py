"""The record log: JSON lines, appended and synced one by one, so that a kill loses the job in flight alone.

Bare-node slices, fine-tuning runs and studies of expressivity keep their rows in such a file. What a line means is
its writer's to say; this module knows lines, the torn last one, the lock and the version.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import shown, unwritable, write_file
from cdvft_bench.core.io.lock import take
from cdvft_bench.core.io.reading import UNPACKED, parse_json, reason_of

VERSION = 2
"""Of the format. A file begins with ``{"log": VERSION}``.

1: no first line of this kind. 2: the first line, from which a reader of a later version is told to update.
Files of version 1 load, and are gone on with as they are.
"""

_HEAD = b'{"log":'

LINE = 256 * 2**20
"""Bytes of a line; a longer one is refused, since it is a mistake or an attack."""


def parse_line(line: bytes | str) -> dict[str, Any]:
    """A line as a JSON object.

    Raises:
        ValueError: it is none; says why in a few words.
    """
    value = parse_json(line)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def read_log(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and content of each line of a log, compressed where its name ends in ".gz".

    Raises:
        UserError: it cannot be read, is of a later version, or a line is damaged; the message has its number.
    """
    for number, line in read_lines(path):
        try:
            yield number, parse_line(line)
        except ValueError as error:
            raise UserError(damaged(path, number, error)) from None


def read_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line that is a log's content, for readers with a decoder of their own.

    Left out are the line of the version, empty lines, and a last one that was torn by a kill.

    Raises:
        UserError: the file cannot be read, or is of a later version.
    """
    path = Path(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from _lines(path, file)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{shown(path)} cannot be read: {reason_of(error)}; give another file") from error


def damaged(path: str | Path, number: int, reason: object) -> str:
    """One line on a line that its reader cannot use."""
    return f"{shown(path)}, line {number} is damaged: {reason}; restore the file, or give another file"


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    size = 0
    for number, line in enumerate(iter(lambda: file.readline(LINE + 1), b""), 1):
        size += len(line)
        if path.suffix == ".gz" and size > UNPACKED:
            raise UserError(f"{shown(path)} expands beyond {UNPACKED >> 30} GiB; unpack it yourself if that is right")
        if len(line) > LINE:
            raise UserError(damaged(path, number, f"it is longer than {LINE >> 20} MiB"))
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.endswith(b"\n") and not _complete(line):
            if path.suffix == ".gz":  # written whole: no kill has torn it
                raise UserError(damaged(path, number, "its end is missing"))
            return  # torn by a kill while it was written; the job is done again
        if not line.strip():
            continue
        if line.startswith(_HEAD):
            _check_version(path, number, line)
            continue
        yield number, line


def _check_version(path: Path, number: int, line: bytes) -> None:
    try:
        version = parse_line(line)["log"]
    except ValueError as error:
        raise UserError(damaged(path, number, error)) from None
    if not isinstance(version, int) or version > VERSION:
        raise UserError(
            f"{shown(path)} has version {version!r} of the log, this one reads up to {VERSION}; update cdvft-bench"
        )


def _complete(line: bytes) -> bool:
    """Whether a line without its end is whole: its last brace is there."""
    try:
        parse_line(line)
    except ValueError:
        return False
    return True


def write_log(path: str | Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write a log anew, whole or not at all.

    Raises:
        ValueError: an entry holds a NaN or an infinity.
        UserError: it cannot be written.
    """
    write_file(path, b"".join(encode_line(entry) for entry in ({"log": VERSION}, *entries)))


def encode_line(entry: Mapping[str, Any]) -> bytes:
    """An entry as a line of JSON.

    Raises:
        ValueError: it holds a NaN or an infinity, which is no JSON and no measurement.
    """
    return json.dumps(entry, allow_nan=False, separators=(",", ":")).encode() + b"\n"


class Log:
    """A log open for appending, by one process at a time.

    Args:
        path: made with its folders if need be; a torn last line is cut off.

    Attributes:
        entries: what it held when it was opened.

    Raises:
        UserError: it cannot be written, another process holds it, or it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except (OSError, ValueError) as error:
            raise UserError(unwritable(path, error)) from error
        try:
            take(self._file.fileno())
            self._cut()
            self.entries = [entry for _, entry in read_log(self.path)]
            if self._file.seek(0, os.SEEK_END) == 0:
                self.append({"log": VERSION})
        except BaseException as error:
            self._file.close()
            if isinstance(error, BlockingIOError):
                busy = f"another process is writing to {shown(self.path)}; wait for it, or give another file"
                raise UserError(busy) from error
            raise

    def _cut(self) -> None:
        """Cut a torn last line off; refuse a file that ends in something else."""
        end = self._file.seek(0, os.SEEK_END)
        if end == 0:
            return
        at, tail = end, b""
        while at > 0 and b"\n" not in tail:
            step = min(1 << 16, at)
            at -= step
            self._file.seek(at)
            tail = self._file.read(step) + tail
        torn = tail.rpartition(b"\n")[2]
        if not torn:
            return
        if _complete(torn):
            self._write(b"\n")
            return
        if not torn.startswith(b"{"):
            raise UserError(f"{shown(self.path)} is no log of this suite; give another file")
        self._file.truncate(end - len(torn))

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line and sync it.

        Raises:
            ValueError: a NaN or an infinity is in it, which is no JSON and no measurement; nothing is written.
            UserError: the disk does not take it; what was written of the line is cut off.
        """
        self._write(encode_line(entry))

    def _write(self, data: bytes) -> None:
        before = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(before)
            raise UserError(f"{unwritable(self.path, error)}, and run the same command again") from error

    def close(self) -> None:
        """Close the file, and with it the lock."""
        self._file.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
