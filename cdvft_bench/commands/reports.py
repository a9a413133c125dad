"""Pages and comparisons of recorded runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cdvft_bench.commands.shared import FILE, FOLDER, PATH, Positive, column_option, columns_of, emit
from cdvft_bench.core.errors import UserError

if TYPE_CHECKING:
    from cdvft_bench.analysis.compare import Verdict

FAILURES: dict[str, tuple[Verdict, ...]] = {
    "slower": ("slower",),
    "faster": ("faster",),
    "missing": ("only in A",),
    "not-compared": ("not compared",),
    "nothing": (),
}
"""What a comparison may fail on, by verdict."""


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH)
@click.option("--output", type=FOLDER, default=Path("report"), show_default=True, help="Folder of page and tables.")
@click.option("--verdicts", type=FILE, help="Of 'verify --output'; else verdicts.json in PATHS.")
@click.option("--ledger", help="A TOML file: tell the verdicts on its claims alone, and ask no reviewers' questions.")
@click.option("--no-claims", is_flag=True, help="Leave out claims, reviewers' questions and published runs.")
@click.option("--evaluation", type=FILE, help="Of 'evaluate --output'; else evaluation.json in PATHS.")
@click.option("--expressivity", type=FOLDER, help="Folder of an expressivity profile; else one in PATHS.")
@click.option("--accuracy", type=FILE, multiple=True, help="Results of 'train', as if among PATHS; repeatable.")
@click.option("--figures", "formats", default="", help="Also draw pictures: png, svg, pdf, separated by commas.")
@column_option
@click.option("--title", default="cdvft-bench report", show_default=True, help="Of the page.")
def report(
    paths: tuple[Path, ...],
    output: Path,
    verdicts: Path | None,
    ledger: str | None,
    no_claims: bool,
    evaluation: Path | None,
    expressivity: Path | None,
    accuracy: tuple[Path, ...],
    formats: str,
    columns: tuple[str, ...],
    title: str,
) -> None:
    """Write one page, with its tables, of PATHS: stores, results of 'train', or folders of them; of any machine.

    Runs made elsewhere are read too: a table (.csv, .tsv), or a folder of the results of PEFT's method_comparison.

    Files are read, nothing is run. In a folder, records (.sqlite, .jsonl.gz), results.jsonl, steps.json,
    verdicts.json, evaluation.json and findings.jsonl are found by their names.
    """
    if ledger is not None and no_claims:
        raise UserError("--ledger tells claims and --no-claims leaves them out; give one of them")
    command = ["cdvft-bench report", *map(str, paths)]
    given = {"ledger": ledger, "verdicts": verdicts, "evaluation": evaluation, "expressivity": expressivity}
    command += [f"--{name} {value}" for name, value in given.items() if value]
    command += [f"--accuracy {path}" for path in accuracy]
    command += ["--no-claims"] if no_claims else []
    command += [f"--figures {formats}"] if formats else []
    command += [f"--column {one}" for one in columns]
    write(
        (*paths, *accuracy),
        output,
        " ".join([*command, f"--output {output}"]),
        claims=not no_claims,
        formats=tuple(filter(None, formats.split(","))),
        columns=columns_of(columns),
        title=title,
        **given,
    )


def write(
    paths: tuple[Path, ...],
    output: Path,
    command: str,
    *,
    title: str,
    claims: bool = True,
    formats: tuple[str, ...] = (),
    **files: Any,
) -> None:
    """Write a report and say where it is; ``files``: others than those found in ``paths``, see ``inputs.read``.

    Raises:
        UserError: a file cannot be read, or the folder holds something else.
    """
    from cdvft_bench.analysis.inputs import read
    from cdvft_bench.report.write import write_report

    if formats:  # a slip is told before all files are read
        from cdvft_bench.report.figures.style import check_formats

        check_formats(formats)
    campaign = read(*paths, claims=claims, **files)
    done = write_report(campaign, output, command=command, title=title, claims=claims, formats=formats)
    click.echo(f"Report: {done.html}")


@click.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option(
    "--tolerance",
    type=Positive(zero=True),
    default=0.05,
    show_default=True,
    help="Relative difference that does not count.",
)
@click.option(
    "--basis",
    type=click.Choice(["time", "frozen"]),
    default="time",
    show_default=True,
    help="Compare times, or ratios to the frozen subject, which cancels the machine's speed.",
)
@click.option("--csv", "csv_path", type=FILE, help="Write all rows here, too.")
@click.option("--page", type=FILE, help="Write a page of both campaigns (.html).")
@click.option("--all", "everything", is_flag=True, help="Print the rows without a difference, too.")
@click.option(
    "--fail-on",
    multiple=True,
    type=click.Choice(FAILURES),
    default=("slower",),
    show_default=True,
    help="What exits with 1; repeatable.",
)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, for a pull request.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(
    a: Path,
    b: Path,
    tolerance: float,
    basis: Literal["time", "frozen"],
    csv_path: Path | None,
    page: Path | None,
    everything: bool,
    fail_on: tuple[str, ...],
    as_markdown: bool,
    as_json: bool,
) -> None:
    """Compare the times of two stores, A before and B after, case by case.

    Exits with 1 when a case became slower by more than the tolerance, with its whole 95 % interval, or is what
    --fail-on names; with 2 when there is no case that both timed well enough to compare.
    """
    from cdvft_bench.analysis.compare import compare_stores
    from cdvft_bench.report.terminal.compare import comparison_markdown, show_comparison, write_csv

    comparison = compare_stores(a, b, tolerance=tolerance, basis=basis)
    if csv_path is not None:
        write_csv(comparison, csv_path)
    if page is not None:
        from cdvft_bench.report.page.compare import write_page

        write_page(comparison, page, f"cdvft-bench compare {a} {b} --page {page}")
    if as_markdown:
        click.echo(comparison_markdown(comparison, everything))
    else:
        emit(comparison, as_json, lambda: show_comparison(comparison, everything))
    if not comparison.compared:
        click.echo("Error: nothing could be compared; the notes of the rows say why", err=True)
    code = comparison.exit_code([verdict for name in fail_on for verdict in FAILURES[name]])
    if code:
        raise SystemExit(code)
