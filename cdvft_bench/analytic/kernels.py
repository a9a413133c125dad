"""The atoms of every closed form: kernel-launching operators and what one launch costs.

A pass of a layer is written down as the sequence of ATen operators that it launches. Each
:class:`Kernel` holds, for ONE launch, its real multiply-adds, its element-wise FLOPs, its FFT
(length and batch, so that a counting convention can price it later) and the bytes it must read
and write. Views and reshapes launch nothing and do not appear.

Every field is an exact integer, or an array of them for a whole grid of cases at once. An array is one of
int64 where sizes are small, else of Python's integers: what 64 bits do not hold never wraps
(:func:`countable`). No tensor is touched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Count = int | NDArray[np.int64] | NDArray[np.object_]
"""An exact count: one integer, or an array of them over a grid of cases, see :func:`countable`."""

Kind = Literal["matmul", "fft", "elementwise", "reduction", "copy", "native"]
Scope = Literal["base", "adapter", "optimizer"]

ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
"""Bytes of one element of a dtype."""


COUNTS = ("launches", "macs", "flops", "fft_length", "fft_batch", "read", "written")
"""The fields of a kernel that are counts."""


SMALL = 2**15
"""Sizes below are multiplied in int64: products of three, which is what a kernel counts, leave it 2^18 to spare."""


def exact(value: Count) -> Count:
    """A number of numpy's as Python's integer, an array of any integers as one of Python's."""
    if type(value) is int:
        return value
    array = np.asarray(value)
    return array.astype(object) if array.ndim else int(array)


def countable(*sizes: Count) -> tuple[Count, ...]:
    """Sizes whose products do not wrap: arrays of int64 where all are small, else of Python's integers."""
    if all(type(size) is int for size in sizes):
        return sizes
    small = all(isinstance(n, int) or np.asarray(n).dtype != object for n in sizes)  # what was made exact stays so
    small = small and all(_peak(n) < SMALL for n in sizes)
    return tuple(np.asarray(n, dtype=np.int64) if small and np.ndim(n) else exact(n) for n in sizes)


def _peak(value: Count) -> int:
    if isinstance(value, int):
        return value
    return int(np.max(value)) if np.size(value) else 0


def product(a: Count, b: Count) -> Count:
    """``a * b``, by Python's integers where 64 bits do not hold it."""
    if (isinstance(a, int) and isinstance(b, int)) or _peak(a) * _peak(b) < 2**62:
        return a * b
    return exact(a) * exact(b)


def added(a: Count, b: Count) -> Count:
    """``a + b``, by Python's integers where 64 bits do not hold it."""
    if (isinstance(a, int) and isinstance(b, int)) or _peak(a) + _peak(b) < 2**62:
        return a + b
    return exact(a) + exact(b)


def smaller(a: Count, b: Count) -> Count:
    """The smaller of two counts, or of each two of a grid."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else np.minimum(a, b)


def larger(a: Count, b: Count) -> Count:
    """The larger of two counts, or of each two of a grid."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else np.maximum(a, b)


