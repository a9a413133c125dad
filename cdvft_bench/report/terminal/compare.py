"""A comparison of two stores as a table: printed, and as CSV."""

from __future__ import annotations

from pathlib import Path

from cdvft_bench.analysis.compare import Comparison, comparison_frame
from cdvft_bench.core.io.files import write_file
from cdvft_bench.core.text import NOT_MEASURED, clean, interval, plural, significant


def write_csv(comparison: Comparison, path: Path) -> None:
    """Write the table as CSV, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    from cdvft_bench.report.write import csv

    write_file(path, csv(comparison_frame(comparison)))


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
    shown = [row for row in comparison.rows if everything or row.verdict != "no difference"]
    if shown:
        table = Table(header_style="bold")
        unit = "ms" if comparison.basis == "time" else "× frozen"
        for i, column in enumerate(("verdict", "method", "case", f"A, {unit}", f"B, {unit}", "B / A, 95 %", "note")):
            table.add_column(column, justify="right" if i in (3, 4, 5) else "left", overflow="fold")
        scale = 1e3 if comparison.basis == "time" else 1.0
        for row in shown:
            case, ratio = row.case, row.ratio
            where = f"{case.subject}, {case.batch} × {case.sequence}, {case.dtype}, {case.device}, {case.pass_}"
            figures = [NOT_MEASURED if v is None else significant(v * scale) for v in (row.a, row.b)]
            said = interval(ratio.value, ratio.low, ratio.high) if ratio else NOT_MEASURED
            table.add_row(row.verdict, clean(row.label), clean(where), *figures, said, clean(row.note))
        console.print(table)
    counts = ", ".join(f"{n} {verdict}" for verdict, n in comparison.counts.items() if n)
    say(f"{plural(len(comparison.rows), 'case')}: {counts} (beyond {comparison.tolerance:.0%})")
