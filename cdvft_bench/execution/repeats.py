"""A call of a layer on the path "native" that is like an earlier one: the shorter way, without its checks.

What shapes, dtypes and settings were found to fit once, fits again, and the structure that the kernel is called by is
filled but for pointers. Looked at at every call is what may differ where those are alike: where memory begins, and that
all of it is there. On small inputs what Python does before and after a kernel takes as long as the kernel.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import add, attrgetter, le, methodcaller
from typing import Any

import torch
from torch import Tensor, nn

from cdvft_bench.execution.fused import Plan, flattened
from cdvft_bench.execution.native import kernels, pool
from cdvft_bench.execution.native.operands import takes
from cdvft_bench.execution.scratch import address

_PLAIN = frozenset((Tensor, nn.Parameter))


def unwatched(*operands: Tensor) -> bool:
    """Whether nobody would see an operator of torch: no compiler, tracer, mode or profiler, nor a tensor subclass.

    Going through the dispatcher takes some 15 us a pass, and several times that where its code left the cache.
    """
    return not torch.compiler.is_compiling() and _unseen(operands)


def _unseen(operands: Iterable[Tensor]) -> bool:
    """As :func:`unwatched`, where no compiler is at work: it would bring tensors of its own."""
    if torch._C._is_tracing() or torch._C._autograd._profiler_enabled():
        return False
    if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack():
        return False
    return _PLAIN.issuperset(map(type, operands))


def in_dtype(t: Tensor, dtype: torch.dtype) -> Tensor:
    """As ``Tensor.to``, without the microsecond that this takes where there is nothing to do."""
    return t if t.dtype is dtype else t.to(dtype)


_shape = attrgetter("shape", "dtype", "layout", "is_cpu")
_start, _is_contiguous, _is_neg = methodcaller("data_ptr"), methodcaller("is_contiguous"), methodcaller("is_neg")
_storage, _bytes = methodcaller("untyped_storage"), methodcaller("nbytes")


def _memory(operands: Sequence[Tensor], sizes: Iterable[int]) -> list[int] | None:
    """Where the operands begin; None unless each is contiguous and its storage holds all of it, as it stands."""
    starts, storages = [*map(_start, operands)], [*map(_storage, operands)]
    ends = map(add, map(_start, storages), map(_bytes, storages))
    whole = all(map(_is_contiguous, operands)) and not any(map(_is_neg, operands))
    return starts if whole and all(map(le, map(add, starts, sizes), ends)) else None


class _Ready:
    """A kernel, its structure, which waits for pointers, and the bytes of its workspace."""

    __slots__ = ("call", "layer", "reference", "size")

    def __init__(self, held: kernels.Held, name: str) -> None:
        self.layer, made, self.size = held
        self.call, self.reference = getattr(made, name), ctypes.byref(self.layer)

    def run(self) -> None:
        self.layer.workspace = address("native", self.size)
        self.call(self.reference)


@dataclass(slots=True)
class Known:
    """What checks and planner said of a layer's call, for calls of operands like its own.

    Attributes:
        plan: of the layer. dtype: of the product, to which autocast may cast x. rows, out_rows: shapes of x and of the
            output, flattened. out: shape of the output.
        threads: of the kernels. shapes: of x, weight and factors, with dtypes and so on.
        sizes: bytes of x, the bias if any, and the factors.
        forward, backward: the kernels; backward without and with the gradient of x, each made at its first call.
        thread: the one whose structures they are.
    """

    plan: Plan
    dtype: torch.dtype
    rows: tuple[int, int]
    out_rows: tuple[int, int]
    out: tuple[int, ...]
    threads: int
    shapes: list[object]
    sizes: tuple[int, ...]
    forward: _Ready
    backward: dict[bool, _Ready] = field(default_factory=dict)
    thread: int = field(default_factory=threading.get_ident)


def _read(
    x: Tensor, bias: Tensor | None, diagonals: Sequence[Tensor], circulants: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The operands whose memory the kernels read, in the order of ``Known.sizes``."""
    return (x, *diagonals, *circulants) if bias is None else (x, bias, *diagonals, *circulants)


def _key(operands: Sequence[Tensor], *settings: object) -> tuple[object, ...]:
    trained = map(attrgetter("requires_grad"), operands)
    cast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
    state = (torch.is_grad_enabled(), pool.threads(), torch.get_num_threads(), cast)
    return (*map(_shape, operands), *trained, *settings, *state)


def known_call(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    settings: tuple[object, ...],
) -> tuple[Known, list[int]] | None:
    """What is known of a call of a whole layer, and where its operands begin; None where it must be looked at anew.

    Not to be asked while a compiler is at work.

    Args:
        settings: all else that checks and planner looked at. The others: see ``paths.adapted_linear``.
    """
    mine = kernels.of_thread
    if not mine.known or mine.counts is not None or torch._C._are_functorch_transforms_active():
        return None
    operands = _read(x, bias, diagonals, circulants)
    if not _unseen((weight, *operands)):
        return None
    try:
        known: Known | None = mine.known.get(_key((weight, *operands), bias is None, len(diagonals), *settings))
        starts = _memory(operands, known.sizes) if known else None
    except RuntimeError:  # no sizes or no memory: a nested tensor, or one of a transform that has ended
        return None
    return (known, starts) if known and starts else None


