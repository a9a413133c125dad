"""The two kernels of the path "native" in closed form: what ``native_kernels.c`` does, function by function.

Two rows are one complex signal, so a transform is one of p complex points and there are ceil(rows / 2) of them a block.
Adding up the sums of several threads is not counted: it depends on their number, not on the layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdvft_bench.analytic.circulant import Factor
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernel
from cdvft_bench.analytic.linear import LinearShape


def _kernel(op: str, factors: Sequence[Factor], transforms: Count, flops: Count, read: Count, written: Count) -> Kernel:
    size = ITEMSIZE[factors[0].dtype]
    return Kernel(
        op, "native", flops=flops, fft_length=factors[0].p, fft_batch=transforms, read=read * size,
        written=written * size,
    )  # fmt: skip


def _vectors(layer: LinearShape, factors: Sequence[Factor], diagonals: int) -> tuple[Count, Count]:
    """Entries of the diagonals, and of the circulants."""
    circulants: Count = 0
    for f in factors:
        circulants = circulants + f.parameters
    return (layer.d_in + (diagonals - 1) * layer.d_out if diagonals else 0), circulants


def _prepare(layer: LinearShape, factors: Sequence[Factor], diagonals: int) -> tuple[Count, Count]:
    """Transforms and FLOPs of the factors' spectra, and of the scaled last diagonal."""
    transforms: Count = 0
    flops: Count = layer.d_out if diagonals else 0
    for f in factors:
        transforms = transforms + f.q_out * f.q_in
        flops = flops + f.parameters
    return transforms, flops


def _multiply(pairs: Count, outer: Count, inner: Count, p: Count) -> Count:
    """FLOPs of ``outer`` sums of ``inner`` products of spectra."""
    return pairs * p * outer * (6 * inner + 2 * (inner - 1))


def _dot(pairs: Count, blocks: Count, p: Count) -> Count:
    """FLOPs of the products of two pairs of rows, summed up."""
    return 4 * pairs * blocks * p


def circulant_forward(layer: LinearShape, rows: Count, factors: Sequence[Factor], diagonals: int, bias: bool) -> Kernel:
    """``alpha dW x + bias`` of ``rows`` rows.

    Args:
        layer: its shape. factors: circulant ones. diagonals: their number, 0 for the block-circulant adapter.
        bias: whether one is added.
    """
    pairs: Count = -(-rows // 2)
    transforms, flops = _prepare(layer, factors, diagonals)
    flops = flops + (rows * layer.d_in if diagonals else 0)
    for f in factors:
        transforms = transforms + pairs * (f.q_in + f.q_out)
        flops = flops + _multiply(pairs, f.q_out, f.q_in, f.p)
    flops = flops + (len(factors) - 1) * 2 * pairs * layer.d_out
    flops = flops + rows * layer.d_out * ((1 if diagonals else 0) + (1 if bias else 0))
    on_diagonals, on_circulants = _vectors(layer, factors, diagonals)
    read = rows * layer.d_in + on_diagonals + on_circulants + (layer.d_out if bias else 0)
    return _kernel("circulant_forward", factors, transforms, flops, read, rows * layer.d_out)


def circulant_backward(layer: LinearShape, rows: Count, factors: Sequence[Factor], diagonals: int) -> Kernel:
    """All gradients, that of the input with them. Arguments as of :func:`circulant_forward`."""
    pairs: Count = -(-rows // 2)
    transforms, flops = _prepare(layer, factors, diagonals)
    on_diagonals, on_circulants = _vectors(layer, factors, diagonals)
    between: Count = 2 * pairs * layer.d_out  # two rows times the diagonal after a factor
    for f in factors:
        there_and_back: Count = pairs * (2 * f.q_in + f.q_out)
        blocks: Count = f.q_out * f.q_in
        moment: Count = 8 * pairs * f.p * blocks
        transforms = transforms + blocks + there_and_back
        flops = flops + f.parameters + moment + _multiply(pairs, f.q_in, f.q_out, f.p)
        if diagonals:  # the factor's output again, its product with g, and g times the diagonal
            again: Count = pairs * f.q_out
            transforms = transforms + again
            flops = flops + _multiply(pairs, f.q_out, f.q_in, f.p) + _dot(pairs, f.q_out, f.p) + between
    if diagonals:
        ends: Count = 2 * rows * layer.d_in + on_diagonals
        flops = flops + (len(factors) - 1) * between + _dot(pairs, factors[0].q_in, factors[0].p) + ends
    written: Count = rows * layer.d_in
    written = written + on_diagonals + on_circulants
    read: Count = rows * layer.d_out
    read = read + written  # x and the factors are as large as their gradients
    return _kernel("circulant_backward", factors, transforms, flops, read, written)
