"""Scratch memory: tensors whose content is used up before anyone asks for the same memory again.

A temporary of the size of the activations is fetched from the operating system anew at nearly every call of a CPU's
allocator, page by page, and leaves the cache; memory that stays is warm. A GPU's allocator keeps what it is given back,
by stream and by CUDA graph. Shared memory would not do there: no order keeps two threads or streams apart, and a graph
that was captured with it would write on where it was freed for a larger layer.
"""

import math
import threading

import torch
from torch import Tensor

Pool = dict[tuple[str, torch.dtype], Tensor]

KEPT_VIEWS = 64
"""Shapes whose view of the memory is kept: making one costs as much as a small operator."""


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.pool: Pool = {}
        self.views: dict[tuple[tuple[int, ...], torch.dtype], Tensor] = {}
        self.addresses: dict[str, tuple[int, int, Tensor]] = {}


_of_thread = _OfThread()


def buffer(name: str, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A flat tensor of ``n`` entries, which the caller uses up before it returns.

    On a CPU it is the same memory at every call of a thread.
    """
    if device.type != "cpu":
        return torch.empty(n, dtype=dtype, device=device)
    held = _of_thread.pool.get((name, dtype))
    if held is None or held.numel() < n:
        _of_thread.views.clear()  # they would keep the smaller one
        with torch.inference_mode(False):  # else training could not write to what an evaluation made first
            held = _of_thread.pool[name, dtype] = torch.empty(n, dtype=dtype, device=device)
    return held[:n]


def address(name: str, n: int) -> int:
    """Where ``n`` bytes of a CPU's memory for one thread begin, a multiple of 64; used up as that of :func:`buffer`."""
    found = _of_thread.addresses.get(name)
    if found is None or found[1] < n:
        with torch.inference_mode(False):
            memory = torch.empty(n + 64, dtype=torch.uint8, device="cpu")
        start = memory.data_ptr()
        found = _of_thread.addresses[name] = (start + -start % 64, n, memory)
    return found[0]


def rows(shape: tuple[int, ...], dtype: torch.dtype, like: Tensor) -> Tensor | None:
    """Memory for one temporary of activations at a time, to write ``out=``.

    None where new memory costs nothing (a GPU's caching allocator), or where ``like`` is no plain tensor or a
    compiler or tracer looks on: what lives on must be neither a stand-in nor part of a graph.
    """
    if like.device.type != "cpu" or type(like) is not Tensor:
        return None
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return None
    views = _of_thread.views
    found = views.get((shape, dtype))
    if found is None:
        if len(views) >= KEPT_VIEWS:
            views.clear()
        flat = buffer("rows", math.prod(shape), dtype, like.device)
        with torch.inference_mode(False):
            found = views[shape, dtype] = flat.view(shape)
    return found


def release_buffers() -> None:
    """Give the scratch memory of this thread back."""
    _of_thread.pool.clear()
    _of_thread.views.clear()
    _of_thread.addresses.clear()
