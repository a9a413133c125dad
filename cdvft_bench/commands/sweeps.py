"""Many cases: the main job, sweeps, and records that come and go."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import click

from cdvft_bench.commands.shared import DEVICE, FILE, FOLDER, LEFT, PATH, Positive, seconds
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import is_file, is_folder, shown


def run_sweep(
    grid: str,
    store_path: Path,
    retry_failed: bool,
    budget: str | None = None,
    device: str | None = None,
    engine: str = "local",
    address: str | None = None,
    precision: float | None = None,
    count: bool = True,
    first: Callable[[], None] = lambda: None,
) -> int:
    """Run a grid into a store; 0 when no case of it is recorded as failed, 3 when cases are left, else 1."""
    from cdvft_bench.sweep.run import run_grid

    outcome = run_grid(
        grid,
        store_path,
        retry_failed=retry_failed,
        budget_s=seconds(budget),
        device=device,
        engine=engine,
        address=address,
        precision=precision,
        count=count,
        first=first,
    )
    if outcome.left:
        click.echo(f"{outcome.left} cases left; the same command goes on with them", err=True)
        return LEFT
    return int(outcome.failed > 0)


GRID_HELP = (
    "A preset's name (quick, wide, smoke, cpu-layers, paths, gpu-first, paper-layers, paper-models) or a TOML file."
)


@click.command()
@click.option("--preset", "grid", default="quick", show_default=True, help=GRID_HELP)
@click.option(
    "--output",
    type=FOLDER,
    default=Path("cdvft-bench-run"),
    show_default=True,
    help="Folder of the store and the report; an interrupted run goes on where it stopped.",
)
@click.option("--retry-failed", is_flag=True, help="Run failed cases again.")
@click.option("--budget", metavar="TIME", help="Time to spend, as 10m: what is left of it buys precision.")
@click.option("--precision", type=float, help="Half-width of a ratio's interval to reach, instead of the grid's own.")
@click.option("--device", type=DEVICE, help="Run every case here instead of where the grid says.")
def run(
    grid: str, output: Path, retry_failed: bool, budget: str | None, precision: float | None, device: str | None
) -> None:
    """Do it all: time a grid's settings side by side, count them, keep the records, print a table, write the report.

    All settings of one layer or model are timed in one process, in the same rounds, and again in two more; a first
    table comes after the first. Exits with 1 when a case is recorded as failed, with 3 when the budget left cases over.
    """
    from cdvft_bench.commands.reports import write
    from cdvft_bench.report.terminal.overview import show_store

    store = output / "records.sqlite"

    def first() -> None:
        click.echo("First table, of one process; two more follow, of which the final intervals come.")
        show_store(store)

    code = run_sweep(grid, store, retry_failed, budget, device, "grouped", precision=precision, first=first)
    show_store(store)
    page = output / "report"
    write((output,), page, f"cdvft-bench report {output} --output {page}", title="cdvft-bench run")
    if code:
        raise SystemExit(code)


@click.command()
@click.argument("grid")
@click.option("--store", type=FILE, required=True, help="SQLite file of records; it is made, or gone on with.")
@click.option("--retry-failed", is_flag=True, help="Run failed cases again.")
@click.option("--budget", metavar="TIME", help="Stop before this much time is spent, as 540s or 9m; go on later.")
@click.option(
    "--precision", type=Positive(), help="Half-width of a ratio's interval to reach, instead of the grid's own."
)
@click.option("--device", type=DEVICE, help="Run every case here (cpu or cuda) instead of where the grid says.")
@click.option(
    "--engine",
    type=click.Choice(["local", "grouped", "ray", "formula"]),
    default="local",
    show_default=True,
    help="Here, one case after the other, or those of a workload side by side (grouped); on a Ray cluster, one a slot; "
    "or closed forms alone (a store of their own).",
)
@click.option("--address", help="Of a running Ray cluster; one is started here if not given.")
@click.option("--no-count", is_flag=True, help="Time the cases and do not count them.")
def sweep(
    grid: str,
    store: Path,
    retry_failed: bool,
    budget: str | None,
    precision: float | None,
    device: str | None,
    engine: str,
    address: str | None,
    no_count: bool,
) -> None:
    """Run GRID (a preset's name or a TOML file) into a store. Finished cases are not run again.

    Traces of blocks with "keep_trace" go into the folder "traces" beside the store.

    Exits with 1 when a case is recorded as failed, with 3 when the budget left cases over: run it again.
    """
    code = run_sweep(grid, store, retry_failed, budget, device, engine, address, precision, not no_count)
    if code:
        raise SystemExit(code)


@click.command("import")
@click.argument("rows", nargs=-1, required=True, type=PATH)
@click.option("--store", type=FILE, required=True, help="SQLite file of records; it is made, or added to.")
def import_rows(rows: tuple[Path, ...], store: Path) -> None:
    """Take over ROWS: stores of other machines (.sqlite, .jsonl.gz), tables of 'export' (.csv, .parquet), or .jsonl,
    what 'python -m cdvft_bench.timing' wrote on a bare node: these rows get their closed forms here.

    Every row keeps its environment, and a case that several machines timed has a row of each.
    """
    from cdvft_bench.sweep.storage.imports import check_rows, put_rows
    from cdvft_bench.sweep.storage.store import Store

    for path in rows:  # before anything is written
        check_rows(path)
    fresh = not (is_file(store) or is_folder(store))
    try:
        with Store(store, create=True) as opened:
            for path in rows:
                click.echo(f"{put_rows(opened, path)} records: {path}")
    except UserError:
        if fresh:  # what holds nothing that was asked for is not left behind
            for suffix in ("", "-wal", "-shm", "-journal"):
                with contextlib.suppress(OSError):  # nothing is there
                    store.with_name(store.name + suffix).unlink()
        raise


@click.command()
@click.argument("store", type=PATH)
@click.argument("output", type=FILE)
def export(store: Path, output: Path) -> None:
    """Write STORE's records and environments to OUTPUT as text (.jsonl or .jsonl.gz), for keeping in a repository.

    The same records give the same bytes; every command that reads a store reads this form too. As .csv or .parquet
    it is a table for other tools, which 'import' reads back.
    """
    from cdvft_bench.sweep.storage.imports import check_fields
    from cdvft_bench.sweep.storage.store import Store
    from cdvft_bench.sweep.storage.tables import SUFFIXES, write_table

    check_fields(store)
    if output.suffix in SUFFIXES:
        with Store(store) as opened:
            click.echo(f"{write_table(opened, output)} records: {output}")
        return

    if not output.name.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"output {shown(output)} must end in .jsonl, .jsonl.gz, .csv or .parquet")
    with Store(store) as opened:
        opened.export_text(output)
        click.echo(f"{len(opened.keys())} records: {output}")
