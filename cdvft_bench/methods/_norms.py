"""Kernels of vector lengths under autograd, shared by methods that train through a normalisation."""

from __future__ import annotations

from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernel, Kernels, elementwise


def compare(op: str, n: Count, dtype: str) -> Kernel:
    """``n`` values compared with a number; the truth values take a byte each."""
    return Kernel(op, "copy", read=n * ITEMSIZE[dtype], written=n)


def length_backward(n: Count, vectors: Count, dtype: str) -> Kernels:
    """Gradient of the lengths of ``vectors`` vectors with ``n`` entries in all: x / |x|, zero where |x| is."""
    size = ITEMSIZE[dtype]
    return (
        elementwise("div", n, dtype, reads=n + vectors),
        compare("eq", vectors, dtype),
        Kernel("masked_fill_", "copy", read=n * size + vectors, written=n * size),
        elementwise("mul", n, dtype, reads=n + vectors),
    )
