"""Costs of the Triton kernels: what each must move, and its multiply-adds.

No dispatcher sees inside a Triton kernel: Triton's interpreter, which runs every load and store, is what these are
compared with (tests/execution/test_triton.py). Left out are vectors that a kernel reads again from cache, and what
programs leave of partial sums on the path "triton": each operand is read once.
"""

from __future__ import annotations

from dataclasses import replace

from cdvft_bench.analytic.circulant import Factor, flag
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernel, Kernels, copy, elementwise, fft, reduction, times
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.execution.spectral_costs import scaled
from cdvft_bench.execution.splits import fold_split, fold_tile, on_chip_rows, on_chip_tiles, widths

SUM_COLUMNS = 128
"""Entries of a gradient that a program of the second fold kernel adds up."""

_PRECISION = {"float32": "tfloat32x3", "float16": "tfloat32", "bfloat16": "tfloat32", "float64": "tfloat32x3"}
"""At whose rate the DFT products of activations run, see ``on_chip.precision``."""


def area(factor: Factor) -> int:
    """Entries of a spectrum in the kernels' padded layout."""
    p1, p2 = widths(int(factor.p))
    return p1 * p2


def _fused(op: str, transforms: int, tokens: Count, factor: Factor, dtype: str, read: Count, written: Count) -> Kernel:
    p1, p2 = widths(int(factor.p))
    # A transform multiplies by the first DFT matrix twice and by the second four times; so does an inverse.
    macs = transforms * tokens * p1 * p2 * (2 * p1 + 4 * p2)
    return Kernel(op, "matmul", macs=macs, read=read, written=written, dtype=_PRECISION[dtype])


def on_chip_forward(layer: LinearShape, tokens: Count, factor: Factor, dtype: str) -> Kernel:
    """The change's forward pass onto the frozen product, FFT on chip; products in TF32 (three times for float32)."""
    n_in, n_out, size = tokens * layer.d_in, tokens * layer.d_out, ITEMSIZE[dtype]
    return _fused("filter_kernel", 2, tokens, factor, dtype, (n_in + n_out) * size, n_out * size)


def spectrum_of_c(factor: Factor) -> Kernels:
    """What torch launches before: the transform of c in the kernels' layout."""
    p, own = factor.p, factor.dtype
    transform = replace(fft("_fft_r2c", p, 1, own), written=2 * p * ITEMSIZE[own])
    flipped = times((elementwise("neg", p, own, reads=p),), flag(factor.row))
    return (transform, *flipped, copy("stack", 2 * p, own), copy("constant_pad_nd", 2 * area(factor), own, reads=2 * p))


def on_chip_backward(layer: LinearShape, tokens: Count, factor: Factor, dtype: str, diagonals: bool) -> Kernels:
    """The gradients of the change: of the input and of a_1, of a_3, and the moment that gives that of c."""
    n_in, n_out, size = tokens * layer.d_in, tokens * layer.d_out, ITEMSIZE[dtype]
    read = (n_out + (2 if diagonals else 1) * n_in) * size
    kernels: Kernels = (_fused("filter_kernel", 2, tokens, factor, dtype, read, n_in * size),)
    if diagonals:
        kernels += (_fused("filter_kernel", 2, tokens, factor, dtype, (n_in + n_out) * size, 0),)
    return (*kernels, _fused("moment_kernel", 2, tokens, factor, dtype, (n_in + n_out) * size, 0))


def partial_sums(tokens: Count, factor: Factor, dtype: str, diagonals: bool, alpha: float) -> Kernels:
    """What torch launches after: sums over the programs, and the moment's way back to the gradient of c."""
    p, own = factor.p, factor.dtype
    _, programs = on_chip_tiles(tokens, on_chip_rows(int(p), dtype))
    flipped = times((elementwise("neg", p, own, reads=p),), flag(factor.row))
    kernels: Kernels = (
        reduction("sum", programs * 2 * area(factor), 2 * area(factor), own),
        *flipped,
        copy("complex", 2 * p, own),
        copy("clone", 2 * p, own),
        fft("_fft_c2c", p, 1, own),
        copy("clone", p, own),
        *scaled(p, alpha, own),
    )
    return (*kernels, reduction("sum", programs * 2 * p, 2 * p, own)) if diagonals else kernels


def merged_weight_kernel(layer: LinearShape, factor: Factor, dtype: str, diagonals: bool) -> Kernel:
    """W read and ``W + alpha dW`` written, at memory bandwidth."""
    n, vectors = layer.weights, factor.parameters + (layer.d_in + layer.d_out if diagonals else 0)
    size, own = ITEMSIZE[dtype], ITEMSIZE[factor.dtype]
    flops = (4 if diagonals else 2) * n
    return Kernel("merged_weight_kernel", "elementwise", flops=flops, read=n * size + vectors * own, written=n * size)


def fold_kernels(layer: LinearShape, factor: Factor, dtype: str, diagonals: bool) -> Kernels:
    """The gradients of a_1, a_3 and c from ``g^T x``: sums over tiles, then the sums of those.

    An entry is multiplied by the vectors (5 products) and added up three times; without diagonals, once.
    """
    d_in, d_out, p = layer.d_in, layer.d_out, factor.p
    blocks, n, own = factor.q_in * factor.q_out, layer.weights, ITEMSIZE[factor.dtype]
    tile = fold_tile(p)
    bands, _, pieces = fold_split(blocks, p)
    ends = d_in + d_out if diagonals else 0
    vectors = ends + (factor.parameters if diagonals else 0)
    parts_ends = bands * (factor.q_out * d_in + factor.q_in * d_out) if diagonals else 0
    parts_c = blocks * pieces * 4 * bands * tile
    # Of each piece an entry of c takes one tile's diagonal and its neighbour's, wrapped and not; the last tiles' have
    # no neighbour beyond the block.
    parts_read = blocks * pieces * (3 * p + (bands - 1) * tile)
    return (
        Kernel(
            "fold_kernel",
            "reduction",
            flops=(8 if diagonals else 1) * n,
            read=n * ITEMSIZE[dtype] + vectors * own,
            written=(parts_ends + parts_c) * own,
        ),
        Kernel(
            "fold_sums_kernel",
            "reduction",
            flops=parts_ends + parts_read + ends + factor.parameters,
            read=(parts_ends + parts_read) * own,
            written=(ends + factor.parameters) * own,
        ),
    )
