"""Bytes of a training step of any network, item by item: what the meta device counts, and closed forms of the rest.

Weights, gradients and activations are those of the network with its adapter in it, built and run without data. What a
meta device does not show is by formula, see ``analytic.training``: quantised weights, the optimiser's state, the loss.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cdvft_bench.analytic.kernels import ITEMSIZE
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.training import Training, chunked_loss, held_bytes, state_bytes, update_bytes
from cdvft_bench.core.counted import CountedNetwork
from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.network.by_module import blocks_of, count_modules
from cdvft_bench.predictor.results import MemoryBudget
from cdvft_bench.sweep.network_cost import NetworkCost
from cdvft_bench.sweep.networks import quantised_layers


@dataclass(frozen=True)
class Held:
    """Weights as a network holds them before it is adapted.

    Attributes:
        bytes_: of all parameters and buffers, quantised ones as they are held.
        largest: entries of the largest quantised weight, which is converted as a whole; 0 where none is.
    """

    bytes_: int
    largest: int = 0


def held_weights(module: nn.Module, head: frozenset[str], training: Training, dtype: str) -> Held:
    """Bytes of a network's weights; ``head`` names the output layers, which are not quantised."""
    total = _bytes((*module.parameters(), *module.buffers()))
    layers = {id(part.weight): part for part in quantised_layers(module, head, training).values()}  # shared ones once
    for part in layers.values():
        shape = LinearShape(part.in_features, part.out_features, bias=False)
        total += held_bytes(shape, training.base, dtype) - part.weight.numel() * part.weight.element_size()
    return Held(total, max((part.weight.numel() for part in layers.values()), default=0))


def network_budget(
    adapted: nn.Module,
    held: Held,
    base_bytes: int,
    cost: NetworkCost,
    make_inputs: Callable[[], Any],
    training: Training,
    dtype: str,
    *,
    device: str = "cpu",
    head: Iterable[str] = (),
    reserved: int = 0,
    capacity: int | None = None,
) -> MemoryBudget:
    """The budget of a step.

    Args:
        adapted: the network with its adapter, without data. held: its own weights, from before it was adapted.
        base_bytes: of those weights as they were counted, unquantised. cost: of both. make_inputs: of the workload.
        training: how it is trained. dtype: of base and activations. device: kind that runs it.
        head: names of its output layers, of which the loss is taken. reserved: bytes of the context.
        capacity: of the device; None unknown.

    Raises:
        UserError: no parameter is trained, or the network has too few blocks to compute again.
    """
    trained = [p for p in adapted.parameters() if p.requires_grad]
    if not trained:
        raise UserError("no parameter is trained, so that there is no step; give a METHOD, as lora")
    if training.adapter_dtype != "default":
        for p in trained:
            p.data = p.data.to(getattr(torch, training.adapter_dtype))
    sizes = {p.dtype: [tuple(q.shape) for q in trained if q.dtype == p.dtype] for p in trained}
    kept = count_modules(adapted, make_inputs, device=device).saved_bytes
    more = 0
    blocks = len(blocks_of(adapted))
    again = training.checkpointed(blocks)
    if again:
        counted = count_modules(adapted, make_inputs, device=device, checkpointed=training.checkpoint).saved_bytes
        kept, more = counted, -(-(kept - counted) // again)
    loss, temporaries = loss_bytes(cost.base, head, dtype, training.logit_chunks)
    converted = held.largest * ITEMSIZE[dtype]
    updating = update_bytes(_bytes(trained), training.optimizer) - kept - loss  # these are gone by then
    return MemoryBudget(
        weights=held.bytes_ + _bytes((*adapted.parameters(), *adapted.buffers())) - base_bytes,
        gradients=_bytes(trained),
        optimizer=sum(state_bytes(shapes, training.optimizer, str(t).partition(".")[2]) for t, shapes in sizes.items()),
        activations=kept + loss,
        workspace=max(temporaries, more, converted, updating),
        overhead=reserved,
        capacity=capacity,
    )


def losses(counted: CountedNetwork, head: Iterable[str]) -> list[tuple[int, int, int]]:
    """Rows, outputs and inputs of the output layers of which a loss is taken."""
    found = (m for m in counted.modules if m.name in frozenset(head))
    return [
        (sum(rows * calls for rows, calls in m.rows), m.linear[1], m.linear[0])
        for m in found
        if m.linear is not None and m.calls
    ]


def loss_bytes(counted: CountedNetwork, head: Iterable[str], dtype: str, chunks: int) -> tuple[int, int]:
    """What the losses over output layers keep, and their temporaries, see ``chunked_loss``."""
    ends = [
        chunked_loss(rows, outputs, inputs, dtype, min(chunks, max(rows, 1)))
        for rows, outputs, inputs in losses(counted, head)
    ]
    return sum(kept for kept, _ in ends), sum(most for _, most in ends)


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of distinct tensors."""
    return sum(t.numel() * t.element_size() for t in {id(t): t for t in tensors}.values())
