"""A batch whose rows have adapters of their own: thousands of them behind one frozen layer.

An adapter is 3 d numbers (m = 2, p = d), so what a row reads of its own is small beside the frozen weight that all rows
share. The compiled kernel takes all rows in one call (``native/mixed.h``); without it, or where a gradient is asked
for, each row's factors are gathered and the reference runs over the batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cdvft_bench.core.errors import UserError
from cdvft_bench.execution import native
from cdvft_bench.execution.native.path import misfit
from cdvft_bench.execution.paths import without_autocast
from cdvft_reference.cdvft import cdvft_fft
from cdvft_reference.circulant import Convention, block_circulant_fft, check_convention, under_transforms
from cdvft_reference.operands import at_least_float32, check_mixed

PATHS = ("auto", "native", "fft")


def mixed_change(
    x: Tensor,
    adapters: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    *,
    alpha: float = 1.0,
    path: str = "auto",
    convention: Convention = "column",
) -> Tensor:
    """``alpha dW_k x`` for samples that each have an adapter k of their own; to be added to the frozen layer's output.

    Args:
        x: (N, ..., d_in), N samples, floating-point.
        adapters: (N,), int64: the adapter of each sample, 0 to K - 1, or -1 for none, whose change is zero.
        diagonals: m banks, the first (K, d_in), the others (K, d_out); empty for the block-circulant adapter.
        circulants: m - 1 banks (K, q_out, q_in, p); one for the block-circulant adapter.
        d_out: output width. alpha: scale, of all adapters.
        path: "native" (one call of the compiled kernel for all samples; no gradients, contiguous banks are read where
            they are), "fft" (factors gathered by sample; differentiable), or "auto": the first where it can.
        convention: "column" or "row", see ``cdvft_reference.circulant``.

    Returns:
        (N, ..., d_out) in the dtype of x.

    Raises:
        UserError: the path is not known, or cannot execute this. ValueError, TypeError: see
            ``cdvft_reference.operands.check_mixed``.
    """
    check_convention(convention)
    if path not in PATHS:
        raise UserError(f"path {path!r} does not mix adapters in a batch; use one of {', '.join(PATHS)}")
    diagonals, circulants = at_least_float32(diagonals, circulants)
    check_mixed(x, adapters, diagonals, circulants, d_out)
    reason = "" if path == "fft" else _misfit(x, diagonals, circulants)
    if reason and path == "native":
        raise UserError(f"path 'native' cannot execute this batch: {reason}; use 'auto'")
    if not x.numel():
        return x.new_zeros(*x.shape[:-1], d_out)
    with without_autocast(x.device.type):
        by_kernel = path != "fft" and not reason
        call = _by_kernel if by_kernel else _by_fft
        return call(x, adapters, diagonals, circulants, d_out, float(alpha), convention).to(x.dtype)


def _misfit(x: Tensor, diagonals: Sequence[Tensor], circulants: Sequence[Tensor]) -> str:
    """Why the kernel cannot execute a batch; empty where it can."""
    if not circulants:
        return "m = 1 has no circulant factor"
    if under_transforms() or (torch.is_grad_enabled() and any(t.requires_grad for t in (x, *diagonals, *circulants))):
        return "the kernel for mixed batches has no backward; call it under torch.no_grad()"
    return misfit(x.device, circulants[0].dtype, int(circulants[0].shape[-1]), len(circulants))


def _by_kernel(
    x: Tensor,
    adapters: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    alpha: float,
    convention: Convention,
) -> Tensor:
    own = circulants[0].dtype
    rows = x.reshape(-1, x.shape[-1]) if native.takes(x.dtype, own) else x.reshape(-1, x.shape[-1]).to(own)
    if len(rows) != len(adapters):
        adapters = adapters.repeat_interleave(len(rows) // len(adapters))
    h: Tensor = torch.ops.cdvft.circulant_mixed.default(
        rows, adapters, list(diagonals), list(circulants), d_out, alpha, convention == "row"
    )
    return h.view(*x.shape[:-1], d_out)


def _by_fft(
    x: Tensor,
    adapters: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    alpha: float,
    convention: Convention,
) -> Tensor:
    def one(sample: Tensor, a: list[Tensor], c: list[Tensor]) -> Tensor:
        return cdvft_fft(sample, a, c, d_out) if a else block_circulant_fft(sample, c[0], d_out)

    at = adapters.clamp(min=0)
    c = [bank[at] for bank in circulants]
    if convention == "row":  # a first row is the first column of the transpose, which has it reversed
        c = [bank.flip(-1).roll(1, -1) for bank in c]
    wide = x.to((*circulants, *diagonals)[0].dtype)
    h = torch.func.vmap(one)(wide, [a[at] for a in diagonals], c) * alpha
    has = (adapters >= 0).view(-1, *[1] * (x.ndim - 1))
    return h.where(has, torch.zeros((), dtype=h.dtype, device=h.device))
