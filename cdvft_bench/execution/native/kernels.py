"""The compiled kernels called from Python: with one structure that says all.

Rows are shared among the threads of the OpenMP pool that torch itself uses: a second pool's idle threads would spin
against it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from cdvft_bench.execution.native.build import BYTES, library
from cdvft_bench.execution.scratch import address
from cdvft_bench.execution.radices import stages
from cdvft_reference.operands import check_like, check_operands, memory

ITEMSIZE = {torch.float32: 4, torch.float64: 8}
FORMATS = {torch.float32: 0, torch.float64: 0, torch.bfloat16: 1, torch.float16: 2}
"""Formats of activations; 16 bits are read and written by kernels for float32."""
MOST = 16
"""Diagonals, circulants or radices that fit the structure."""

_ints, _pointers = ctypes.c_int64 * MOST, ctypes.c_void_p * MOST
_INTEGERS = ("rows", "d_in", "d_out", "p", "q_in", "q_out", "diagonals", "circulants", "threads", "stages",
             "row_convention", "input_gradient", "format")  # fmt: skip
_POINTERS = ("tables", "workspace", "parallel", "x", "g", "bias", "out")


class _Counts(ctypes.Structure):
    """The structure of the same name in the C source."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("additions", "multiplications", "fft_additions", "fft_multiplications", "transforms", "read",
                     "written", "stray")
    )  # fmt: skip


class _Layer(ctypes.Structure):
    """The structure of the same name in the C source."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in _INTEGERS),
        ("radices", _ints),
        ("alpha", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, _pointers) for name in ("diagonal", "circulant", "grad_diagonal", "grad_circulant")),
        ("counts", _Counts),
    )


@dataclass(frozen=True)
class Counts:
    """What calls of the instrumented kernels were seen to do.

    Attributes:
        additions, multiplications: real ones, of all data; a multiply-add is one of each.
        fft_additions, fft_multiplications: those of them within transforms.
        transforms: of p complex points.
        read, written: bytes of the operands, each byte once.
        stray: accesses to memory that is no operand's; 0, or the kernels are wrong.
        points: p.
    """

    additions: int
    multiplications: int
    fft_additions: int
    fft_multiplications: int
    transforms: int
    read: int
    written: int
    stray: int
    points: int

    @property
    def elementwise(self) -> int:
        """Additions and multiplications outside of transforms."""
        return self.additions + self.multiplications - self.fft_additions - self.fft_multiplications


@lru_cache(maxsize=1024)
def lanes_for(dtype: torch.dtype, p: int) -> int:
    """Entries of the widest vector of this CPU that blocks of p are made of; 0 where none is."""
    widest = library(dtype)
    if isinstance(widest, str):
        return 0
    for lanes in (width // ITEMSIZE[dtype] for width in BYTES):
        if lanes <= widest.lanes() and stages(p, lanes) is not None:
            return lanes
    return 0


def missing(dtype: torch.dtype) -> str:
    """Why there are no kernels for a dtype of factors; empty where there are. Compiles them at the first call."""
    if dtype not in ITEMSIZE:
        return f"its factors are float32 or float64, not {str(dtype).removeprefix('torch.')}"
    found = library(dtype)
    return found if isinstance(found, str) else ""


def misfit(dtype: torch.dtype, p: int, circulants: int) -> str:
    """Why the kernels cannot execute a layer; empty where they can.

    Args:
        dtype: of the factors. p: block size. circulants: number of circulant factors.
    """
    if circulants >= MOST:
        return f"it takes fewer than {MOST} circulant factors, not {circulants}"
    if dtype in ITEMSIZE:
        narrow = BYTES[-1] // ITEMSIZE[dtype]
        if all(stages(p, n * narrow) is None for n in (1, 2, 4)):
            return f"p = {p} is not {narrow} times powers of 2, 3, 5 and 7"
    return missing(dtype)


@lru_cache(maxsize=1)
def _pool() -> int | None:
    """Address of the function that runs a region in the OpenMP pool of torch; None where it is not found."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.is_file() else []
    paths = {line.split(maxsplit=5)[5] for line in lines if "omp" in line}
    own = str(Path(torch.__file__).parent)
    for path in sorted(paths, key=lambda path: (not path.startswith(own), path)):  # torch brings its own
        if "omp" in Path(path).name and Path(path).is_file():
            try:
                return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p).value
            except (OSError, AttributeError):
                continue
    return None


