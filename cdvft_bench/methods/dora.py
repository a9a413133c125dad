"""DoRA: LoRA with a trained magnitude a row of the weight (Liu et al., ICML 2024, arXiv 2402.09353)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import (
    ITEMSIZE,
    Count,
    Kernel,
    Kernels,
    adapter_dtype,
    copy,
    elementwise,
    mixed,
    reduction,
)
from cdvft_bench.analytic.linear import LinearShape, frozen_forward, itemsize
from cdvft_bench.methods._peft import PeftMethod, add_result, add_result_backward, base_backward, cast
from cdvft_bench.methods.base import register
from cdvft_bench.methods.lora import check_rank_and_alpha, thin_gradients, thin_products

if TYPE_CHECKING:
    from peft import PeftConfig


@register
@dataclass(frozen=True)
class DoRA(PeftMethod):
    """``W + dW`` with its rows scaled to trained lengths. PEFT starts with B zero and the lengths of W's rows.

    PEFT needs the row lengths of ``W + dW`` at every forward pass in training, and builds dW for
    them by sending an identity matrix through A and B: d_in^2 r + d_in r d_out multiply-adds.
    The lengths are held constant in the backward pass, yet autograd keeps the identity matrix.

    Attributes:
        rank: r, >= 1.
        alpha: dW is scaled by ``alpha / rank``.
    """

    name: ClassVar[str] = "dora"
    title: ClassVar[str] = "DoRA"
    source: ClassVar[str] = "Liu et al.: ICML 2024, arXiv 2402.09353"

    rank: int = 8
    alpha: float = 16

    def __post_init__(self) -> None:
        check_rank_and_alpha(self.rank, self.alpha)

    @property
    def label(self) -> str:
        return f"DoRA r={self.rank}" + ("" if self.alpha == 16 else f" alpha={self.alpha:g}")

    def parameters(self, layer: LinearShape) -> Count:
        """``r (d_in + d_out) + d_out``."""
        return self.rank * (layer.d_in + layer.d_out) + layer.d_out

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32") -> Cost:
        itemsize(dtype)
        adapter = adapter_dtype(dtype)
        d_in, d_out, weights = layer.d_in, layer.d_out, layer.weights
        n_in, n_out = tokens * d_in, tokens * d_out
        scale = elementwise("mul", n_out, adapter, reads=n_out)
        by_row = elementwise("mul", n_out, adapter, reads=n_out + d_out)
        unbiased = elementwise("sub", n_out, dtype, reads=n_out + d_out, launches=int(layer.bias))

        def by_result(operand: Count) -> Kernel:
            return mixed("mul", n_out, adapter, (operand, adapter), (n_out, dtype))

        row_lengths: Kernels = (
            copy("eye", d_in * d_in, adapter, reads=0),
            *thin_products(layer, d_in, self.rank, adapter),
            *cast(weights, dtype, adapter),
            elementwise("mul", weights, adapter, reads=weights),
            elementwise("add", weights, adapter),
            reduction("linalg_vector_norm", weights, d_out, adapter, flops=2),
            elementwise("div", d_out, adapter),
        )
        forward = (
            *frozen_forward(layer, tokens, dtype),
            *cast(n_in, dtype, adapter),
            *row_lengths,
            *thin_products(layer, tokens, self.rank, adapter),
            unbiased,
            elementwise("sub", d_out, adapter, reads=d_out),
            by_result(d_out),
            by_row,
            scale,
            elementwise("add", n_out, adapter),
            *add_result(n_out, dtype, adapter),
        )
        to_length = reduction("sum", n_out, d_out, adapter)
        backward = (
            *add_result_backward(n_out, dtype, adapter),
            scale,
            by_row,
            elementwise("mul", n_out, adapter),
            to_length,
            by_row,
            by_result(n_out),
            to_length,
            *cast(n_out, adapter, dtype),
            elementwise("add", d_out, adapter),
            elementwise("add", n_out, dtype),
            *thin_gradients(layer, tokens, self.rank, adapter),
            elementwise("div", d_out, adapter),
            *cast(n_in, adapter, dtype),
            *base_backward(layer, tokens, dtype),
        )
        thin = (d_in + tokens) * self.rank  # A applied to the identity, A x
        lengths = 3 * d_out  # the row lengths, the scale, the scale less one
        saved = (d_in * d_in + thin + lengths + n_in + n_out) * ITEMSIZE[adapter] + n_out * ITEMSIZE[dtype]
        return Cost(self.parameters(layer), 3, forward, backward, saved, adapter)

    def config(self, layers: Mapping[str, LinearShape]) -> PeftConfig:
        from peft import LoraConfig

        return LoraConfig(r=self.rank, lora_alpha=self.alpha, use_dora=True, target_modules=list(layers))
