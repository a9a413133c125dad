"""The path "triton": FFTs on chip, one kernel forward and three backward, see ``kernels``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cdvft_bench.execution.fused import Plan, flattened, scaled, unflattened
from cdvft_bench.execution.splits import on_chip_rows, on_chip_tiles, padded, split, widths
from cdvft_bench.execution.triton.path import as_read, name_of, of
from cdvft_reference.operands import check_like, check_operands, memory

WARPS = 8


@lru_cache(maxsize=32)
def _dft_tables(p1: int, p2: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """DFT matrices of p1 and p2 points and the twiddle w_p^(n2 k1), zero-padded, float32.

    Each (3, rows, columns): the real part, the imaginary one, and its negative.
    """

    def table(rows: int, columns: int, period: int) -> Tensor:
        steps = torch.outer(torch.arange(rows), torch.arange(columns)) % period
        angle = steps.double() * (-2 * math.pi / period)
        entries = torch.zeros(3, padded(rows), padded(columns), dtype=torch.float64)
        entries[0, :rows, :columns], entries[1, :rows, :columns] = angle.cos(), angle.sin()
        entries[2] = -entries[1]
        return entries.float().to(device)

    return table(p1, p1, p1), table(p2, p2, p2), table(p1, p2, p1 * p2)


def _spectrum(c: Tensor, p1: int, p2: int, row: bool) -> Tensor:
    """FFT(c) in the kernels' layout, (2, P1, P2): entry (k1, k2) is frequency k1 + p1 k2."""
    c_hat = torch.fft.fft(c).view(p2, p1).t()
    imaginary = -c_hat.imag if row else c_hat.imag
    pad = (0, padded(p2) - p2, 0, padded(p1) - p1)
    return torch.nn.functional.pad(torch.stack([c_hat.real, imaginary]), pad)


def _circulant_gradient(moment: Tensor, p1: int, p2: int, row: bool) -> Tensor:
    """From the sum of ``conj(U) V`` in the kernels' layout, (2, P1, P2), to the gradient of c, (p,)."""
    summed = torch.complex(moment[0, :p1, :p2], -moment[1, :p1, :p2] if row else moment[1, :p1, :p2])
    return torch.fft.ifft(summed.t().reshape(-1)).real.contiguous()


def products(full: bool) -> str:
    """Of the matrix units: TF32 keeps more bits than 16-bit activations have; three TF32 products for float32."""
    return "tf32x3" if full else "tf32"


def precision(dtype: torch.dtype) -> str:
    """:func:`products` for activations of a dtype."""
    return products(dtype == torch.float32)


