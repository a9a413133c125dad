"""Kernels that LoHa and LoKr share in PEFT: a dense dW is built at every pass, then multiplied by."""

from __future__ import annotations

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernel, Kernels, adapter_dtype, mm
from cdvft_bench.analytic.linear import LinearShape, frozen_forward
from cdvft_bench.methods._peft import add_result, add_result_backward, base_backward, cast

# PEFT compares a random number with the probability of module dropout at every pass, even if it is
# zero. Both operators run on the CPU, on one number.
DROPOUT_DRAW: Kernels = (
    Kernel("rand", "copy", written=ITEMSIZE["float32"]),
    Kernel("gt", "copy", read=ITEMSIZE["float32"], written=1),
)


def dense_change(
    layer: LinearShape,
    tokens: Count,
    dtype: str,
    build: Kernels,
    build_backward: Kernels,
    parameters: Count,
    tensors: Count,
    entries: Count = 0,
    bytes_: Count = 0,
) -> Cost:
    """Cost of ``base(x) + x dW^T`` with a dW that is built anew.

    Args:
        layer, tokens, dtype: as in ``Method.cost``.
        build, build_backward: kernels that make dW from the parameters, and their gradients from dW's.
        parameters, tensors: trained.
        entries, bytes_: what building keeps for the backward pass without dW: entries of the adapter's dtype,
            and bytes besides.
    """
    adapter = adapter_dtype(dtype)
    n_in, n_out = tokens * layer.d_in, tokens * layer.d_out
    forward = (
        *frozen_forward(layer, tokens, dtype),
        *DROPOUT_DRAW,
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
    saved: Count = (layer.weights + n_in) * ITEMSIZE[adapter]  # dW, x
    saved = saved + entries * ITEMSIZE[adapter]
    saved = saved + bytes_
    return Cost(parameters, tensors, forward, backward, saved, adapter)
