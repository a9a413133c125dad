"""OFT: inputs rotated block by block (Qiu et al., NeurIPS 2023, arXiv 2306.07280)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar, Self

from cdvft_bench.analytic.circulant import flag
from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import (
    ITEMSIZE,
    Count,
    Kernel,
    Kernels,
    adapter_dtype,
    bmm,
    copy,
    elementwise,
    reduction,
)
from cdvft_bench.analytic.linear import LinearShape, frozen_backward, frozen_forward, itemsize
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods._peft import PeftMethod, PeftNames, cast, check_blocks, divisors
from cdvft_bench.methods.base import register

INDEX_BYTES = 16  # one int64 row and one int64 column an entry


@register
@dataclass(frozen=True)
class OFT(PeftMethod):
    """Rotations of blocks of the input, by a truncated Cayley transform. PEFT starts with no rotation.

    With S skew-symmetric the rotation is ``I + 2 S + 2 S^2 + 2 S^3 + S^4``, PEFT's five terms of
    the Neumann series of ``(I + S)(I - S)^-1``; it rotates the input, not the weight.

    Attributes:
        block_size: b, >= 2, a divisor of d_in. (PEFT itself replaces one that is not, with a warning.)
    """

    name: ClassVar[str] = "oft"
    title: ClassVar[str] = "OFT"
    source: ClassVar[str] = "Qiu et al.: NeurIPS 2023, arXiv 2306.07280"
    not_covered: ClassVar[str] = (
        "the exact Cayley transform (use_cayley_neumann=False), other numbers of terms, coft, block_share"
    )
    short: ClassVar = {"block_size": "b"}
    peft: ClassVar = PeftNames("OFTConfig", {"block_size": "oft_block_size"})

    block_size: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_size < 2:
            raise UserError(f"block_size = {self.block_size} rotates nothing; it must be >= 2")

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        for block in rng.sample(divisors(layer.d_in)[1:], min(int(layer.d_in) - 1, 1)):
            yield cls(block_size=block)

    def check(self, layer: LinearShape) -> None:
        check_blocks(self, self.block_size, layer)

    def parameters(self, layer: LinearShape) -> Count:
        """``d_in (b - 1) / 2``: the upper triangle of every block."""
        self.check(layer)
        return layer.d_in // self.block_size * self._triangle

    @property
    def _triangle(self) -> int:
        return self.block_size * (self.block_size - 1) // 2

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        parameters = self.parameters(layer)
        itemsize(dtype)
        adapter, b = adapter_dtype(dtype), self.block_size
        size = ITEMSIZE[adapter]
        blocks, n_in = layer.d_in // b, tokens * layer.d_in
        n_block = blocks * b * b
        several = flag(blocks > 1)

        power = bmm(blocks, b, b, b, adapter)
        square = replace(power, read=n_block * size)  # one operand, read once
        rotate = bmm(blocks, tokens, b, b, adapter)
        in_order = copy("clone", n_in, adapter, launches=several * flag(tokens > 1))  # blocks first to tokens first
        add_, add = elementwise("add_", n_block, adapter), elementwise("add", n_block, adapter)
        double = elementwise("mul", n_block, adapter, reads=n_block)

        def triangle(op: str) -> Kernel:
            moved = parameters * size
            return Kernel(op, "copy", read=moved + self._triangle * INDEX_BYTES, written=moved)

        forward = (
            *cast(n_in, dtype, adapter),
            copy("zeros", n_block, adapter, reads=0),
            triangle("index_put_"),
            elementwise("sub", n_block, adapter),
            copy("eye", b * b, adapter, reads=0),
            copy("repeat", n_block, adapter, reads=b * b),
            add_.times(4),
            square,
            power.times(2),
            rotate,
            in_order,
            *cast(n_in, adapter, dtype),
            *frozen_forward(layer, tokens, dtype),
        )
        series_backward: Kernels = (
            power.times(6),
            double.times(3),
            add.times(7),
            elementwise("neg", n_block, adapter, reads=n_block),
        )
        backward = (
            *frozen_backward(layer, tokens, dtype),
            *cast(n_in, dtype, adapter),
            bmm(blocks, b, tokens, b, adapter),
            rotate,
            in_order,
            *series_backward,
            triangle("index"),
            # Autograd takes the values of a lone block as broadcast.
            reduction("sum", parameters, parameters, adapter, launches=1 - several),
            *cast(n_in, adapter, dtype),
        )
        saved = (4 * n_block + n_in) * size  # S, its square and cube, the rotation; x
        return Cost(parameters, 1, forward, backward, saved, adapter)
