"""WaveFT: ``dW`` is the inverse wavelet transform of sparse coefficients (Bilican et al., 2025, arXiv 2505.12532)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cdvft_bench.analytic.circulant import flag
from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import (
    ITEMSIZE,
    Count,
    Kernel,
    Kernels,
    adapter_dtype,
    copy,
    elementwise,
    mm,
    reduction,
)
from cdvft_bench.analytic.linear import LinearShape, check_count, frozen_forward, itemsize
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods._peft import (
    PeftMethod,
    add_result,
    add_result_backward,
    base_backward,
    cast,
    first_misfit,
)
from cdvft_bench.methods.base import register

if TYPE_CHECKING:
    from peft import PeftConfig

INDEX = 8  # bytes of an int64
TAPS = 2  # length of the Haar filters


@register
@dataclass(frozen=True)
class WaveFT(PeftMethod):
    """Trained coefficients at random places of dW's one-level 2-D Haar transform. PEFT starts with them zero.

    PEFT builds the whole dW at every forward pass, by a transposed convolution with four 2 x 2
    filters that it also makes anew, and then multiplies by it densely. Odd widths are padded by
    one. It checks at every pass that the places lie inside dW, which they always do.

    Attributes:
        n_frequency: n, trained coefficients a layer, 1 to d_in d_out.
        scaling: dW is scaled by it.
    """

    name: ClassVar[str] = "waveft"
    title: ClassVar[str] = "WaveFT"
    source: ClassVar[str] = "Bilican et al.: arXiv 2505.12532"
    not_covered: ClassVar[str] = (
        "wavelets other than Haar (db1), use_idwt=False, proportional_parameters; on an accelerator PEFT also copies "
        "the places and the filters to it at every pass"
    )

    n_frequency: int = 2592
    scaling: float = 25

    def __post_init__(self) -> None:
        check_count("n_frequency", self.n_frequency)
        if not math.isfinite(self.scaling):
            raise UserError(f"scaling = {self.scaling} is not finite; give a finite scale")

    @property
    def label(self) -> str:
        return f"WaveFT n={self.n_frequency}" + ("" if self.scaling == 25 else f" scaling={self.scaling:g}")

    def check(self, layer: LinearShape) -> None:
        widths = first_misfit(layer, layer.weights < self.n_frequency)
        if widths:
            d_in, d_out = widths
            raise UserError(
                f"n_frequency = {self.n_frequency} is more than the {d_in * d_out} coefficients of a "
                f"{d_in}x{d_out} layer; use at most d_in * d_out = {d_in * d_out}"
            )

    def parameters(self, layer: LinearShape) -> Count:
        """``n``, whatever the widths."""
        self.check(layer)
        ones = layer.weights * 0 + 1  # an array where the widths are arrays
        return self.n_frequency * ones

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32") -> Cost:
        self.check(layer)
        itemsize(dtype)
        adapter = adapter_dtype(dtype)
        n, size = self.n_frequency, ITEMSIZE[adapter]
        odd_in, odd_out = layer.d_in % 2, layer.d_out % 2
        wide, tall = layer.d_in + odd_in, layer.d_out + odd_out
        entries, filters = wide * tall, 4 * TAPS * TAPS
        n_in, n_out = tokens * layer.d_in, tokens * layer.d_out
        scale = elementwise("mul", entries, adapter, reads=entries)

        def moved(op: str, read: int, written: int, launches: int = 1) -> Kernel:
            # Bytes a coefficient.
            return Kernel(op, "copy", launches, read=n * read, written=n * written)

        shift: Kernels = (
            Kernel("add_", "elementwise", flops=n, read=n * INDEX, written=n * INDEX),
            moved("copy_", INDEX, INDEX),
        )
        build: Kernels = (
            copy("zeros", entries, adapter, reads=0),
            moved("clone", 2 * INDEX, 2 * INDEX),
            *shift,
            *shift,
            moved("lt", INDEX, 1, launches=2),
            moved("bitwise_and", 2, 1),
            moved("index", 2 * INDEX + 1, 2 * INDEX),
            moved("index", size + 1, size),
            moved("index_put_", 2 * INDEX + size, size),
            elementwise("mul", TAPS * TAPS, adapter, reads=2 * TAPS, launches=4),
            copy("stack", filters, adapter),
            copy("stack", entries, adapter),  # the four quarters
            Kernel("convolution", "matmul", macs=entries * 4, read=(entries + filters) * size, written=entries * size),
            scale,
        )

        half = entries // 2
        from_quarter: Kernels = (
            copy("slice_backward", half, adapter, reads=half // 2),
            copy("slice_backward", entries, adapter, reads=half),
        )
        sum_ = elementwise("add", entries, adapter)
        build_backward: Kernels = (
            copy("slice_backward", layer.d_out * wide, adapter, reads=layer.weights, launches=odd_in),
            copy("slice_backward", entries, adapter, reads=layer.d_out * wide, launches=odd_out),
            scale,
            Kernel("convolution_backward", "matmul", macs=entries * 4, read=(2 * entries + filters) * size,
                   written=entries * size),
            *from_quarter,
            *from_quarter, sum_, *from_quarter, sum_, *from_quarter, sum_,
            moved("index", 2 * INDEX + size, size),
            reduction("sum", 1, 1, adapter, launches=flag(n == 1)),  # autograd takes one value as broadcast
            moved("new_zeros", 0, size),
            moved("index_put", 2 * size + 1, size),
        )  # fmt: skip
        forward = (
            *frozen_forward(layer, tokens, dtype),
            *build,
            *cast(n_in, dtype, adapter),
            mm(tokens, layer.d_in, layer.d_out, adapter),
            *add_result(n_out, dtype, adapter),
        )
        backward = (
            *add_result_backward(n_out, dtype, adapter),
            mm(layer.d_out, tokens, layer.d_in, adapter),
            mm(tokens, layer.d_out, layer.d_in, adapter),
            *cast(n_in, adapter, dtype),
            *build_backward,
            *base_backward(layer, tokens, dtype),
        )
        # The places and whether they are inside; the quarters, the filters, dW before cropping; x.
        saved = n * (2 * INDEX + 1) + (2 * entries + filters + n_in) * size
        return Cost(self.parameters(layer), 1, forward, backward, saved, adapter)

    def config(self, layers: Mapping[str, LinearShape]) -> PeftConfig:
        from peft import WaveFTConfig

        return WaveFTConfig(n_frequency=self.n_frequency, scaling=self.scaling, target_modules=list(layers))
