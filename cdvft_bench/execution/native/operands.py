"""What the kernels take: dtypes, shapes and memory of operands, checked before a pointer to any is handed over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cdvft_reference.operands import check_like, check_operands, memory

ITEMSIZE = {torch.float32: 4, torch.float64: 8}
FORMATS = {torch.float32: 0, torch.float64: 0, torch.bfloat16: 1, torch.float16: 2}
"""Formats of activations; 16 bits are read and written by kernels for float32."""


def check(
    x: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    *,
    bias: Tensor | None = None,
    g: Tensor | None = None,
) -> None:
    """Raise unless a kernel can be handed these operands: their memory is read by shapes that x and d_out say.

    Args:
        x: (T, d_in), of the factors' dtype, or of 16 bits under factors of float32.
        bias: (d_out,), of x's dtype. g: (T, d_out), of x's dtype. The others: see ``check_operands``.

    Raises:
        ValueError: a number, shape, device or layout. TypeError: a dtype, or what is no tensor.
    """
    check_operands(x, diagonals, circulants, d_out)
    if not circulants:
        raise ValueError("1 diagonals and 0 circulants; the kernels take at least one circulant")
    if not takes(x.dtype, circulants[0].dtype):
        raise TypeError(
            f"x of {x.dtype} and factors of {circulants[0].dtype}; the kernels take one dtype, or x of 16 bits under "
            "factors of float32"
        )
    if x.ndim != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; the kernels take rows, (T, d_in)")
    if bias is not None:
        check_like("bias", bias, (d_out,), x, x.dtype)
    if g is not None:
        check_like("g", g, (x.shape[0], d_out), x, x.dtype)


def takes(activations: torch.dtype, factors: torch.dtype) -> bool:
    """Whether the kernels for factors of a dtype read and write such activations."""
    return activations is factors or (factors is torch.float32 and FORMATS.get(activations, 0) > 0)


def readable(name: str, t: Tensor) -> tuple[Tensor, int]:
    """An operand as the kernels read it, in memory of this machine, and its address."""
    if not t.is_cpu:
        raise ValueError(f"{name} is on device {t.device}; the kernels run on a CPU")
    if t.layout is not torch.strided:
        raise ValueError(f"{name} has layout {t.layout}; it must be strided (a plain tensor)")
    t = memory(name, t)
    start = t.data_ptr()
    if not start and t.numel():
        raise ValueError(f"{name} (a {type(t).__name__}) has no memory; the kernels take tensors that hold values")
    return t, start
