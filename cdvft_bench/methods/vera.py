"""VeRA: ``dW = diag(b) B diag(d) A``, A and B random and shared (Kopiczko et al., ICLR 2024, arXiv 2310.11454)."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Self

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernels, adapter_dtype, elementwise, mm, reduction
from cdvft_bench.analytic.linear import LinearShape, itemsize
from cdvft_bench.methods._peft import PeftMethod, PeftNames, beside_base
from cdvft_bench.methods.base import register
from cdvft_bench.methods.lora import thin_products


@register
@dataclass(frozen=True)
class VeRA(PeftMethod):
    """Two trained vectors around frozen random projections. PEFT starts with b zero and d at 0.1.

    The projections, of the largest widths in the model and held in float32 on 16-bit bases, are
    buffers that all layers share; ``parameters`` and ``saved_bytes`` do not count them.

    Attributes:
        rank: r, >= 1: rows of A and columns of B.
    """

    name: ClassVar[str] = "vera"
    title: ClassVar[str] = "VeRA"
    source: ClassVar[str] = "Kopiczko, Blankevoort, Asano: ICLR 2024, arXiv 2310.11454"
    short: ClassVar = {"rank": "r"}
    peft: ClassVar = PeftNames("VeraConfig", {"rank": "r"})

    rank: int = 256

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        yield cls(rank=rng.randint(1, 30))

    def parameters(self, layer: LinearShape) -> Count:
        """``r + d_out``."""
        return self.rank + layer.d_out

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        itemsize(dtype)
        adapter = adapter_dtype(dtype)
        n_out, thin = tokens * layer.d_out, tokens * self.rank
        to_rank, to_out = thin_products(layer, tokens, self.rank, adapter)

        def scale_backward(n: Count, width: Count) -> Kernels:
            # g * lambda for what lies below, g * x summed over tokens for lambda.
            return (
                elementwise("mul", n, adapter, reads=n + width),
                elementwise("mul", n, adapter),
                reduction("sum", n, width, adapter),
            )

        forward, backward = beside_base(
            layer,
            tokens,
            dtype,
            (
                to_rank,
                elementwise("mul", thin, adapter, reads=thin + self.rank),
                to_out,
                elementwise("mul", n_out, adapter, reads=n_out + layer.d_out),
            ),
            (
                *scale_backward(n_out, layer.d_out),
                mm(tokens, layer.d_out, self.rank, adapter),
                *scale_backward(thin, self.rank),
                mm(tokens, self.rank, layer.d_in, adapter),
            ),
        )
        saved = (thin + n_out) * ITEMSIZE[adapter]  # what each vector multiplies
        return Cost(self.parameters(layer), 2, forward, backward, saved, adapter)
