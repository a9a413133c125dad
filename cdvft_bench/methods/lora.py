"""LoRA: ``dW = (alpha / r) B A`` with A of r rows and B of r columns (Hu et al., ICLR 2022, arXiv 2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernels, adapter_dtype, elementwise, mm
from cdvft_bench.analytic.linear import LinearShape, check_count, frozen_forward, itemsize
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods._peft import PeftMethod, add_result, add_result_backward, base_backward, cast
from cdvft_bench.methods.base import register

if TYPE_CHECKING:
    from peft import PeftConfig


def check_rank_and_alpha(rank: int, alpha: float) -> None:
    """Raise UserError unless the rank is an integer >= 1 and alpha is finite."""
    check_count("rank", rank)
    if not math.isfinite(alpha):
        raise UserError(f"alpha = {alpha} is not finite; give a finite scale")


def thin_products(layer: LinearShape, rows: Count, rank: int, dtype: str) -> Kernels:
    """``B (A x)`` for ``rows`` rows: two thin matrix products."""
    return mm(rows, layer.d_in, rank, dtype), mm(rows, rank, layer.d_out, dtype)


def thin_gradients(layer: LinearShape, tokens: Count, rank: int, dtype: str) -> Kernels:
    """Gradients of B, of ``A x``, of A and of x: twice the forward products."""
    return (
        mm(layer.d_out, tokens, rank, dtype),
        mm(tokens, layer.d_out, rank, dtype),
        mm(rank, tokens, layer.d_in, dtype),
        mm(tokens, rank, layer.d_in, dtype),
    )


@register
@dataclass(frozen=True)
class LoRA(PeftMethod):
    """Low-rank weight change. PEFT starts with B zero and A random, so dW starts at zero.

    Attributes:
        rank: r, >= 1.
        alpha: the change is scaled by ``alpha / rank``.
    """

    name: ClassVar[str] = "lora"
    title: ClassVar[str] = "LoRA"
    source: ClassVar[str] = "Hu et al.: ICLR 2022, arXiv 2106.09685"

    rank: int = 8
    alpha: float = 16

    def __post_init__(self) -> None:
        check_rank_and_alpha(self.rank, self.alpha)

    @property
    def label(self) -> str:
        return f"LoRA r={self.rank}" + ("" if self.alpha == 16 else f" alpha={self.alpha:g}")

    def parameters(self, layer: LinearShape) -> Count:
        """``r (d_in + d_out)``."""
        return self.rank * (layer.d_in + layer.d_out)

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32") -> Cost:
        itemsize(dtype)
        adapter = adapter_dtype(dtype)
        n_in, n_out = tokens * layer.d_in, tokens * layer.d_out
        scale = elementwise("mul", n_out, adapter, reads=n_out)
        forward = (
            *frozen_forward(layer, tokens, dtype),
            *cast(n_in, dtype, adapter),
            *thin_products(layer, tokens, self.rank, adapter),
            scale,
            *add_result(n_out, dtype, adapter),
        )
        backward = (
            *add_result_backward(n_out, dtype, adapter),
            scale,
            *thin_gradients(layer, tokens, self.rank, adapter),
            *cast(n_in, adapter, dtype),
            *base_backward(layer, tokens, dtype),
        )
        saved = (n_in + tokens * self.rank) * ITEMSIZE[adapter]  # x and A x
        return Cost(self.parameters(layer), 2, forward, backward, saved, adapter)

    def config(self, layers: Mapping[str, LinearShape]) -> PeftConfig:
        from peft import LoraConfig

        return LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=list(layers))