@dataclass(frozen=True)
class _Filter:
    """``filter_kernel`` for a circulant factor.

    Attributes:
        p, spectrum: of the factor. scale: of the result. activations: dtype of x.
    """

    p: int
    spectrum: Tensor
    scale: float
    activations: torch.dtype

    def __call__(
        self,
        x: Tensor,
        out: Tensor | None,
        ends: Sequence[Tensor],
        *,
        base: bool = False,
        adjoint: bool = False,
        other: Tensor | None = None,
        sums: Tensor | None = None,
    ) -> None:
        """Launch it on all rows of x (T, d_x).

        Args:
            out: (T, d_y), takes the result, added to what is there with ``base``; None for nowhere.
            ends: the diagonals before and after the factor, or none. adjoint: whether the factor's adjoint is meant.
            other, sums: (T, d_y) to multiply by and (programs, p) for the sums of products; None for no sums.
        """
        from cdvft_bench.execution.triton.kernels import filter_kernel

        (p1, p2), (P1, P2) = split(self.p) or (1, 1), widths(self.p)
        lines, rows = on_chip_rows(self.p, name_of(self.activations)), x.shape[0]
        tiles, programs = (1, -(-rows // lines)) if sums is None else on_chip_tiles(rows, lines)
        result = next(t for t in (out, other) if t is not None)
        before, after = ends or (x, x)
        with of(x):
            filter_kernel[(programs,)](
                x,
                result,
                x if other is None else other,
                before,
                after,
                self.spectrum,
                *_dft_tables(p1, p2, x.device),
                result,
                x if sums is None else sums,
                rows,
                x.shape[1],
                result.shape[1],
                p1,
                p2,
                self.scale,
                tiles,
                DIAGONALS=bool(ends),
                ADJOINT=adjoint,
                BASE=base,
                STORE=out is not None,
                SUM=sums is not None,
                P1=P1,
                P2=P2,
                B=lines,
                PRECISION=precision(self.activations),
                num_warps=WARPS,
            )


class TritonFunction(torch.autograd.Function):
    """Inputs: x (..., d_in), weight or None, bias or None, plan, factors. See ``fused.FusedFunction``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, plan: Plan, *factors: Tensor
    ) -> Tensor:
        shape, x = x.shape, memory("x", flattened(x))
        *ends, c = as_read(factors)
        p = c.shape[2]
        p1, p2 = split(p) or (1, 1)
        spectrum = _spectrum(c.view(-1), p1, p2, plan.row)
        dtype = plan.dtype or x.dtype
        base = None
        if weight is not None:
            bias = None if bias is None else bias.to(dtype)
            base = torch.nn.functional.linear(x.view(shape).to(dtype), weight.to(dtype), bias)
        h = x.new_empty((*shape[:-1], plan.d_out), dtype=dtype) if base is None else base
        _Filter(p, spectrum, plan.alpha / p, x.dtype)(x, flattened(h), ends, base=base is not None)
        ctx.plan, ctx.has_weight = plan, weight is not None
        # The factors as they were given: autograd then notices what changes them.
        ctx.save_for_backward(x, *((weight,) if weight is not None else ()), *factors, spectrum)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        from cdvft_bench.execution.triton.kernels import moment_kernel

        plan: Plan = ctx.plan
        x, *saved = ctx.saved_tensors
        weight = saved.pop(0) if ctx.has_weight else None
        *factors, spectrum = saved
        given, g = g, memory("g", flattened(g))
        # What forward saved may have been made anew by hooks in between.
        check_operands(x, factors[: plan.diagonals], factors[plan.diagonals :], plan.d_out)
        check_like("g", g, (x.shape[0], plan.d_out), x, g.dtype)
        x = memory("x", x)
        *ends, c = as_read(factors)
        p = c.shape[2]
        (p1, p2), (P1, P2) = split(p) or (1, 1), widths(p)
        spectrum = memory("spectrum", spectrum.view(2, P1, P2))
        wanted = ctx.needs_input_grad[0]
        base = torch.mm(g, weight.to(g.dtype)).to(x.dtype) if wanted and weight is not None else None
        grad_x = base if base is not None else torch.empty_like(x) if wanted else None
        lines = on_chip_rows(p, name_of(x.dtype))
        tiles, programs = (int(n) for n in on_chip_tiles(x.shape[0], lines))
        run = _Filter(p, spectrum, plan.alpha / p, x.dtype)
        # Three kernels: one for all gradients spills registers (docs/execution.md).
        sums = x.new_empty(2, programs, p, dtype=torch.float32) if ends else None
        if sums is not None:
            run(g, grad_x, ends[::-1], base=base is not None, adjoint=True, other=x, sums=sums[0])
            run(x, None, ends, other=g, sums=sums[1])
        elif grad_x is not None:
            run(g, grad_x, (), base=base is not None, adjoint=True)
        moment = x.new_empty(programs, 2, P1, P2, dtype=torch.float32)
        with of(x):
            moment_kernel[(programs,)](
                x,
                g,
                *(ends or (x, x)),
                *_dft_tables(p1, p2, x.device),
                moment,
                x.shape[0],
                x.shape[1],
                plan.d_out,
                p1,
                p2,
                tiles,
                DIAGONALS=bool(ends),
                P1=P1,
                P2=P2,
                B=lines,
                PRECISION=precision(x.dtype),
                num_warps=WARPS,
            )
        grads = [scaled(_circulant_gradient(moment.sum(0), p1, p2, plan.row), plan.alpha).view_as(c)]
        if sums is not None:
            totals = sums.sum(1)
            grads = [totals[0, : x.shape[1]].contiguous(), totals[1, : plan.d_out].contiguous(), *grads]
        return (unflattened(grad_x, given), None, None, None, *grads)
