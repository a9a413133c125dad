"""The command line: parses, calls, prints. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cdvft_bench import __version__
from cdvft_bench.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdvft_bench.core.case import Case, CasePass, SubjectKind, Value


class _Mistake(click.ClickException):
    exit_code = 2


class _Group(click.Group):
    """Prints a user's mistake as one line and exits with 2; anything else is a bug and shows its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise _Mistake(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="cdvft-bench", prog_name="cdvft-bench")
def main() -> None:
    """Benchmark, profile and judge CDVFT beside LoRA, FourierFT, C3A and other fine-tuning methods.

    Three witnesses to every figure: the closed form (predict), what the program does (count),
    and what it takes (time).
    """


# --- claims ------------------------------------------------------------------------------


@main.command()
@click.option(
    "--ledger", type=click.Path(path_type=Path, dir_okay=False), help="A TOML file of claims; the suite's own if none."
)
@click.option(
    "--records",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Stores for the clock; results of 'train' (.jsonl) or a table of runs (.csv) for accuracy; repeatable.",
)
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Also write JUnit XML.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(ledger: Path | None, records: tuple[Path, ...], junit: Path | None, as_json: bool) -> None:
    """Judge a ledger's claims. Exits with 1 when a verdict is not the one that the ledger expects."""
    from cdvft_bench.claims import show_verification, to_json, to_junit
    from cdvft_bench.claims import verify as judge
    from cdvft_bench.claims.export import write_text

    verification = judge(ledger, records)
    if junit is not None:
        write_text(junit, to_junit(verification))
    if as_json:
        click.echo(to_json(verification), nl=False)
    else:
        show_verification(verification)
    if not verification.as_pinned:
        raise SystemExit(1)


# --- one case ------------------------------------------------------------------------------


