"""CDVFT and the block-circulant adapter with a hand-derived backward: one autograd Function a layer.

``h = W x + b + alpha * a_m * C_{m-1}( ... a_2 * C_1(a_1 * x))`` in real FFTs only, the frozen layer's
product added onto the change in place. Two ways to trade memory for time:

- ``keep=False`` (path "fused") saves x and what has the size of the factors; backward transforms x again.
- ``keep=True`` (path "stored") also saves, for each circulant factor, the spectrum of its input and its
  output: two transforms of the activations less a factor.

With g the gradient of h and V = FFT(a_m g): ``dL/dc = IFFT(sum_t conj(U) V)``, ``dL/du = IFFT(conj(C) V)``
(paper, backward of the circulant product), ``dL/da = sum_t (gradient of the product) * (input)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cdvft_bench.execution import spectral


@dataclass(frozen=True)
class Plan:
    """What a layer's Function is told beside tensors.

    Attributes:
        d_out: output width. alpha: scale of the change. row: first-row convention.
        diagonals: how many of the factors are diagonals (m, or 0 for the block-circulant adapter).
        keep: save spectra and products for backward.
        dtype: of the frozen layer's products, None for that of x (autocast sets it).
    """

    d_out: int
    alpha: float = 1.0
    row: bool = False
    diagonals: int = 2
    keep: bool = False
    dtype: torch.dtype | None = None


def is_by_block(c: Tensor) -> bool:
    """The layout of a factor's spectra, see ``spectral``."""
    return spectral.few(*c.shape[:2])


def scaled(x: Tensor, factor: float) -> Tensor:
    """``x * factor``, at no cost where the factor is 1."""
    return x if factor == 1.0 else x * factor


def _spectrum_scale(plan: Plan, last: bool) -> float:
    # Without diagonals alpha goes into the spectrum, else into the last diagonal: both are small.
    return plan.alpha if last and not plan.diagonals else 1.0


def _input_spectrum(v: Tensor, diagonal: Tensor | None, c: Tensor) -> Tensor:
    u = v.to(c.dtype) if diagonal is None else v * diagonal
    return spectral.spectra(u, c.shape[1], c.shape[2], is_by_block(c))


