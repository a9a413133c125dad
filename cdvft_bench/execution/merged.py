"""CDVFT merged into the weight: ``W + dW`` in a scratch buffer, then one matrix product a pass.

For m = 2 the change has an entry-wise closed form, ``dW[r, s] = alpha a_3[r] c[(r - s) mod p] a_1[s]``: it is
added to W without a transform. For m > 2 rows of dW come out of the transposed factors, a block of rows at a
time. The buffer (``scratch``) is never saved: backward builds it again, or, with few tokens, takes the change's part
of the input's gradient from the factors' gradients, which need it anyway.

The factors' gradients come from the activations by FFT (the passes of ``fused``), or for m = 2 from the dense
gradient ``g^T x``, folded along the wrapped diagonals of each block. On a GPU with Triton two kernels build the merged
weight and fold the dense gradient, each with one read of its matrix, where the factors are float32.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cdvft_bench.execution import spectral
from cdvft_bench.execution.fused import Plan, flattened, gradients, is_by_block, scaled, spectra_of_factors, unflattened
from cdvft_bench.execution.scratch import buffer
from cdvft_bench.execution.splits import BY_PRODUCT, ROWS_AT_ONCE
from cdvft_bench.execution.triton import path as triton_path
from cdvft_reference.operands import check_base, check_like, check_operands


def circulant_view(c: Tensor, row: bool) -> Tensor:
    """The blocks ``C_ij[r, s] = c_ij[(r - s) mod p]`` as a (q_out, p, q_in, p) view of a scratch buffer.

    The buffer repeats the reversed vector; a row stride of p - 1 then moves each row one step on.
    """
    q_out, q_in, p = c.shape
    reversed_ = c if row else torch.roll(c.flip(-1), 1, -1)  # entry k is c[-k mod p]
    repeated = buffer("circulant", q_out * q_in * p * p, c.dtype, c.device)
    repeated.view(q_out, q_in, p, p).copy_(reversed_.unsqueeze(2).expand(-1, -1, p, -1))
    return repeated.as_strided((q_out, p, q_in, p), (q_in * p * p, max(p - 1, 1), p * p, 1), repeated.storage_offset())


def _padded(a: Tensor, n: int) -> Tensor:
    return torch.nn.functional.pad(a, (0, n - a.shape[0])) if a.shape[0] != n else a


def by_kernels(c: Tensor) -> bool:
    """Whether Triton's kernels take over, which compute in float32."""
    return c.dtype == torch.float32 and triton_path.kernels_run(c.device)


def merged_weight(weight: Tensor, diagonals: Sequence[Tensor], circulants: Sequence[Tensor], plan: Plan) -> Tensor:
    """``W + alpha dW`` (d_out, d_in) in W's dtype, in scratch memory: valid until the next call.

    Args:
        weight: W.
        diagonals: m vectors, or none for the block-circulant adapter.
        circulants: their circulant factors, each (q_out, q_in, p).
        plan: scale and convention.

    Raises:
        ValueError, TypeError: see ``cdvft_reference.operands``, with W in the place of x.
    """
    if weight.ndim != 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; it must be (d_out, d_in)")
    check_operands(weight, diagonals, circulants, int(weight.shape[0]))
    if len(circulants) > 1:
        return _merged_by_rows(weight, diagonals, circulants, plan)
    (c,) = circulants
    d_out, d_in = weight.shape
    if by_kernels(c):
        out = buffer("merged", d_out * d_in, weight.dtype, weight.device).view(d_out, d_in)
        return triton_path.merged_weight(weight, list(diagonals), c, plan, out)
    blocks = circulant_view(c, plan.row)
    q_out, p, q_in, _ = blocks.shape
    right = buffer("right", q_out * p * q_in * p, c.dtype, c.device).view(q_out, p, q_in, p)
    first = diagonals[0] if diagonals else c.new_full((d_in,), plan.alpha)
    torch.mul(blocks, _padded(first, q_in * p).view(q_in, p), out=right)
    change = right.view(q_out * p, q_in * p)[:d_out, :d_in]
    out = buffer("merged", d_out * d_in, weight.dtype, weight.device).view(d_out, d_in)
    if not diagonals:
        return torch.add(weight, change, out=out)
    return torch.addcmul(weight, change, scaled(diagonals[1], plan.alpha).unsqueeze(1), out=out)


def _merged_by_rows(weight: Tensor, diagonals: Sequence[Tensor], circulants: Sequence[Tensor], plan: Plan) -> Tensor:
    d_out, d_in = weight.shape
    out = buffer("merged", d_out * d_in, weight.dtype, weight.device).view(d_out, d_in)
    blocks = [is_by_block(c) for c in circulants]
    adjoints = [spectral.adjoint(s, b) for s, b in zip(spectra_of_factors(circulants, plan), blocks, strict=True)]
    last = scaled(diagonals[-1], plan.alpha)
    for some, kept in zip(out.split(ROWS_AT_ONCE), weight.split(ROWS_AT_ONCE), strict=True):
        # Rows of the identity through the transposed factors, the last diagonal already applied.
        rows = last.new_zeros(some.shape[0], d_out)
        start = some.storage_offset() // d_in
        rows.diagonal(start).copy_(last[start : start + some.shape[0]])
        for c, by_block, c_hat, a in reversed(list(zip(circulants, blocks, adjoints, diagonals, strict=False))):
            g_hat = spectral.spectra(rows, c.shape[0], c.shape[2], by_block)
            u_hat = spectral.multiply(g_hat, c_hat, by_block, in_place=True)
            rows = spectral.signals(u_hat, c.shape[2], a.shape[0], by_block).mul_(a)
        torch.add(kept, rows, out=some)
    return out


