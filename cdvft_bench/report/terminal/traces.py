"""A trace's analysis on the terminal. Names come from files: none of them is taken for markup."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from cdvft_bench.analysis.trace_tables import Shown, comparison_tables, facts, tables
from cdvft_bench.core.text import clean, plural
from cdvft_bench.core.timed import TraceSummary
from cdvft_bench.report.terminal.console import note, open_console, table
from cdvft_bench.timing.traces.analysis import Comparison
from cdvft_bench.timing.traces.summary.result import Detail


def show_trace(summary: TraceSummary, detail: Detail, top: int) -> None:
    """Print what a trace says; ``top`` rows of kernels, operators and the like."""
    _print(open_console(), [facts(summary, detail), *tables(summary, detail, top)], summary.notes)


def show_comparison(found: Comparison, names: tuple[str, str], top: int) -> None:
    """Print what changed from the second of two traces to the first."""
    _print(open_console(), comparison_tables(found, names, top), found.notes)


def _print(console: Console, shown: Iterable[Shown], notes: Iterable[str]) -> None:
    for one in shown:
        made = table(one.title, one.columns, one.numeric_from)
        for row in one.rows:
            made.add_row(*row)
        console.print(made)
        if one.caption:
            console.print(clean(one.caption), highlight=False, markup=False)
        if one.left_out:
            more = plural(one.left_out, "more row", "more rows")
            console.print(f"{more}: --top shows more, --json all", highlight=False, markup=False)
    for said in notes:
        note(console, "note", said)
