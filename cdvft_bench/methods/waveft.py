"""WaveFT: ``dW`` is the inverse wavelet transform of sparse coefficients (Bilican et al., 2025, arXiv 2505.12532)."""

from dataclasses import dataclass
from typing import ClassVar

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
    reduction,
    times,
)
from cdvft_bench.analytic.linear import LinearShape, itemsize
from cdvft_bench.methods._peft import PeftNames, dense_change
from cdvft_bench.methods._shared import SparseTransform
from cdvft_bench.methods.base import register

INDEX = 8  # bytes of an int64
TAPS = 2  # length of the Haar filters


@register
@dataclass(frozen=True)
class WaveFT(SparseTransform):
    """Trained coefficients at random positions in dW's one-level 2-D Haar transform. PEFT starts with them zero.

    PEFT builds the whole dW at every forward pass, by a transposed convolution with four 2 x 2
    filters that it also makes anew, and then multiplies by it densely. Odd widths are padded by
    one. It checks at every pass that the positions lie inside dW, which they always do.

    Attributes:
        n_frequency: n, trained coefficients a layer, 1 to d_in d_out.
        scaling: dW is scaled by it.
    """

    name: ClassVar[str] = "waveft"
    title: ClassVar[str] = "WaveFT"
    source: ClassVar[str] = "Bilican et al.: arXiv 2505.12532"
    not_covered: ClassVar[str] = (
        "wavelets other than Haar (db1), use_idwt=False, proportional_parameters; on an accelerator PEFT also copies "
        "the positions and the filters to it at every pass"
    )
    coefficients: ClassVar[str] = "coefficients"
    peft: ClassVar = PeftNames("WaveFTConfig")

    n_frequency: int = 2592
    scaling: float = 25

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        self.check(layer)
        itemsize(dtype)
        adapter = adapter_dtype(dtype)
        n, size = self.n_frequency, ITEMSIZE[adapter]
        odd_in, odd_out = layer.d_in % 2, layer.d_out % 2
        wide, tall = layer.d_in + odd_in, layer.d_out + odd_out
        entries, filters = wide * tall, 4 * TAPS * TAPS
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
        build_backward: Kernels = (
            copy("slice_backward", layer.d_out * wide, adapter, reads=layer.weights, launches=odd_in),
            copy("slice_backward", entries, adapter, reads=layer.d_out * wide, launches=odd_out),
            scale,
            Kernel(
                "convolution_backward",
                "matmul",
                macs=entries * 4,
                read=(2 * entries + filters) * size,
                written=entries * size,
            ),
            *times(from_quarter, 4),
            elementwise("add", entries, adapter, launches=3),
            moved("index", 2 * INDEX + size, size),
            reduction("sum", 1, 1, adapter, launches=flag(n == 1)),  # autograd takes one value as broadcast
            moved("new_zeros", 0, size),
            moved("index_put", 2 * size + 1, size),
        )
        # The positions and whether they are inside; the quarters, the filters, and dW before cropping in its stead.
        kept: Count = (2 * entries + filters) * size + n * (2 * INDEX + 1)
        kept = kept - layer.weights * size
        return dense_change(layer, tokens, dtype, build, build_backward, self.parameters(layer), kept=kept)
