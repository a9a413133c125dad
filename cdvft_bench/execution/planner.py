"""Which path to take: predicted time and memory of every path that can execute a layer.

The costs are the closed forms of ``costs``, the rates those of ``cdvft-bench calibrate``, or quickly
measured ones where the CPU was never calibrated. ``python -m cdvft_bench.timing.calibrate`` measures them on a bare
node.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdvft_bench.analytic.circulant import LARGEST_M, Factor, check_diagonals
from cdvft_bench.analytic.cost import total
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernels, adapter_dtype, mm
from cdvft_bench.analytic.linear import LinearShape, check_count, frozen_forward, itemsize
from cdvft_bench.analytic.roofline import Rates, load_rates, predict_seconds, rates_from_json
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.caches import cache_folder
from cdvft_bench.core.io.files import is_file
from cdvft_bench.core.io.reading import packaged, parse_toml
from cdvft_bench.core.ties import steady
from cdvft_bench.execution.costs import FastLayer

if TYPE_CHECKING:
    from torch import Tensor

NOT_PICKED = ("triton",)
"""Paths that "auto" leaves alone, though they can execute a layer and are ranked: no clock has seen the on-chip FFT,
and where its kernels keep registers off chip (p = 4,096 on sm_90: profiles/gpu-static), no prediction knows of it."""

MATMUL_PATHS = ("fused", "stored", "merged", "merged_dense")

# One set of rates a kind of device, where nothing of the device itself is known.
BUILT_IN = {
    kind: rates_from_json(given)
    for kind, given in parse_toml(packaged("cdvft_bench.execution.rates", "built_in.toml")).items()
}


@dataclass(frozen=True)
class Problem:
    """One adapted layer to execute.

    Attributes:
        d_in, d_out: widths. p: block size. m: diagonals, 0 for the block-circulant adapter.
        tokens: rows of the input. dtype: of base and activations. device: "cpu" or "cuda".
        training: whether backward follows. bias: whether the base has one.

    Raises:
        UserError: a number is not an integer >= 1 (m: 0, or 2 to LARGEST_M), or the dtype or device is not known.
    """

    d_in: int
    d_out: int
    p: int
    m: int = 2
    tokens: int = 1024
    dtype: str = "float32"
    device: str = "cpu"
    training: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("d_in", "d_out", "p", "tokens"):
            check_count(name, getattr(self, name))
        if isinstance(self.m, bool) or not isinstance(self.m, int) or self.m < 0 or self.m == 1:
            raise UserError(
                f"m = {self.m!r} leaves nothing to plan: give an integer >= 2, or 0 for the block-circulant "
                "adapter (m = 1 is one element-wise product)"
            )
        if self.m:
            check_diagonals(self.m)
        itemsize(self.dtype)
        if self.device not in ("cpu", "cuda"):
            raise UserError(f"device {self.device!r} is not known; use cpu or cuda")

    @property
    def layer(self) -> LinearShape:
        return LinearShape(self.d_in, self.d_out, self.bias)

    @property
    def factors(self) -> list[Factor]:
        """The circulant factors."""
        dtype = adapter_dtype(self.dtype)
        inputs = ([self.d_in] + [self.d_out] * self.m)[: max(self.m - 1, 1)]
        return [Factor(width, self.d_out, self.p, self.tokens, dtype) for width in inputs]

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that can execute it on this machine, without the reference's, which do more of the same work."""
        dense = [p for p in MATMUL_PATHS if p != "merged_dense" or self.m in (0, 2)]
        return (*dense, *(path for path, why in self.kernels.items() if not why))

    @property
    def kernels(self) -> dict[str, str]:
        """The suite's own kernels for the device, by path: why they cannot execute it here, "" where they can."""
        import torch

        from cdvft_bench.execution.native import path as native_path
        from cdvft_bench.execution.triton import path as triton_path

        first, device = self.factors[0], torch.device(self.device)
        adapter, activations = getattr(torch, first.dtype), getattr(torch, self.dtype)
        if self.device != "cuda":
            return {"native": native_path.misfit(device, adapter, self.p, len(self.factors))}
        blocks = (int(first.q_out), int(first.q_in))
        return {
            "triton": triton_path.misfit(device, adapter, activations, blocks, self.p, len(self.factors)),
        }


@dataclass(frozen=True)
class Estimate:
    """What a path is predicted to take for one layer.

    Attributes:
        path: its name. seconds: forward and, in training, backward, base layer included; to 12 digits, so that paths
            of the same kernels in another order tie.
        overhead_s: the same less the frozen layer alone.
        saved_bytes: kept for backward. launches: operators. flops: multiply-adds twice, element-wise work once.
        read_written: bytes.
    """

    path: str
    seconds: float
    overhead_s: float
    saved_bytes: int
    launches: int
    flops: float
    read_written: int


def kernels_of(problem: Problem, path: str) -> tuple[Kernels, int]:
    """Kernels of the pass (or both passes in training) and the bytes kept for backward."""
    fast = FastLayer(
        problem.layer, problem.tokens, problem.dtype, problem.factors, problem.m, 1.0, path, problem.device
    )
    return fast.forward() + (fast.backward() if problem.training else ()), int(fast.saved_bytes)


