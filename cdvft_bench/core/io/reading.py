"""Files that a user gives, read whole: as text, JSON, TOML or CSV. Whatever is wrong with one is one line.

Logs and stores, which may be large, are read line by line (``core.log``); traces have a reader of their own.
"""

import csv
import io
import json
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any, NoReturn

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import shown

LIMIT = 256 * 2**20
"""Bytes of a file that is read whole; a larger one is refused, since it is a mistake or an attack."""

UNPACKED = 4 * 2**30
"""Bytes that a compressed log or store may expand to."""


def read_bytes(path: str | Path, what: str, advice: str) -> bytes:
    """A file's content.

    Args:
        path: of the file. what: it should be, as "ledger". advice: the way out, as "give a TOML file of claims".

    Raises:
        UserError: it cannot be read, or is larger than ``LIMIT``; so of all readers here.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(LIMIT + 1)
    except (OSError, ValueError, MemoryError) as error:
        _refuse(path, what, reason_of(error), advice, error)
    if len(data) > LIMIT:
        _refuse(path, what, f"it is larger than {LIMIT >> 20} MiB", advice)
    return data


def reason_of(error: BaseException) -> str:
    """Why a file could not be opened or read, in a few words of one line."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]


def _refuse(path: str | Path, what: str, reason: str, advice: str, error: BaseException | None = None) -> NoReturn:
    raise UserError(f"{what} {shown(path)} cannot be read: {reason}; {advice}") from error


def read_text(path: str | Path, what: str, advice: str) -> str:
    """A file's text: UTF-8, whatever the locale says; a byte-order mark is left out."""
    try:
        return read_bytes(path, what, advice).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(path, what, f"it is no UTF-8 text at byte {error.start}", advice, error)


def packaged(package: str, *parts: str) -> str:
    """The text of a file that comes with the suite."""
    return resources.files(package).joinpath(*parts).read_text(encoding="utf-8")


def parse_json(text: bytes | str) -> Any:
    """A JSON document.

    Raises:
        ValueError: it is none, is nested too deeply, or holds a number that is none of JSON or too long; says why in
            a few words of one line.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 text at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error}") from None
    except ValueError as error:
        raise ValueError(_long_number(error)) from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _long_number(error: ValueError) -> str:
    """Python converts no text of more than some thousand digits, and says so in words for programmers."""
    return "a number has too many digits" if "int_max_str_digits" in str(error) else str(error)


def read_json(path: str | Path, what: str, advice: str) -> Any:
    """A file's JSON document."""
    text = read_text(path, what, advice)
    try:
        return parse_json(text)
    except ValueError as error:
        _refuse(path, what, str(error), advice, error)


def parse_toml(text: str) -> dict[str, Any]:
    """A TOML document.

    Raises:
        ValueError: as :func:`parse_json`.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is no TOML: {error}") from None
    except ValueError as error:
        raise ValueError(_long_number(error)) from None


def read_toml(path: str | Path, what: str, advice: str) -> dict[str, Any]:
    """A file's TOML document."""
    text = read_text(path, what, advice)
    try:
        return parse_toml(text)
    except ValueError as error:
        _refuse(path, what, str(error), advice, error)


@dataclass(frozen=True)
class Rows:
    """A table of texts.

    Attributes:
        columns: of its head. rows: the number of the line that a row ends in, and its cells by column; a cell that a
            short row lacks is empty.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_rows(path: str | Path, what: str, advice: str) -> Rows:
    """A CSV file with a head.

    Raises:
        UserError: also where a row has more cells than the head, a column stands twice, or a quote is left open.
    """
    return parse_rows(read_text(path, what, advice), path, what, advice)


def parse_rows(text: str, path: str | Path, what: str, advice: str, delimiter: str = ",") -> Rows:
    """The same of a text; ``path`` is for messages."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    rows = []
    try:
        head = next(reader, [])
        twice = next((name for name in head if head.count(name) > 1), None)
        if twice is not None:
            _refuse(path, what, f"the column {twice!r} stands twice", advice)
        for cells in filter(None, reader):
            if len(cells) > len(head):
                reason = f"line {reader.line_num} has {len(cells)} cells, the head has {len(head)}"
                _refuse(path, what, reason, advice)
            whole = cells + [""] * (len(head) - len(cells))
            rows.append((reader.line_num, dict(zip(head, whole, strict=True))))
    except csv.Error as error:
        _refuse(path, what, f"line {reader.line_num}: {error}", advice, error)
    return Rows(tuple(head), tuple(rows))


def read_up_to(file: IO[bytes], limit: int) -> bytes:
    """What a file, such as a member of an archive, unpacks to.

    Raises:
        ValueError: to more than ``limit`` bytes.
    """
    data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it unpacks to more than {limit >> 20} MiB")
    return data