def adapter_dtype(dtype: str) -> str:
    """The dtype of adapter parameters on a base of ``dtype``: float32 for 16-bit bases, else the same."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


@dataclass(frozen=True)
class Kernel:
    """``launches`` launches of one ATen operator on the same shapes.

    Attributes:
        op: overload packet name as the dispatcher shows it, e.g. "mm", "_fft_r2c", "add".
        kind: which family the operator belongs to; "native" is one compiled kernel of transforms and element-wise work.
        launches: how often it is launched (may be 0, e.g. a pad that only ragged widths need).
        macs: real multiply-adds a launch; a complex multiply-add is four.
        flops: real additions and multiplications a launch of element-wise and reduction work;
            a complex product is six, a complex sum two.
        fft_length: transform length n (a 2-D transform is one of n = rows * columns points).
        fft_batch: transforms a launch.
        fft_real: whether one side of the transform is real (rfft, irfft).
        read, written: bytes a launch must read and write, each operand once.
        scope: who causes the launch: the frozen base layer, the adapter, or the optimiser.
        dtype: of a matrix product's operands (an adapter's may be wider than the base's); "" not said.
        complex_product: whether a matrix product is one of complex numbers.
        starts: kernels that a launch of the operator starts on a GPU, one after the other, where the dispatcher shows
            one operator (``block_diag`` copies block by block).
        among: bytes of memory that are gone through before the same is touched again, where that is more than the
            kernel's own: caches hold its operands where they hold so many.
    """

    op: str
    kind: Kind
    launches: Count = 1
    macs: Count = 0
    flops: Count = 0
    fft_length: Count = 0
    fft_batch: Count = 0
    fft_real: bool = False
    read: Count = 0
    written: Count = 0
    scope: Scope = "adapter"
    dtype: str = ""
    complex_product: bool = False
    starts: Count = 1
    among: Count = 0

    def __post_init__(self) -> None:
        for name in COUNTS:
            value = getattr(self, name)
            if type(value) is not int and not np.ndim(value):
                object.__setattr__(self, name, exact(value))

    def times(self, n: Count) -> Kernel:
        """The same kernel launched ``n`` times as often."""
        return replace(self, launches=product(self.launches, n))


Kernels = tuple[Kernel, ...]


def times(kernels: Kernels, n: Count) -> Kernels:
    """Every kernel launched ``n`` times as often."""
    return tuple(kernel.times(n) for kernel in kernels)


def of_base(kernels: Kernels) -> Kernels:
    """The same kernels, attributed to the frozen base layer."""
    return tuple(replace(kernel, scope="base") for kernel in kernels)


# --- builders: one a family of operators --------------------------------------------------


def mm(rows: Count, inner: Count, columns: Count, dtype: str) -> Kernel:
    """(rows, inner) @ (inner, columns)."""
    return replace(bmm(1, rows, inner, columns, dtype), op="mm")


def bmm(
    batch: Count, rows: Count, inner: Count, columns: Count, dtype: str, complex_: bool = False, launches: Count = 1
) -> Kernel:
    """``batch`` products (rows, inner) @ (inner, columns) in one launch.

    With ``complex_`` the operands are complex numbers of two ``dtype`` values each.
    """
    size = ITEMSIZE[dtype] * (2 if complex_ else 1)
    batch, rows, inner, columns = countable(batch, rows, inner, columns)
    return Kernel(
        op="bmm",
        kind="matmul",
        launches=launches,
        macs=batch * rows * inner * columns * (4 if complex_ else 1),
        read=batch * (rows * inner + inner * columns) * size,
        written=batch * rows * columns * size,
        dtype=dtype,
        complex_product=complex_,
    )


def addmm(rows: Count, inner: Count, columns: Count, dtype: str) -> Kernel:
    """A matrix product with a bias of ``columns`` entries added in the same launch."""
    product = mm(rows, inner, columns, dtype)
    return replace(product, op="addmm", read=product.read + columns * ITEMSIZE[dtype])


def fft(op: str, length: Count, batch: Count, dtype: str) -> Kernel:
    """``batch`` transforms of ``length`` points; ``op`` is "_fft_r2c", "_fft_c2r" or "_fft_c2c".

    ``dtype`` is the real dtype; a one-sided spectrum has length // 2 + 1 complex entries.
    """
    size = ITEMSIZE[dtype]
    length, batch = countable(length, batch)
    real, full, half = batch * length * size, batch * length * 2 * size, batch * (length // 2 + 1) * 2 * size
    read, written = {"_fft_r2c": (real, half), "_fft_c2r": (half, real), "_fft_c2c": (full, full)}[op]
    return Kernel(
        op=op, kind="fft", fft_length=length, fft_batch=batch, fft_real=op != "_fft_c2c", read=read, written=written
    )


def elementwise(
    op: str,
    n: Count,
    dtype: str,
    flops: Count = 1,
    reads: Count | None = None,
    launches: Count = 1,
    complex_: bool = False,
) -> Kernel:
    """``n`` outputs at ``flops`` real FLOPs each; ``reads`` elements are read in all (default 2 n).

    With ``complex_`` every element is complex (two ``dtype`` values).
    """
    size = ITEMSIZE[dtype] * (2 if complex_ else 1)
    return Kernel(
        op=op,
        kind="elementwise",
        launches=launches,
        flops=n * flops,
        read=(2 * n if reads is None else reads) * size,
        written=n * size,
    )


def reduction(
    op: str, n: Count, outputs: Count, dtype: str, flops: Count = 1, launches: Count = 1, complex_: bool = False
) -> Kernel:
    """``n`` inputs reduced to ``outputs``; ``flops`` real FLOPs an input element, twice that when complex."""
    size = ITEMSIZE[dtype] * (2 if complex_ else 1)
    return Kernel(
        op=op,
        kind="reduction",
        launches=launches,
        flops=n * flops * (2 if complex_ else 1),
        read=n * size,
        written=outputs * size,
    )


def copy(
    op: str, n: Count, dtype: str, to: str | None = None, reads: Count | None = None, launches: Count = 1
) -> Kernel:
    """``n`` elements written (as ``to`` if the dtype changes), ``reads`` read (default n); no arithmetic."""
    return Kernel(
        op=op,
        kind="copy",
        launches=launches,
        read=(n if reads is None else reads) * ITEMSIZE[dtype],
        written=n * ITEMSIZE[to or dtype],
    )


def mixed(op: str, n: Count, dtype: str, *operands: tuple[Count, str], flops: Count = 1, launches: Count = 1) -> Kernel:
    """``n`` outputs of ``dtype`` from operands of other dtypes, each given as (elements, dtype)."""
    read: Count = 0
    for elements, of in operands:
        read = read + elements * ITEMSIZE[of]
    return Kernel(
        op=op,
        kind="elementwise",
        launches=launches,
        flops=n * flops,
        read=read,
        written=n * ITEMSIZE[dtype],
    )


def lu(op: str, batch: Count, n: Count, columns: Count, dtype: str, factored: bool = False) -> Kernel:
    """``batch`` dense systems of ``n`` unknowns and ``columns`` right-hand sides, solved by LU factors.

    Counted as 2/3 n^3 real FLOPs to factor a matrix, rounded to an integer (nothing with
    ``factored``: the factors are given), and 2 n^2 a right-hand side. Factors, solution and
    pivots (int32) are written when the factors are made, the solution alone when they are given.
    """
    batch, n, columns = countable(batch, n, columns)
    size, pivots = ITEMSIZE[dtype], batch * n * 4
    factors, sides = batch * n * n * size, batch * n * columns * size
    solving = batch * 2 * n * n * columns
    if factored:
        return Kernel(op, "elementwise", flops=solving, read=factors + sides + pivots, written=sides)
    factoring = batch * ((2 * n * n * n + 1) // 3)
    written: Count = sides + factors + pivots
    written = written + 4 * batch  # an error code a system
    return Kernel(op, "elementwise", flops=factoring + solving, read=factors + sides, written=written)
