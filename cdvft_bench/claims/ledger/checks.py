"""Small checks of what a TOML table holds. Each raises UserError naming key, value and rule."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.core.errors import UserError


def check_keys(table: Mapping[str, Any], known: Collection[str], what: str) -> None:
    """No key but the known ones."""
    for key in table:
        if key not in known:
            raise UserError(f"{what} has no key {key!r}; it has {', '.join(sorted(known))}")


def text_at(table: Mapping[str, Any], key: str, what: str) -> str:
    """A text that must be there."""
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{what} needs {key!r}, a text" if value is None else f"{key} = {value!r} must be a text")
    return value


def table_at(entry: Mapping[str, Any], key: str, hint: str) -> Mapping[str, Any]:
    """A table that must be there; ``hint`` says what it looks like."""
    value = entry.get(key)
    if not isinstance(value, dict):
        what = f"{key!r} is missing" if value is None else f"{key} = {value!r} must be a table"
        raise UserError(f"{what}: {hint}")
    return value


def identifier(entry: Mapping[str, Any]) -> str:
    """The entry's id."""
    text = text_at(entry, "id", "a claim")
    if not all(c.isalnum() or c in "-_." for c in text) or not text.isascii():
        raise UserError(f"id {text!r} must be of letters, digits, '-', '_' and '.'")
    return text


def finite(value: Any, name: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{name} = {value!r} must be a finite number")
    return float(value)


def as_value(value: Any, name: str) -> Value:
    """A value that an axis or an option may have."""
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return tuple(value)
    if value == [] and name.endswith(".targets"):
        return ()
    if isinstance(value, bool | str) or (isinstance(value, int | float) and math.isfinite(value)):
        return value
    raise UserError(f"{name} = {value!r} must be a finite number, a text, true, false, or a list of texts")