def fold(dense: Tensor, p: int, row: bool) -> Tensor:
    """Sums along the wrapped diagonals of each p by p block of ``dense`` (q_out p, q_in p): (q_out, q_in, p).

    Entry k of a block is ``sum_r dense[r, (r - k) mod p]``: the transpose of building a circulant block.
    """
    q_out, q_in = dense.shape[0] // p, dense.shape[1] // p
    # A row stride of 2p - 1 in rows of 2p moves row r to the left by r, from column p on, so that the entries of one
    # wrapped diagonal stand below each other.
    skewed = buffer("skewed", 2 * q_out * q_in * p * p, dense.dtype, dense.device).zero_()
    strides = (q_in * 2 * p * p, 2 * p * p, 2 * p - 1, 1)
    shifted = skewed.as_strided((q_out, q_in, p, p), strides, skewed.storage_offset() + p)
    shifted.copy_(dense.view(q_out, p, q_in, p).permute(0, 2, 1, 3))
    halves = skewed.view(q_out, q_in, p, 2 * p).sum(2)  # entry p + s - r
    summed = halves[..., :p] + halves[..., p:]  # entry (s - r) mod p
    return summed if row else torch.roll(summed.flip(-1), 1, -1)


class MergedFunction(torch.autograd.Function):
    """See the module's docstring. Inputs: x (..., d_in), weight, bias or None, plan, dense_gradient, factors."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan, dense_gradient: bool, *factors: Tensor
    ) -> Tensor:
        ctx.plan, ctx.dense_gradient = plan, dense_gradient
        ctx.save_for_backward(flattened(x), weight, *factors)
        forward = torch.ops.cdvft.merged_forward.default if torch.compiler.is_compiling() else _forward
        h: Tensor = forward(x, weight, bias, factors, plan.diagonals, plan.alpha, plan.row, plan.dtype)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        x, weight, *factors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]
        backward = torch.ops.cdvft.merged_backward.default if torch.compiler.is_compiling() else _backward
        grad_x, *grads = backward(
            x,
            flattened(g).contiguous(),
            weight,
            factors,
            plan.diagonals,
            plan.alpha,
            plan.row,
            ctx.dense_gradient,
            wanted,
        )
        return (unflattened(grad_x, g) if wanted else None, None, None, None, None, *grads)


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    factors: Sequence[Tensor],
    diagonals: int,
    alpha: float,
    row: bool,
    dtype: torch.dtype | None,
) -> Tensor:
    plan = Plan(weight.shape[0], alpha, row, diagonals)
    merged = merged_weight(weight, factors[:diagonals], factors[diagonals:], plan)
    dtype = dtype or x.dtype
    return torch.nn.functional.linear(x.to(dtype), merged.to(dtype), None if bias is None else bias.to(dtype))


def _backward(
    x: Tensor,
    g: Tensor,
    weight: Tensor,
    factors: Sequence[Tensor],
    diagonals: int,
    alpha: float,
    row: bool,
    dense_gradient: bool,
    wanted: bool,
) -> list[Tensor]:
    """The gradient of x (T, d_in), empty unless ``wanted``, and those of the factors."""
    plan = Plan(weight.shape[0], alpha, row, diagonals)
    ends, circulants = factors[:diagonals], factors[diagonals:]
    by_product = wanted and not dense_gradient and g.shape[0] <= BY_PRODUCT * g.shape[1]
    grad_x = None
    if wanted and not by_product:
        grad_x = torch.mm(g, merged_weight(weight, ends, circulants, plan).to(g.dtype)).to(x.dtype)
    if dense_gradient:
        grads = _fold_gradients(x, g, ends, circulants[0], plan)
    else:
        base = weight if by_product else None
        c_hats = spectra_of_factors(circulants, plan)
        found, grads = gradients(plan, x, g, base, ends, circulants, c_hats, None, by_product)
        grad_x = found if by_product else grad_x
    return [x.new_empty(0) if grad_x is None else grad_x, *grads]


def _fold_gradients(x: Tensor, g: Tensor, diagonals: Sequence[Tensor], c: Tensor, plan: Plan) -> list[Tensor]:
    """Gradients of the factors of m = 2 from the dense gradient ``g^T x``."""
    q_out, q_in, p = c.shape
    if by_kernels(c):
        return triton_path.fold_gradients(torch.mm(g.t(), x.to(g.dtype)), list(diagonals), c, plan)
    dense = _dense_gradient(x, g, q_out * p, q_in * p, c.dtype)
    if not diagonals:
        return [scaled(fold(dense, p, plan.row), plan.alpha)]
    d_in, d_out = diagonals[0].shape[0], diagonals[1].shape[0]
    first = _padded(diagonals[0], q_in * p)
    last = _padded(scaled(diagonals[1], plan.alpha), q_out * p)
    entries = buffer("entries", dense.numel(), c.dtype, c.device).view_as(dense)
    torch.mul(dense.view(q_out, p, q_in, p), circulant_view(c, plan.row), out=entries.view(q_out, p, q_in, p))
    grad_first = torch.mv(entries.t(), last)[:d_in]
    grad_last = scaled(torch.mv(entries, first)[:d_out], plan.alpha)
    grad_c = fold(dense.mul_(first).mul_(last.unsqueeze(1)), p, plan.row)
    return [grad_first, grad_last, grad_c]


def _dense_gradient(x: Tensor, g: Tensor, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """``g^T x`` as whole blocks, zeros around it, in scratch memory: valid until the next call."""
    d_out, d_in = g.shape[1], x.shape[1]
    padded = buffer("dense", rows * columns, dtype, x.device).view(rows, columns)
    if columns > d_in:
        padded[:, d_in:].zero_()
    if rows > d_out:
        padded[d_out:, :d_in].zero_()
    dense = padded[:d_out, :d_in]
    if g.dtype is dtype:
        torch.mm(g.t(), x.to(dtype), out=dense)
    else:
        dense.copy_(torch.mm(g.t(), x.to(g.dtype)))
    return padded


# For compiled graphs both passes are operators: a compiler would see a buffer that lives on between layers, and alias
# it. Elsewhere they are not, so that counters and the profiler see what they do.
_library = torch.library.Library("cdvft", "FRAGMENT")
_library.define(
    "merged_forward(Tensor x, Tensor weight, Tensor? bias, Tensor[] factors, int diagonals, float alpha, bool row, "
    "ScalarType? dtype) -> Tensor"
)
_library.define(
    "merged_backward(Tensor x, Tensor g, Tensor weight, Tensor[] factors, int diagonals, float alpha, bool row, "
    "bool dense_gradient, bool wanted) -> Tensor[]"
)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, factors: Sequence[Tensor], diagonals: int) -> None:
    """Raise unless an operator, which may be called by anyone, is given a layer's operands."""
    if not 0 <= diagonals <= len(factors):
        raise ValueError(f"diagonals = {diagonals} of {len(factors)} factors; it must be from 0 to their number")
    check_base(x, weight, bias, cast=True)
    check_operands(x, factors[:diagonals], factors[diagonals:], int(weight.shape[0]))
    if diagonals == len(factors):
        raise ValueError(f"{diagonals} diagonals and 0 circulants; the merged weight takes at least one circulant")


