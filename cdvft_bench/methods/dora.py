"""DoRA: LoRA with a trained magnitude a row of the weight (Liu et al., ICML 2024, arXiv 2402.09353)."""

from dataclasses import dataclass
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
    mixed,
    reduction,
)
from cdvft_bench.analytic.linear import LinearShape, itemsize
from cdvft_bench.methods._peft import PeftNames, beside_base, cast
from cdvft_bench.methods.base import Settings, register
from cdvft_bench.methods.lora import LoRA, thin_gradients, thin_products


@register
@dataclass(frozen=True)
class DoRA(LoRA):
    """``W + dW`` with its rows scaled to trained lengths. PEFT starts with B zero and the lengths of W's rows.

    PEFT needs the row lengths of ``W + dW`` at every forward pass in training, and builds dW for
    them by sending an identity matrix through A and B: d_in^2 r + d_in r d_out multiply-adds.
    The lengths are held constant in the backward pass, yet autograd keeps the identity matrix.

    Attributes:
        rank: r, >= 1.
        alpha: dW is scaled by ``alpha / rank``.
    """

    name: ClassVar[str] = "dora"
    title: ClassVar[str] = "DoRA"
    source: ClassVar[str] = "Liu et al.: ICML 2024, arXiv 2402.09353"
    usual: ClassVar[tuple[Settings, ...]] = ({"rank": 8}, {"rank": 32})
    peft: ClassVar = PeftNames("LoraConfig", LoRA.peft.names, {"use_dora": True})

    @property
    def covers_quantised(self) -> bool:
        return False  # it reads W

    def parameters(self, layer: LinearShape) -> Count:
        """``r (d_in + d_out) + d_out``."""
        return super().parameters(layer) + layer.d_out

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        itemsize(dtype)
        adapter = adapter_dtype(dtype)
        d_in, d_out, weights = layer.d_in, layer.d_out, layer.weights
        n_in, n_out = tokens * d_in, tokens * d_out
        scale = elementwise("mul", n_out, adapter, reads=n_out)
        by_row = elementwise("mul", n_out, adapter, reads=n_out + d_out)
        unbiased = elementwise("sub", n_out, dtype, reads=n_out + d_out, launches=int(layer.bias))

        def by_result(operand: Count) -> Kernel:
            return mixed("mul", n_out, adapter, (operand, adapter), (n_out, dtype))

        row_lengths: Kernels = (
            copy("eye", d_in * d_in, adapter, reads=0),
            *thin_products(layer, d_in, self.rank, adapter),
            *cast(weights, dtype, adapter),
            elementwise("mul", weights, adapter, reads=weights),
            elementwise("add", weights, adapter),
            reduction("linalg_vector_norm", weights, d_out, adapter, flops=2),
            elementwise("div", d_out, adapter),
        )
        to_length = reduction("sum", n_out, d_out, adapter)
        forward, backward = beside_base(
            layer,
            tokens,
            dtype,
            (
                *row_lengths,
                *thin_products(layer, tokens, self.rank, adapter),
                unbiased,
                elementwise("sub", d_out, adapter, reads=d_out),
                by_result(d_out),
                by_row,
                scale,
                elementwise("add", n_out, adapter),
            ),
            (
                scale,
                by_row,
                elementwise("mul", n_out, adapter),
                to_length,
                by_row,
                by_result(n_out),
                to_length,
                *cast(n_out, adapter, dtype),
                elementwise("add", d_out, adapter),
                elementwise("add", n_out, dtype),
                *thin_gradients(layer, tokens, self.rank, adapter),
                elementwise("div", d_out, adapter),
            ),
        )
        thin = (d_in + tokens) * self.rank  # A applied to the identity, A x
        lengths = 3 * d_out  # the row lengths, the scale, the scale less one
        saved = (d_in * d_in + thin + lengths + n_in + n_out) * ITEMSIZE[adapter] + n_out * ITEMSIZE[dtype]
        return Cost(self.parameters(layer), 3, forward, backward, saved, adapter)
