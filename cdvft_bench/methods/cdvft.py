"""CDVFT: ``dW = diag(a) circ(c) diag(a) ...`` (Ding et al., IJCAI 2025, arXiv 2505.00580)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, ClassVar, Literal, Self, get_args

from cdvft_bench.analytic.circulant import (
    CirculantConvention,
    CirculantPath,
    Factor,
    check_diagonals,
    entries,
    flag,
    resolve_block_size,
    wrap,
)
from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import (
    ITEMSIZE,
    Count,
    Kernel,
    Kernels,
    adapter_dtype,
    copy,
    elementwise,
    reduction,
)
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.errors import UserError
from cdvft_bench.execution.costs import FAST_PATHS, FastLayer
from cdvft_bench.execution.planner import planned
from cdvft_bench.methods._circulant import Circulant, advised, draw
from cdvft_bench.methods.base import Settings, register

if TYPE_CHECKING:
    from torch import nn

Init = Literal["zero_diagonal", "zero_circulant", "random"]


@register
@dataclass(frozen=True)
class CDVFT(Circulant):
    """Interleaved diagonal and circulant factors.

    Attributes:
        m: diagonal factors (m - 1 circulant ones), >= 1; the paper's setting is 2.
        block_size: circulant block size p, >= 1; None is ``min(d_in, d_out)``.
        alpha: scale of the weight change.
        convention: "column" or "row", see ``cdvft_reference.circulant``.
        init: "zero_diagonal", "zero_circulant" or "random", see ``cdvft_reference.CDVFTLinear``.
        path: how it is executed: "fft" (autograd's backward) and "handwritten" (the paper's backward) of the
            reference; "fused", "stored", "merged", "merged_dense", "native", "triton" of
            ``cdvft_bench.execution``, or "auto".
    """

    name: ClassVar[str] = "cdvft"
    title: ClassVar[str] = "CDVFT"
    source: ClassVar[str] = "Ding, Chen, Liao, Wang: IJCAI 2025, arXiv 2505.00580"

    m: int = 2
    block_size: int | None = None
    alpha: float = 1.0
    convention: CirculantConvention = "column"
    init: Init = "zero_diagonal"
    path: CirculantPath = "fft"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_diagonals(self.m)
        if self.path == "merged_dense" and self.m not in (1, 2):
            raise UserError(
                f"path 'merged_dense' folds the gradient of one circulant factor; m = {self.m} has "
                f"{self.m - 1}; use 'merged'"
            )
        if self.init == "zero_circulant" and self.m < 2:
            raise UserError(f"init 'zero_circulant' needs m >= 2, but m = {self.m} has no circulant factor")

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        options = draw(rng)
        m = rng.randint(1, 2 if options["path"] == "merged_dense" else 5)
        init = rng.choice([i for i in get_args(Init) if m > 1 or i != "zero_circulant"])
        yield cls(m=m, init=init, **options)

    @classmethod
    def advised(cls, layers: Sequence[LinearShape], device: str) -> Iterable[Settings]:
        for given in advised(layers, device):
            for m in (2, 3):
                if m == 2 or given["path"] != "merged_dense":
                    yield {"m": m, **given}

    @property
    def label(self) -> str:
        return f"CDVFT m={self.m} {self.told}"

    def factors(self, layer: LinearShape, tokens: Count, dtype: str = "float32") -> list[Factor]:
        """The m - 1 circulant factors: the first maps d_in to d_out, later ones d_out to d_out."""
        p = resolve_block_size(self.block_size, layer)
        return [Factor(w, layer.d_out, p, tokens, dtype, self.convention == "row") for w in self._widths(layer)]

    def _widths(self, layer: LinearShape) -> list[Count]:
        """Input widths of the circulant factors."""
        return ([layer.d_in] + [layer.d_out] * self.m)[: self.m - 1]

    def parameters(self, layer: LinearShape) -> Count:
        """``d_in + (m - 1) d_out`` diagonal entries and ``q_out q_in p`` a circulant; (2m - 1) d when p = d."""
        p = resolve_block_size(self.block_size, layer)
        circulant = sum(entries(width, layer.d_out, p) for width in self._widths(layer))
        return layer.d_in + (self.m - 1) * layer.d_out + circulant

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        adapter = adapter_dtype(dtype)
        size = ITEMSIZE[adapter]
        factors = self.factors(layer, tokens, adapter)
        path = planned(self.path, layer, factors, self.m, tokens, dtype, device)
        if path in FAST_PATHS and factors:
            fast = FastLayer(layer, tokens, dtype, factors, self.m, self.alpha, path, device)
            return Cost(
                self.parameters(layer), 2 * self.m - 1, fast.forward(), fast.backward(), fast.saved_bytes, adapter
            )

        def diagonal(width: Count) -> Kernel:
            n = tokens * width
            return elementwise("mul", n, adapter, reads=n + width)

        def diagonal_backward(width: Count) -> Kernels:
            # g * a for the input, g * x summed over tokens for the diagonal.
            n = tokens * width
            return (
                elementwise("mul", n, adapter),
                diagonal(width),
                reduction("sum", n, width, adapter),
            )

        forward: Kernels = (diagonal(layer.d_in),)
        backward: Kernels = diagonal_backward(layer.d_in)
        for factor in factors:
            forward = (*forward, *factor.forward(), diagonal(layer.d_out))
            backward = (*diagonal_backward(layer.d_out), *factor.backward(self.path), *backward)
        if self.m == 1:  # the rectangular diagonal pads or crops
            fitted = flag(layer.d_in != layer.d_out)
            kept = tokens * resolve_block_size(None, layer)  # the narrower of the two widths
            forward += (copy("constant_pad_nd", tokens * layer.d_out, adapter, reads=kept, launches=fitted),)
            backward = (copy("constant_pad_nd", tokens * layer.d_in, adapter, reads=kept, launches=fitted), *backward)
        forward, backward = wrap(forward, backward, layer, tokens, dtype)
        saved = tokens * layer.d_in * size + sum(f.saved_bytes(self.path) + f.output_bytes for f in factors)
        return Cost(self.parameters(layer), 2 * self.m - 1, forward, backward, saved, adapter)

    def adapt_linear(self, base: nn.Linear) -> nn.Module:
        from cdvft_bench.execution.paths import FastCDVFTLinear
        from cdvft_reference import CDVFTLinear

        if self.path == "fft" or self.path == "handwritten":
            return CDVFTLinear(base, self.m, self.block_size, self.alpha, self.convention, self.init, self.path)
        options = {"m": self.m, "block_size": self.block_size, "alpha": self.alpha, "convention": self.convention}
        return FastCDVFTLinear(base, self.path, init=self.init, **options)