class FusedFunction(torch.autograd.Function):
    """See the module's docstring. Inputs: x (T, d_in), weight or None, bias or None, plan, factors."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, plan: Plan, *factors: Tensor
    ) -> Tensor:
        diagonals, circulants = factors[: plan.diagonals], factors[plan.diagonals :]
        spectra_of_c = spectra_of_factors(circulants, plan)
        kept: list[Tensor] = []
        v = x
        for i, (c, c_hat) in enumerate(zip(circulants, spectra_of_c, strict=True)):
            by_block = is_by_block(c)
            u_hat = _input_spectrum(v, diagonals[i] if diagonals else None, c)
            y_hat = spectral.multiply(u_hat, c_hat, by_block, in_place=not plan.keep)
            v = spectral.signals(y_hat, c.shape[2], plan.d_out, by_block)
            if plan.keep:
                kept += [u_hat.conj_physical_(), v] if diagonals else [u_hat.conj_physical_()]
        ctx.plan, ctx.has_weight, ctx.count = plan, weight is not None, len(circulants)
        # Without diagonals no gradient needs x once its spectrum is kept: its shape and dtype then suffice.
        ctx.input = x.new_empty(()).expand(x.shape) if plan.keep and not diagonals else None
        some = [t for t in (None if ctx.input is not None else x, weight) if t is not None]
        ctx.save_for_backward(*some, *factors, *spectra_of_c, *kept)
        scale = scaled(diagonals[-1], plan.alpha) if diagonals else None
        return _add_base(v, scale, x, weight, bias, plan.dtype or x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        saved = list(ctx.saved_tensors)
        x = saved.pop(0) if ctx.input is None else ctx.input
        weight = saved.pop(0) if ctx.has_weight else None
        ends = (plan.diagonals, plan.diagonals + ctx.count, plan.diagonals + 2 * ctx.count)
        diagonals, circulants, c_hats = saved[: ends[0]], saved[ends[0] : ends[1]], saved[ends[1] : ends[2]]
        kept = saved[ends[2] :] if plan.keep else None
        g = g.contiguous()
        wanted = ctx.needs_input_grad[0]
        grads, change = factor_gradients(plan, x, g, diagonals, circulants, c_hats, kept, input_gradient=wanted)
        grad_x = None if change is None else _add_product(change, g, weight, x.dtype)
        return (grad_x, None, None, None, *grads)


def spectra_of_factors(circulants: Sequence[Tensor], plan: Plan) -> list[Tensor]:
    """The spectrum of each circulant factor; without diagonals the last one holds alpha."""
    last = len(circulants) - 1
    return [spectral.factor_spectrum(c, plan.row, _spectrum_scale(plan, i == last)) for i, c in enumerate(circulants)]


def factor_gradients(
    plan: Plan,
    x: Tensor,
    g: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    c_hats: Sequence[Tensor],
    kept: Sequence[Tensor] | None,
    input_gradient: bool,
) -> tuple[list[Tensor | None], Tensor | None]:
    """Backward of the change alone.

    Args:
        plan: of the layer.
        x: (T, d_in). g: (T, d_out), gradient of the layer's output.
        diagonals, circulants, c_hats: factors and the circulants' spectra.
        kept: what forward kept (path "stored"), or None to compute it again from x.
        input_gradient: whether the gradient of x is wanted.

    Returns:
        The gradients of diagonals and circulants, and the change's part of the gradient of x, or None.
    """
    u_hats, products = _recall(plan, x, diagonals, circulants, c_hats, kept)
    last = len(circulants) - 1
    grads: list[Tensor | None] = [None] * (len(diagonals) + len(circulants))
    v_bar = g if g.dtype == circulants[0].dtype else g.to(circulants[0].dtype)
    if diagonals:
        dot = spectral.column_dot(products[-1], v_bar)
        grads[len(diagonals) - 1] = scaled(dot, plan.alpha)
        v_bar = v_bar * scaled(diagonals[-1], plan.alpha)
    for i in range(last, -1, -1):
        c, by_block = circulants[i], is_by_block(circulants[i])
        v_hat = spectral.spectra(v_bar, c.shape[0], c.shape[2], by_block)
        grad_c = spectral.moment(v_hat, u_hats[i], c.shape[2], plan.row, by_block)
        # Without diagonals the spectrum holds alpha, which the factor's own gradient still lacks.
        grads[len(diagonals) + i] = scaled(grad_c, _spectrum_scale(plan, i == last))
        if not diagonals and not input_gradient:
            return grads, None
        u_hat = spectral.multiply(v_hat, spectral.adjoint(c_hats[i], by_block), by_block, in_place=True)
        v_bar = spectral.signals(u_hat, c.shape[2], diagonals[i].shape[0] if diagonals else x.shape[1], by_block)
        if diagonals:
            grads[i] = spectral.column_dot(v_bar, products[i - 1] if i else x.to(v_bar.dtype))
            if i or input_gradient:
                v_bar.mul_(diagonals[i])
    return grads, v_bar if input_gradient else None


def _recall(
    plan: Plan,
    x: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    c_hats: Sequence[Tensor],
    kept: Sequence[Tensor] | None,
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """The conjugate spectrum of each circulant's input and, where diagonals follow, its output."""
    if kept is not None:
        return (kept[::2], kept[1::2]) if diagonals else (kept, [])
    u_hats, products = [], []
    v = x
    for i, (c, c_hat) in enumerate(zip(circulants, c_hats, strict=True)):
        by_block = is_by_block(c)
        u_hat = _input_spectrum(v, diagonals[i] if diagonals else None, c)
        if diagonals:
            v = spectral.signals(spectral.multiply(u_hat, c_hat, by_block), c.shape[2], plan.d_out, by_block)
            products.append(v)
        u_hats.append(u_hat.conj_physical_())
    return u_hats, products


def _add_base(
    change: Tensor, scale: Tensor | None, x: Tensor, weight: Tensor | None, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """``change * scale + bias + x W^T`` in ``dtype``; the matrix product adds onto the change in place."""
    if weight is None:
        h = change if scale is None else change * scale
        return h.to(dtype)
    if change.dtype == dtype and weight.dtype == dtype and x.dtype == dtype:
        if bias is not None and bias.dtype == dtype:
            h = change.add_(bias) if scale is None else torch.addcmul(bias, change, scale)
        else:
            h = change if scale is None else change * scale
        return h.addmm_(x, weight.t())
    h = torch.nn.functional.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    return h.add_(change if scale is None else change * scale)


def _add_product(change: Tensor, g: Tensor, weight: Tensor | None, dtype: torch.dtype) -> Tensor:
    """``change + g W`` in ``dtype``, the dtype of the layer's input."""
    if weight is None:
        return change.to(dtype)
    if change.dtype == dtype and weight.dtype == dtype and g.dtype == dtype:
        return change.addmm_(g, weight)
    return torch.mm(g, weight.to(g.dtype)).to(dtype).add_(change)
