"""The text form of a store: a record log (``core.log``) of environments and records, a line each.

A bare node appends to such a file (``timing.slice``); an export of a store is one, sorted, so that the same content
gives the same bytes.
"""

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.decode import unknown_field
from cdvft_bench.core.io.files import replacing, shown
from cdvft_bench.core.io.log import VERSION, encode_line, read_lines, read_log
from cdvft_bench.core.record import Record, check_record


class Line(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """One line: an environment with its key, or a record."""

    key: str | None = None
    environment: Environment | None = None
    record: Record | None = None


def read_text(path: str | Path) -> Iterator[tuple[int, Line]]:
    """Number and content of each line of a file in the text form, ".gz" or not; a torn last line is left out.

    Raises:
        UserError: it cannot be read, or a line is no record; the message has its number.
    """
    decoder = msgspec.json.Decoder(Line)
    for number, data in read_lines(path):
        try:
            line = decoder.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise UserError(no_record(path, number, error)) from error
        if line.environment is None and line.record is None:
            raise UserError(no_record(path, number, "it holds neither an environment nor a record"))
        if line.record is not None:
            try:
                check_record(line.record)
            except ValueError as error:
                raise UserError(no_record(path, number, error)) from error
        yield number, line


def unknown_in_text(path: str | Path) -> str | None:
    """As ``Store.unknown_field``, of a file in the text form."""
    kinds = {"environment": Environment, "record": Record}
    for number, entry in read_log(path):
        for name, kind in kinds.items():
            found = unknown_field(kind, entry.get(name), name)
            if found is not None:
                return f"{found} in line {number}"
    return None


def no_record(path: str | Path, number: int, reason: object) -> str:
    """One line on a line that is not of the text form."""
    return f"{shown(path)}, line {number} is no record: {reason}; restore the file, or give another file"


def write_text(path: str | Path, environments: Mapping[str, Environment], records: Iterable[Record]) -> None:
    """Write the text form, compressed where the name ends in .gz; the file appears when it is complete.

    Raises:
        UserError: the file cannot be written.
    """
    # Level 9, a gzip header without a time: what gzip.compress(data, 9, mtime=0) makes, but not all at once.
    compress = zlib.compressobj(9, wbits=31) if Path(path).suffix == ".gz" else None
    with replacing(path) as part, part.open("wb") as file:
        for line in _lines(environments, records):
            file.write(compress.compress(line) if compress else line)
        file.write(compress.flush() if compress else b"")


def _lines(environments: Mapping[str, Environment], records: Iterable[Record]) -> Iterator[bytes]:
    encoder = msgspec.json.Encoder(order="sorted")
    yield encode_line({"log": VERSION})
    for key, environment in environments.items():
        yield encoder.encode(Line(key=key, environment=environment)) + b"\n"
    for record in records:
        yield encoder.encode(Line(record=record)) + b"\n"


# --- parts of a record as columns ------------------------------------------------------------


T = TypeVar("T")


class UnstorableError(UserError):
    """A record that JSON cannot give back as it was: a figure is not finite, or a text is no Unicode."""


def encode(value: object, checked: bool = False) -> str | None:
    """A part as JSON; None stays None. Numbers that are ``checked`` are known to be finite.

    Raises:
        UnstorableError: JSON would not give it back; the message has the place.
    """
    if value is None:
        return None
    if checked:
        return msgspec.json.encode(value).decode()
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


def decode(text: str | None, kind: type[T]) -> T | None:
    """The part that :func:`encode` wrote."""
    return None if text is None else msgspec.json.decode(text, type=kind)


def storable(text: str | None) -> str | None:
    """The text itself.

    Raises:
        UnstorableError: it holds what is no Unicode.
    """
    try:
        return None if text is None else text.encode().decode()
    except UnicodeError as error:
        raise UnstorableError(f"text {text!r} is no Unicode: {error}") from error
