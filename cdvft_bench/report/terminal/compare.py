"""A comparison of two stores as a table: printed, as a data frame, as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cdvft_bench.analysis.compare import Comparison
from cdvft_bench.core.files import write_file
from cdvft_bench.core.text import NOT_MEASURED, clean, interval, plural, significant

if TYPE_CHECKING:
    from pandas import DataFrame


def comparison_table(comparison: Comparison) -> DataFrame:
    """Every row as a line of a table; figures in full, "not measured" where there is none."""
    from pandas import DataFrame

    def figure(value: float | None) -> object:
        return NOT_MEASURED if value is None else value

    unit = "seconds" if comparison.basis == "time" else "ratio to frozen"
    lines = []
    for row in comparison.rows:
        case, ratio = row.case, row.ratio
        lines.append(
            {
                "verdict": row.verdict, "method": clean(row.label), "kind": case.kind, "subject": clean(case.subject),
                "pass": case.pass_, "batch": case.batch, "sequence": case.sequence, "dtype": case.dtype,
                "device": case.device, "seed": case.seed, f"A {unit}": figure(row.a), f"B {unit}": figure(row.b),
                "B / A": figure(ratio.value if ratio else None), "low": figure(ratio.low if ratio else None),
                "high": figure(ratio.high if ratio else None), "note": clean(row.note), "key": row.key,
            }
        )  # fmt: skip
    return DataFrame(lines)


def write_csv(comparison: Comparison, path: Path) -> None:
    """Write the table as CSV; the file appears when it is complete.

    Raises:
        UserError: it cannot be written.
    """
    from cdvft_bench.report.page.report import csv

    write_file(path, csv(comparison_table(comparison)))


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
