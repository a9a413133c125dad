"""Where Triton's kernels run, and those of the merged paths; those of the path "triton" are in ``on_chip``.

They take float32 factors on a CUDA device, "triton" of one circulant factor of one block; Triton's interpreter
(``TRITON_INTERPRET=1``) runs the same kernels on the CPU, which is how they are tested without a GPU.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from cdvft_bench.execution.fused import Plan
from cdvft_bench.execution.splits import (
    LARGEST_FACTOR,
    NARROW,
    fold_split,
    fold_tile,
    on_chip_fits,
    split,
    widths,
)
from cdvft_bench.execution.triton.costs import SUM_COLUMNS
from cdvft_reference.operands import memory


def _shared(p: int) -> int:
    """Bytes of shared memory that a program takes, by profiles/gpu-static; 0 where it is no more than every GPU has."""
    P1, P2 = widths(p)
    if max(P1, P2) > NARROW and not torch.version.hip:
        return 196_608  # p = 2,048
    if P1 * P2 > 2048:
        return 98_304 if torch.version.hip else 131_072  # p = 4,096
    return 0


MERGED_ROWS, MERGED_COLUMNS, MERGED_WARPS = 16, 256, 4
"""Tile and warps of the merged weight's kernel."""


def refusal(device: torch.device) -> str:
    """Why Triton's kernels cannot run on the device's tensors; "" where they can: on a GPU, or interpreted."""
    if not _installed():
        return "the package triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    if device.type != "cuda":
        return f"it runs on a CUDA device (or, for tests, with TRITON_INTERPRET=1), not on {device.type}"
    return _failure(device) if torch.cuda.is_available() else ""


@lru_cache(maxsize=1)
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


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
    needed = _shared(p)
    if needed and device.type == "cuda" and torch.cuda.is_available():
        given = torch.cuda.get_device_properties(device)
        shared = getattr(given, "shared_memory_per_block_optin", 0) or getattr(given, "shared_memory_per_block", needed)
        if shared < needed:
            return f"p = {p} takes {needed:,} bytes of shared memory, of which this GPU has {shared:,}"
    return ""


def as_read(factors: Sequence[Tensor]) -> list[Tensor]:
    """Factors as the kernels read them."""
    return [memory("a factor", factor) for factor in factors]


def of(operand: Tensor) -> torch.cuda.device:
    """A block in which kernels are launched on an operand's GPU: Triton takes the current one, whatever it is given."""
    return torch.cuda.device_of(operand)


_compiled: dict[tuple[object, ...], Any] = {}


@lru_cache(maxsize=1)
def _keeps_compiled() -> bool:
    """Whether what Triton compiled takes all arguments of the kernel: on CUDA, from 3.3 on."""
    if torch.version.hip:
        return False
    import triton  # whatever its distribution is called

    return tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 3)


def launch(
    kernel: Any, grid: tuple[int, ...], operands: tuple[Tensor, ...], values: tuple[float, ...], warps: int
) -> None:
    """Launch a kernel on the current device, again as it was compiled for arguments like these.

    To find that, Triton looks at every argument of every launch, which takes longer than the launch: a good part of an
    eager step. It compiles for dtypes, for pointers that are multiples of 16, and for some properties of integers; kept
    here is what it compiled for these very integers.

    Args:
        grid: programs along up to three axes. operands, values: the kernel's arguments in order, tensors first.
        warps: of a program.
    """
    if not _keeps_compiled() or any(t.data_ptr() & 15 for t in operands) or not hasattr(kernel, "device_caches"):
        kernel[grid](*operands, *values, num_warps=warps)  # under Triton's interpreter, too
        return
    key = (kernel.__name__, operands[0].device, *[t.dtype for t in operands], *values, *map(type, values))
    if (compiled := _compiled.get(key)) is not None:
        compiled[(*grid, 1, 1)[:3]](*operands, *values)
        return
    if len(_compiled) >= 4096:
        _compiled.clear()
    _compiled[key] = kernel[grid](*operands, *values, num_warps=warps)


def merged_weight(weight: Tensor, diagonals: list[Tensor], c: Tensor, plan: Plan, out: Tensor) -> Tensor:
    """``W + alpha dW`` by one kernel at memory bandwidth, for any block size; see ``execution.merged``.

    Args:
        weight: W, of any strides. diagonals, c: checked operands. out: as W, contiguous, of any floating-point dtype.
    """
    with of(weight):
        return launch_merged_weight(weight, as_read((*diagonals, c)), plan, out)


