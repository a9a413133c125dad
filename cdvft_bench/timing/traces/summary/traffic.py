"""Bytes that traced operators move, by the shapes that the profiler recorded: every operand once, every result once.

A lower bound, and what the achieved bandwidth is taken from: caches, the several passes inside a large FFT and a
library's own scratch are not seen. Results are not recorded, so they follow from the operands: a product's from its
matrices, a transform's from its length, an element-wise one's by broadcasting. Results of sums are left out (they are
small), expanded operands count once, and lists of tensors, whose dtype a trace does not hold, are taken for float32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cdvft_bench.timing.traces.names.families import coarse, operator_family

ITEMSIZE = {
    name: size
    for size, names in {
        1: "bool, signed char, unsigned char, c10::Float8_e4m3fn, c10::Float8_e5m2, c10::Float8_e4m3fnuz, "
        "c10::Float8_e5m2fnuz",
        2: "c10::Half, c10::BFloat16, short, unsigned short",
        4: "float, int, c10::complex<c10::Half>",
        8: "double, c10::complex<float>, long int, long",
        16: "c10::complex<double>",
    }.items()
    for name in names.split(", ")
}
_LIST_ITEM = 4  # bytes: what is trained is float32
_PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "addbmm": 1}  # where the two matrices begin
_SUMS = {
    *("sum", "mean", "amax", "amin", "max", "min", "any", "all", "norm", "linalg_vector_norm", "dot", "argmax"),
    *("count_nonzero",),
}
_OVERWRITE = frozenset({"copy_", "fill_", "zero_"})  # their first operand is a result alone


@dataclass(frozen=True)
class _Tensor:
    """dims, bytes an item, and how many items lie in memory (an expanded dimension holds one)."""

    dims: tuple[int, ...]
    item: int
    stored: int

    @property
    def bytes(self) -> int:
        return self.stored * self.item


Shape = tuple[Any, Any, Any, Any]
"""Dims, types, strides and concrete inputs of an operator, as its trace has them."""

_MOST = 1 << 60  # bytes: more moves in no time


def moved_bytes(name: str, shape: Shape) -> int | None:
    """Bytes that one leaf operator (by its bare name) reads and writes; None where its shapes do not tell."""
    try:
        found = _moved(name, shape)
    except (TypeError, IndexError, KeyError, ValueError, OverflowError, AttributeError):
        return None
    return found if 0 <= found < _MOST else None


def product(name: str, shape: Shape) -> tuple[float, float] | None:
    """FLOPs (2 a multiply-add) and bytes (each matrix once) of a matrix product; None for another operator, or unknown.

    Args:
        name: the operator's, with its namespace. shape: of it.
    """
    first = _PRODUCTS.get(name.removeprefix("aten::")) if name.startswith("aten::") else None
    if first is None or name == "aten::addbmm":
        return None
    dims, types, _, _ = shape
    try:
        a, b, dtype = list(dims[first]), list(dims[first + 1]), str(types[first])
        inner, columns, rows, batch = a[-1], b[-1], a[-2], math.prod(a[:-2])
        flops = 2.0 * batch * rows * inner * columns * (4 if "complex" in dtype else 1)
        return flops, 1.0 * batch * (rows * inner + inner * columns + rows * columns) * ITEMSIZE[dtype]
    except (TypeError, IndexError, KeyError, OverflowError):
        return None


def _moved(name: str, shape: Shape) -> int:
    operands = _operands(shape)
    listed = [t for operand in operands if isinstance(operand, list) for t in operand]
    tensors = [operand for operand in operands if isinstance(operand, _Tensor)]
    everything = tensors + listed
    if not everything:
        return 0
    read = sum(t.bytes for t in everything)
    if name == "embedding":  # only the rows that are looked up
        rows = math.prod(tensors[1].dims) * tensors[0].dims[-1] * tensors[0].item
        return 2 * rows + tensors[1].bytes
    if name in _OVERWRITE:
        return read
    if name == "circulant_forward":
        return read + tensors[0].dims[0] * int(shape[3][4]) * tensors[0].item
    if name == "circulant_backward":
        wanted = shape[3][6] == "True"
        return read + sum(t.bytes for t in listed) + (tensors[0].bytes if wanted else 0)
    if listed:
        lists = [operand for operand in operands if isinstance(operand, list)]
        if name.startswith("_fused_"):  # an optimiser: parameters, gradients, states
            return read + sum(t.bytes for i, operand in enumerate(lists) if i != 1 for t in operand)
        return read + sum(t.bytes for t in lists[0])  # _foreach_add_, cat, stack
    if name.endswith("_") and not name.endswith("__"):
        return read + tensors[0].bytes
    return read + _result(name, tensors, shape)


def _result(name: str, tensors: Sequence[_Tensor], shape: Shape) -> int:
    first = tensors[0]
    if name in _PRODUCTS:
        a, b = tensors[_PRODUCTS[name]], tensors[_PRODUCTS[name] + 1]
        return math.prod(a.dims[:-1]) * b.dims[-1] * a.item
    if name in _SUMS:
        return 0
    if name in ("_fft_r2c", "_fft_c2r"):
        concrete = shape[3]
        axis = [int(d) for d in concrete[1].strip("[]").split(",")][-1]
        rest = math.prod(first.dims) // max(first.dims[axis], 1)
        if name == "_fft_c2r":
            return rest * int(concrete[3]) * first.item // 2
        n = first.dims[axis]
        return rest * (n // 2 + 1 if concrete[3] == "True" else n) * first.item * 2
    if coarse(operator_family(name)) not in ("elementwise", "copy"):
        return math.prod(first.dims) * first.item
    shaped = [t for t in tensors if t.dims] or list(tensors)  # a number in a tensor does not widen the others
    return math.prod(_broadcast([t.dims for t in shaped])) * max(t.item for t in shaped)


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    length = max(map(len, shapes))
    padded = [(1,) * (length - len(s)) + s for s in shapes]
    return tuple(0 if 0 in sizes else max(sizes) for sizes in zip(*padded, strict=True))


def _operands(shape: Shape) -> list[_Tensor | list[_Tensor] | None]:
    """The operands in order; None for one that is no tensor.

    Raises KeyError, TypeError or ValueError where shapes were not recorded.
    """
    dims, types, strides, _ = shape
    strides = strides or [None] * len(dims)
    found: list[_Tensor | list[_Tensor] | None] = []
    for sizes, kind, stride in zip(dims, types, strides, strict=True):
        if kind == "TensorList":
            inner = stride or [None] * len(sizes)
            found.append([_tensor(s, _LIST_ITEM, st) for s, st in zip(sizes, inner, strict=True)])
        elif kind in ITEMSIZE:
            found.append(_tensor(sizes, ITEMSIZE[kind], stride))
        else:
            found.append(None)
    return found


def _tensor(sizes: Any, item: int, stride: Any) -> _Tensor:
    dims = tuple(int(d) for d in sizes)
    if min(dims, default=0) < 0:
        raise ValueError("a negative size")
    steps = tuple(stride) if stride else (1,) * len(dims)
    stored = math.prod(d for d, step in zip(dims, steps, strict=True) if step or not d)
    return _Tensor(dims, item, stored)
