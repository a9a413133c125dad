"""LoKr: ``dW`` is a Kronecker product of two small matrices (Yeh et al., ICLR 2024, arXiv 2309.14859)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any, ClassVar, Literal, Self

import numpy as np

from cdvft_bench.analytic.circulant import flag
from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernels, adapter_dtype, elementwise, larger, mm, reduction
from cdvft_bench.analytic.linear import LinearShape, itemsize
from cdvft_bench.methods._peft import PeftMethod, PeftNames, dense_change
from cdvft_bench.methods._shared import DROPOUT_DRAW
from cdvft_bench.methods.base import register


@dataclass(frozen=True)
class Factor:
    """One of the two matrices: (rows, columns), written as a product of rank r where ``thin`` is 1."""

    rows: Count
    columns: Count
    rank: int
    thin: Count

    @property
    def entries(self) -> Count:
        return self.rows * self.columns

    @property
    def parameters(self) -> Count:
        return self.thin * self.rank * (self.rows + self.columns) + (1 - self.thin) * self.entries

    def build(self, dtype: str) -> Kernels:
        return (replace(mm(self.rows, self.rank, self.columns, dtype), launches=self.thin),)

    def build_backward(self, dtype: str) -> Kernels:
        return (
            replace(mm(self.rank, self.rows, self.columns, dtype), launches=self.thin),
            replace(mm(self.rows, self.columns, self.rank, dtype), launches=self.thin),
        )


@register
@dataclass(frozen=True)
class LoKr(PeftMethod):
    """``dW = (alpha / r) W1 (x) W2`` with both widths cut into two factors. PEFT starts with W1 zero.

    W2 takes the larger factors of the widths and is itself a product of rank r where 2 r is below
    its longer side; so is W1 with ``decompose_both``. PEFT builds the whole dW at every forward
    pass and multiplies by it densely.

    Attributes:
        rank: r, >= 1.
        alpha: the change is scaled by ``alpha / rank``, even where neither matrix has a rank.
        decompose_both: whether W1 may be a product, too.
        decompose_factor: W1's share of each width, where it divides it, else the largest divisor up
            to it and up to the square root of the width; -1 sets no bound but the square root.
    """

    name: ClassVar[str] = "lokr"
    title: ClassVar[str] = "LoKr"
    source: ClassVar[str] = "Yeh et al.: ICLR 2024, arXiv 2309.14859"
    not_covered: ClassVar[str] = "rank dropout and module dropout"
    short: ClassVar = {"rank": "r", "decompose_factor": "factor"}
    peft: ClassVar = PeftNames("LoKrConfig", {"rank": "r"})

    rank: int = 8
    alpha: float = 8
    decompose_both: bool = False
    decompose_factor: int | Literal[-1] = -1

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        yield cls(
            rank=rng.randint(1, 6),
            alpha=rng.choice([8, 2.5]),
            decompose_both=rng.random() < 0.5,
            decompose_factor=rng.choice([-1, -1, 1, 2, 4]),
        )

    @property
    def label(self) -> str:
        return super().label.replace("decompose_both=True", "both")

    def factors(self, layer: LinearShape) -> tuple[Factor, Factor]:
        """W1 and W2 on this layer."""
        (across, wide), (down, tall) = (
            split(layer.d_in, self.decompose_factor),
            split(layer.d_out, self.decompose_factor),
        )
        thin = flag(2 * self.rank < larger(tall, wide))
        thin_too = flag(2 * self.rank < larger(down, across)) * int(self.decompose_both)
        return Factor(down, across, self.rank, thin_too), Factor(tall, wide, self.rank, thin)

    def parameters(self, layer: LinearShape) -> Count:
        """Of each factor (m, n): ``m n``, or ``r (m + n)`` where it is a product."""
        first, second = self.factors(layer)
        return first.parameters + second.parameters

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        itemsize(dtype)
        adapter = adapter_dtype(dtype)
        weights = layer.weights
        first, second = self.factors(layer)
        scale = elementwise("mul", weights, adapter, reads=weights)

        def to_factor(factor: Factor, other: Factor) -> Kernels:
            # The gradient of dW times the other factor, summed where that has entries to sum over.
            return (
                elementwise("mul", weights, adapter, reads=weights + other.entries),
                reduction("sum", weights, factor.entries, adapter, launches=flag(other.entries > 1)),
            )

        (first_mul, first_sum), (second_mul, second_sum) = to_factor(first, second), to_factor(second, first)
        return dense_change(
            layer,
            tokens,
            dtype,
            build=(
                *DROPOUT_DRAW,
                *first.build(adapter),
                *second.build(adapter),
                elementwise("mul", weights, adapter, reads=first.entries + second.entries),
                scale,
            ),
            build_backward=(
                scale,
                second_mul,
                first_mul,
                first_sum,
                second_sum,
                *second.build_backward(adapter),
                *first.build_backward(adapter),
            ),
            parameters=self.parameters(layer),
            tensors=2 + first.thin + second.thin,
            kept=(first.thin * first.entries + second.thin * second.entries) * ITEMSIZE[adapter],
        )


def split(width: Count, factor: int) -> tuple[Count, Count]:
    """A width as PEFT's LoKr cuts it in two: W1's share and W2's."""
    shares: Any
    if isinstance(width, int):
        shares = _share(width, factor)
    else:
        shares = np.array([_share(int(w), factor) for w in width.flat], dtype=width.dtype).reshape(width.shape)
    return shares, width // shares


@cache
def _share(width: int, factor: int) -> int:
    bound = math.isqrt(width)
    if factor != -1:
        if width % factor == 0:
            return factor
        bound = min(bound, factor)
    return next(m for m in range(bound, 0, -1) if width % m == 0)
