"""One case: predicted, counted, timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cdvft_bench.commands.networks import (
    BY,
    SORTS,
    budget_of,
    count_network,
    is_network,
    method_of,
    network_options,
    training_of,
    training_options,
    utilisation,
)
from cdvft_bench.commands.shared import Positive, case_of, case_options, cases_of, emit, seconds, spelled
from cdvft_bench.core.errors import UserError

if TYPE_CHECKING:
    from cdvft_bench.analytic.training import Training
    from cdvft_bench.counting.network.build import Network
    from cdvft_bench.methods import Method
    from cdvft_bench.sweep.network_cost import NetworkCost

Head = tuple[tuple[str, ...], "str | None", "str | None"]
"""Targets, task and inputs of a whole network."""


@click.command()
@case_options
@network_options
@training_options
@click.option("--memory", is_flag=True, help="Also print the budget of a training step, item by item.")
def predict(as_json: bool, memory: bool, **options: Any) -> None:
    """Closed-form cost of METHOD on a layer or model: parameters, FLOPs by convention, launches, bytes.

    --model also takes a folder with a config.json, a config.json, a hub id, or package.module:factory: then the base is
    counted as it would run, and the adapter alone is the closed form. --memory, or any option of how it is trained,
    adds the memory of a training step.
    """
    training = training_of(options, memory)
    if training is not None and options["model"] is None:
        raise UserError("--memory and the options of training go with --model")
    head = _head(options)
    if is_network(options["model"], *head) or training is not None:
        _predict_network(options, head, training, as_json)
        return
    from cdvft_bench.report.terminal.cases import show_predicted
    from cdvft_bench.sweep import evaluate as sources

    case = case_of(**options)
    predicted = sources.predict(case)
    emit(predicted, as_json, lambda: show_predicted(case, predicted))


def _head(options: dict[str, Any]) -> Head:
    """What :func:`network_options` describe, taken out of ``options``."""
    return options.pop("targets"), options.pop("task"), options.pop("inputs")


def _predict_network(options: dict[str, Any], head: Head, training: Training | None, as_json: bool) -> None:
    from cdvft_bench.report.terminal.networks import show_memory, show_network_cost

    network, method, cost = _network(options, head, training)
    if training is None:
        emit(cost, as_json, lambda: show_network_cost(_title(options), cost))
        return
    workload, device = (options["batch"], options["sequence"]), options["device"]
    budget = budget_of(network, cost, method, workload, options["dtype"], device, training)

    def show() -> None:
        show_network_cost(_title(options), cost)
        show_memory(budget, training.said)

    emit({"predicted": cost, "memory": budget, "training": training}, as_json, show)


@click.command()
@case_options
@network_options
@click.option("--hardware", is_flag=True, help="Also read the processor's own counters, by perf or ncu.")
@click.option("--by", type=click.Choice(BY), help="Of a model: by module as a tree, or by operator.")
@click.option("--sort", type=click.Choice(SORTS), default="order", show_default=True, help="Of --by module.")
@click.option("--depth", default=3, show_default=True, help="Of the tree of --by module.")
@click.option("--checkpoint", default=0, metavar="K", help="Compute every K-th block again in the backward pass.")
@click.option("--step-time", type=float, metavar="SECONDS", help="Of a measured step: its share of --gpu's peak (MFU).")
@click.option("--gpu", help="A GPU of the table, e.g. h100; goes with --step-time.")
def count(
    as_json: bool,
    hardware: bool,
    by: str | None,
    sort: str,
    depth: int,
    checkpoint: int,
    step_time: float | None,
    gpu: str | None,
    **options: Any,
) -> None:
    """Count what METHOD really does: fvcore, operator dispatch, saved activations, beside the closed form.

    --model also takes a folder with a config.json, a config.json, a hub id, or package.module:factory, which is run
    without its numbers. METHOD may be left out of --by: then the frozen network is counted.
    """
    head, of_network = _head(options), bool(by or checkpoint or step_time is not None)
    if is_network(options["model"], *head) or of_network:
        if options["model"] is None:
            raise UserError("--by, --checkpoint and --step-time go with --model")
        if hardware:
            raise UserError("--hardware runs the case: it goes with --layer or a model of the table, without --by")
        if (step_time is None) != (gpu is None):
            raise UserError("--step-time and --gpu go together")
        if depth < 0 or checkpoint < 0:
            raise UserError("--depth and --checkpoint take integers from 0 on")
        _count_network(options, head, by, sort, depth, checkpoint, step_time, gpu, as_json)
        return
    from cdvft_bench.report.terminal.cases import show_counted
    from cdvft_bench.sweep import evaluate as sources
    from cdvft_bench.sweep.evaluate import count_executed

    case = case_of(**options)
    counted = sources.count(case)
    executed = count_executed(case) if hardware else None
    told = counted if executed is None else {"counted": counted, "executed": executed}
    emit(told, as_json, lambda: show_counted(case, sources.predict(case), counted, executed))


def _title(options: dict[str, Any]) -> str:
    return f"{options['model']}: {options['batch']} × {options['sequence']} tokens, {options['dtype']}"


def _network(
    options: dict[str, Any], head: Head, training: Training | None
) -> tuple[Network, Method | None, NetworkCost]:
    from cdvft_bench.sweep.networks import open_model, predict_network, split_targets

    if options["layer"] is not None:
        raise UserError("give either --layer (e.g. 768x768 or roberta-base:query) or --model (e.g. minilm)")
    targets, task, inputs = head
    method = method_of(*spelled(options["method"] or "frozen", options["hyperparameters"]))
    network, usual = open_model(options["model"], options["dtype"], task, inputs)
    workload, named = (options["batch"], options["sequence"]), split_targets(targets)
    cost = predict_network(network, usual, method, named, workload, options["dtype"], options["device"], training)
    return network, method, cost


def _count_network(
    options: dict[str, Any],
    head: Head,
    by: str | None,
    sort: str,
    depth: int,
    checkpoint: int,
    step_time: float | None,
    gpu: str | None,
    as_json: bool,
) -> None:
    from cdvft_bench.analytic.training import Training
    from cdvft_bench.report.terminal.networks import show_modules, show_network_cost, show_operators

    network, method, cost = _network(options, head, Training(checkpoint=checkpoint))
    workload = (options["batch"], options["sequence"])
    counted = count_network(network, cost, method, workload, options["device"], checkpoint)
    used = None if step_time is None else utilisation(cost, step_time, str(gpu), options["dtype"])

    def show() -> None:
        if by == "operator":
            show_operators(_title(options), counted)
        elif by == "module" or method is None:
            show_modules(_title(options), counted, depth, sort)
        else:
            show_network_cost(_title(options), cost)
            show_modules(_title(options), counted, depth, sort)
        if used is not None:
            click.echo(f"model FLOPs utilisation: {used[0]:.1%} of {used[1]}'s dense {options['dtype']} peak")

    told: dict[str, Any] = {"predicted": cost, "counted": counted}
    emit(told if used is None else {**told, "utilisation": used[0]}, as_json, show)


@click.command()
@case_options
@click.option("--budget", metavar="TIME", default="10s", show_default=True, help="Of measuring, as 540s or 9m.")
@click.option(
    "--precision", type=Positive(), default=0.02, show_default=True, help="Half-width of the ratio's interval to reach."
)
def time(as_json: bool, budget: str, precision: float, **options: Any) -> None:
    """Time METHOD, interleaved with the frozen layer and LoRA r=8 in one run.

    Further methods, as 'time cdvft lora:16 dora', are timed in the same rounds; ratios are the first one's to each.
    """
    from cdvft_bench.report.terminal.cases import show_timed
    from cdvft_bench.sweep import evaluate as sources

    case, *others = cases_of(**options)
    timed = sources.time_case(case, others, budget_s=seconds(budget) or 10.0, precision=precision)
    emit(timed, as_json, lambda: show_timed(case, timed))
