"""HRA: W times a product of Householder reflections (Yuan, Liu, Xu, NeurIPS 2024, arXiv 2405.17484)."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Self

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import (
    ITEMSIZE,
    Count,
    Kernels,
    adapter_dtype,
    copy,
    elementwise,
    mm,
    of_base,
    reduction,
    times,
)
from cdvft_bench.analytic.linear import LinearShape, frozen_forward, itemsize
from cdvft_bench.methods._peft import PeftMethod, PeftNames, cast
from cdvft_bench.methods._shared import length_backward
from cdvft_bench.methods.base import register


@register
@dataclass(frozen=True)
class HRA(PeftMethod):
    """``W H_1 ... H_r`` with reflections ``H_i = I - 2 u_i u_i^T / |u_i|^2``.

    PEFT starts with equal pairs of vectors, which cancel, if r is even; with an odd r (it warns) at a
    random product of reflections. It multiplies out the d_in x d_in product and the new weight at
    every forward pass, d_in^3 and d_in^2 d_out multiply-adds, and keeps the product of every step.
    The layer's own product then takes the new weight, in the adapter's dtype.

    Attributes:
        rank: r, >= 1, reflections.
    """

    name: ClassVar[str] = "hra"
    title: ClassVar[str] = "HRA"
    source: ClassVar[str] = "Yuan, Liu, Xu: NeurIPS 2024, arXiv 2405.17484"
    not_covered: ClassVar[str] = "apply_GS (orthogonal vectors by Gram-Schmidt)"
    short: ClassVar = {"rank": "r"}
    peft: ClassVar = PeftNames("HRAConfig", {"rank": "r"})

    rank: int = 8

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        yield cls(rank=rng.randint(1, 6))

    def parameters(self, layer: LinearShape) -> Count:
        """``r d_in``."""
        return self.rank * layer.d_in

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        itemsize(dtype)
        adapter, r = adapter_dtype(dtype), self.rank
        d_in, d_out, weights = layer.d_in, layer.d_out, layer.weights
        square, vectors = d_in * d_in, r * d_in
        n_in, n_out = tokens * d_in, tokens * d_out
        double = elementwise("mul", square, adapter, reads=square)
        product, outer = mm(d_in, d_in, 1, adapter), mm(d_in, 1, d_in, adapter)
        rotate, rotate_weight = mm(d_in, d_in, d_in, adapter), mm(d_out, d_in, d_in, adapter)
        reflect: Kernels = (double, product, outer, elementwise("sub", square, adapter))
        over_length = elementwise("div", vectors, adapter, reads=vectors + r)
        merged = (
            *cast(weights, dtype, adapter),
            rotate_weight,
            *(cast(d_out, dtype, adapter) if layer.bias else ()),
        )
        forward = (
            copy("eye", square, "float32", reads=0),
            reduction("linalg_vector_norm", vectors, r, adapter, flops=2),
            over_length,
            copy("eye", square, adapter, reads=0),
            *times(reflect, r),
            *cast(square, "float32", adapter),
            rotate,
            *merged,
            *cast(n_in, dtype, adapter),
            *frozen_forward(layer, tokens, adapter),
            *cast(n_out, adapter, dtype),
        )
        backward: Kernels = (
            *cast(n_out, dtype, adapter),
            *of_base((mm(tokens, d_out, d_in, adapter),)),
            mm(d_out, tokens, d_in, adapter),
            *cast(n_in, adapter, dtype),
            mm(d_in, d_out, d_in, adapter),
            rotate,
        )
        # The last reflection comes first, and acts on the identity.
        backward += (
            elementwise("neg", square, adapter, reads=square).times(r),
            mm(1, d_in, d_in, adapter).times(r),
            product.times(2 * r),
            outer.times(r - 1),
            elementwise("add", d_in, adapter).times(r),
            double.times(r - 1),
            elementwise("add", square, adapter).times(r - 1),
            copy("select_backward", vectors, adapter, reads=d_in).times(r),
            elementwise("add", vectors, adapter).times(r - 1),
        )
        backward += (
            over_length,
            over_length,
            elementwise("neg", vectors, adapter, reads=vectors),
            elementwise("mul", vectors, adapter),
            over_length,
            reduction("sum", vectors, r, adapter),
            *length_backward(vectors, r, adapter),
            elementwise("add", vectors, adapter),
        )
        # The unit vectors and their lengths; every step's matrix and its product with the vector; the identity
        # that PEFT starts from, in the adapter's dtype; the new weight; x; the weight if it was cast.
        copies = 1 if adapter == dtype else 2
        kept = r + vectors + r * (square + d_in) + square + copies * weights + n_in
        return Cost(self.parameters(layer), 1, forward, backward, kept * ITEMSIZE[adapter], adapter)
