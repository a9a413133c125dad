"""This machine: what it can measure, how well its clock holds, its rates, and which path it picks."""

from pathlib import Path

import click

from cdvft_bench.commands.shared import COUNT, DEVICE, DTYPE, FILE, MOST, devices_option, emit
from cdvft_bench.core.errors import UserError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine can and cannot measure."""
    from cdvft_bench.report.terminal.cases import show_doctor
    from cdvft_bench.sweep.doctor import examine

    findings = examine()
    emit(findings, as_json, lambda: show_doctor(findings))


@click.command()
@click.option("--comparisons", type=COUNT, default=20, show_default=True, help="A/A comparisons to make.")
@click.option("--device", type=DEVICE, default="cpu", show_default=True, help="Where it runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def selftest(comparisons: int, device: str, as_json: bool) -> None:
    """Time the same work against itself: how often does the clock claim a difference that is none?

    Exits with 1 when an interval lies more than 1 % away from 1, or when doubled work is not found to be doubled.
    """
    from cdvft_bench.report.terminal.cases import show_selftest
    from cdvft_bench.timing.machine.selftest import selftest as run_selftest

    result = run_selftest(comparisons=comparisons, device=device)
    emit(result, as_json, lambda: show_selftest(result))
    if result.excluded_by_1_percent > 0 or not result.doubled_found:
        raise SystemExit(1)


@click.command()
@click.option("--device", type=DEVICE, default="cpu", show_default=True, help="Where it runs.")
@click.option("--threads", type=COUNT, help="CPU threads; torch's number if not given.")
@click.option("--output", type=FILE, help="A file instead of the user's own.")
def calibrate(device: str, threads: int | None, output: Path | None) -> None:
    """Measure what this machine can do: the rates by which plan and path="auto" choose. Under half a minute."""
    from cdvft_bench.execution.planner import rates_path
    from cdvft_bench.timing import calibrate as bench

    path = output or rates_path(device)
    bench.write(bench.calibrate(device, threads), path)
    click.echo(f"Rates: {path}")


@click.command()
@click.option("--d", "width", type=COUNT, help="Width of a square layer.")
@click.option("--layer", help="Instead: d_in x d_out as 768x3072, or a model's layer as roberta-base:query.")
@click.option("--p", "block_size", type=COUNT, help="Block size; the smaller width if not given.")
@click.option(
    "--m",
    type=click.IntRange(0, MOST),
    default=2,
    show_default=True,
    help="Diagonal factors; 0 is the block-circulant adapter.",
)
@click.option("--tokens", type=COUNT, default=1024, show_default=True, help="Rows of the input.")
@click.option("--dtype", type=DTYPE, default="float32", show_default=True, help="dtype of weights and activations.")
@click.option("--device", type=DEVICE, default="cpu", show_default=True, help="Where it runs.")
@click.option("--gpu", help="Plan for a GPU of the table, or a file of calibrated rates, instead of this machine.")
@devices_option
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
    gpu: str | None,
    devices: Path | None,
    inference: bool,
    as_json: bool,
) -> None:
    """Predict every way of executing a CDVFT layer, fastest first, and say on what that rests."""
    from cdvft_bench.analytic.models import layer_shape
    from cdvft_bench.execution.planner import Problem, device_rates, rank
    from cdvft_bench.report.terminal.cases import show_plan

    if (width is None) == (layer is None):
        raise UserError("give either --d (a square layer's width) or --layer (e.g. 768x3072 or roberta-base:query)")
    if gpu is not None:
        from cdvft_bench.predictor.devices import find_target

        target = find_target(gpu, devices)
        device = target.kind
    shape = layer_shape(layer or f"{width}x{width}")
    d_in, d_out = int(shape.d_in), int(shape.d_out)
    problem = Problem(d_in, d_out, block_size or min(d_in, d_out), m, tokens, dtype, device, not inference, shape.bias)
    rates = device_rates(device) if gpu is None else target.rates
    estimates = rank(problem, rates)
    emit(
        {
            "problem": problem,
            "rates": rates.source,
            "device": rates.device,
            "paths": estimates,
            "not_available": {path: why for path, why in problem.kernels.items() if why},
        },
        as_json,
        lambda: show_plan(problem, estimates, rates),
    )
