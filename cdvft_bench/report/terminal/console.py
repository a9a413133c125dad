"""Where the commands print, and tables in which no text from a file can be taken for markup."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cdvft_bench.core.text import clean, integer, significant


class PlainTable(Table):
    """A table whose strings are printed as they are; a ``Text`` keeps its style."""

    def add_row(self, *cells: object, **options: object) -> None:
        """Add a row of strings and ``Text``."""
        super().add_row(*(c if isinstance(c, Text) else Text(clean(c)) for c in cells), **options)  # type: ignore[arg-type]


def table(title: str, columns: Iterable[str], numeric_from: int = 1, text: Sequence[int] = ()) -> PlainTable:
    """An empty table; columns from ``numeric_from`` on are ranged right, but for those of ``text``."""
    made = PlainTable(title=Text(clean(title)), title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        made.add_column(
            Text(clean(column)), justify="right" if i >= numeric_from and i not in text else "left", overflow="fold"
        )
    return made


def show_table(
    title: str,
    columns: Iterable[str],
    rows: Iterable[Iterable[object]],
    numeric_from: int = 1,
    text: Sequence[int] = (),
) -> None:
    """Print a table of such rows, see :func:`table`."""
    made = table(title, columns, numeric_from, text)
    for row in rows:
        made.add_row(*row)
    open_console().print(made)


def open_console() -> Console:
    """Where the commands print: as wide as the terminal, or 160 columns into a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def say(text: object, console: Console | None = None) -> None:
    """Print a line, in which nothing is taken for markup."""
    (console or open_console()).print(clean(text), highlight=False, markup=False)


def notes(kind: str, said: Iterable[object]) -> None:
    """Print notes of one kind, warnings or the like, each on a line of its own."""
    for text in said:
        say(f"{kind}: {clean(text)}")


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
