"""LoHa: ``dW`` is the entry-wise product of two low-rank ones (Hyeon-Woo et al., ICLR 2022, arXiv 2108.06098)."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Self

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernels, adapter_dtype, elementwise, mixed, mm
from cdvft_bench.analytic.linear import LinearShape, itemsize
from cdvft_bench.methods._peft import PeftMethod, PeftNames, dense_change
from cdvft_bench.methods._shared import DROPOUT_DRAW
from cdvft_bench.methods.base import register


@register
@dataclass(frozen=True)
class LoHa(PeftMethod):
    """``dW = (alpha / r) (A1 B1) * (A2 B2)``, of rank up to r^2. PEFT starts with A2 zero, so dW starts at zero.

    PEFT builds the whole dW at every forward pass, multiplies by it densely, and builds both
    factors again in the backward pass instead of keeping them.

    Attributes:
        rank: r, >= 1, of either factor.
        alpha: the change is scaled by ``alpha / rank``.
    """

    name: ClassVar[str] = "loha"
    title: ClassVar[str] = "LoHa"
    source: ClassVar[str] = "Hyeon-Woo, Ye-Bin, Oh: ICLR 2022, arXiv 2108.06098"
    not_covered: ClassVar[str] = "rank dropout and module dropout"
    short: ClassVar = {"rank": "r"}
    peft: ClassVar = PeftNames("LoHaConfig", {"rank": "r"})

    rank: int = 8
    alpha: float = 8

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        yield cls(rank=rng.randint(1, 12), alpha=rng.choice([8, 2.5]))

    def parameters(self, layer: LinearShape) -> Count:
        """``2 r (d_in + d_out)``."""
        return 2 * self.rank * (layer.d_in + layer.d_out)

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        itemsize(dtype)
        adapter = adapter_dtype(dtype)
        d_in, d_out, weights = layer.d_in, layer.d_out, layer.weights
        factor = mm(d_out, self.rank, d_in, adapter)
        product = elementwise("mul", weights, adapter)
        scale = mixed("mul", weights, adapter, (weights, adapter), (1, "float32"))  # the scale is a tensor
        one_factor: Kernels = (
            factor,
            product,
            mm(d_out, d_in, self.rank, adapter),
            mm(self.rank, d_out, d_in, adapter),
        )
        return dense_change(
            layer,
            tokens,
            dtype,
            build=(*DROPOUT_DRAW, factor, factor, product, scale),
            build_backward=(scale, *one_factor, *one_factor),
            parameters=self.parameters(layer),
            tensors=4,
            kept=ITEMSIZE["float32"],
        )
