"""Traces of torch.profiler, anybody's."""

from __future__ import annotations

from pathlib import Path

import click

from cdvft_bench.commands.shared import emit


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def trace(file: Path, as_json: bool) -> None:
    """Analyse any Chrome trace of torch.profiler (.json or .json.gz): launches, families, gaps, what binds it."""
    from cdvft_bench.report.terminal.cases import show_trace
    from cdvft_bench.timing.trace import read_trace

    summary = read_trace(file)
    emit(summary, as_json, lambda: show_trace(summary))
