"""CDVFT and the block-circulant adapter with a hand-derived backward: one autograd Function a layer.

``h = W x + b + alpha * a_m * C_{m-1}( ... a_2 * C_1(a_1 * x))`` in real FFTs only, the change added onto the
frozen layer's product in place, some rows at a time (``splits.piece``). Two ways to trade memory for time:

- ``keep=False`` (path "fused") saves x and what has the size of the factors; backward transforms x again.
- ``keep=True`` (path "stored") also saves, for each circulant factor, the spectrum of its input and its
  output: two transforms of the activations less a factor.

With g the gradient of h and V = FFT(a_m g): ``dL/dc = IFFT(sum_t conj(U) V)``, ``dL/du = IFFT(conj(C) V)``
(paper, backward of the circulant product), ``dL/da = sum_t (gradient of the product) * (input)``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cdvft_bench.execution import spectral
from cdvft_bench.execution.splits import piece


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


def _input_spectrum(v: Tensor, diagonal: Tensor | None, c: Tensor, by_block: bool) -> Tensor:
    u = v.to(c.dtype) if diagonal is None else spectral.product(v, diagonal)
    return spectral.spectra(u, c.shape[1], c.shape[2], by_block)


def alike(dtype: torch.dtype, *tensors: Tensor | None) -> bool:
    """Whether all tensors have this dtype."""
    return all(t is None or t.dtype == dtype for t in tensors)


def _put(out: Tensor, change: Tensor, scale: Tensor | None, bias: Tensor | None, onto: bool) -> None:
    """``change * scale + bias`` written into ``out``, or without a bias added ``onto`` it, in the wider dtype."""
    if onto:
        out.add_(change) if scale is None else out.addcmul_(change, scale)
    elif bias is not None:
        torch.add(change, bias, out=out) if scale is None else torch.addcmul(bias, change, scale, out=out)
    else:
        out.copy_(change) if scale is None else torch.mul(change, scale, out=out)


def flattened(x: Tensor) -> Tensor:
    """x (..., d) as (T, d); inside of a Function, where autograd does not record it."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


@overload
def unflattened(rows: Tensor, like: Tensor) -> Tensor: ...
@overload
def unflattened(rows: None, like: Tensor) -> None: ...
def unflattened(rows: Tensor | None, like: Tensor) -> Tensor | None:
    """Rows (T, d) with the leading sizes of ``like``; the inverse of :func:`flattened`."""
    return rows if rows is None or like.ndim == 2 else rows.view(*like.shape[:-1], -1)


class FusedFunction(torch.autograd.Function):
    """See the module's docstring. Inputs: x (..., d_in), weight or None, bias or None, plan, factors."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, plan: Plan, *factors: Tensor
    ) -> Tensor:
        diagonals, circulants = factors[: plan.diagonals], factors[plan.diagonals :]
        c_hats = spectra_of_factors(circulants, plan)
        blocks = [is_by_block(c) for c in circulants]
        dtype = plan.dtype or x.dtype
        # The frozen product adds onto the change in place; where dtypes differ, the wider change onto the product.
        onto = weight is not None and not alike(dtype, x, weight, bias, circulants[0])
        if onto and weight is not None:
            h = torch.nn.functional.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
        else:
            h = x.new_empty((*x.shape[:-1], plan.d_out), dtype=dtype)
        x, out = flattened(x), flattened(h)
        scale = scaled(diagonals[-1], plan.alpha) if diagonals else None
        kept: list[Tensor] = []
        for rows, out_rows in pieces(x, out):
            v = rows
            for i, (c, c_hat, by_block) in enumerate(zip(circulants, c_hats, blocks, strict=True)):
                u_hat = _input_spectrum(v, diagonals[i] if diagonals else None, c, by_block)
                y_hat = spectral.multiply(u_hat, c_hat, by_block, in_place=not plan.keep)
                v = spectral.signals(y_hat, c.shape[2], plan.d_out, by_block)
                if plan.keep:
                    kept += [u_hat.conj_physical_(), v] if diagonals else [u_hat.conj_physical_()]
            _put(out_rows, v, scale, None if onto else bias, onto)
        if weight is not None and not onto:
            out.addmm_(x, weight.t())
        ctx.plan, ctx.has_weight, ctx.count = plan, weight is not None, len(circulants)
        # Without diagonals no gradient needs x once its spectrum is kept: its shape and dtype then suffice.
        ctx.input = x.new_empty(()).expand(x.shape) if plan.keep and not diagonals else None
        some = [t for t in (None if ctx.input is not None else x, weight) if t is not None]
        ctx.save_for_backward(*some, *factors, *c_hats, *kept)
        return h

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
        rows = flattened(g).contiguous()
        grad_x, grads = gradients(plan, x, rows, weight, diagonals, circulants, c_hats, kept, ctx.needs_input_grad[0])
        return (unflattened(grad_x, g), None, None, None, *grads)


def spectra_of_factors(circulants: Sequence[Tensor], plan: Plan) -> list[Tensor]:
    """The spectrum of each circulant factor; without diagonals the last one holds alpha."""
    last = len(circulants) - 1
    return [spectral.factor_spectrum(c, plan.row, _spectrum_scale(plan, i == last)) for i, c in enumerate(circulants)]


def pieces(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of some rows of x (T, d_in) and y (T, d_out) at a time; of all at once for a compiler, which fuses them."""
    if torch.compiler.is_compiling():
        return iter([(x, y)])
    n = int(piece(x.shape[0], x.shape[1], y.shape[1], x.device.type))
    return iter([(x, y)]) if n == x.shape[0] else zip(x.split(n), y.split(n), strict=True)


