"""A trace's analysis on the terminal. Names come from files: none of them is taken for markup."""

from collections.abc import Iterable

from cdvft_bench.analysis.trace_tables import Shown, comparison_tables, facts, tables
from cdvft_bench.core.text import plural
from cdvft_bench.core.timed import TraceSummary
from cdvft_bench.report.terminal.console import notes, say, show_table
from cdvft_bench.timing.traces.analysis import Comparison
from cdvft_bench.timing.traces.summary.result import Detail


def show_trace(summary: TraceSummary, detail: Detail, top: int) -> None:
    """Print what a trace says; ``top`` rows of kernels, operators and the like."""
    _print([facts(summary, detail), *tables(summary, detail, top)], summary.notes)


def show_comparison(found: Comparison, names: tuple[str, str], top: int) -> None:
    """Print what changed from the second of two traces to the first."""
    _print(comparison_tables(found, names, top), found.notes)


def _print(shown: Iterable[Shown], said: Iterable[str]) -> None:
    for one in shown:
        show_table(one.title, one.columns, one.rows, one.numeric_from)
        if one.caption:
            say(one.caption)
        if one.left_out:
            say(f"{plural(one.left_out, 'more row', 'more rows')}: --top shows more, --json all")
    notes("note", said)
