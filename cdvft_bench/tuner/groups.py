"""Optimiser groups: the learning rate of a circulant vector."""

from typing import Any

from torch import nn

from cdvft_bench.core.errors import UserError
from cdvft_bench.tuner.layer import CdvftLayer


def cdvft_param_groups(
    model: nn.Module, lr: float, weight_decay: float = 0.0, divide_by_block_size: bool | None = None
) -> list[dict[str, Any]]:
    """Groups of the trainable parameters, for any torch optimiser.

    An entry of a circulant vector gathers the gradients of p entries of the weight, so the block-circulant adapter's
    paper divides its learning rate by p. That undoes the gradient's size under plain gradient descent; Adam divides
    by the gradient's size itself, so there the rule makes the vector learn p times more slowly than the diagonals.

    Args:
        model: a model with CDVFT or block-circulant adapters.
        lr: learning rate, > 0, of all else.
        weight_decay: of every group.
        divide_by_block_size: divide the circulant vectors' rate by their p; None does so for block-circulant adapters
            (their paper's rule) and not for CDVFT (whose paper has none).

    Returns:
        Groups with "params", "lr", "weight_decay" and "name".

    Raises:
        UserError: the model has no such adapter, or lr is not positive.
    """
    if not lr > 0:
        raise UserError(f"lr = {lr} must be above 0")
    divided: dict[int, list[nn.Parameter]] = {}
    seen: set[int] = set()
    layers = [layer for layer in model.modules() if isinstance(layer, CdvftLayer)]
    if not layers:
        raise UserError("the model has no CDVFT adapter; call peft.get_peft_model(model, CdvftConfig(...)) first")
    for layer in layers:
        for name, settings in layer.cdvft_settings.items():
            by_rule = not settings.diagonals if divide_by_block_size is None else divide_by_block_size
            for held in (layer.cdvft_circulant, layer.cdvft_circulants):
                if by_rule and name in held and held[name].requires_grad:
                    divided.setdefault(settings.shapes.block_size, []).append(held[name])
                    seen.add(id(held[name]))
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in seen]
    groups = [{"params": rest, "lr": lr, "weight_decay": weight_decay, "name": "all else"}] if rest else []
    for p, parameters in sorted(divided.items()):
        groups.append({"params": parameters, "lr": lr / p, "weight_decay": weight_decay, "name": f"circulant, p = {p}"})
    return groups