def _check_backward(x: Tensor, g: Tensor, weight: Tensor, factors: Sequence[Tensor], diagonals: int) -> None:
    _check(x, weight, None, factors, diagonals)
    if x.ndim != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be (T, d_in)")
    check_like("g", g, (x.shape[0], weight.shape[0]), x, g.dtype)


def _checked_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, factors: Sequence[Tensor], diagonals: int, *options: Any
) -> Tensor:
    _check(x, weight, bias, factors, diagonals)
    return _forward(x, weight, bias, factors, diagonals, *options)


def _checked_backward(
    x: Tensor,
    g: Tensor,
    weight: Tensor,
    factors: Sequence[Tensor],
    diagonals: int,
    alpha: float,
    row: bool,
    dense_gradient: bool,
    wanted: bool,
) -> list[Tensor]:
    _check_backward(x, g, weight, factors, diagonals)
    if dense_gradient and len(factors) - diagonals != 1:
        raise ValueError(f"{len(factors) - diagonals} circulants; the dense gradient is folded for one")
    return _backward(x, g.contiguous(), weight, factors, diagonals, alpha, row, dense_gradient, wanted)


_library.impl("merged_forward", _checked_forward, "CompositeExplicitAutograd")
_library.impl("merged_backward", _checked_backward, "CompositeExplicitAutograd")


def _forward_alike(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    factors: list[Tensor],
    diagonals: int,
    alpha: float,
    row: bool,
    dtype: torch.dtype | None,
) -> Tensor:
    _check(x, weight, bias, factors, diagonals)
    return x.new_empty((*x.shape[:-1], weight.shape[0]), dtype=dtype or x.dtype)


def _backward_alike(
    x: Tensor,
    g: Tensor,
    weight: Tensor,
    factors: list[Tensor],
    diagonals: int,
    alpha: float,
    row: bool,
    dense_gradient: bool,
    wanted: bool,
) -> list[Tensor]:
    _check_backward(x, g, weight, factors, diagonals)
    return [x.new_empty(x.shape if wanted else (0,)), *(t.new_empty(t.shape) for t in factors)]


torch.library.register_fake("cdvft::merged_forward", _forward_alike, lib=_library)
torch.library.register_fake("cdvft::merged_backward", _backward_alike, lib=_library)
