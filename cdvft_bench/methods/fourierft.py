"""FourierFT: ``dW`` is the inverse 2-D FFT of a sparse spectrum (Gao et al., ICML 2024, arXiv 2405.03003)."""

from dataclasses import dataclass, replace
from typing import ClassVar

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
    reduction,
)
from cdvft_bench.analytic.linear import LinearShape, itemsize
from cdvft_bench.methods._peft import PeftNames, cast, dense_change
from cdvft_bench.methods._shared import SparseTransform
from cdvft_bench.methods.base import register

INDEX_BYTES = 16  # one int64 row and one int64 column a frequency


@register
@dataclass(frozen=True)
class FourierFT(SparseTransform):
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
    coefficients: ClassVar[str] = "frequencies"
    peft: ClassVar = PeftNames("FourierFTConfig")

    n_frequency: int = 1000
    scaling: float = 150

    @property
    def covers_quantised(self) -> bool:
        return True

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        self.check(layer)
        itemsize(dtype)
        adapter, single = adapter_dtype(dtype), "float32"
        n, weights = self.n_frequency, layer.weights
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
        return dense_change(layer, tokens, dtype, build, build_backward, self.parameters(layer), kept=n * INDEX_BYTES)


def indexed(op: str, n: int) -> Kernel:
    """``n`` float32 entries gathered from or scattered to a matrix by row and column indices."""
    kernel = copy(op, n, "float32")
    return replace(kernel, read=kernel.read + n * INDEX_BYTES)