def remember(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    settings: tuple[object, ...],
    plan: Plan,
) -> None:
    """Keep what a call of the path "native" found, if the next like it may go the shorter way.

    Args:
        plan: of the layer. The others: see :func:`known_call`.
    """
    mine, factors = kernels.of_thread, (*diagonals, *circulants)
    operands = _read(x, bias, diagonals, circulants)
    held = (weight, *operands)
    if mine.counts is not None or not unwatched(*held):
        return
    dtype = plan.dtype or x.dtype
    if any(t.layout is not torch.strided or not t.is_cpu for t in held) or not takes(dtype, factors[-1].dtype):
        return
    if weight.dtype is not dtype or (bias is not None and bias.dtype is not dtype):
        return
    key = _key(held, bias is None, len(diagonals), *settings)
    if key in mine.known:
        return
    rows = flattened(x.detach()).to(dtype)
    ready = kernels.held_for(rows, bias, diagonals, circulants, plan.d_out, plan.alpha, plan.row, "forward")
    if len(mine.known) >= 256:
        mine.known.clear()
    mine.known[key] = Known(
        plan,
        dtype,
        (rows.shape[0], rows.shape[1]),
        (rows.shape[0], plan.d_out),
        (*x.shape[:-1], plan.d_out),
        pool.threads(),
        [*map(_shape, (x, weight, *factors))],
        tuple(t.nbytes for t in operands),
        _Ready(ready, "forward"),
    )


def forward(known: Known, starts: list[int], x: Tensor, weight: Tensor, with_bias: bool) -> Tensor:
    """The layer's output; the operands begin at ``starts``."""
    ready, first = known.forward, 2 if with_bias else 1
    layer, second = ready.layer, first + known.plan.diagonals
    cast = in_dtype(x, known.dtype)
    h = cast.new_empty(known.out)
    layer.x, layer.bias = starts[0] if cast is x else cast.data_ptr(), starts[1] if with_bias else None
    layer.out = h.data_ptr()
    layer.diagonal[: second - first], layer.circulant[: len(starts) - second] = starts[first:second], starts[second:]
    ready.run()
    h.view(known.out_rows).addmm_(cast.view(known.rows), weight.t())
    return h


def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...] | None:
    """The gradients of the Function's inputs; None where what was saved, the thread or a bystander is another.

    Not to be asked while a compiler is at work.
    """
    known: Known = ctx.known
    x, weight, *factors = saved = ctx.saved_tensors
    wanted, m = ctx.needs_input_grad[0], known.plan.diagonals
    try:
        if not (
            g.shape == known.out
            and g.dtype is known.dtype
            and g.is_cpu
            and _unseen((g, *saved))
            and known.shapes == [*map(_shape, saved)]
            and known.thread == threading.get_ident()
            and known.threads == pool.threads()
            and kernels.of_thread.counts is None
        ):
            return None
        given = g.reshape(known.out_rows).contiguous()
        sizes = (given.nbytes, known.sizes[0], *known.sizes[-len(factors) :])
        starts = _memory((given, x, *factors), sizes)
    except RuntimeError:  # no sizes or no memory: the long way says so
        return None
    if starts is None:
        return None
    cast = in_dtype(x, known.dtype)
    ready = known.backward.get(wanted) or _backward_of(known, given, cast, factors, wanted)
    layer, n = ready.layer, len(factors) - m
    layer.g, layer.x = starts[0], starts[1] if cast is x else cast.data_ptr()
    layer.diagonal[:m], layer.circulant[:n] = starts[2 : 2 + m], starts[2 + m :]
    grads = [*map(torch.empty_like, factors)]
    ends = [*map(_start, grads)]
    layer.grad_diagonal[:m], layer.grad_circulant[:n] = ends[:m], ends[m:]
    if not wanted:
        ready.run()
        return (None, None, None, None, *grads)
    grad_x = torch.empty_like(cast)
    layer.out = grad_x.data_ptr()
    ready.run()
    grad_x.view(known.rows).addmm_(given, weight)
    return (in_dtype(grad_x, x.dtype), None, None, None, *grads)


def _backward_of(known: Known, given: Tensor, x: Tensor, factors: Sequence[Tensor], wanted: bool) -> _Ready:
    plan, m = known.plan, known.plan.diagonals
    rows, settings = x.view(known.rows), (plan.d_out, plan.alpha, plan.row)
    held = kernels.held_for(rows, given, factors[:m], factors[m:], *settings, "backward", wanted)
    found = known.backward[wanted] = _Ready(held, "backward")
    return found
