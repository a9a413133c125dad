"""FourierFT: ``dW`` is the inverse 2-D FFT of a sparse spectrum (Gao et al., ICML 2024, arXiv 2405.03003)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import (
    ITEMSIZE,
    Count,
    Kernel,
    Kernels,
    adapter_dtype,
    copy,
    elementwise,
    fft,
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

INDEX_BYTES = 16  # one int64 row and one int64 column a frequency


@register
@dataclass(frozen=True)
class FourierFT(PeftMethod):
    """Trained coefficients at random frequencies. PEFT starts with them standard normal, so dW does not start at zero.

    PEFT builds the whole dW at every forward pass, by a complex transform of d_in d_out points in
    complex64 whatever the base's dtype, and then multiplies by it densely.

    Attributes:
        n_frequency: n, trained coefficients a layer, 1 to d_in d_out.
        scaling: dW is scaled by it.
    """

    name: ClassVar[str] = "fourierft"
    title: ClassVar[str] = "FourierFT"
    source: ClassVar[str] = "Gao et al.: ICML 2024, arXiv 2405.03003"

    n_frequency: int = 1000
    scaling: float = 150

    def __post_init__(self) -> None:
        check_count("n_frequency", self.n_frequency)
        if not math.isfinite(self.scaling):
            raise UserError(f"scaling = {self.scaling} is not finite; give a finite scale")

    @property
    def label(self) -> str:
        return f"FourierFT n={self.n_frequency}" + ("" if self.scaling == 150 else f" scaling={self.scaling:g}")

    def check(self, layer: LinearShape) -> None:
        widths = first_misfit(layer, layer.weights < self.n_frequency)
        if widths:
            d_in, d_out = widths
            raise UserError(
                f"n_frequency = {self.n_frequency} is more than the {d_in * d_out} frequencies of a "
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
        adapter, single = adapter_dtype(dtype), "float32"
        n, weights = self.n_frequency, layer.weights
        n_in, n_out = tokens * layer.d_in, tokens * layer.d_out
        transform = fft("_fft_c2c", weights, 1, single)
        scale = elementwise("mul", weights, single, reads=weights)
        build: Kernels = (
            copy("zeros", weights, single, reads=0),
            *cast(n, adapter, single),
            indexed("index_put_", n),
            replace(copy("_to_copy", weights, single), written=2 * weights * ITEMSIZE[single]),  # to complex
            transform,
            scale,
            *cast(weights, single, adapter),
        )
        build_backward: Kernels = (
            *cast(weights, adapter, single),
            scale,
            copy("select_backward", 2 * weights, single, reads=weights),  # to complex, imaginary part zero
            transform,
            indexed("index", n),
            reduction("sum", 1, 1, single, launches=int(n == 1)),  # autograd takes one value as broadcast
            *cast(n, single, adapter),
        )
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
        saved = n * INDEX_BYTES + (weights + n_in) * ITEMSIZE[adapter]  # indices, dW, x
        return Cost(self.parameters(layer), 1, forward, backward, saved, adapter)

    def config(self, layers: Mapping[str, LinearShape]) -> PeftConfig:
        from peft import FourierFTConfig

        return FourierFTConfig(n_frequency=self.n_frequency, scaling=self.scaling, target_modules=list(layers))


def indexed(op: str, n: int) -> Kernel:
    """``n`` float32 entries gathered from or scattered to a matrix by row and column indices."""
    kernel = copy(op, n, "float32")
    return replace(kernel, read=kernel.read + n * INDEX_BYTES)
