"""Bytes of a training step of any network, item by item: what the meta device counts, and closed forms of the rest.

Weights, gradients and activations are those of the network with its adapter in it, built and run without data. What a
meta device does not show is by formula, see ``analytic.training``: quantised weights, the optimiser's state, the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cdvft_bench.analytic.kernels import ITEMSIZE
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.training import Training, chunked_loss, dequantised, held_bytes, state_bytes
from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.network.by_module import blocks_of, count_modules
from cdvft_bench.predictor.results import MemoryBudget
from cdvft_bench.sweep.network_cost import NetworkCost


@dataclass(frozen=True)
class Held:
    """Weights as a network holds them before it is adapted.

    Attributes:
        bytes_: of all parameters and buffers, quantised ones as they are held.
        largest: entries of the largest quantised weight, which is converted as a whole; 0 where none is.
        traffic: bytes read and written to convert every quantised weight once.
    """

    bytes_: int
    largest: int = 0
    traffic: int = 0


def held_weights(module: nn.Module, head: Iterable[str], training: Training, dtype: str) -> Held:
    """Bytes of a network's weights; ``head`` names the output layers, which are not quantised."""
    total = _bytes((*module.parameters(), *module.buffers()))
    if training.base == "full":
        return Held(total)
    linear = {
        id(part.weight): part
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and name not in head
    }
    tied = {id(p) for part in module.modules() if isinstance(part, nn.Embedding) for p in part.parameters()}
    largest, traffic = 0, 0
    for key, part in linear.items():
        if key in tied:
            continue
        shape = LinearShape(part.in_features, part.out_features, bias=False)
        total += held_bytes(shape, training.base, dtype) - part.weight.numel() * part.weight.element_size()
        largest = max(largest, part.weight.numel())
        traffic += sum(int(k.read + k.written) for k in dequantised(shape, training.base, dtype))
    return Held(total, largest, traffic)


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
    ends = [loss_bytes(cost, name, dtype, training.logit_chunks) for name in head]
    loss, temporaries = (sum(one[i] for one in ends) for i in range(2))
    converted = held.largest * ITEMSIZE[dtype] if training.base != "full" else 0
    return MemoryBudget(
        weights=held.bytes_ + _bytes((*adapted.parameters(), *adapted.buffers())) - base_bytes,
        gradients=_bytes(trained),
        optimizer=sum(state_bytes(shapes, training.optimizer, str(t).partition(".")[2]) for t, shapes in sizes.items()),
        activations=kept + loss,
        workspace=max(temporaries, more, converted),
        overhead=reserved,
        capacity=capacity,
    )


def loss_bytes(cost: NetworkCost, name: str, dtype: str, chunks: int) -> tuple[int, int]:
    """What the loss over an output layer's results keeps, and its temporaries, see ``chunked_loss``."""
    found = next((m for m in cost.base.modules if m.name == name), None)
    if found is None or found.linear is None or not found.calls:
        return 0, 0
    hidden, outputs, _ = found.linear
    rows = sum(rows * calls for rows, calls in found.rows)
    return chunked_loss(rows, outputs, hidden, dtype, min(chunks, max(rows, 1)))


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of distinct tensors."""
    return sum(t.numel() * t.element_size() for t in {id(t): t for t in tensors}.values())
