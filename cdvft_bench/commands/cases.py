"""One case: predicted, counted, timed."""

from __future__ import annotations

from typing import Any

import click

from cdvft_bench.commands.shared import Positive, case_of, case_options, emit, seconds


@click.command()
@case_options
def predict(as_json: bool, **options: Any) -> None:
    """Closed-form cost of METHOD on a layer or model: parameters, FLOPs by convention, launches, bytes."""
    from cdvft_bench.report.terminal.cases import show_predicted
    from cdvft_bench.sweep import evaluate as sources

    case = case_of(**options)
    predicted = sources.predict(case)
    emit(predicted, as_json, lambda: show_predicted(case, predicted))


@click.command()
@case_options
@click.option("--hardware", is_flag=True, help="Also read the processor's own counters, by perf or ncu.")
def count(as_json: bool, hardware: bool, **options: Any) -> None:
    """Count what METHOD really does: fvcore, operator dispatch, saved activations, beside the closed form."""
    from cdvft_bench.report.terminal.cases import show_counted
    from cdvft_bench.sweep import evaluate as sources
    from cdvft_bench.sweep.executed import count_executed

    case = case_of(**options)
    counted = sources.count(case)
    executed = count_executed(case) if hardware else None
    told = counted if executed is None else {"counted": counted, "executed": executed}
    emit(told, as_json, lambda: show_counted(case, sources.predict(case), counted, executed))


@click.command()
@case_options
@click.option("--budget", metavar="TIME", default="10s", show_default=True, help="Of measuring, as 540s or 9m.")
@click.option(
    "--precision", type=Positive(), default=0.02, show_default=True, help="Half-width of the ratio's interval to reach."
)
def time(as_json: bool, budget: str, precision: float, **options: Any) -> None:
    """Time METHOD, interleaved with the frozen layer and LoRA r=8 in one run."""
    from cdvft_bench.report.terminal.cases import show_timed
    from cdvft_bench.sweep import evaluate as sources

    case = case_of(**options)
    timed = sources.time_case(case, budget_s=seconds(budget) or 10.0, precision=precision)
    emit(timed, as_json, lambda: show_timed(case, timed))
