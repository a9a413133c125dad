"""Count an adapted layer or model: parameters, passes as dispatched, fvcore's forward, saved activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cdvft_bench.core.counted import Counted, FvcoreCount, PassCount
from cdvft_bench.counting.dispatch import count_dispatch
from cdvft_bench.counting.fvcore_counter import count_forward
from cdvft_bench.counting.saved import saved_bytes


def trainable_parameters(module: nn.Module) -> int:
    """Entries of the parameters that require a gradient; a shared parameter counts once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def count_layer(module: nn.Module, x: Tensor, gradient: Tensor | None = None) -> Counted:
    """Count one layer.

    Args:
        x: input (..., d_in) that requires a gradient. gradient: of the output (..., d_out), random if not given: what
            compiled kernels do depends on the data.
    """
    return _count(module, lambda: module(x), (x,), gradient)


def count_model(model: nn.Module, inputs: Mapping[str, Any]) -> Counted:
    """Count a transformers model on keyword inputs; its first floating output takes a random gradient."""
    return _count(model, lambda: floating_output(model(**inputs)), inputs)


def floating_output(output: Any) -> Tensor:
    """The first floating-point tensor of a model's output.

    Raises:
        TypeError: it has none.
    """
    values = [output] if isinstance(output, Tensor) else list(output.values())
    for value in values:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
    raise TypeError(f"a {type(output).__name__} holds no floating-point tensor to differentiate")


def _count(
    module: nn.Module,
    call: Callable[[], Tensor],
    inputs: tuple[Any, ...] | Mapping[str, Any],
    gradient: Tensor | None = None,
) -> Counted:
    notes: list[str] = []
    for value in inputs.values() if isinstance(inputs, Mapping) else inputs:
        if isinstance(value, Tensor):
            value.grad = None  # adding to an older gradient would be one launch more
    with count_dispatch() as forward:
        kept, y = saved_bytes(module, call)
    backward: PassCount | None = None
    update: PassCount | None = None
    trained = [p for p in module.parameters() if p.requires_grad]
    if y.requires_grad:
        module.zero_grad(set_to_none=True)
        gradient = torch.randn_like(y) if gradient is None else gradient
        with count_dispatch() as counter:
            y.backward(gradient)
        backward = counter.result()
        if trained:
            update = _count_update(trained)
    else:
        notes.append("backward not counted: the output needs no gradient")
    fvcore: FvcoreCount | None = None
    try:
        fvcore = count_forward(module, inputs)
    except Exception as error:
        notes.append(f"fvcore could not trace the forward pass: {type(error).__name__}: {str(error).splitlines()[0]}")
    return Counted(
        parameters=sum(p.numel() for p in trained),
        forward=forward.result(),
        backward=backward,
        update=update,
        fvcore=fvcore,
        saved_bytes=kept,
        notes=tuple(notes),
    )


def _count_update(parameters: list[nn.Parameter]) -> PassCount:
    # lr = 0 leaves the weights as they are; the first step also makes the state, so the second is counted.
    optimizer = torch.optim.AdamW([p for p in parameters if p.grad is not None], lr=0.0, fused=True)
    optimizer.step()
    with count_dispatch() as counter:
        optimizer.step()
    return counter.result()
