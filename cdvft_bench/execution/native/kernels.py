"""The compiled kernels called from Python: with one structure that says all.

Rows are shared among the threads of the OpenMP pool that torch itself uses: a second pool's idle threads would spin
against it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from cdvft_bench.execution.native import pool
from cdvft_bench.execution.native.build import BYTES, library
from cdvft_bench.execution.native.operands import FORMATS, ITEMSIZE, check, readable
from cdvft_bench.execution.native.radices import stages
from cdvft_bench.execution.native.structure import COUNTED, MOST, Counts, Ints, LayerStructure
from cdvft_bench.execution.scratch import address
from cdvft_reference.operands import check_mixed


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


def _of_lanes(dtype: torch.dtype, lanes: int, counted: bool = False) -> ctypes.CDLL | str:
    """The library with vectors of so many entries; the widest are the compiler's own choice."""
    widest = library(dtype)
    width = 0 if isinstance(widest, str) or widest.lanes() == lanes else lanes * ITEMSIZE[dtype]
    return library(dtype, width, counted)


def missing(dtype: torch.dtype) -> str:
    """Why there are no kernels for a dtype of factors; empty where there are. Compiles them at the first call."""
    if dtype not in ITEMSIZE:
        return f"its factors are float32 or float64, not {str(dtype).removeprefix('torch.')}"
    found = library(dtype)
    return found if isinstance(found, str) else ""


def described(dtype: torch.dtype) -> str:
    """The kernels that are there, for a reader."""
    found = library(dtype)
    return found if isinstance(found, str) else f"vectors of {found.lanes()} numbers ({dtype}), {found._name}"


def misfit(dtype: torch.dtype, p: int, circulants: int) -> str:
    """Why the kernels cannot execute a layer; empty where they can.

    Args:
        dtype: of the factors. p: block size. circulants: number of circulant factors.
    """
    if circulants >= MOST:
        return f"it takes fewer than {MOST} circulant factors, not {circulants}"
    if dtype in ITEMSIZE and not _has_stages(dtype, p):
        return f"p = {p} is not {BYTES[-1] // ITEMSIZE[dtype]} times powers of 2, 3, 5 and 7"
    return missing(dtype)


