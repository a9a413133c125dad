"""A linear layer's shape, and the kernels of the layer while it is frozen."""

from dataclasses import dataclass, replace

import numpy as np

from cdvft_bench.analytic.kernels import (
    ITEMSIZE,
    Count,
    Kernel,
    Kernels,
    addmm,
    copy,
    countable,
    elementwise,
    mm,
    of_base,
)
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.names import not_known


@dataclass(frozen=True)
class LinearShape:
    """Widths of a linear layer, or arrays of them for a grid.

    Attributes:
        d_in, d_out: widths. bias: whether it has one.
        quantised: whether W is held as int8 with a scale a row (torchao's weight-only scheme), and converted to the
            activations' dtype at every call; such a layer has no bias.

    Raises:
        UserError: a width is not a positive integer.
    """

    d_in: Count
    d_out: Count
    bias: bool = True
    quantised: bool = False

    def __post_init__(self) -> None:
        for name in ("d_in", "d_out"):
            check_count(name, getattr(self, name))
        for name, width in zip(("d_in", "d_out"), countable(self.d_in, self.d_out), strict=True):
            object.__setattr__(self, name, width)
        if self.quantised and self.bias:
            raise UserError("a quantised layer with a bias has no closed form; leave the bias out")

    @property
    def weights(self) -> Count:
        """Entries of W."""
        return self.d_in * self.d_out

    @property
    def parameters(self) -> Count:
        """Entries of W and of the bias."""
        return self.weights + (self.d_out if self.bias else 0)

    def converted_bytes(self, dtype: str) -> Count:
        """What a call converts of a quantised W, and keeps for backward."""
        return (self.weights + (0 if dtype == "float32" else self.d_out)) * itemsize(dtype)


def check_count(name: str, value: Count) -> None:
    """Raise UserError unless ``value`` is an integer >= 1, or an integer array of them."""
    if isinstance(value, int) and not isinstance(value, bool):
        smallest = value
    else:
        array = np.asarray(value)
        integers = array.dtype.kind in "iu" or (array.dtype.kind == "O" and all(type(n) is int for n in array.flat))
        if not integers:
            raise UserError(f"{name} = {value!r} is not an integer; it must be an integer >= 1")
        smallest = array.min() if array.size else 1
    if smallest < 1:
        raise UserError(f"{name} = {smallest} is too small; it must be >= 1")


def itemsize(dtype: str) -> int:
    """Bytes of an element of ``dtype``.

    Raises:
        UserError: the dtype is not one that the formulas know.
    """
    if dtype not in ITEMSIZE:
        raise not_known("dtype", dtype, ITEMSIZE)
    return ITEMSIZE[dtype]


def frozen_forward(layer: LinearShape, tokens: Count, dtype: str) -> Kernels:
    """``W x + b``: one matrix product, tokens by d_in by d_out; a quantised W is converted before, and scaled after."""
    product = addmm if layer.bias else mm
    if not layer.quantised:
        return of_base((product(tokens, layer.d_in, layer.d_out, dtype),))
    converted: Kernels = (replace(copy("_to_copy", layer.weights, dtype), read=layer.weights),)  # a byte a weight
    if dtype != "float32":  # of the scales
        converted += (copy("_to_copy", layer.d_out, "float32", to=dtype),)
    return of_base((*converted, product(tokens, layer.d_in, layer.d_out, dtype), _scaling(layer, tokens, dtype)))


def frozen_backward(layer: LinearShape, tokens: Count, dtype: str) -> Kernels:
    """``g W``: the gradient of the input, which a frozen layer inside a network still passes on."""
    scaled = (_scaling(layer, tokens, dtype),) if layer.quantised else ()
    return of_base((*scaled, mm(tokens, layer.d_out, layer.d_in, dtype)))


def _scaling(layer: LinearShape, tokens: Count, dtype: str) -> Kernel:
    """A product's rows, or their gradients, times the scales of a quantised W."""
    return elementwise("mul", tokens * layer.d_out, dtype, reads=tokens * layer.d_out + layer.d_out)
