"""MiSS: one trained matrix shared by all input blocks (Kang, Yin, 2024, arXiv 2409.15371)."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Self

from cdvft_bench.analytic.circulant import flag
from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, adapter_dtype, copy, elementwise, mm, reduction
from cdvft_bench.analytic.linear import LinearShape, frozen_backward, frozen_forward, itemsize
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods._peft import PeftMethod, PeftNames, add_result, add_result_backward, cast, first_misfit
from cdvft_bench.methods.base import register


@register
@dataclass(frozen=True)
class MiSS(PeftMethod):
    """The input's blocks of r features are summed, then multiplied by one matrix. PEFT starts with it zero.

    Attributes:
        rank: r, 1 to d_in: features in a block; the last block is padded.
    """

    name: ClassVar[str] = "miss"
    title: ClassVar[str] = "MiSS"
    source: ClassVar[str] = "Kang, Yin: arXiv 2409.15371"
    not_covered: ClassVar[str] = "PEFT's starts 'bat' and 'mini', which are other layers"
    short: ClassVar = {"rank": "r"}
    peft: ClassVar = PeftNames("MissConfig", {"rank": "r"})

    rank: int = 64

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        yield cls(rank=rng.randint(1, min(int(layer.d_in), 20)))

    def check(self, layer: LinearShape) -> None:
        widths = first_misfit(layer, layer.d_in < self.rank)
        if widths:
            raise UserError(
                f"rank = {self.rank} is more than d_in = {widths[0]}, of which MiSS sums blocks; "
                f"use at most {widths[0]}"
            )

    def parameters(self, layer: LinearShape) -> Count:
        """``r d_out``."""
        self.check(layer)
        return self.rank * layer.d_out

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        self.check(layer)
        itemsize(dtype)
        adapter, r = adapter_dtype(dtype), self.rank
        n_in, n_out, thin = tokens * layer.d_in, tokens * layer.d_out, tokens * r
        blocks = -(-layer.d_in // r)
        padded, ragged = thin * blocks, flag(layer.d_in % r != 0)
        same, gradient = adapter == dtype, tokens if r == 1 else padded
        forward = (
            *frozen_forward(layer, tokens, dtype),
            copy("constant_pad_nd", padded, dtype, reads=n_in, launches=ragged),
            *cast(padded, dtype, adapter),
            reduction("sum", padded, thin, adapter),
            mm(tokens, r, layer.d_out, adapter),
            *add_result(n_out, dtype, adapter),
        )
        backward = (
            *add_result_backward(n_out, dtype, adapter),
            mm(r, tokens, layer.d_out, adapter),
            mm(tokens, layer.d_out, r, adapter),
            # Every block takes the gradient of the sum; blocks of one feature as a view of it.
            copy("clone", padded, adapter, reads=thin, launches=flag(blocks > 1) * int(r > 1)),
            *(() if same else (copy("_to_copy", padded, adapter, to=dtype, reads=gradient),)),
            copy("constant_pad_nd", n_in, dtype, launches=ragged),
            *frozen_backward(layer, tokens, dtype),
            elementwise("add", n_in, dtype, reads=n_in + (tokens if same and r == 1 else n_in)),
        )
        saved = thin * ITEMSIZE[adapter]  # the sum of the blocks
        return Cost(self.parameters(layer), 1, forward, backward, saved, adapter)
