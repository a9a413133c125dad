"""The command that analyses a trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cdvft_bench.commands.shared import FILE, PATH, emit

if TYPE_CHECKING:
    from cdvft_bench.timing.traces.analysis import Analysis

TOP = 15


@click.command()
@click.argument("file", type=PATH)
@click.option("--against", type=PATH, help="Another trace: say what changed from it to FILE.")
@click.option("--html", type=FILE, help="Also write one HTML page.")
@click.option("--top", type=click.IntRange(1), default=TOP, show_default=True, help="Rows of kernels and of operators.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, all rows.")
def trace(file: Path, against: Path | None, html: Path | None, top: int, as_json: bool) -> None:
    """Analyse any Chrome trace of torch.profiler: launches, families, steps, gaps, queues, what bounds it.

    FILE may be plain, compressed (.gz, .bz2, .xz) or the largest trace of a .zip or .tar.gz, of any version and
    device; what is malformed is mended where it can be, and notes say so.
    """
    from cdvft_bench.timing.traces.analysis import analyse_file

    found = analyse_file(file)
    if against is None:
        _one(found, file.name, html, top, as_json)
    else:
        _two(found, analyse_file(against), (file.name, against.name), html, top, as_json)


def _one(found: Analysis, name: str, html: Path | None, top: int, as_json: bool) -> None:
    if html is not None:
        from cdvft_bench.report.page.traces import write_trace_page

        write_trace_page(html, found.summary, found.detail, name)

    def show() -> None:
        from cdvft_bench.report.terminal.traces import show_trace

        show_trace(found.summary, found.detail, top)

    emit(_values(found) if as_json else None, as_json, show)


def _two(found: Analysis, other: Analysis, names: tuple[str, str], html: Path | None, top: int, as_json: bool) -> None:
    from cdvft_bench.timing.traces.analysis import compare

    comparison = compare(found, other)
    if html is not None:
        from cdvft_bench.report.page.traces import write_comparison_page

        write_comparison_page(html, comparison, names)

    def show() -> None:
        from cdvft_bench.report.terminal.traces import show_comparison

        show_comparison(comparison, names, top)

    emit(comparison, as_json, show)


def _values(found: Analysis) -> dict[str, Any]:
    """The fields of the summary, and the detail beside them."""
    import msgspec

    return {**msgspec.to_builtins(found.summary), "detail": found.detail}
