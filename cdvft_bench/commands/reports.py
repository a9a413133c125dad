"""Pages and comparisons of recorded runs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from cdvft_bench.commands.shared import emit
from cdvft_bench.commands.sweeps import write_report


@click.command()
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("report"), show_default=True,
    help="Folder of the page, the figures and the tables.",
)  # fmt: skip
@click.option(
    "--expressivity", type=click.Path(path_type=Path, file_okay=False),
    help="Folder of an expressivity profile, whose findings the page shows.",
)  # fmt: skip
@click.option(
    "--accuracy", type=click.Path(path_type=Path, dir_okay=False), multiple=True,
    help="Results of 'train' to show beside the records; repeatable.",
)  # fmt: skip
def report(stores: tuple[Path, ...], output: Path, expressivity: Path | None, accuracy: tuple[Path, ...]) -> None:
    """Write tables, figures and the page from STORES: records (.sqlite or .jsonl.gz), of any machine.

    Traces in a folder 'traces' beside a store are shown as timelines.
    """
    command = ["cdvft-bench report", *map(str, stores)]
    command += [f"--expressivity {expressivity}"] if expressivity else []
    command += [f"--accuracy {path}" for path in accuracy]
    write_report(stores, output, " ".join([*command, f"--output {output}"]), expressivity, accuracy)


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--tolerance", default=0.05, show_default=True, help="Relative difference that does not count.")
@click.option(
    "--basis", type=click.Choice(["time", "frozen"]), default="time", show_default=True,
    help="Compare times, or ratios to the frozen subject, which cancels the machine's speed.",
)  # fmt: skip
@click.option("--csv", "csv_path", type=click.Path(path_type=Path, dir_okay=False), help="Write all rows here, too.")
@click.option("--page", type=click.Path(path_type=Path, dir_okay=False), help="Write a page of both campaigns (.html).")
@click.option("--all", "everything", is_flag=True, help="Print the rows without a difference, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(
    a: Path,
    b: Path,
    tolerance: float,
    basis: Literal["time", "frozen"],
    csv_path: Path | None,
    page: Path | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Compare the times of two stores, A before and B after, case by case.

    Exits with 1 when a case became slower by more than the tolerance, with its whole 95 % interval.
    """  # fmt: skip
    from cdvft_bench.analysis.compare import compare_stores
    from cdvft_bench.report.terminal.compare import show_comparison, write_csv

    comparison = compare_stores(a, b, tolerance=tolerance, basis=basis)
    if csv_path is not None:
        write_csv(comparison, csv_path)
    if page is not None:
        from cdvft_bench.report.page.compare import write_page

        write_page(comparison, page, f"cdvft-bench compare {a} {b} --page {page}")
    emit(comparison, as_json, lambda: show_comparison(comparison, everything))
    if comparison.exit_code:
        raise SystemExit(comparison.exit_code)
