"""Block-circulant adapter, BCA: ``dW`` is one block-circulant matrix (Ding et al., IJCAI 2025, arXiv 2505.00582)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, ClassVar, Self

from cdvft_bench.analytic.circulant import CirculantConvention, CirculantPath, Factor, entries, resolve_block_size, wrap
from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import Count, adapter_dtype
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.execution.costs import FAST_PATHS, FastLayer
from cdvft_bench.execution.planner import planned
from cdvft_bench.methods._circulant import Circulant, advised, draw
from cdvft_bench.methods.base import Settings, register

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class BlockCirculant(Circulant):
    """CDVFT without its diagonals: d_in * d_out / p parameters.

    Attributes:
        block_size: p, >= 1; None is ``min(d_in, d_out)``.
        alpha, convention, path: as for CDVFT.
    """

    name: ClassVar[str] = "block_circulant"
    title: ClassVar[str] = "BCA"
    source: ClassVar[str] = "Ding, Wang, Liao, Wang: IJCAI 2025, arXiv 2505.00582"

    block_size: int | None = None
    alpha: float = 1.0
    convention: CirculantConvention = "column"
    path: CirculantPath = "fft"

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        yield cls(**draw(rng))

    @classmethod
    def advised(cls, layers: Sequence[LinearShape], device: str) -> Iterable[Settings]:
        return advised(layers, device)

    @property
    def label(self) -> str:
        return f"BCA {self.told}"

    def factor(self, layer: LinearShape, tokens: Count, dtype: str = "float32") -> Factor:
        """The one circulant factor."""
        p = resolve_block_size(self.block_size, layer)
        return Factor(layer.d_in, layer.d_out, p, tokens, dtype, self.convention == "row")

    def parameters(self, layer: LinearShape) -> Count:
        """``q_out q_in p``, which is d_in d_out / p when p divides both widths."""
        return entries(layer.d_in, layer.d_out, resolve_block_size(self.block_size, layer))

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        adapter = adapter_dtype(dtype)
        factor = self.factor(layer, tokens, adapter)
        path = planned(self.path, layer, [factor], 0, tokens, dtype, device)
        if path in FAST_PATHS:
            fast = FastLayer(layer, tokens, dtype, [factor], 0, self.alpha, path, device)
            return Cost(factor.parameters, 1, fast.forward(), fast.backward(), fast.saved_bytes, adapter)
        forward, backward = wrap(factor.forward(), factor.backward(self.path), layer, tokens, dtype)
        return Cost(factor.parameters, 1, forward, backward, factor.saved_bytes(self.path), adapter)

    def adapt_linear(self, base: nn.Linear) -> nn.Module:
        from cdvft_bench.execution.paths import FastBlockCirculantLinear
        from cdvft_reference import BlockCirculantLinear

        if self.path == "fft" or self.path == "handwritten":
            return BlockCirculantLinear(base, self.block_size, self.alpha, self.convention, self.path)
        return FastBlockCirculantLinear(
            base, self.path, block_size=self.block_size, alpha=self.alpha, convention=self.convention
        )
