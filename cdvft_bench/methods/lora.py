"""LoRA: ``dW = (alpha / r) B A`` with A of r rows and B of r columns (Hu et al., ICLR 2022, arXiv 2106.09685)."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Self

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernels, adapter_dtype, elementwise, mm
from cdvft_bench.analytic.linear import LinearShape, itemsize
from cdvft_bench.methods._peft import PeftMethod, PeftNames, beside_base
from cdvft_bench.methods.base import Settings, register


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
    usual: ClassVar[tuple[Settings, ...]] = ({"rank": 8}, {"rank": 16}, {"rank": 32}, {"rank": 64})
    short: ClassVar = {"rank": "r"}
    peft: ClassVar = PeftNames("LoraConfig", {"rank": "r", "alpha": "lora_alpha"})

    rank: int = 8
    alpha: float = 16

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        yield cls(rank=rng.randint(1, 12), alpha=rng.choice([1.0, 16, 0.5]))

    @property
    def covers_quantised(self) -> bool:
        return True

    def parameters(self, layer: LinearShape) -> Count:
        """``r (d_in + d_out)``."""
        return self.rank * (layer.d_in + layer.d_out)

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        itemsize(dtype)
        adapter = adapter_dtype(dtype)
        scale = elementwise("mul", tokens * layer.d_out, adapter, reads=tokens * layer.d_out)
        forward, backward = beside_base(
            layer,
            tokens,
            dtype,
            (*thin_products(layer, tokens, self.rank, adapter), scale),
            (scale, *thin_gradients(layer, tokens, self.rank, adapter)),
        )
        saved = tokens * (layer.d_in + self.rank) * ITEMSIZE[adapter]  # x and A x
        return Cost(self.parameters(layer), 2, forward, backward, saved, adapter)
