"""Results that are kept as one JSON document."""

import json
from pathlib import Path
from typing import TypeVar

import msgspec

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import shown, write_file
from cdvft_bench.core.io.reading import read_json
from cdvft_bench.core.ties import steady

T = TypeVar("T")


def write_document(value: object, path: Path, digits: int | None = None) -> None:
    """Write a dataclass as JSON, whole or not at all.

    Args:
        digits: significant ones that floats keep; all if not given.

    Raises:
        UserError: the file cannot be written.
    """
    made = msgspec.json.encode(value)
    if digits is not None:
        made = msgspec.json.encode(json.loads(made, parse_float=lambda text: steady(float(text), digits)))
    write_file(path, msgspec.json.format(made, indent=1) + b"\n")


def read_document(path: Path, kind: type[T], what: str, command: str) -> T:
    """Read what ``command`` wrote with :func:`write_document`.

    Raises:
        UserError: the file cannot be read, or holds no ``what``.
    """
    document = read_json(path, what, f"give what '{command}' wrote")
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{shown(path)} holds no {what} that '{command}' wrote: {error}") from error
