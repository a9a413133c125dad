"""Parts of a record as the columns of a store: JSON that gives back what it got, or a refusal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from cdvft_bench.core.errors import UserError

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
