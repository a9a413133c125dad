"""Claims, judged."""

import os
import sys
from pathlib import Path

import click

from cdvft_bench.commands.shared import FILE, PATH, SCHEMA, column_option, columns_of
from cdvft_bench.core.io.files import write_file

WORKERS = min(4, len(os.sched_getaffinity(0))) if sys.platform == "linux" else 1
"""Processes that judge: each loads the libraries, so that more gain little."""


@click.command()
@click.option("--ledger", type=FILE, help="A TOML file of claims; the suite's own if none.")
@click.option("--only", multiple=True, metavar="ID", help="Judge these claims only; ID may be a pattern: 'flops-*'.")
@click.option("--refit", is_flag=True, help="Fit anew what is otherwise read from the recorded profile: minutes.")
@click.option(
    "--records",
    type=PATH,
    multiple=True,
    help="Stores for the clock; for accuracy results of 'train' (.jsonl), a table of runs (.csv) or a folder of PEFT's "
    "results (.json); repeatable.",
)
@column_option
@click.option("--output", type=FILE, help="Also keep the verdicts, as JSON, for 'report'.")
@click.option("--junit", type=FILE, help="Also write JUnit XML.")
@click.option("--workers", type=click.IntRange(1, 64), default=WORKERS, help="Processes; one a core, up to 4, if none.")
@click.option("--failed", is_flag=True, help="Show only verdicts that the ledger does not expect.")
@click.option("--quiet", is_flag=True, help="Print the summary alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", type=click.Choice(["table", "short"]), help="Print a Markdown table, whole or short.")
def verify(
    ledger: Path | None,
    only: tuple[str, ...],
    refit: bool,
    records: tuple[Path, ...],
    columns: tuple[str, ...],
    output: Path | None,
    junit: Path | None,
    workers: int,
    failed: bool,
    quiet: bool,
    as_json: bool,
    markdown: str | None,
) -> None:
    """Judge a ledger's claims. Exits with 1 when a verdict is not the one that the ledger expects."""
    from cdvft_bench.claims import verify as judge
    from cdvft_bench.claims.table import short_table, show_verification, summary, to_junit, verdict_table
    from cdvft_bench.claims.verdict import to_json, write_verdicts

    verification = judge(ledger, records, only, refit, columns_of(columns), workers)
    if output is not None:
        write_verdicts(output, verification)
    if junit is not None:
        write_file(junit, to_junit(verification))
    if as_json:
        click.echo(to_json(verification, schema=SCHEMA), nl=False)
    elif markdown is not None:
        click.echo(short_table(verification) if markdown == "short" else verdict_table(verification), nl=False)
        click.echo(summary(verification), err=True)
    elif quiet:
        click.echo(summary(verification))
    else:
        show_verification(verification, failed=failed)
    if not verification.as_pinned:
        raise SystemExit(1)