def launch_merged_weight(weight: Tensor, factors: Sequence[Tensor], plan: Plan, out: Tensor) -> Tensor:
    """:func:`merged_weight` with factors :func:`as_read`, on the current device."""
    from cdvft_bench.execution.triton.kernels import merged_weight_kernel

    d_out, d_in = weight.shape
    weight, c, diagonals = weight.resolve_neg(), factors[-1], len(factors) > 1
    _, q_in, p = c.shape
    launch(
        merged_weight_kernel,
        (-(-d_out // MERGED_ROWS), -(-d_in // MERGED_COLUMNS)),
        (weight, factors[0], factors[1] if diagonals else c, c, out),
        (d_out, d_in, p, q_in, plan.alpha, *weight.stride(), diagonals, plan.row, MERGED_ROWS, MERGED_COLUMNS),
        MERGED_WARPS,
    )
    return out


FOLD_WARPS, SUM_WARPS = 8, 4
"""Warps of the two fold kernels: with eight the first spills no register on any GPU that it was compiled for, with four
it did on sm_100 (profiles/gpu-static)."""


@dataclass(frozen=True, slots=True)
class _Fold:
    """Sizes of the two launches of a fold, by those of a layer.

    Attributes:
        tile, bands, tiles, pieces: see ``splits.fold_split``. lines: of the partial sums for a_1 and a_3.
        parts: entries of the three arrays of partial sums. programs: of the second launch, for a_1, for a_3 and all.
    """

    tile: int
    bands: int
    tiles: int
    pieces: int
    lines: tuple[int, int]
    parts: tuple[int, int, int]
    programs: tuple[int, int, int]


@lru_cache(maxsize=256)
def _fold_of(d_out: int, d_in: int, q_out: int, q_in: int, p: int, diagonals: bool) -> _Fold:
    blocks, tile = q_out * q_in, int(fold_tile(p))
    bands, tiles, pieces = (int(n) for n in fold_split(blocks, p))
    lines = (q_out * bands, q_in * bands) if diagonals else (0, 0)
    first, last = (-(-d // SUM_COLUMNS) if diagonals else 0 for d in (d_in, d_out))
    parts = (lines[0] * d_in, lines[1] * d_out, blocks * pieces * 2 * bands * 2 * tile)
    return _Fold(tile, bands, tiles, pieces, lines, parts, (first, last, first + last - (-blocks * p // SUM_COLUMNS)))


def fold_gradients(dense: Tensor, diagonals: list[Tensor], c: Tensor, plan: Plan) -> list[Tensor]:
    """Gradients of a_1, a_3 and c (of c alone without diagonals) from ``dense = g^T x``, which is read once.

    Two kernels: sums over tiles, and the sums of those; both in an order of their own, so that equal inputs give equal
    bits. See ``fold_kernel``.

    Args:
        dense: (d_out, d_in), contiguous, of any dtype up to that of the factors. diagonals, c: checked operands.
    """
    with of(dense):
        return launch_fold(dense, as_read((*diagonals, c)), plan)


def launch_fold(dense: Tensor, factors: Sequence[Tensor], plan: Plan) -> list[Tensor]:
    """:func:`fold_gradients` with factors :func:`as_read`, on the current device."""
    from cdvft_bench.execution.triton.kernels import fold_kernel, fold_sums_kernel

    d_out, d_in = dense.shape
    c, diagonals = factors[-1], len(factors) > 1
    q_out, q_in, p = c.shape
    sizes = _fold_of(d_out, d_in, q_out, q_in, p, diagonals)
    first, last = (factors[0], factors[1]) if diagonals else (c, c)
    parts = [c.new_empty(n) for n in sizes.parts]
    launch(
        fold_kernel,
        (q_out * q_in, sizes.bands * sizes.pieces),
        (dense, first, last, c, *parts),
        (d_out, d_in, p, q_in, sizes.tiles, sizes.pieces, diagonals, plan.row, sizes.tile),
        FOLD_WARPS,
    )
    grads = [torch.empty_like(t) for t in factors]
    ends, of_ends = (grads[0], grads[1] if diagonals else grads[0]), sizes.programs[:2]
    launch(
        fold_sums_kernel,
        (sizes.programs[2],),
        (*parts, *ends, grads[-1]),
        (
            d_out,
            d_in,
            p,
            *sizes.lines,
            sizes.pieces,
            c.numel(),
            plan.alpha,
            *of_ends,
            plan.row,
            sizes.tile,
            SUM_COLUMNS,
        ),
        SUM_WARPS,
    )
    return grads
