"""(IA)^3: a trained scale a feature (Liu et al., NeurIPS 2022, arXiv 2205.05638)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, Self

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernels, adapter_dtype, elementwise, mixed, reduction
from cdvft_bench.analytic.linear import LinearShape, frozen_backward, frozen_forward, itemsize
from cdvft_bench.methods._peft import PeftMethod, PeftNames, cast
from cdvft_bench.methods.base import register


@register
@dataclass(frozen=True)
class IA3(PeftMethod):
    """Outputs scaled by a trained vector, or inputs in feed-forward layers. PEFT starts with ones.

    Attributes:
        feedforward: scale the inputs instead of the outputs, as PEFT does in the layers that its
            config lists as ``feedforward_modules``.
    """

    name: ClassVar[str] = "ia3"
    title: ClassVar[str] = "(IA)3"
    source: ClassVar[str] = "Liu et al.: NeurIPS 2022, arXiv 2205.05638"
    not_covered: ClassVar[str] = "scaled inputs and scaled outputs in one model: one setting holds for all layers"
    peft: ClassVar = PeftNames("IA3Config")

    feedforward: bool = False

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        yield cls(feedforward=rng.random() < 0.5)

    @property
    def label(self) -> str:
        return "(IA)3" + (" inputs" if self.feedforward else "")

    def parameters(self, layer: LinearShape) -> Count:
        """``d_out``, or ``d_in`` in a feed-forward layer."""
        return layer.d_in if self.feedforward else layer.d_out

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        size = itemsize(dtype)
        adapter = adapter_dtype(dtype)
        width = self.parameters(layer)
        n = tokens * width
        times_one = elementwise("mul", width, adapter, reads=width)  # the product over adapters starts at 1
        base, base_backward = frozen_forward(layer, tokens, dtype), frozen_backward(layer, tokens, dtype)
        kept = adapter if self.feedforward else dtype  # dtype of what the vector multiplies
        scale = mixed("mul", n, adapter, (n, kept), (width, adapter))
        # For the vector, then for what it multiplies.
        scale_backward: Kernels = (
            mixed("mul", n, adapter, (n, adapter), (n, kept)),
            elementwise("mul", n, adapter, reads=n + width),
        )
        to_vector = reduction("sum", n, width, adapter)
        inward, outward = cast(n, dtype, adapter), cast(n, adapter, dtype)
        if self.feedforward:
            forward = (times_one, *inward, scale, *outward, *base)
            backward = (*base_backward, *inward, *scale_backward, to_vector, *outward, times_one)
        else:
            forward = (times_one, *base, scale, *outward)
            backward = (*inward, *scale_backward, *outward, to_vector, *base_backward, times_one)
        saved = width * ITEMSIZE[adapter] + n * (ITEMSIZE[adapter] if self.feedforward else size)
        return Cost(width, 1, forward, backward, saved, adapter)

    def options(self, layers: Mapping[str, LinearShape]) -> dict[str, Any]:
        names = list(layers)
        return {"target_modules": names, "feedforward_modules": names if self.feedforward else []}
