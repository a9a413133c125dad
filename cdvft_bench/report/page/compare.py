"""Two campaigns on one page: what became slower or faster, what differs between them, every case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cdvft_bench.analysis.compare import Comparison
from cdvft_bench.core.files import write_file
from cdvft_bench.core.text import clean
from cdvft_bench.report.figures.style import Styles
from cdvft_bench.report.page.dataset import Column, embed
from cdvft_bench.report.page.render import render_html
from cdvft_bench.report.page.views import TableView, view
from cdvft_bench.report.terminal.compare import comparison_table


@dataclass(frozen=True)
class ComparePage:
    """All that the template prints.

    Attributes:
        title, a, b: names. basis: what is compared, and the tolerance. counts: rows by verdict.
        warnings, notes: what differs between the environments. differing: the rows that a verdict is about.
        command, version: what made the page.
    """

    title: str
    a: str
    b: str
    basis: str
    counts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    differing: TableView
    command: str
    version: str


def comparison_columns(comparison: Comparison) -> list[Column]:
    """One row a case; times in milliseconds."""
    rows = comparison.rows
    scale, unit = (1e3, "ms") if comparison.basis == "time" else (1.0, "× frozen")
    what = "time of a call" if comparison.basis == "time" else "time ÷ frozen"
    ratios = [row.ratio for row in rows]
    return [
        Column("setting", "setting", "", "text", [row.label for row in rows]),
        Column("verdict", "verdict", "", "text", [row.verdict for row in rows]),
        Column("ratio", "B ÷ A", "×", "ratio", [r.value if r else None for r in ratios]),
        Column("ratio_low", "B ÷ A, low", "×", "ratio", [r.low if r else None for r in ratios], False),
        Column("ratio_high", "B ÷ A, high", "×", "ratio", [r.high if r else None for r in ratios], False),
        Column("a", f"A, {what}", unit, "number", [None if row.a is None else scale * row.a for row in rows]),
        Column("b", f"B, {what}", unit, "number", [None if row.b is None else scale * row.b for row in rows]),
        Column("method", "method", "", "text", [row.case.method for row in rows], False),
        Column("subject", "layer or model", "", "text", [row.case.subject for row in rows]),
        Column("workload", "workload", "", "text",
               [f"{row.case.pass_}, {row.case.batch} × {row.case.sequence}" for row in rows]),
        Column("dtype", "dtype", "", "text", [row.case.dtype for row in rows]),
        Column("device", "device", "", "text", [row.case.device for row in rows]),
        Column("note", "note", "", "text", [row.note or "none" for row in rows]),
        Column("key", "row key", "", "text", [row.key for row in rows]),
    ]  # fmt: skip


def compare_page(comparison: Comparison, command: str) -> str:
    """The page as HTML; the same comparison gives the same bytes."""
    from cdvft_bench import __version__

    methods = {row.case.method for row in comparison.rows}
    styles = Styles(methods)
    frame = comparison_table(comparison)
    differing = frame[frame["verdict"].isin(["slower", "faster"])].drop(columns=["key", "seed", "kind"])
    basis = "Times of a call" if comparison.basis == "time" else "Ratios to the frozen subject timed in the same run"
    page = ComparePage(
        title="Two campaigns compared",
        a=clean(Path(comparison.a).name),
        b=clean(Path(comparison.b).name),
        basis=f"{basis}; slower and faster by more than {comparison.tolerance:.0%} with the whole 95 % interval.",
        counts=tuple((verdict, f"{n:,}") for verdict, n in comparison.counts.items() if n),
        warnings=tuple(map(clean, comparison.warnings)),
        notes=tuple(map(clean, comparison.notes)),
        differing=view(differing, "Slower and faster", "comparison", "Slower first.", styles),
        command=clean(command),
        version=__version__,
    )
    blocks = {"data-comparison": embed(comparison_columns(comparison))}
    return render_html("compare.html.j2", page, styles, methods, blocks)


def write_page(comparison: Comparison, path: Path, command: str) -> None:
    """Write the page; the file appears when it is complete.

    Raises:
        UserError: it cannot be written.
    """
    write_file(path, compare_page(comparison, command))
