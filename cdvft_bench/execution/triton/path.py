"""The path "triton": FFTs on chip, one kernel forward and three backward, see ``kernels``.

For a single circulant factor of one block (p >= both widths), float32 factors, and a CUDA device; Triton's
interpreter (``TRITON_INTERPRET=1``) runs the same kernels on the CPU, which is how they are tested without a GPU.
"""

from __future__ import annotations

import importlib.util
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cdvft_bench.execution.fused import Plan, flattened, scaled, unflattened
from cdvft_bench.execution.splits import (
    LARGEST_FACTOR,
    fold_split,
    fold_tile,
    on_chip_fits,
    on_chip_rows,
    on_chip_tiles,
    padded,
    split,
    widths,
)
from cdvft_bench.execution.triton.costs import SUM_COLUMNS
from cdvft_reference.operands import check_like, check_operands, memory

WARPS = 8

MERGED_ROWS, MERGED_COLUMNS, MERGED_WARPS = 16, 256, 4
"""Tile and warps of the merged weight's kernel."""


def refusal(device: torch.device) -> str:
    """Why Triton's kernels cannot run on the device's tensors; "" where they can: on a GPU, or interpreted."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    if device.type != "cuda":
        return f"it runs on a CUDA device (or, for tests, with TRITON_INTERPRET=1), not on {device.type}"
    return _failure(device) if torch.cuda.is_available() else ""


@lru_cache(maxsize=32)
def _failure(device: torch.device) -> str:
    """Why no kernel starts on a GPU, tried once with the smallest of them; "" where it does.

    Triton needs a C compiler, a folder for what it compiles, and a GPU and driver that it knows.
    """
    try:
        one = torch.ones(1, 1, device=device)
        if type(one) is not Tensor:  # a mode in which nothing runs
            return ""
        merged_weight(one, [], one.view(1, 1, 1), Plan(1), torch.empty_like(one))
    except Exception as error:  # whatever it is, torch's operators do without
        reason = f"no kernel of Triton's starts here ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        warnings.warn(f"{reason}; torch's operators take their place", RuntimeWarning, stacklevel=2)
        return reason
    return ""


def kernels_run(device: torch.device) -> bool:
    """Whether Triton's kernels can run on the device's tensors, see :func:`refusal`."""
    return device.type in ("cuda", "cpu") and not refusal(device)


def name_of(dtype: torch.dtype) -> str:
    """Such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def misfit(
    device: torch.device, dtype: torch.dtype, activations: torch.dtype, blocks: tuple[int, int], p: int, circulants: int
) -> str:
    """Why this path cannot execute a layer; empty where it can.

    Args:
        device: of the activations. dtype: of the factors. activations: dtype of x.
        blocks: q_out and q_in. p: block size. circulants: number of circulant factors.
    """
    if reason := refusal(device):
        return reason
    if circulants != 1 or blocks != (1, 1):
        return f"it takes one circulant factor of one block, not {circulants} of {blocks[0]} x {blocks[1]}"
    if dtype != torch.float32:
        return f"its factors are float32, not {name_of(dtype)}"
    if activations == torch.float32 and torch.version.hip:
        return "its products of float32 are three of TF32, which no AMD GPU has"
    if split(p) is None:
        return f"p = {p} is no product of two factors of at most {LARGEST_FACTOR}"
    if not on_chip_fits(p, name_of(activations)):
        return f"p = {p} with activations of {name_of(activations)} exceeds the shared memory"
    return ""


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


def _memory(factors: Sequence[Tensor]) -> list[Tensor]:
    """Factors as the kernels read them."""
    return [memory("a factor", factor) for factor in factors]


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
        *ends, c = _memory(factors)
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
        *ends, c = _memory(factors)
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


def merged_weight(weight: Tensor, diagonals: list[Tensor], c: Tensor, plan: Plan, out: Tensor) -> Tensor:
    """``W + alpha dW`` by one kernel at memory bandwidth, for any block size; see ``execution.merged``.

    Args:
        weight: W, of any strides. diagonals, c: checked operands. out: as W, contiguous.
    """
    from cdvft_bench.execution.triton.kernels import merged_weight_kernel

    d_out, d_in = weight.shape
    weight = weight.resolve_neg()
    *diagonals, c = _memory((*diagonals, c))
    first, last = diagonals or (c, c)
    merged_weight_kernel[(-(-d_out // MERGED_ROWS), -(-d_in // MERGED_COLUMNS))](
        weight,
        first,
        last,
        c,
        out,
        d_out,
        d_in,
        c.shape[2],
        c.shape[1],
        plan.alpha,
        *weight.stride(),
        DIAGONALS=bool(diagonals),
        ROW=plan.row,
        ROWS=MERGED_ROWS,
        COLUMNS=MERGED_COLUMNS,
        num_warps=MERGED_WARPS,
    )
    return out


FOLD_WARPS, SUM_WARPS = 8, 4
"""Warps of the two fold kernels: with eight the first spills no register on any GPU that it was compiled for, with four
it did on sm_100 (profiles/gpu-static)."""


def fold_gradients(dense: Tensor, diagonals: list[Tensor], c: Tensor, plan: Plan) -> list[Tensor]:
    """Gradients of a_1, a_3 and c (of c alone without diagonals) from ``dense = g^T x``, which is read once.

    Two kernels: sums over tiles, and the sums of those; both in an order of their own, so that equal inputs give equal
    bits. See ``fold_kernel``.

    Args:
        dense: (d_out, d_in), contiguous, of any dtype up to that of the factors. diagonals, c: checked operands.
    """
    from cdvft_bench.execution.triton.kernels import fold_kernel, fold_sums_kernel

    d_out, d_in = dense.shape
    *diagonals, c = _memory((*diagonals, c))
    q_out, q_in, p = c.shape
    tile = int(fold_tile(p))
    bands, tiles, pieces = (int(n) for n in fold_split(q_out * q_in, p))
    first, last = diagonals or (c, c)
    lines = (q_out * bands, q_in * bands) if diagonals else (0, 0)
    part_first, part_last = c.new_empty(lines[0] * d_in), c.new_empty(lines[1] * d_out)
    part_c = c.new_empty(q_out * q_in * pieces * 2 * bands * 2 * tile)
    fold_kernel[(bands * pieces, q_out * q_in)](
        dense,
        first,
        last,
        c,
        part_first,
        part_last,
        part_c,
        d_out,
        d_in,
        p,
        q_in,
        tiles,
        pieces,
        DIAGONALS=bool(diagonals),
        ROW=plan.row,
        TILE=tile,
        num_warps=FOLD_WARPS,
    )
    grads = [torch.empty_like(t) for t in (*diagonals, c)]
    programs = [-(-d // SUM_COLUMNS) if diagonals else 0 for d in (d_in, d_out)]
    fold_sums_kernel[(sum(programs) + -(-c.numel() // SUM_COLUMNS),)](
        part_first,
        part_last,
        part_c,
        grads[0],
        grads[-2] if diagonals else grads[0],
        grads[-1],
        d_out,
        d_in,
        p,
        lines[0],
        lines[1],
        pieces,
        c.numel(),
        plan.alpha,
        programs[0],
        programs[1],
        ROW=plan.row,
        TILE=tile,
        COLUMNS=SUM_COLUMNS,
        num_warps=SUM_WARPS,
    )
    return grads