def gradients(
    plan: Plan,
    x: Tensor,
    g: Tensor,
    weight: Tensor | None,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    c_hats: Sequence[Tensor],
    kept: Sequence[Tensor] | None,
    input_gradient: bool,
) -> tuple[Tensor | None, list[Tensor]]:
    """Backward of a layer.

    Args:
        plan: of the layer.
        x: (T, d_in). g: (T, d_out), gradient of the layer's output, contiguous.
        weight: W, or None where the base is executed elsewhere.
        diagonals, circulants, c_hats: factors and the circulants' spectra.
        kept: what forward kept (path "stored"), or None to compute it again from x.
        input_gradient: whether the gradient of x is wanted.

    Returns:
        The gradient of x, or None, and those of diagonals and circulants.
    """
    onto = weight is not None and not alike(x.dtype, g, weight, circulants[0])
    grad_x = None
    if input_gradient:
        grad_x = torch.mm(g, weight.to(g.dtype)).to(x.dtype) if onto and weight is not None else x.new_empty(x.shape)
    adjoints = list(c_hats)
    if diagonals or input_gradient:  # else nothing wants the gradient of a circulant's input
        adjoints = [spectral.adjoint(s, is_by_block(c)) for c, s in zip(circulants, c_hats, strict=True)]
    scale = scaled(diagonals[-1], plan.alpha) if diagonals else None
    first = diagonals[0] if diagonals else None
    views = list(pieces(x, g))
    each = len(kept) // len(views) if kept is not None else 0
    sums: list[Tensor] = []
    outs = () if grad_x is None else grad_x.split(len(views[0][0])) if len(views) > 1 else (grad_x,)
    for n, (x_rows, g_rows) in enumerate(views):
        of_piece = None if kept is None else kept[n * each : (n + 1) * each]
        found, v_bar = _piece_gradients(
            plan, x_rows, g_rows, diagonals, circulants, c_hats, adjoints, scale, of_piece, input_gradient
        )
        sums = [total.add_(one) for total, one in zip(sums, found, strict=True)] if n else found
        if v_bar is not None:
            _put(outs[n], v_bar, first, None, onto)
    grads = sums[: plan.diagonals]
    if diagonals:
        grads[-1] = scaled(grads[-1], plan.alpha)
    for i, (c, summed) in enumerate(zip(circulants, sums[plan.diagonals :], strict=True)):
        grad_c = spectral.factor_gradient(summed, c.shape[2], plan.row, is_by_block(c))
        # Without diagonals the spectrum holds alpha, which the factor's own gradient still lacks.
        grads.append(scaled(grad_c, _spectrum_scale(plan, i == len(circulants) - 1)))
    # Last: a large product leaves the cache cold, and a small transform after it would be slow.
    if grad_x is not None and weight is not None and not onto:
        grad_x.addmm_(g, weight)
    return grad_x, grads


def _piece_gradients(
    plan: Plan,
    x: Tensor,
    g: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    c_hats: Sequence[Tensor],
    adjoints: Sequence[Tensor],
    scale: Tensor | None,
    kept: Sequence[Tensor] | None,
    input_gradient: bool,
) -> tuple[list[Tensor], Tensor | None]:
    """Sums over the rows of x and g: gradients of the diagonals (the last without alpha), spectra of the circulants'.

    And the gradient of the first circulant's input, before the first diagonal; None where nothing wants it.
    """
    u_hats, products = _recall(plan, x, diagonals, circulants, c_hats, kept)
    sums: list[Tensor] = [x] * (len(diagonals) + len(circulants))
    v_bar = g if g.dtype == circulants[0].dtype else g.to(circulants[0].dtype)
    if scale is not None:
        sums[len(diagonals) - 1] = spectral.column_dot(products[-1], v_bar)
        # What was computed again is used up: its memory is warm, a new tensor's is not.
        v_bar = spectral.product(v_bar, scale) if kept is not None else torch.mul(v_bar, scale, out=products[-1])
    for i in range(len(circulants) - 1, -1, -1):
        c, by_block = circulants[i], is_by_block(circulants[i])
        v_hat = spectral.spectra(v_bar, c.shape[0], c.shape[2], by_block)
        sums[len(diagonals) + i] = spectral.moment(v_hat, u_hats[i], by_block, in_place=kept is None)
        if not diagonals and not input_gradient:
            return sums, None
        u_hat = spectral.multiply(v_hat, adjoints[i], by_block, in_place=True)
        v_bar = spectral.signals(u_hat, c.shape[2], diagonals[i].shape[0] if diagonals else x.shape[1], by_block)
        if diagonals:
            sums[i] = spectral.column_dot(v_bar, products[i - 1] if i else x.to(v_bar.dtype))
            if i:
                v_bar.mul_(diagonals[i])
    return sums, v_bar if input_gradient else None


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
        u_hat = _input_spectrum(v, diagonals[i] if diagonals else None, c, by_block)
        if diagonals:
            v = spectral.signals(spectral.multiply(u_hat, c_hat, by_block), c.shape[2], plan.d_out, by_block)
            products.append(v)
        u_hats.append(u_hat.conj_physical_())
    return u_hats, products
