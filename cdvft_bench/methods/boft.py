"""BOFT: W times an orthogonal block-diagonal matrix, rows scaled (Liu et al., ICLR 2024, arXiv 2311.06243)."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar, Literal, Self

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
    lu,
    mixed,
    mm,
    reduction,
)
from cdvft_bench.analytic.linear import LinearShape, frozen_backward, frozen_forward, itemsize
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods._peft import PeftMethod, PeftNames, cast, check_blocks, divisors
from cdvft_bench.methods.base import register


@register
@dataclass(frozen=True)
class BOFT(PeftMethod):
    """An orthogonal rotation of the input and a scale a row. PEFT starts with no rotation and scale one.

    The rotation's blocks are Cayley transforms ``(I - S)(I + S)^-1`` of skew-symmetric matrices,
    solved by LU (counted as ``analytic.kernels.lu`` says). PEFT multiplies out the d_in x d_in
    rotation at every forward pass: three products of d_in^3 multiply-adds, with a permutation (the
    identity at one factor) on both sides and an identity matrix.

    More than one butterfly factor runs only through a CUDA extension that PEFT tries to compile
    when it builds a layer. Without it PEFT uses one factor, silently. So that the same operators run
    on every machine, this suite never compiles it and refuses more factors.

    Attributes:
        block_size: b, >= 1, a divisor of d_in.
        n_butterfly_factor: factors of the rotation; only 1.
    """

    name: ClassVar[str] = "boft"
    title: ClassVar[str] = "BOFT"
    source: ClassVar[str] = "Liu et al.: ICLR 2024, arXiv 2311.06243"
    not_covered: ClassVar[str] = "more than one butterfly factor, which needs a CUDA extension that PEFT compiles"
    short: ClassVar = {"block_size": "b"}
    peft: ClassVar = PeftNames(
        "BOFTConfig", {"block_size": "boft_block_size", "n_butterfly_factor": "boft_n_butterfly_factor"}
    )

    block_size: int = 4
    n_butterfly_factor: Literal[1] = 1

    def __post_init__(self) -> None:
        if self.n_butterfly_factor != 1:
            raise UserError(
                f"n_butterfly_factor = {self.n_butterfly_factor} needs PEFT's CUDA extension, without which PEFT "
                "itself falls back to 1; use n_butterfly_factor = 1"
            )
        super().__post_init__()

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        yield cls(block_size=rng.choice(divisors(layer.d_in)))

    def check(self, layer: LinearShape) -> None:
        check_blocks(self, self.block_size, layer)

    def parameters(self, layer: LinearShape) -> Count:
        """``b d_in + d_out``: d_in / b blocks of b x b (half of it redundant: they are made skew), and the scale."""
        self.check(layer)
        return self.block_size * layer.d_in + layer.d_out

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        self.check(layer)
        size = itemsize(dtype)
        adapter = adapter_dtype(dtype)
        d_in, d_out, b = layer.d_in, layer.d_out, self.block_size
        blocks, square = d_in // b, d_in * d_in
        n_block = blocks * b * b
        n_in, n_out = tokens * d_in, tokens * d_out
        bias = int(layer.bias)
        half = elementwise("mul", n_block, adapter, reads=n_block)
        negative = elementwise("neg", n_block, adapter, reads=n_block)
        sum_ = elementwise("add", n_block, adapter)
        permute = bmm(1, d_in, d_in, d_in, dtype)
        row_scale = mixed("mul", d_out, adapter, (d_out, adapter), (d_out, dtype))
        cayley: Kernels = (
            elementwise("sub", n_block, adapter, reads=n_block * (1 if b == 1 else 2)),  # a number is its transpose
            half,
            copy("eye", b * b, "float32", reads=0),
            mixed("add", n_block, adapter, (b * b, "float32"), (n_block, adapter)),
            mixed("sub", n_block, adapter, (b * b, "float32"), (n_block, adapter)),
            lu("_linalg_solve_ex", blocks, b, b, adapter),
            Kernel("_linalg_check_errors", "copy", read=4 * blocks),
        )
        forward = (
            copy("eye", square, dtype, reads=0),
            copy("ones", d_out, dtype, reads=0),
            *cayley,
            replace(copy("block_diag", square, adapter, reads=n_block), starts=1 + blocks),  # zeros, and every block
            *cast(square, "float32", dtype),  # the permutation is a float32 buffer
            *cast(square, adapter, dtype),
            permute,
            permute,
            mm(d_in, d_in, d_in, dtype),
            row_scale,
            mm(tokens, d_in, d_in, dtype),
            *frozen_forward(layer, tokens, dtype),
            elementwise("sub", n_out, dtype, reads=n_out + d_out, launches=bias),
            mixed("mul", n_out, adapter, (n_out, dtype), (d_out, adapter)),
            mixed("add", n_out, adapter, (n_out, adapter), (d_out, dtype), launches=bias),
            *cast(n_out, adapter, dtype),
        )
        backward = (
            *cast(n_out, dtype, adapter),
            mixed("mul", n_out, adapter, (n_out, adapter), (n_out, dtype)),
            elementwise("mul", n_out, adapter, reads=n_out + d_out),
            *cast(n_out, adapter, dtype),
            reduction("sum", n_out, d_out, adapter),
            *frozen_backward(layer, tokens, dtype),
            mm(d_in, tokens, d_in, dtype),
            mm(tokens, d_in, d_in, dtype),
            row_scale,
            mm(d_in, d_in, d_in, dtype),
            copy("select_backward", square, dtype),
            permute,
            permute,
            *cast(square, dtype, adapter),
            copy("stack", n_block, adapter),
            lu("linalg_lu_solve", blocks, b, b, adapter, factored=True),
            bmm(blocks, b, b, b, adapter),
            negative,
            negative,
            sum_,
            half,
            negative,
            sum_,
        )
        # In the adapter's dtype: I + S, its LU factors (pivots are int32), the solution, and the row scale.
        saved = (3 * n_block + d_out) * ITEMSIZE[adapter] + 4 * d_in
        # In the base's: the identity, the rotation, the permutation if it was cast, ones, x and the result.
        squares = 2 + (dtype != "float32")
        saved += (squares * square + d_out + n_in + n_out) * size
        return Cost(self.parameters(layer), 2, forward, backward, saved, adapter)

    def environment(self) -> AbstractContextManager[object]:
        """PEFT without its CUDA extension, which it would try to compile once a layer."""
        return no_extension()


@contextmanager
def no_extension() -> Iterator[None]:
    """Let PEFT find no CUDA extension, as on a machine without a compiler."""
    from peft.tuners.boft import layer

    load = layer.get_fbd_cuda
    layer.get_fbd_cuda = lambda: None
    try:
        yield
    finally:
        layer.get_fbd_cuda = load
