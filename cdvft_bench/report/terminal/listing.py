"""Lists of names, with what is to know of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cdvft_bench.core.text import integer, significant
from cdvft_bench.report.terminal.console import open_console, table


def show_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows that have the same columns."""
    made = table("", rows[0], numeric_from=len(rows[0]))
    for column, cell in zip(made.columns, rows[0].values(), strict=True):
        column.justify = "right" if isinstance(cell, int | float) else "left"
        column.overflow = "fold"
    for row in rows:
        made.add_row(*map(_cell, row.values()))
    open_console().print(made)


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{k}={v}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, float):
        return significant(value, 3) if value < 1000 else integer(value)
    return "" if value is None else integer(value) if isinstance(value, int) else str(value)