def estimate(problem: Problem, path: str, rates: Rates) -> Estimate:
    """Predict one path. Raises UserError where the path cannot execute the layer."""
    if path not in problem.paths:
        raise UserError(f"path {path!r} cannot execute this layer; {', '.join(problem.paths)} can")
    kernels, saved = kernels_of(problem, path)
    sums = total(kernels)
    seconds = steady(predict_seconds(kernels, rates, problem.dtype))
    base = frozen_forward(problem.layer, problem.tokens, problem.dtype)
    base += (mm(problem.tokens, problem.d_out, problem.d_in, problem.dtype),) if problem.training else ()
    return Estimate(
        path,
        seconds,
        seconds - predict_seconds(base, rates, problem.dtype),
        saved,
        int(sums.launches),
        2.0 * float(sums.macs) + float(sums.elementwise_flops),
        int(sums.read + sums.written),
    )


def rank(problem: Problem, rates: Rates | None = None) -> list[Estimate]:
    """Every path's estimate, fastest first, alike ones in the order of ``Problem.paths``.

    ``rates`` default to :func:`device_rates`.
    """
    rates = rates or device_rates(problem.device)
    return sorted((estimate(problem, path, rates) for path in problem.paths), key=lambda e: e.seconds)


def rates_path(device: str) -> Path:
    """The file of a device's rates: $CDVFT_BENCH_RATES, or one in the user's cache folder; a GPU's has "-cuda"."""
    path = Path(os.environ.get("CDVFT_BENCH_RATES") or cache_folder() / "rates.json")
    return path if device == "cpu" else path.with_name(f"{path.stem}-{device}{path.suffix}")


@lru_cache(maxsize=8)
def _read_rates(path: Path, changed: int) -> Rates:
    return load_rates(path)


def device_rates(device: str) -> Rates:
    """Rates of "cpu" or "cuda" to plan by; they say where they come from.

    Calibrated ones where there are some, of a CPU only if it was this one: a home may be shared by several machines.
    Else a CPU's are measured in about two seconds, once, and a GPU's are a datasheet's.

    Raises:
        UserError: the file of calibrated rates is damaged.
    """
    try:
        path: Path | None = rates_path(device)
    except UserError:  # nobody's rates
        path = None
    found = _read_rates(path, path.stat().st_mtime_ns) if path is not None and is_file(path) else None
    if device != "cpu":
        return found or BUILT_IN[device]
    import torch

    from cdvft_bench.execution.rates.measured import this_cpu
    from cdvft_bench.execution.rates.quick import quick_rates

    named = bool(os.environ.get("CDVFT_BENCH_RATES"))
    return found if found and (named or found.cpu == this_cpu()) else quick_rates(torch.get_num_threads())


def pick_for(problem: Problem) -> str:
    """The path predicted to be fastest with torch's present number of threads."""
    import torch

    return _pick_for(problem, torch.get_num_threads())


@lru_cache(maxsize=4096)
def _pick_for(problem: Problem, threads: int) -> str:
    return next(e.path for e in rank(problem) if e.path not in NOT_PICKED)


@lru_cache(maxsize=4096)
def _pick(threads: int, *sizes: Any) -> str:
    # At every call of a layer: hashing numbers costs less than making a Problem.
    return pick_for(Problem(*sizes))


def pick(x: Tensor, diagonals: Sequence[Tensor], circulants: Sequence[Tensor], d_out: int) -> str:
    """The path predicted to be fastest for a layer and its input.

    Args:
        x: (..., d_in). diagonals, circulants: the factors. d_out: output width.
    """
    device = x.device.type
    if device not in BUILT_IN or len(diagonals) > LARGEST_M:
        return "fused"  # what runs anywhere, where nothing is known of the device or the plan would be too long
    dtype = str(x.dtype).removeprefix("torch.")
    d_in = int(x.shape[-1])  # int(): tracers hand sizes over as tensors
    import torch

    return _pick(
        torch.get_num_threads(),
        d_in,
        d_out,
        int(circulants[0].shape[2]),
        len(diagonals),
        max(int(x.numel()) // d_in, 1),
        dtype if dtype in ITEMSIZE else "float32",
        device,
        circulants[0].requires_grad,
    )


def planned(
    path: str, layer: LinearShape, factors: Sequence[Factor], m: int, tokens: Count, dtype: str, device: str
) -> str:
    """The path that a layer takes: "auto" is resolved by the planner, per shape (no grids), for training.

    Raises:
        UserError: "auto" for a grid of shapes.
    """
    if path != "auto" or not factors:
        return path
    shapes = (layer.d_in, layer.d_out, factors[0].p, tokens)
    if not all(isinstance(n, int) for n in shapes):
        raise UserError("path 'auto' is planned shape by shape; name a path to price a grid of shapes at once")
    d_in, d_out, p, rows = (int(n) for n in shapes)
    return pick_for(Problem(d_in, d_out, p, m, rows, dtype, device, bias=layer.bias))
