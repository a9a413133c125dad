"""What predict and count answer of any network: a model of the table, a configuration, a hub id, a factory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.names import not_known

if TYPE_CHECKING:
    from cdvft_bench.analytic.training import Training
    from cdvft_bench.core.case import Value
    from cdvft_bench.core.counted import CountedNetwork
    from cdvft_bench.counting.network.build import Network
    from cdvft_bench.methods import Method
    from cdvft_bench.predictor.results import MemoryBudget
    from cdvft_bench.sweep.network_cost import NetworkCost

BY = ("module", "operator")
# As analytic.training has them, which a command that only parses its options need not load.
BASES = ("full", "int8", "nf4", "nf4-double")
OPTIMIZERS = ("adamw", "adamw-foreach", "adamw-8bit", "adafactor")
ADAPTERS = ("default", "float32", "bfloat16")
SORTS = ("order", "flops", "parameters", "activations")


def network_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a whole network."""
    options = [
        click.option(
            "--targets",
            "--target",
            "targets",
            multiple=True,
            metavar="NAMES",
            help="Layers to adapt, as PEFT's: names or endings with commas between, a regular expression, all-linear.",
        ),
        click.option("--task", help="Head of the network, as causal-lm or sequence-classification."),
        click.option("--inputs", metavar="MODULE:FUNCTION", help="Makes example inputs of batch and tokens."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def training_options(command: Callable[..., None]) -> Callable[..., None]:
    """How a network is trained, as far as its memory and times depend on it."""
    options = [
        click.option(
            "--base", type=click.Choice(BASES), help="How linear layers are held: in --dtype, or in 8 or 4 bits."
        ),
        click.option(
            "--optimizer", type=click.Choice(OPTIMIZERS), help="Of the trained parameters; adamw, fused, if not given."
        ),
        click.option("--adapter-dtype", type=click.Choice(ADAPTERS), help="Default: float32 for bases of 16 bits."),
        click.option(
            "--checkpoint", type=int, metavar="K", help="Compute every K-th block again in the backward pass."
        ),
        click.option("--logit-chunks", type=int, metavar="N", help="Take the loss over a vocabulary in N parts."),
        click.option("--packed", type=int, metavar="L", help="Rows hold documents of L tokens on average."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


TRAINING = ("base", "optimizer", "adapter_dtype", "checkpoint", "logit_chunks", "packed")
"""Names of these options."""


def training_of(options: dict[str, Any], asked: bool = False) -> Training | None:
    """What :func:`training_options` describe, taken out of ``options``; None where none is given and none ``asked``.

    Raises:
        UserError: a number is out of range.
    """
    from cdvft_bench.analytic.training import Training

    given = {name: options.pop(name) for name in TRAINING}
    told = {name: value for name, value in given.items() if value is not None}
    return Training(**told) if asked or told else None


def is_network(model: str | None, targets: Sequence[str], task: str | None, inputs: str | None) -> bool:
    """Whether the network must be built: it is not in the table, or is asked for with other layers or another head.

    Raises:
        UserError: layers, a head or inputs are given of no model.
    """
    from cdvft_bench.analytic.models import MODELS, known_model

    if model is None:
        given = [name for name, value in (("--targets", targets), ("--task", task), ("--inputs", inputs)) if value]
        if given:
            raise UserError(f"{given[0]} goes with --model")
        return False
    return known_model(model) not in MODELS or bool(targets or task or inputs)


def method_of(name: str, hyperparameters: dict[str, Value]) -> Method | None:
    """The method of the command line; None for "frozen"."""
    from cdvft_bench.core.case import FROZEN
    from cdvft_bench.methods import make_method

    if name == FROZEN:
        return None
    return make_method(name, hyperparameters)


def count_network(
    network: Network,
    cost: NetworkCost,
    method: Method | None,
    workload: tuple[int, int],
    device: str,
    checkpointed: int = 0,
) -> CountedNetwork:
    """Count the network with the adapter in it, as it trains: the backward pass ends at the first adapter.

    Raises:
        UserError: the method cannot be built without data.
    """
    from cdvft_bench.counting.network.by_module import count_modules

    if method is None:
        return cost.base
    adapted = adapt(network, cost, method)
    return count_modules(adapted, lambda: network.make_inputs(*workload), device=device, checkpointed=checkpointed)


def budget_of(
    network: Network,
    cost: NetworkCost,
    method: Method | None,
    workload: tuple[int, int],
    dtype: str,
    device: str,
    training: Training,
) -> MemoryBudget:
    """The memory of a training step; the network is adapted for it.

    Raises:
        UserError: nothing is trained, or the method cannot be built without data.
    """
    from dataclasses import replace

    from cdvft_bench.predictor.devices import assumptions
    from cdvft_bench.predictor.network_memory import held_weights, network_budget

    if method is None:
        raise UserError("the memory of a training step needs a METHOD, as lora")
    whole = held_weights(network.module, network.head, replace(training, base="full"), dtype).bytes_
    held = held_weights(network.module, network.head, training, dtype)
    return network_budget(
        adapt(network, cost, method),
        held,
        whole,
        cost,
        lambda: network.make_inputs(*workload),
        training,
        dtype,
        device=device,
        head=network.head,
        reserved=assumptions().reserved_bytes if device == "cuda" else 0,
    )


def adapt(network: Network, cost: NetworkCost, method: Method) -> Any:
    """The network with the adapter in it, without data.

    Raises:
        UserError: the method cannot be built so.
    """
    from cdvft_bench.counting.network.meta import without_data

    try:
        with without_data():
            return method.adapt_model(network.module, cost.adapted)
    except UserError:
        raise
    except Exception as error:  # PEFT or a method that reads its weights while it is built
        said = next(iter(str(error).splitlines()), "")
        raise UserError(f"{method.label} cannot be built without data: {type(error).__name__}: {said}") from error


def utilisation(cost: NetworkCost, seconds: float, gpu: str, dtype: str) -> tuple[float, str]:
    """Share of a device's peak that a step of ``seconds`` reaches, by the products of both passes; and its name.

    Raises:
        UserError: the device or its rate is not known, or the time is not positive.
    """
    from cdvft_bench.predictor.devices import by_name, devices

    device = by_name(gpu)
    if device is None:
        raise not_known("gpu", gpu, devices(), "is not in the table")
    if dtype not in device.flops:
        raise UserError(f"{device.name} has no rate for dtype {dtype!r}; use one of {', '.join(device.flops)}")
    if not 0 < seconds < float("inf"):
        raise UserError(f"step time {seconds} is not a positive number of seconds")
    share = 2 * (cost.forward.macs + cost.backward.macs) / (seconds * device.flops[dtype])
    if share > 1:
        raise UserError(
            f"a step of {seconds:g} s would be {share:.2f} of {device.name}'s peak: no device goes beyond it"
        )
    return share, device.name
