"""DeLoRA: low-rank updates of a bounded, trained length (Bini et al., ICLR 2025, arXiv 2503.18225)."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Self

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
    mm,
    reduction,
)
from cdvft_bench.analytic.linear import LinearShape, frozen_forward, itemsize
from cdvft_bench.methods._peft import PeftMethod, PeftNames, base_backward, cast
from cdvft_bench.methods._shared import compare, length_backward
from cdvft_bench.methods.base import register
from cdvft_bench.methods.lora import thin_products


@register
@dataclass(frozen=True)
class DeLoRA(PeftMethod):
    """``dW = (l / r) B diag(1 / (|b_i| |a_i|)) A diag(w)`` with l trained. PEFT starts with B zero.

    a_i are the rows of A, b_i the columns of B, and w the lengths of the columns of W, held as a buffer.

    Attributes:
        rank: r, >= 1.
        delora_lambda: the start of l, the bound on the change's length.
    """

    name: ClassVar[str] = "delora"
    title: ClassVar[str] = "DeLoRA"
    source: ClassVar[str] = "Bini, Girrbach, Akata: ICLR 2025, arXiv 2503.18225"
    short: ClassVar = {"rank": "r", "delora_lambda": "lambda"}
    peft: ClassVar = PeftNames("DeloraConfig", {"rank": "r"})

    rank: int = 8
    delora_lambda: float = 15

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        yield cls(rank=rng.randint(1, 8), delora_lambda=rng.choice([15, 2.5]))

    def parameters(self, layer: LinearShape) -> Count:
        """``r (d_in + d_out) + 1``."""
        return self.rank * (layer.d_in + layer.d_out) + 1

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        itemsize(dtype)
        adapter, r = adapter_dtype(dtype), self.rank
        d_in, d_out = layer.d_in, layer.d_out
        n_in, n_out, thin = tokens * d_in, tokens * d_out, tokens * r
        to_rank, to_out = thin_products(layer, tokens, r, adapter)

        def vector(op: str, reads: int = 2 * r) -> Kernel:
            return elementwise(op, r, adapter, reads=reads)

        def length(n: Count) -> Kernels:
            return reduction("linalg_vector_norm", n, r, adapter, flops=2), vector("clamp", r)

        def to_entries(n: Count) -> Kernels:
            # The gradient of a length that was clamped: zero below the bound.
            one = ITEMSIZE[adapter]
            return (
                copy("scalar_tensor", 1, adapter, reads=0),
                compare("ge", r, adapter),
                Kernel("where", "copy", read=r + (r + 1) * one, written=r * one),
                *length_backward(n, r, adapter),
            )

        by_rank = elementwise("mul", thin, adapter, reads=thin + r)
        over_r = elementwise("div", 1, adapter, reads=1)
        forward = (
            *frozen_forward(layer, tokens, dtype),
            copy("zeros_like", n_out, dtype, reads=0),
            mixed("mul", n_in, adapter, (n_in, dtype), (d_in, adapter)),
            to_rank,
            *length(r * d_in),
            *length(r * d_out),
            over_r,
            vector("mul"),
            vector("div", 1 + r),
            by_rank,
            to_out,
            mixed("add_", n_out, dtype, (n_out, dtype), (n_out, adapter)),
            elementwise("add", n_out, dtype),
        )
        backward = (
            *cast(n_out, dtype, adapter),
            mm(d_out, tokens, r, adapter),
            mm(tokens, d_out, r, adapter),
            elementwise("mul", thin, adapter),
            by_rank,
            reduction("sum", thin, r, adapter),
            # l / r over the product of the lengths: for the lengths, then for l.
            vector("div", 1 + r),
            vector("div"),
            vector("neg", r),
            vector("mul"),
            vector("div"),
            reduction("sum", r, 1, adapter, launches=int(r > 1)),
            vector("mul"),
            vector("mul"),
            over_r,
            *to_entries(r * d_out),
            elementwise("add", r * d_out, adapter),
            *to_entries(r * d_in),
            mm(r, tokens, d_in, adapter),
            mm(tokens, r, d_in, adapter),
            elementwise("add", r * d_in, adapter),
            elementwise("mul", n_in, adapter, reads=n_in + d_in),
            *cast(n_in, adapter, dtype),
            *base_backward(layer, tokens, dtype),
        )
        # x w, its product with A before and after scaling; lengths before and after clamping, their product,
        # l / r, and the scale.
        saved = (n_in + 2 * thin + 6 * r + 1) * ITEMSIZE[adapter]
        return Cost(self.parameters(layer), 3, forward, backward, saved, adapter)
