"""Full fine-tuning: every parameter is trained. The measure of what the other methods save."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, ClassVar, Self

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import Count, Kernels, mm, reduction
from cdvft_bench.analytic.linear import LinearShape, frozen_backward, frozen_forward, itemsize
from cdvft_bench.methods.base import Method, linear_targets, register

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class Full(Method):
    """No adapter: the layer's own weight and bias are trained, in the layer's dtype."""

    name: ClassVar[str] = "full"
    title: ClassVar[str] = "Full fine-tuning"
    source: ClassVar[str] = "the usual practice; no paper"
    writes_base: ClassVar[bool] = True
    trains_all: ClassVar[bool] = True

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        yield cls()

    def parameters(self, layer: LinearShape) -> Count:
        """``d_in d_out``, and d_out of the bias."""
        return layer.parameters

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        size = itemsize(dtype)
        backward: Kernels = (
            *frozen_backward(layer, tokens, dtype),
            mm(layer.d_out, tokens, layer.d_in, dtype),
        )
        if layer.bias:
            backward += (reduction("sum", tokens * layer.d_out, layer.d_out, dtype),)
        return Cost(
            parameters=layer.parameters,
            tensors=2 if layer.bias else 1,
            forward=frozen_forward(layer, tokens, dtype),
            backward=backward,
            saved_bytes=tokens * layer.d_in * size,
            parameter_dtype=dtype,
        )

    def adapt_linear(self, base: nn.Linear) -> nn.Module:
        """``base`` itself, made trainable."""
        return base.requires_grad_(True)

    def adapt_model(self, model: nn.Module, targets: Sequence[str]) -> nn.Module:
        """``model`` itself with every parameter trainable, whatever the targets; they must still match a layer."""
        linear_targets(model, targets)
        return model.requires_grad_(True)
