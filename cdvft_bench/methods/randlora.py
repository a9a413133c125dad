"""RandLoRA: a full-rank sum of random low-rank products (Albert et al., ICLR 2025, arXiv 2502.00987)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar, Self

from cdvft_bench.analytic.circulant import flag
from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernels, adapter_dtype, bmm, copy, elementwise, mm, smaller
from cdvft_bench.analytic.linear import LinearShape, itemsize
from cdvft_bench.methods._peft import PeftMethod, PeftNames, beside_base
from cdvft_bench.methods.base import register


@register
@dataclass(frozen=True)
class RandLoRA(PeftMethod):
    """``dW = (alpha / r) sum_i B_i diag(l_i) A diag(g_i)`` over n = ceil(min(d_in, d_out) / r) products.

    A (r rows) and the B_i are frozen and random, and l_i and g_i are trained. PEFT starts with the
    l_i zero. The random matrices are buffers that all layers share; ``parameters`` and
    ``saved_bytes`` do not count them. The trained vectors act on the narrower side of the layer.

    Attributes:
        rank: r, >= 1, of each product: the smaller, the more parameters.
        alpha: the change is scaled by ``alpha / rank``.
    """

    name: ClassVar[str] = "randlora"
    title: ClassVar[str] = "RandLoRA"
    source: ClassVar[str] = "Albert et al.: ICLR 2025, arXiv 2502.00987"
    not_covered: ClassVar[str] = (
        "sparse and very_sparse matrices; another order of products in the backward pass, which torch "
        "may choose where the package opt_einsum is installed"
    )
    short: ClassVar = {"rank": "r"}
    peft: ClassVar = PeftNames("RandLoraConfig", {"rank": "r", "alpha": "randlora_alpha"})

    rank: int = 32
    alpha: float = 640

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        yield cls(rank=rng.randint(1, 12), alpha=rng.choice([640, 2.5]))

    def bases(self, layer: LinearShape) -> Count:
        """n on this layer."""
        return -(-smaller(layer.d_in, layer.d_out) // self.rank)

    def parameters(self, layer: LinearShape) -> Count:
        """``n (r + min(d_in, d_out))``."""
        return self.bases(layer) * (self.rank + smaller(layer.d_in, layer.d_out))

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        itemsize(dtype)
        adapter, r, n = adapter_dtype(dtype), self.rank, self.bases(layer)
        d_in, d_out = layer.d_in, layer.d_out
        narrow = flag(d_in <= d_out)
        side = narrow * d_in + (1 - narrow) * d_out
        inner, entries = r * n, r * n * side
        n_in = tokens * d_in
        scale = elementwise("mul", tokens * d_out, adapter, reads=tokens * d_out)
        with_a = elementwise("mul", entries, adapter, reads=entries + r * side)

        def contract(rows: Count, summed: Count, vectors: Count) -> Kernels:
            # n matrices times n vectors; where there is nothing to sum, an element-wise product.
            lone = flag(summed == 1)
            return (
                bmm(n, rows, summed, 1, adapter, launches=1 - lone),
                elementwise("mul", n * rows, adapter, reads=n * rows + vectors, launches=lone),
            )

        to_bases = mm(inner, tokens, side, adapter)
        forward, backward = beside_base(
            layer,
            tokens,
            dtype,
            (
                elementwise("mul", entries, adapter, reads=inner + r * side),
                elementwise("mul", entries, adapter, reads=entries + n * side),
                mm(tokens, d_in, inner, adapter),
                mm(tokens, inner, d_out, adapter),
                scale,
            ),
            (
                scale,
                replace(to_bases, launches=1 - narrow),
                mm(tokens, d_out, inner, adapter),
                replace(to_bases, launches=narrow),
                mm(tokens, inner, d_in, adapter),
                with_a,
                *contract(r, side, n * side),
                with_a,
                *contract(side, r, n * r),
                # The gradient of the l_i comes transposed and is put in order for .grad.
                copy("copy_", inner, adapter, launches=flag(n > 1) * int(r > 1)),
            ),
        )
        kept = entries + narrow * n_in + (1 - narrow) * tokens * inner  # the trained side, and what it multiplies
        return Cost(self.parameters(layer), 2, forward, backward, kept * ITEMSIZE[adapter], adapter)