@cache  # structures hold their addresses
def _tables(p: int, dtype: torch.dtype, lanes: int) -> tuple[Tensor, tuple[int, ...]]:
    """Roots of unity as the kernels read them, aligned, and the radices."""
    made, radices = library(dtype, lanes * ITEMSIZE[dtype]), stages(p, lanes)
    assert not isinstance(made, str)
    assert radices is not None
    given, n = _ints(*radices), ctypes.c_int64(len(radices))
    with torch.inference_mode(False):
        size = made.table_size(ctypes.c_int64(p), given, n) + 64
        tables = _aligned(torch.empty(size, dtype=dtype, device="cpu"))
    made.make_tables(ctypes.c_int64(p), given, n, ctypes.c_void_p(tables.data_ptr()))
    return tables, radices


def _aligned(memory: Tensor) -> Tensor:
    """From the first entry whose address is a multiple of 64."""
    return memory[-memory.data_ptr() % 64 // memory.element_size() :]


class _OfThread(threading.local):
    """Structures that wait for pointers, by sizes: filling one anew costs more than a small transform."""

    def __init__(self) -> None:
        self.layers: dict[tuple[object, ...], tuple[_Layer, ctypes.CDLL, int]] = {}
        self.counts: list[Counts] | None = None


_of_thread = _OfThread()


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


_Held = tuple[_Layer, ctypes.CDLL, int]
"""A structure, its library, and the bytes of its workspace."""


def _layer(
    x: Tensor,
    other: Tensor | None,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    alpha: float,
    row: bool,
    backward: bool,
    input_gradient: bool = False,
) -> tuple[_Layer, ctypes.CDLL, list[Tensor]]:
    """The structure for these operands (``other``: the bias, or g), and the factors as it points to them.

    One structure waits for each set of shapes and dtypes that :func:`check` let pass, so that they are compared at
    every call and checked at the first. The caller holds the factors until the kernel returns.
    """
    g, bias = (other, None) if backward else (None, other)
    try:
        counted = _of_thread.counts is not None and countable(circulants[0].dtype, circulants[0].shape[-1])
        sizes = [(t.shape, t.dtype) for t in (x, *diagonals, *circulants)]
        key = (*sizes, other is not None and (other.shape, other.dtype), d_out, len(diagonals), alpha, row,
               torch.get_num_threads(), backward, input_gradient, counted)  # fmt: skip
    except (AttributeError, IndexError, RuntimeError):  # no tensors, or nested ones
        check(x, diagonals, circulants, d_out, bias=bias, g=g)
        raise
    held = _of_thread.layers.get(key)
    if held is None:
        check(x, diagonals, circulants, d_out, bias=bias, g=g)
        held = _new_layer(x, len(diagonals), circulants, d_out, alpha, row, backward, input_gradient, counted)
        if len(_of_thread.layers) >= 256:
            _of_thread.layers.clear()
        _of_thread.layers[key] = held
    layer, made, size = held
    factors = []
    for i, a in enumerate(diagonals):
        a = _read("a diagonal", a)
        factors.append(a)
        layer.diagonal[i] = a.data_ptr()
    for i, c in enumerate(circulants):
        c = _read("a circulant", c)
        factors.append(c)
        layer.circulant[i] = c.data_ptr()
    layer.workspace = address("native", size)
    return layer, made, factors


def _read(name: str, t: Tensor) -> Tensor:
    """An operand as the kernels read it, in memory of this machine."""
    if not t.is_cpu:
        raise ValueError(f"{name} is on device {t.device}; the kernels run on a CPU")
    if t.layout is not torch.strided:
        raise ValueError(f"{name} has layout {t.layout}; it must be strided (a plain tensor)")
    t = memory(name, t)
    if not t.data_ptr() and t.numel():
        raise ValueError(f"{name} (a {type(t).__name__}) has no memory; the kernels take tensors that hold values")
    return t


def _new_layer(
    x: Tensor,
    diagonals: int,
    circulants: Sequence[Tensor],
    d_out: int,
    alpha: float,
    row: bool,
    backward: bool,
    input_gradient: bool,
    counted: bool,
) -> _Held:
    c = circulants[0]
    lanes = lanes_for(c.dtype, c.shape[2])
    made = misfit(c.dtype, c.shape[2], len(circulants)) or library(c.dtype, lanes * ITEMSIZE[c.dtype], counted)
    if isinstance(made, str):
        raise RuntimeError(f"path 'native' cannot execute this layer: {made}")
    tables, radices = _tables(c.shape[2], c.dtype, lanes)
    layer = _Layer(
        rows=x.shape[0], d_in=x.shape[1], d_out=d_out, p=c.shape[2], q_in=c.shape[1], q_out=c.shape[0],
        diagonals=diagonals, circulants=len(circulants), threads=torch.get_num_threads(), stages=len(radices),
        row_convention=row, input_gradient=input_gradient, format=FORMATS[x.dtype], radices=_ints(*radices), alpha=alpha,
        tables=tables.data_ptr(), parallel=None if counted else _pool(),
    )  # fmt: skip
    size = (made.backward_workspace if backward else made.forward_workspace)(ctypes.byref(layer))
    return layer, made, int(size) * ITEMSIZE[c.dtype]


def countable(dtype: torch.dtype, p: int) -> bool:
    """Whether the instrumented kernels for blocks of p are there, or can be compiled."""
    lanes = lanes_for(dtype, p) if dtype in ITEMSIZE else 0
    return bool(lanes) and not isinstance(library(dtype, lanes * ITEMSIZE[dtype], counted=True), str)


def _seen(layer: _Layer) -> None:
    if _of_thread.counts is not None and layer.counts.multiplications:  # no call is without one
        _of_thread.counts.append(Counts(*(getattr(layer.counts, name) for name, _ in _Counts._fields_), layer.p))


@contextmanager
def counting() -> Iterator[list[Counts]]:
    """Calls of this thread inside run instrumented builds of the same source, on one thread; yields their counts.

    Adding up what several threads have summed is therefore not among them: it depends on their number. Where such a
    build is not :func:`countable`, a call runs the usual one, and no counts are added.
    """
    before, _of_thread.counts = _of_thread.counts, []
    try:
        yield _of_thread.counts
    finally:
        _of_thread.counts = before


def forward(
    x: Tensor,
    bias: Tensor | None,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    alpha: float,
    row: bool,
) -> Tensor:
    """``alpha dW x + bias``.

    Args:
        x: (T, d_in), of the factors' dtype, or of 16 bits under factors of float32; p fits (:func:`misfit`).
        bias: (d_out,) of x's dtype, or None.
        diagonals: m vectors, or none. circulants: (q_out, q_in, p) each.
        d_out: output width. alpha: scale. row: first-row convention.

    Returns:
        (T, d_out) of x's dtype.

    Raises:
        ValueError, TypeError: see :func:`check`. RuntimeError: p does not fit, or there is no compiler.
    """
    layer, made, _held = _layer(x, bias, diagonals, circulants, d_out, alpha, row, backward=False)
    # What is made contiguous here is held until the kernel returns.
    x, bias = _read("x", x), None if bias is None else _read("bias", bias)
    out = x.new_empty(x.shape[0], d_out)
    layer.x, layer.out = x.data_ptr(), out.data_ptr()
    layer.bias = None if bias is None else bias.data_ptr()
    made.forward(ctypes.byref(layer))
    _seen(layer)
    return out


def backward(
    x: Tensor,
    g: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    alpha: float,
    row: bool,
    input_gradient: bool,
) -> list[Tensor]:
    """Gradients of x through the change (empty unless ``input_gradient``), of the diagonals and of the circulants.

    Args:
        g: (T, d_out), gradient of the output, of x's dtype. The others: see :func:`forward`.
    """
    if g.ndim != 2:
        raise ValueError(f"g has shape {tuple(g.shape)}; it must be (T, d_out)")
    layer, made, held = _layer(x, g, diagonals, circulants, g.shape[1], alpha, row, True, input_gradient)
    x, g = _read("x", x), _read("g", g)
    out = x.new_empty(x.shape if input_gradient else (0,))
    grads = [torch.empty_like(factor) for factor in held]
    layer.x, layer.g, layer.out = x.data_ptr(), g.data_ptr(), out.data_ptr()
    for i in range(len(diagonals)):
        layer.grad_diagonal[i] = grads[i].data_ptr()
    for i in range(len(circulants)):
        layer.grad_circulant[i] = grads[len(diagonals) + i].data_ptr()
    made.backward(ctypes.byref(layer))
    _seen(layer)
    return [out, *grads]


def forget() -> None:
    """Forget the structures of this thread, and which libraries were found: the next call looks for them anew."""
    _of_thread.layers.clear()
    lanes_for.cache_clear()
    library.cache_clear()