@lru_cache(maxsize=1024)  # asked at every call of a layer
def _has_stages(dtype: torch.dtype, p: int) -> bool:
    return any(stages(p, width // ITEMSIZE[dtype]) is not None for width in BYTES)


@cache  # structures hold their addresses
def _tables(p: int, dtype: torch.dtype, lanes: int) -> tuple[Tensor, tuple[int, ...]]:
    """Roots of unity as the kernels read them, aligned, and the radices."""
    made, radices = _of_lanes(dtype, lanes), stages(p, lanes)
    assert not isinstance(made, str)
    assert radices is not None
    given, n = Ints(*radices), ctypes.c_int64(len(radices))
    with torch.inference_mode(False):
        size = made.table_size(ctypes.c_int64(p), given, n) + 64
        tables = _aligned(torch.empty(size, dtype=dtype, device="cpu"))
    made.make_tables(ctypes.c_int64(p), given, n, ctypes.c_void_p(tables.data_ptr()))
    return tables, radices


def _aligned(memory: Tensor) -> Tensor:
    """From the first entry whose address is a multiple of 64."""
    return memory[-memory.data_ptr() % 64 // memory.element_size() :]


class _OfThread(threading.local):
    """Structures that wait for pointers, by sizes: filling one anew costs more than a small transform.

    Attributes:
        layers: the structures. known: calls of whole layers that used them, see ``execution.repeats``.
        counts: what calls were seen to do, None outside of :func:`counting`.
    """

    def __init__(self) -> None:
        self.layers: dict[tuple[object, ...], Held] = {}
        self.known: dict[tuple[object, ...], Any] = {}
        self.counts: list[Counts] | None = None


of_thread = _OfThread()


Call = Literal["forward", "backward", "mixed"]
Held = tuple[LayerStructure, ctypes.CDLL, int]
"""A structure, its library, and the bytes of its workspace."""


def _layer(
    x: Tensor, other: Tensor | None, diagonals: Sequence[Tensor], circulants: Sequence[Tensor], *settings: Any
) -> tuple[LayerStructure, ctypes.CDLL, list[Tensor]]:
    """The structure of :func:`held_for`, and the factors as it points to them, for the caller to hold meanwhile."""
    layer, made, size = held_for(x, other, diagonals, circulants, *settings)
    factors = []
    for i, a in enumerate(diagonals):
        a, layer.diagonal[i] = readable("a diagonal", a)
        factors.append(a)
    for i, c in enumerate(circulants):
        c, layer.circulant[i] = readable("a circulant", c)
        factors.append(c)
    layer.workspace = address("native", size)
    return layer, made, factors


def held_for(
    x: Tensor,
    other: Tensor | None,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    alpha: float,
    row: bool,
    call: Call,
    input_gradient: bool = False,
) -> Held:
    """This thread's structure for operands of these shapes and dtypes (``other``: the bias, or in backward g).

    One waits for each set of them that :func:`check` let pass: they are compared at every call, checked at the first.
    """
    g, bias = (other, None) if call == "backward" else (None, other)
    try:
        counted = of_thread.counts is not None and countable(circulants[0].dtype, circulants[0].shape[-1])
        sizes = [(t.shape, t.dtype) for t in (x, *diagonals, *circulants)]
        key = (
            *sizes,
            other is not None and (other.shape, other.dtype),
            d_out,
            len(diagonals),
            alpha,
            row,
            pool.threads(),
            call,
            input_gradient,
            counted,
        )
    except (AttributeError, IndexError, RuntimeError):  # no tensors, or nested ones
        check(x, diagonals, circulants, d_out, bias=bias, g=g)
        raise
    held = of_thread.layers.get(key)
    if held is None:
        check(x, diagonals, circulants, d_out, bias=bias, g=g)
        held = _new_layer(x, len(diagonals), circulants, d_out, alpha, row, call, input_gradient, counted)
        if len(of_thread.layers) >= 256:
            of_thread.layers.clear()
        of_thread.layers[key] = held
    return held


def _new_layer(
    x: Tensor,
    diagonals: int,
    circulants: Sequence[Tensor],
    d_out: int,
    alpha: float,
    row: bool,
    call: Call,
    input_gradient: bool,
    counted: bool,
) -> Held:
    c = circulants[0]
    lanes = lanes_for(c.dtype, c.shape[2])
    made = misfit(c.dtype, c.shape[2], len(circulants)) or _of_lanes(c.dtype, lanes, counted)
    if isinstance(made, str):
        raise RuntimeError(f"path 'native' cannot execute this layer: {made}")
    tables, radices = _tables(c.shape[2], c.dtype, lanes)
    layer = LayerStructure(
        rows=x.shape[0],
        d_in=x.shape[1],
        d_out=d_out,
        p=c.shape[2],
        q_in=c.shape[1],
        q_out=c.shape[0],
        diagonals=diagonals,
        circulants=len(circulants),
        threads=pool.threads(),
        stages=len(radices),
        row_convention=row,
        input_gradient=input_gradient,
        format=FORMATS[x.dtype],
        radices=Ints(*radices),
        alpha=alpha,
        tables=tables.data_ptr(),
        parallel=None if counted else pool.address(),
    )
    size = getattr(made, f"{call}_workspace")(ctypes.byref(layer))
    return layer, made, int(size) * ITEMSIZE[c.dtype]


def countable(dtype: torch.dtype, p: int) -> bool:
    """Whether the instrumented kernels for blocks of p are there, or can be compiled."""
    lanes = lanes_for(dtype, p) if dtype in ITEMSIZE else 0
    return bool(lanes) and not isinstance(_of_lanes(dtype, lanes, counted=True), str)


def _seen(layer: LayerStructure) -> None:
    if of_thread.counts is not None and (layer.counts.multiplications or layer.counts.written):  # else nobody counted
        of_thread.counts.append(Counts(**{name: getattr(layer.counts, name) for name in COUNTED}, points=layer.p))


@contextmanager
def counting() -> Iterator[list[Counts]]:
    """Calls of this thread inside run instrumented builds of the same source, on one thread; yields their counts.

    Adding up what several threads have summed is therefore not among them: it depends on their number. Where such a
    build is not :func:`countable`, a call runs the usual one, and no counts are added.
    """
    before, of_thread.counts = of_thread.counts, []
    try:
        yield of_thread.counts
    finally:
        of_thread.counts = before


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
    layer, made, _held = _layer(x, bias, diagonals, circulants, d_out, alpha, row, "forward")
    # What is made contiguous here is held until the kernel returns.
    x, layer.x = readable("x", x)
    bias, layer.bias = (None, None) if bias is None else readable("bias", bias)
    out = x.new_empty(x.shape[0], d_out)
    layer.out = out.data_ptr()
    made.forward(ctypes.byref(layer))
    _seen(layer)
    return out


def mixed(
    x: Tensor,
    adapters: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    alpha: float,
    row: bool,
) -> Tensor:
    """``alpha dW_k x`` of rows that each have an adapter k of their own, in one call.

    Args:
        x: (T, d_in). adapters: (T,), int64, on the CPU: each row's k from 0 to K - 1, or -1 for no change.
        diagonals: m of (K, width), or none. circulants: (K, q_out, q_in, p) each. The others: see :func:`forward`.

    Returns:
        (T, d_out) of x's dtype.

    Raises:
        ValueError, TypeError: see ``check_mixed``. RuntimeError: p does not fit, or there is no compiler.
    """
    check_mixed(x, adapters, diagonals, circulants, d_out)
    banks = [readable("a bank of factors", t)[0] for t in (*diagonals, *circulants)]
    firsts = [bank[0] for bank in banks]
    layer, made, _ = _layer(x, None, firsts[: len(diagonals)], firsts[len(diagonals) :], d_out, alpha, row, "mixed")
    x, layer.x = readable("x", x)
    adapters, layer.adapters = readable("adapters", adapters)
    order, out = torch.argsort(adapters, stable=True), x.new_empty(x.shape[0], d_out)
    layer.out, layer.order = out.data_ptr(), order.data_ptr()
    made.mixed(ctypes.byref(layer), ctypes.c_int64(len(banks[0])))
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
    layer, made, held = _layer(x, g, diagonals, circulants, g.shape[1], alpha, row, "backward", input_gradient)
    x, layer.x = readable("x", x)
    g, layer.g = readable("g", g)
    out = x.new_empty(x.shape if input_gradient else (0,))
    grads = [torch.empty_like(factor) for factor in held]
    layer.out = out.data_ptr()
    for i in range(len(diagonals)):
        layer.grad_diagonal[i] = grads[i].data_ptr()
    for i in range(len(circulants)):
        layer.grad_circulant[i] = grads[len(diagonals) + i].data_ptr()
    made.backward(ctypes.byref(layer))
    _seen(layer)
    return [out, *grads]


def layer_bytes() -> int:
    """Size of the structure, which the C source must have too."""
    return ctypes.sizeof(LayerStructure)


def forget() -> None:
    """Forget the structures of this thread, and which libraries were found: the next call looks for them anew."""
    of_thread.layers.clear()
    of_thread.known.clear()
    lanes_for.cache_clear()
    library.cache_clear()