def _value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _case_options(command: Callable[..., None]) -> Callable[..., None]:
    options = [
        click.argument("method"),
        click.argument("hyperparameters", nargs=-1, metavar="[NAME=VALUE]..."),
        click.option("--layer", "layer", help="d_in x d_out as 768x768, or a model's layer as roberta-base:query."),
        click.option("--model", "model", help="A whole model of the table, e.g. minilm (instead of --layer)."),
        click.option("--batch", default=1, show_default=True, help="Sequences."),
        click.option("--tokens", "sequence", default=128, show_default=True, help="Tokens a sequence."),
        click.option("--dtype", default="float32", show_default=True, help="dtype of weights and activations."),
        click.option(
            "--pass", "pass_", type=click.Choice(["forward", "step"]), default="step", show_default=True,
            help="Forward alone, or forward, backward and AdamW update.",
        ),
        click.option("--device", default="cpu", show_default=True, help="cpu or cuda."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _case(
    method: str,
    hyperparameters: tuple[str, ...],
    layer: str | None,
    model: str | None,
    batch: int,
    sequence: int,
    dtype: str,
    pass_: CasePass,
    device: str,
) -> Case:
    from cdvft_bench.sweep.grid import make_case

    if (layer is None) == (model is None):
        raise UserError("give either --layer (e.g. 768x768 or roberta-base:query) or --model (e.g. minilm)")
    pairs: dict[str, Value] = {}
    for text in hyperparameters:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UserError(f"hyperparameter {text!r} is not NAME=VALUE, as in m=2 or block_size=768")
        pairs[name] = _value(value)
    kind: SubjectKind = "layer" if layer is not None else "model"
    return make_case(method, pairs, kind, layer or model or "", batch, sequence, dtype, pass_, device)


def _emit(value: object, as_json: bool, show: Callable[[], None]) -> None:
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
    else:
        show()


@main.command()
@_case_options
def predict(as_json: bool, **options: Any) -> None:
    """Closed-form cost of METHOD on a layer or model: parameters, FLOPs by convention, launches, bytes."""
    from cdvft_bench.report.terminal.cases import show_predicted
    from cdvft_bench.sweep import evaluate as witness

    case = _case(**options)
    predicted = witness.predict(case)
    _emit(predicted, as_json, lambda: show_predicted(case, predicted))


@main.command()
@_case_options
def count(as_json: bool, **options: Any) -> None:
    """Count what METHOD really does: fvcore, operator dispatch, saved activations, beside the closed form."""
    from cdvft_bench.report.terminal.cases import show_counted
    from cdvft_bench.sweep import evaluate as witness

    case = _case(**options)
    counted = witness.count(case)
    _emit(counted, as_json, lambda: show_counted(case, witness.predict(case), counted))


@main.command()
@_case_options
@click.option("--budget", metavar="TIME", default="10s", show_default=True, help="Of measuring, as 540s or 9m.")
@click.option("--precision", default=0.02, show_default=True, help="Half-width of the ratio's interval to reach.")
def time(as_json: bool, budget: str, precision: float, **options: Any) -> None:
    """Time METHOD, interleaved with the frozen layer and LoRA r=8 in one run."""
    from cdvft_bench.report.terminal.cases import show_timed
    from cdvft_bench.sweep import evaluate as witness

    case = _case(**options)
    timed = witness.time_case(case, budget_s=_seconds(budget) or 10.0, precision=precision)
    _emit(timed, as_json, lambda: show_timed(case, timed))


# --- many cases ----------------------------------------------------------------------------


LEFT = 3
"""Exit code when a budget was spent and cases are left."""


def _seconds(text: str | None) -> float | None:
    """Seconds from "540", "540s", "9m" or "0.5h"."""
    from argparse import ArgumentTypeError

    from cdvft_bench.timing.__main__ import seconds

    try:
        return None if text is None else seconds(text)
    except ArgumentTypeError as error:
        raise UserError(f"--budget: {error}") from error


def _sweep(
    grid: str,
    store_path: Path,
    retry_failed: bool,
    budget: str | None = None,
    device: str | None = None,
    engine: str = "local",
    address: str | None = None,
    precision: float | None = None,
) -> int:
    """Run a grid into a store; 0 when no case of it is recorded as failed, 3 when cases are left, else 1."""
    from cdvft_bench.sweep.run import run_grid

    outcome = run_grid(
        grid, store_path, retry_failed=retry_failed, budget_s=_seconds(budget), device=device, engine=engine,
        address=address, precision=precision,
    )  # fmt: skip
    if outcome.left:
        click.echo(f"{outcome.left} cases left; the same command goes on with them", err=True)
        return LEFT
    return int(outcome.failed > 0)


def _report(
    stores: tuple[Path, ...],
    output: Path,
    command: str,
    expressivity: Path | None = None,
    accuracy: tuple[Path, ...] = (),
) -> None:
    from cdvft_bench.report.page.report import report_stores

    paths = report_stores(stores, output, command=command, expressivity=expressivity, accuracy=accuracy)
    click.echo(f"Report: {paths.html}")


_grid_help = "A preset's name (quick, smoke, cpu-layers, paths, paper-layers, paper-models) or a TOML file."


@main.command()
@click.option("--preset", "grid", default="quick", show_default=True, help=_grid_help)
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("cdvft-bench-run"), show_default=True,
    help="Folder of the store and the report; an interrupted run goes on where it stopped.",
)  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Run failed cases again.")
def run(grid: str, output: Path, retry_failed: bool) -> None:
    """Do it all: run a grid through the three witnesses, keep the records, print a table, write the report."""
    from cdvft_bench.report.terminal.cases import show_store

    store = output / "records.sqlite"
    code = _sweep(grid, store, retry_failed)
    show_store(store)
    _report((store,), output / "report", f"cdvft-bench report {store} --output {output / 'report'}")
    if code:
        raise SystemExit(code)


@main.command()
@click.argument("grid")
@click.option(
    "--store", type=click.Path(path_type=Path, dir_okay=False), required=True,
    help="SQLite file of records; it is made, or gone on with.",
)  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Run failed cases again.")
@click.option("--budget", metavar="TIME", help="Stop before this much time is spent, as 540s or 9m; go on later.")
@click.option("--precision", type=float, help="Half-width of a ratio's interval to reach, instead of the grid's own.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="Run every case here (cpu or cuda) instead of where the grid says.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray", "formula"]),
    default="local",
    show_default=True,
    help="Here, one case after the other; on a Ray cluster, one a slot; or closed forms alone (a store of their own).",
)
@click.option("--address", help="Of a running Ray cluster; one is started here if not given.")
def sweep(
    grid: str,
    store: Path,
    retry_failed: bool,
    budget: str | None,
    precision: float | None,
    device: str | None,
    engine: str,
    address: str | None,
) -> None:
    """Run GRID (a preset's name or a TOML file) into a store. Finished cases are not run again.

    Traces of blocks with "keep_trace" go into the folder "traces" beside the store.

    Exits with 1 when a case is recorded as failed, with 3 when the budget left cases over: run it again.
    """
    code = _sweep(grid, store, retry_failed, budget, device, engine, address, precision)
    if code:
        raise SystemExit(code)


@main.command("import")
@click.argument("rows", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--store", type=click.Path(path_type=Path, dir_okay=False), required=True,
    help="SQLite file of records; it is made, or added to.",
)  # fmt: skip
def import_rows(rows: tuple[Path, ...], store: Path) -> None:
    """Take over ROWS: stores of other machines (.sqlite, .jsonl.gz), tables of 'export' (.csv, .parquet), or .jsonl,
    what 'python -m cdvft_bench.timing' wrote on a bare node: these rows get their closed forms here.

    Every row keeps its environment, and a case that several machines timed has a row of each.
    """  # fmt: skip
    from cdvft_bench.sweep.imports import check_rows, put_rows
    from cdvft_bench.sweep.store import Store

    for path in rows:  # before anything is written
        check_rows(path)
    with Store(store, create=True) as opened:
        for path in rows:
            click.echo(f"{put_rows(opened, path)} records: {path}")


@main.command()
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
    _report(stores, output, " ".join([*command, f"--output {output}"]), expressivity, accuracy)


@main.command()
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
    _emit(comparison, as_json, lambda: show_comparison(comparison, everything))
    if comparison.exit_code:
        raise SystemExit(comparison.exit_code)


@main.command("profile-readme")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Else README.md beside the store.")
def profile_readme(store: Path, output: Path | None) -> None:
    """Write the README of a recorded profile: machine, counts, warnings, and where CDVFT costs less time."""
    from cdvft_bench.report.page.profile_readme import write_profile_readme

    click.echo(write_profile_readme(store, output=output))


# --- the clock itself, and traces -----------------------------------------------------------


@main.command()
@click.option("--comparisons", default=20, show_default=True, help="A/A comparisons to make.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def selftest(comparisons: int, device: str, as_json: bool) -> None:
    """Time the same work against itself: how often does the clock claim a difference that is none?

    Exits with 1 when an interval lies more than 1 % away from 1, or when doubled work is not found to be doubled.
    """
    from cdvft_bench.report.terminal.cases import show_selftest
    from cdvft_bench.timing.selftest import selftest as run_selftest

    result = run_selftest(comparisons=comparisons, device=device)
    _emit(result, as_json, lambda: show_selftest(result))
    if result.excluded_by_1_percent > 0 or not result.doubled_found:
        raise SystemExit(1)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def trace(file: Path, as_json: bool) -> None:
    """Analyse any Chrome trace of torch.profiler (.json or .json.gz): launches, families, gaps, what binds it."""
    from cdvft_bench.report.terminal.cases import show_trace
    from cdvft_bench.timing.trace import read_trace

    summary = read_trace(file)
    _emit(summary, as_json, lambda: show_trace(summary))


# --- which path ------------------------------------------------------------------------------


@main.command()
@click.option("--d", "width", type=click.IntRange(1), help="Width of a square layer.")
@click.option("--layer", help="Instead: d_in x d_out as 768x3072, or a model's layer as roberta-base:query.")
@click.option("--p", "block_size", type=int, help="Block size; the smaller width if not given.")
@click.option("--m", default=2, show_default=True, help="Diagonal factors; 0 is the block-circulant adapter.")
@click.option("--tokens", default=1024, show_default=True, help="Rows of the input.")
@click.option("--dtype", default="float32", show_default=True, help="dtype of weights and activations.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--inference", is_flag=True, help="Forward alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    width: int | None,
    layer: str | None,
    block_size: int | None,
    m: int,
    tokens: int,
    dtype: str,
    device: str,
    inference: bool,
    as_json: bool,
) -> None:
    """Predict every way of executing a CDVFT layer, fastest first, and say on what that rests."""
    from cdvft_bench.analytic.models import layer_shape
    from cdvft_bench.execution.planner import Problem, device_rates, rank
    from cdvft_bench.report.terminal.cases import show_plan

    if (width is None) == (layer is None):
        raise UserError("give either --d (a square layer's width) or --layer (e.g. 768x3072 or roberta-base:query)")
    shape = layer_shape(layer or f"{width}x{width}")
    d_in, d_out = int(shape.d_in), int(shape.d_out)
    problem = Problem(d_in, d_out, block_size or min(d_in, d_out), m, tokens, dtype, device, not inference, shape.bias)
    rates = device_rates(device)
    estimates = rank(problem, rates)
    _emit(
        {"problem": problem, "rates": rates.source, "device": rates.device, "paths": estimates},
        as_json,
        lambda: show_plan(problem, estimates, rates),
    )


@main.command()
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; torch's number if not given.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="A file instead of the user's own.")
def calibrate(device: str, threads: int | None, output: Path | None) -> None:
    """Measure what this machine can do: the rates by which plan and path="auto" choose. Under a minute."""
    from cdvft_bench.execution.planner import rates_path
    from cdvft_bench.timing import calibrate as bench

    path = output or rates_path(device)
    bench.write(bench.calibrate(device, threads), path)
    click.echo(f"Rates: {path}")


# --- predictions -----------------------------------------------------------------------------


@main.command()
@click.option("--model", required=True, help="A model of the table, e.g. llama-3-8b, or a transformers config.json.")
@click.option("--gpu", required=True, help="A GPU of the table, e.g. h200, or a file of calibrated rates.")
@click.option("--batch", default=8, show_default=True, help="Sequences a GPU.")
@click.option("--seq", "sequence", default=2048, show_default=True, help="Tokens a sequence.")
@click.option("--dtype", default="bfloat16", show_default=True, help="dtype of weights and activations.")
@click.option("--gpus", default=1, show_default=True, help="Number of GPUs, 1 to 4096.")
@click.option("--strategy", default="ddp", show_default=True, help="ddp (everything on each GPU) or fsdp (sharded).")
@click.option("--method", "methods", multiple=True, help="Consider this method alone; repeatable.")
@click.option("--target", "targets", multiple=True, help="Ending of the layers to adapt; repeatable.")
@click.option("--profile", "profiles", multiple=True, type=click.Path(path_type=Path), help="Records that calibrate.")
@click.option("--all", "everything", is_flag=True, help="Print every path of every choice.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def advise(profiles: tuple[Path, ...], everything: bool, as_json: bool, **question: Any) -> None:
    """Predict which adapter to train: ranked choices for a model on a GPU, with time, memory and the reasons."""
    from cdvft_bench.predictor import advise as rank_choices
    from cdvft_bench.predictor import read_profiles
    from cdvft_bench.report.terminal.advice import show_advice

    found = read_profiles(profiles)
    advice = rank_choices(**question, records=found.records, environments=found.environments)
    _emit(advice, as_json, lambda: show_advice(advice, everything))


@main.command()
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--rates",
    type=click.Path(path_type=Path, dir_okay=False),
    help="From calibrate; else the rates.json beside a store, or built-in ones.",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Also write all of it as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(stores: tuple[Path, ...], rates: Path | None, output: Path | None, as_json: bool) -> None:
    """Predict the recorded times of STORES by fits that left them out: errors, their causes, published times."""
    import msgspec

    from cdvft_bench.claims.export import write_text
    from cdvft_bench.predictor import compare_published, evaluate_stores
    from cdvft_bench.report.terminal.advice import show_evaluation

    evaluation, published = evaluate_stores(stores, rates), compare_published()
    both = {"evaluation": evaluation, "published": published}
    if output is not None:
        write_text(output, msgspec.json.format(msgspec.json.encode(both), indent=1).decode() + "\n")
    _emit(both, as_json, lambda: show_evaluation(evaluation, published))


# --- accuracy ------------------------------------------------------------------------------


@main.command()
@click.argument("preset", default="cpu-small")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Results, .jsonl.")
@click.option("--budget", help="Begin no run that would end after so long, e.g. 540s or 2h, by the longest so far.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; torch's number if not given.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Runs at a time.")
def train(preset: str, output: Path, budget: str | None, device: str, threads: int | None, workers: int) -> None:
    """Fine-tune with every method of PRESET (a name or a TOML file), tuned alike; goes on where it stopped.

    cpu-small, cpu-generation and cpu-maps suit two cores. gpu-full runs gpu-mpnet-tweets, gpu-vit-fashion and
    gpu-smollm2-arithmetic one after the other: 'train gpu-full --device cuda --budget 540s', again and again.

    Exits with 3 when the budget is spent and runs are left.
    """
    from dataclasses import asdict

    import torch
    from transformers.utils import logging

    from cdvft_bench.accuracy.preset import read_presets
    from cdvft_bench.accuracy.search import train_all
    from cdvft_bench.sweep.progress import progress
    from cdvft_bench.timing.clock import require_device
    from cdvft_bench.timing.environment import read_environment
    from cdvft_bench.timing.memory import energy_while

    logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    require_device(device)
    environment = read_environment()
    bar = progress(0)
    with bar:
        outcome = train_all(
            read_presets(preset), output, asdict(environment), environment.key, device, _seconds(budget),
            say=bar.tell, workers=workers, measure=energy_while,
        )  # fmt: skip
    refused = "; ".join(f"{name}: {reason}" for name, reason in outcome.refused.items())
    if outcome.due:
        if refused:
            click.echo(f"Warning: {refused}", err=True)
        click.echo(f"{outcome.due} runs or more are left; run the same command again to go on")
        raise SystemExit(3)
    if refused:
        raise UserError(refused)


@main.command()
@click.argument("preset", default="cpu-small")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Step costs, .json.")
@click.option("--budget", default="240s", show_default=True, help="Seconds of timing; loading and memory come on top.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; torch's number if not given.")
def steps(preset: str, output: Path, budget: str, device: str, threads: int | None) -> None:
    """Time a training step of every method of PRESET side by side; peak memory and energy too.

    On a machine that does nothing else. 'cdvft-bench pareto --steps' puts the result on its fronts.
    """
    from dataclasses import asdict

    from transformers.utils import logging

    from cdvft_bench.accuracy.preset import read_preset
    from cdvft_bench.sweep.steps import time_steps, write_steps
    from cdvft_bench.timing.environment import read_environment

    logging.disable_progress_bar()
    found = time_steps(
        read_preset(preset), asdict(read_environment()), budget_s=_seconds(budget) or 240.0, device=device,
        threads=threads, say=click.echo,
    )  # fmt: skip
    write_steps(found, output)
    for warning in found.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(f"Steps: {output}")


@main.command()
@click.argument("results", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="A new folder, or an older page's.")
@click.option("--steps", type=click.Path(path_type=Path, dir_okay=False), help="Of 'cdvft-bench steps', on a preset.")
@click.option("--preset", help="Count only runs that this preset plans; all of the file if not given.")
def pareto(results: Path, output: Path, steps: Path | None, preset: str | None) -> None:
    """Accuracy against cost from the RESULTS of train: fronts with uncertainty, differences, a page.

    For a preset that is a group: a page for each of its presets that has results, in a folder of its name.
    """
    from cdvft_bench.accuracy.preset import read_presets
    from cdvft_bench.report.accuracy.page import write_accuracy, write_pages

    given = (f" --steps {steps.name}" if steps else "") + (f" --preset {preset}" if preset else "")
    command = f"cdvft-bench pareto {results.name}{given} --output {output.name}"
    presets = read_presets(preset) if preset else (None,)
    if len(presets) > 1:
        for line in write_pages(results, output, command, presets, steps):
            click.echo(line)
        return
    click.echo(f"Page: {write_accuracy(results, output, command, steps, presets[0])}")


@main.command()
@click.argument("results", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="A new folder, or an older page's.")
@click.option("--preset", help="Count only runs that this preset plans; all of the file if not given.")
def maps(results: Path, output: Path, preset: str | None) -> None:
    """Accuracy over m, p, learning rate and initialisation, from the RESULTS of train on a map preset."""
    from cdvft_bench.accuracy.preset import read_preset
    from cdvft_bench.report.accuracy.maps_page import write_maps

    command = f"cdvft-bench maps {results.name}{f' --preset {preset}' if preset else ''} --output {output.name}"
    click.echo(f"Page: {write_maps(results, output, command, read_preset(preset) if preset else None)}")


# --- what else ------------------------------------------------------------------------------


@main.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
def export(store: Path, output: Path) -> None:
    """Write STORE's records and environments to OUTPUT as text (.jsonl or .jsonl.gz), for keeping in a repository.

    The same records give the same bytes; every command that reads a store reads this form too. As .csv or .parquet
    it is a table for other tools, which 'import' reads back.
    """
    from cdvft_bench.sweep.store import Store
    from cdvft_bench.sweep.tables import SUFFIXES, write_table

    if output.suffix in SUFFIXES:
        with Store(store) as opened:
            click.echo(f"{write_table(opened, output)} records: {output}")
        return

    if not output.name.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"output {str(output)!r} must end in .jsonl, .jsonl.gz, .csv or .parquet")
    with Store(store) as opened:
        opened.export_text(output)
        click.echo(f"{len(opened.keys())} records: {output}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine can and cannot measure."""
    from cdvft_bench.report.terminal.cases import show_doctor
    from cdvft_bench.sweep.doctor import examine

    findings = examine()
    _emit(findings, as_json, lambda: show_doctor(findings))
