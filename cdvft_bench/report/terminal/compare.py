"""A comparison of two stores as a table: printed, and as CSV."""

from __future__ import annotations

from pathlib import Path

from cdvft_bench.analysis.compare import Comparison, Row, comparison_frame
from cdvft_bench.core.io.files import write_file
from cdvft_bench.core.text import NOT_MEASURED, clean, interval, markdown, plural, significant


def write_csv(comparison: Comparison, path: Path) -> None:
    """Write the table as CSV, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    from cdvft_bench.report.write import csv

    write_file(path, csv(comparison_frame(comparison)))


def comparison_markdown(comparison: Comparison, everything: bool = False) -> str:
    """The same as Markdown, for a pull request: the counts first, the table folded where nothing is slower."""
    lines = [f"**{markdown(_counts(comparison))}**", ""]
    lines += [f"- warning: {markdown(text)}" for text in comparison.warnings]
    lines += [f"- note: {markdown(text)}" for text in comparison.notes]
    lines += ["", f"A: {markdown(comparison.a)}; B: {markdown(comparison.b)}", ""]
    shown = _shown(comparison, everything)
    if shown:
        columns = _columns(comparison)
        folded = not comparison.counts["slower"]
        lines += ["<details><summary>cases</summary>", ""] if folded else []
        lines += [f"| {' | '.join(columns)} |", "|" + "|".join("---:" if i in _RIGHT else "---" for i in _EACH) + "|"]
        lines += [f"| {' | '.join(map(markdown, _cells(row, comparison)))} |" for row in shown]
        lines += ["", "</details>", ""] if folded else [""]
    return "\n".join(lines)


_RIGHT = (3, 4, 5)
_EACH = range(7)


def _columns(comparison: Comparison) -> tuple[str, ...]:
    unit = "ms" if comparison.basis == "time" else "× frozen"
    return ("verdict", "method", "case", f"A, {unit}", f"B, {unit}", "B / A, 95 %", "note")


def _shown(comparison: Comparison, everything: bool) -> list[Row]:
    return [row for row in comparison.rows if everything or row.verdict != "no difference"]


def _cells(row: Row, comparison: Comparison) -> tuple[str, ...]:
    scale = 1e3 if comparison.basis == "time" else 1.0
    case, ratio = row.case, row.ratio
    where = f"{case.subject}, {case.batch} × {case.sequence}, {case.dtype}, {case.device}, {case.pass_}"
    figures = [NOT_MEASURED if v is None else significant(v * scale) for v in (row.a, row.b)]
    said = interval(ratio.value, ratio.low, ratio.high) if ratio else NOT_MEASURED
    return row.verdict, clean(row.label), clean(where), *figures, said, clean(row.note)


def _counts(comparison: Comparison) -> str:
    counts = ", ".join(f"{n} {verdict}" for verdict, n in comparison.counts.items() if n)
    return f"{plural(len(comparison.rows), 'case')}: {counts} (beyond {comparison.tolerance:.0%})"


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
    shown = _shown(comparison, everything)
    if shown:
        table = Table(header_style="bold")
        for i, column in enumerate(_columns(comparison)):
            table.add_column(column, justify="right" if i in _RIGHT else "left", overflow="fold")
        for row in shown:
            table.add_row(*_cells(row, comparison))
        console.print(table)
    say(_counts(comparison))
