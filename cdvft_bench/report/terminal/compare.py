"""A comparison of two stores as a table: printed, and as CSV."""

from __future__ import annotations

from pathlib import Path

from cdvft_bench.analysis.compare import Comparison, cells_of, columns_of, comparison_frame, counts_of, shown_of
from cdvft_bench.core.io.files import write_file
from cdvft_bench.core.text import clean, markdown


def write_csv(comparison: Comparison, path: Path) -> None:
    """Write the table as CSV, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    from cdvft_bench.report.write import csv

    write_file(path, csv(comparison_frame(comparison)))


def comparison_markdown(comparison: Comparison, everything: bool = False) -> str:
    """The same as Markdown, for a pull request: the counts first, the table folded where nothing is slower."""
    lines = [f"**{markdown(counts_of(comparison))}**", ""]
    lines += [f"- warning: {markdown(text)}" for text in comparison.warnings]
    lines += [f"- note: {markdown(text)}" for text in comparison.notes]
    lines += ["", f"A: {markdown(comparison.a)}; B: {markdown(comparison.b)}", ""]
    shown = shown_of(comparison, everything)
    if shown:
        columns = columns_of(comparison)
        folded = not comparison.counts["slower"]
        lines += ["<details><summary>cases</summary>", ""] if folded else []
        lines += [f"| {' | '.join(columns)} |", "|" + "|".join("---:" if i in _RIGHT else "---" for i in _EACH) + "|"]
        lines += [f"| {' | '.join(map(markdown, cells_of(row, comparison)))} |" for row in shown]
        lines += ["", "</details>", ""] if folded else [""]
    return "\n".join(lines)


_RIGHT = (3, 4, 5)
_EACH = range(7)


def show_comparison(comparison: Comparison, everything: bool = False) -> None:
    """Print warnings, the rows that differ (or all of them) and the counts."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console = console if console.is_terminal else Console(width=160)

    def say(text: str) -> None:
        console.print(clean(text), highlight=False, markup=False)

    say(f"A: {comparison.a}")
    say(f"B: {comparison.b}")
    for warning in comparison.warnings:
        say(f"warning: {warning}")
    for note in comparison.notes:
        say(f"note: {note}")
    shown = shown_of(comparison, everything)
    if shown:
        table = Table(header_style="bold")
        for i, column in enumerate(columns_of(comparison)):
            table.add_column(column, justify="right" if i in _RIGHT else "left", overflow="fold")
        for row in shown:
            table.add_row(*cells_of(row, comparison))
        console.print(table)
    say(counts_of(comparison))
