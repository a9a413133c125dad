"""BitFit: the bias alone is trained (Ben Zaken, Goldberg, Ravfogel, ACL 2022, arXiv 2106.10199)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, ClassVar, Self

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import Count, Kernels, reduction
from cdvft_bench.analytic.linear import LinearShape, frozen_backward, frozen_forward, itemsize
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods.base import Method, register

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class BitFit(Method):
    """No adapter: the layer's own bias is trained, in the layer's dtype. A layer without a bias is refused."""

    name: ClassVar[str] = "bitfit"
    title: ClassVar[str] = "BitFit"
    source: ClassVar[str] = "Ben Zaken, Goldberg, Ravfogel: ACL 2022, arXiv 2106.10199"
    not_covered: ClassVar[str] = "biases outside the target layers, layer norms' included: they stay frozen"
    writes_base: ClassVar[bool] = True

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        if layer.bias:
            yield cls()

    def check(self, layer: LinearShape) -> None:
        if not layer.bias:
            raise UserError("the layer has no bias, all that BitFit trains; use layers with a bias or another method")

    def parameters(self, layer: LinearShape) -> Count:
        """``d_out``."""
        self.check(layer)
        return layer.d_out

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        self.check(layer)
        itemsize(dtype)
        backward: Kernels = (
            *frozen_backward(layer, tokens, dtype),
            reduction("sum", tokens * layer.d_out, layer.d_out, dtype),
        )
        return Cost(
            parameters=layer.d_out,
            tensors=1,
            forward=frozen_forward(layer, tokens, dtype),
            backward=backward,
            parameter_dtype=dtype,
        )

    def adapt_linear(self, base: nn.Linear) -> nn.Module:
        """``base`` itself, frozen but for its bias.

        Raises:
            UserError: it has no bias.
        """
        self.check(LinearShape(base.in_features, base.out_features, base.bias is not None))
        base.requires_grad_(False)
        base.bias.requires_grad_(True)
        return base
