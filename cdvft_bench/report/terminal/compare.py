"""A comparison of two stores as a table: printed, and as CSV."""

from pathlib import Path

from cdvft_bench.analysis.compare import Comparison, cells_of, columns_of, comparison_frame, counts_of, shown_of
from cdvft_bench.core.io.files import write_file
from cdvft_bench.core.text import markdown
from cdvft_bench.report.terminal.console import notes, say, show_table


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
        lines += [
            f"| {' | '.join(columns)} |",
            "|" + "|".join("---:" if i in _RIGHT else "---" for i in range(7)) + "|",
        ]
        lines += [f"| {' | '.join(map(markdown, cells_of(row, comparison)))} |" for row in shown]
        lines += ["", "</details>", ""] if folded else [""]
    return "\n".join(lines)


_RIGHT = (3, 4, 5)
_LEFT = (6,)


def show_comparison(comparison: Comparison, everything: bool = False) -> None:
    """Print warnings, the rows that differ (or all of them) and the counts."""
    say(f"A: {comparison.a}")
    say(f"B: {comparison.b}")
    notes("warning", comparison.warnings)
    notes("note", comparison.notes)
    shown = shown_of(comparison, everything)
    if shown:
        rows = (cells_of(row, comparison) for row in shown)
        show_table("", columns_of(comparison), rows, numeric_from=min(_RIGHT), text=_LEFT)
    say(counts_of(comparison))
