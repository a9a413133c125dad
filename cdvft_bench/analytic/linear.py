"""A linear layer's shape, and the kernels of the layer while it is frozen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernels, addmm, mm, of_base
from cdvft_bench.errors import UserError


@dataclass(frozen=True)
class LinearShape:
    """Widths of a linear layer, or int64 arrays of them for a grid.

    Raises:
        UserError: a width is not a positive integer.
    """

    d_in: Count
    d_out: Count
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("d_in", "d_out"):
            check_count(name, getattr(self, name))

    @property
    def weights(self) -> Count:
        """Entries of W."""
        return self.d_in * self.d_out

    @property
    def parameters(self) -> Count:
        """Entries of W and of the bias."""
        return self.weights + (self.d_out if self.bias else 0)


def check_count(name: str, value: Count) -> None:
    """Raise UserError unless ``value`` is an integer >= 1, or an integer array of them."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise UserError(f"{name} = {value!r} is not an integer; it must be an integer >= 1")
    if array.size and array.min() < 1:
        raise UserError(f"{name} = {array.min()} is too small; it must be >= 1")


def itemsize(dtype: str) -> int:
    """Bytes of an element of ``dtype``.

    Raises:
        UserError: the dtype is not one that the formulas know.
    """
    if dtype not in ITEMSIZE:
        raise UserError(f"dtype {dtype!r} is not known; use one of {', '.join(ITEMSIZE)}")
    return ITEMSIZE[dtype]


def frozen_forward(layer: LinearShape, tokens: Count, dtype: str) -> Kernels:
    """``W x + b``: one matrix product, tokens by d_in by d_out."""
    product = addmm if layer.bias else mm
    return of_base((product(tokens, layer.d_in, layer.d_out, dtype),))


def frozen_backward(layer: LinearShape, tokens: Count, dtype: str) -> Kernels:
    """``g W``: the gradient of the input, which a frozen layer inside a network still passes on."""
    return of_base((mm(tokens, layer.d_out, layer.d_in, dtype),))
