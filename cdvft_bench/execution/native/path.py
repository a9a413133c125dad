"""The path "native": each pass of an adapted layer as one compiled CPU kernel and one product.

The kernels are operators of torch (``cdvft::circulant_forward`` and ``circulant_backward``), so that dispatch modes,
the profiler and compiled graphs see one launch a pass. Where none of them looks on, a layer calls the kernels itself.
A call whose operands are as those of an earlier one goes a shorter way (``execution.repeats``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cdvft_bench.execution import repeats
from cdvft_bench.execution.fused import Plan, flattened, unflattened
from cdvft_bench.execution.native import kernels
from cdvft_bench.execution.native.operands import check, takes
from cdvft_bench.execution.repeats import in_dtype, unwatched
from cdvft_reference.operands import check_mixed

_library = torch.library.Library("cdvft", "DEF")
_library.define(
    "circulant_forward(Tensor x, Tensor? bias, Tensor[] diagonals, Tensor[] circulants, int d_out, float alpha, "
    "bool row) -> Tensor"
)
_library.define(
    "circulant_backward(Tensor x, Tensor g, Tensor[] diagonals, Tensor[] circulants, float alpha, bool row, "
    "bool input_gradient) -> Tensor[]"
)
_library.define(
    "circulant_mixed(Tensor x, Tensor adapters, Tensor[] diagonals, Tensor[] circulants, int d_out, float alpha, "
    "bool row) -> Tensor"
)
_library.impl("circulant_forward", kernels.forward, "CPU")
_library.impl("circulant_backward", kernels.backward, "CPU")
_library.impl("circulant_mixed", kernels.mixed, "CPU")


def _forward_alike(
    x: Tensor,
    bias: Tensor | None,
    diagonals: list[Tensor],
    circulants: list[Tensor],
    d_out: int,
    alpha: float,
    row: bool,
) -> Tensor:
    check(x, diagonals, circulants, d_out, bias=bias)
    return x.new_empty(x.shape[0], d_out)


def _backward_alike(
    x: Tensor,
    g: Tensor,
    diagonals: list[Tensor],
    circulants: list[Tensor],
    alpha: float,
    row: bool,
    input_gradient: bool,
) -> list[Tensor]:
    check(x, diagonals, circulants, int(g.shape[-1]), g=g)  # under a compiler it may be symbolic
    grads = [t.new_empty(t.shape) for t in (*diagonals, *circulants)]
    return [x.new_empty(x.shape if input_gradient else (0,)), *grads]


def _mixed_alike(
    x: Tensor,
    adapters: Tensor,
    diagonals: list[Tensor],
    circulants: list[Tensor],
    d_out: int,
    alpha: float,
    row: bool,
) -> Tensor:
    check_mixed(x, adapters, diagonals, circulants, d_out, values=False)
    check(x, [a[0] for a in diagonals], [c[0] for c in circulants], d_out)
    return x.new_empty(x.shape[0], d_out)


torch.library.register_fake("cdvft::circulant_mixed", _mixed_alike, lib=_library)
torch.library.register_fake("cdvft::circulant_forward", _forward_alike, lib=_library)
torch.library.register_fake("cdvft::circulant_backward", _backward_alike, lib=_library)


def _misfit(device: torch.device, dtype: torch.dtype, p: int, circulants: int) -> str:
    """Why this path cannot execute a layer; empty where it can.

    Args:
        device: of the activations. dtype: of the factors. p: block size. circulants: number of circulant factors.
    """
    if device.type != "cpu":
        return f"it runs on a CPU, not on {device.type}"
    return kernels.misfit(dtype, p, circulants)


misfit = torch.compiler.assume_constant_result(_misfit)  # a compiler is not to trace how kernels are compiled


class NativeFunction(torch.autograd.Function):
    """Inputs: x (..., d_in), weight or None, bias or None, plan, factors. See ``fused.FusedFunction``. Keeps x.

    The frozen product adds onto the change in place, in the dtype of the product. Where kernels do not write that one
    (float32 under factors of float64), the wider change is added onto the product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        plan: Plan | tuple[repeats.Known, list[int]],
        *factors: Tensor,
    ) -> Tensor:
        if not isinstance(plan, Plan):
            assert weight is not None
            ctx.known, starts = plan
            ctx.plan, ctx.has_weight = ctx.known.plan, True
            ctx.save_for_backward(x, weight, *factors)
            return repeats.forward(ctx.known, starts, x, weight, bias is not None)
        ctx.known = None
        diagonals, circulants = factors[: plan.diagonals], factors[plan.diagonals :]
        ctx.plan, ctx.has_weight = plan, weight is not None
        ctx.save_for_backward(*((x,) if weight is None else (x, weight)), *factors)
        dtype, own = plan.dtype or x.dtype, circulants[0].dtype
        onto = takes(dtype, own)
        rows, b = in_dtype(flattened(x).contiguous(), dtype), None if bias is None else in_dtype(bias, dtype)
        alone = unwatched(rows, *factors)
        run = kernels.forward if alone else torch.ops.cdvft.circulant_forward.default
        change_input, change_bias = (rows, b) if onto else (rows.to(own), None)
        h: Tensor = run(change_input, change_bias, diagonals, circulants, plan.d_out, plan.alpha, plan.row)
        if onto and weight is not None:
            h.addmm_(rows, in_dtype(weight, dtype).t())
        elif weight is not None:
            h = torch.nn.functional.linear(rows, weight.to(dtype), b).add_(h)
        h = in_dtype(h, dtype)
        if x.ndim == 2 or not alone:
            return unflattened(h, x)
        # Not a view in autograd's eyes: it refuses to let one that a Function returns be changed in place.
        out: Tensor = torch.ops.aten._unsafe_view.default(h, (*x.shape[:-1], plan.d_out))
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        # What makes an error of a second derivative takes 5 us, and there is none unless gradients are recorded.
        if torch.is_grad_enabled():
            found: tuple[Tensor | None, ...] = _backward_once(ctx, g)
            return found
        known = ctx.known and not torch.compiler.is_compiling()  # compiled autograd traces what was called eagerly
        return (known and repeats.backward(ctx, g)) or _backward(ctx, g)


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    plan: Plan = ctx.plan
    x, *saved = ctx.saved_tensors
    weight = saved.pop(0) if ctx.has_weight else None
    diagonals, circulants = saved[: plan.diagonals], saved[plan.diagonals :]
    own, wanted = circulants[0].dtype, ctx.needs_input_grad[0]
    rows, given = in_dtype(flattened(x).contiguous(), g.dtype), flattened(g).contiguous()
    run = kernels.backward if unwatched(rows, given, *saved) else torch.ops.cdvft.circulant_backward.default
    onto = takes(g.dtype, own)
    operands = (rows, given) if onto else (rows.to(own), given.to(own))
    grad_x, *grads = run(*operands, diagonals, circulants, plan.alpha, plan.row, wanted)
    if not wanted:
        return (None, None, None, None, *grads)
    if onto and weight is not None:
        grad_x.addmm_(given, in_dtype(weight, g.dtype))
    elif weight is not None:
        grad_x = torch.mm(given, weight.to(g.dtype)).add_(grad_x)
    return (unflattened(in_dtype(grad_x, x.dtype), g), None, None, None, *grads)


_backward_once = once_differentiable(_backward)


_apply: Callable[..., Tensor] = super(torch.autograd.Function, NativeFunction).apply
"""``apply`` without what it does for transforms of torch.func, which take as long as a look at all operands."""


def repeated(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    settings: tuple[object, ...],
) -> Tensor | None:
    """The output of a whole layer whose call is like an earlier one, else None; see ``repeats.known_call``."""
    known = repeats.known_call(x, weight, bias, diagonals, circulants, settings)
    return known and _apply(x, weight, bias, known, *diagonals, *circulants)
