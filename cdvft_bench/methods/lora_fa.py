"""LoRA-FA: LoRA with A frozen at its random start (Zhang et al., 2023, arXiv 2308.03303)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, adapter_dtype, elementwise
from cdvft_bench.analytic.linear import LinearShape, itemsize
from cdvft_bench.methods._peft import beside_base
from cdvft_bench.methods.base import Settings, register
from cdvft_bench.methods.lora import LoRA, thin_gradients, thin_products

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class LoRAFA(LoRA):
    """LoRA that trains B alone, so that the layer's input need not be kept for the backward pass.

    In PEFT this is an optimiser that freezes every A and corrects the gradient of B. Here it is
    PEFT's LoRA with A frozen, trained by the same AdamW as every other method.

    Attributes:
        rank: r, >= 1.
        alpha: the change is scaled by ``alpha / rank``.
    """

    name: ClassVar[str] = "lora_fa"
    title: ClassVar[str] = "LoRA-FA"
    source: ClassVar[str] = "Zhang et al.: arXiv 2308.03303"
    not_covered: ClassVar[str] = "PEFT's LoRA-FA optimiser, which corrects the gradient of B: AdamW trains B here"
    usual: ClassVar[tuple[Settings, ...]] = ({"rank": 32},)

    def parameters(self, layer: LinearShape) -> Count:
        """``r d_out``."""
        return self.rank * layer.d_out

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        itemsize(dtype)
        adapter = adapter_dtype(dtype)
        scale = elementwise("mul", tokens * layer.d_out, adapter, reads=tokens * layer.d_out)
        to_b, to_thin, _, to_input = thin_gradients(layer, tokens, self.rank, adapter)
        forward, backward = beside_base(
            layer,
            tokens,
            dtype,
            (*thin_products(layer, tokens, self.rank, adapter), scale),
            (scale, to_b, to_thin, to_input),
        )
        saved = tokens * self.rank * ITEMSIZE[adapter]  # A x
        return Cost(self.parameters(layer), 1, forward, backward, saved, adapter)

    def adapt_linear(self, base: nn.Linear) -> nn.Module:
        """PEFT's LoRA layer around ``base`` with A frozen."""
        return freeze_a(super().adapt_linear(base))

    def adapt_model(self, model: nn.Module, targets: Sequence[str]) -> nn.Module:
        """PEFT's LoRA model around ``model`` with every A frozen."""
        return freeze_a(super().adapt_model(model, targets))


def freeze_a(module: nn.Module) -> nn.Module:
    """``module`` itself, the A of every LoRA layer in it frozen."""
    for name, parameter in module.named_parameters():
        if "lora_A" in name.split("."):
            parameter.requires_grad_(False)
    return module
