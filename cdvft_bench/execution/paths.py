"""The ways of executing one adapted layer, behind two functions: :func:`change` and :func:`adapted_linear`.

And the reference's adapted layers, executed by one of them.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.names import not_known
from cdvft_bench.execution.base import is_plain
from cdvft_bench.execution.fused import FusedFunction, Plan
from cdvft_bench.execution.merged import MergedFunction, by_kernels
from cdvft_bench.execution.native.path import NativeFunction, repeated
from cdvft_bench.execution.native.path import misfit as native_misfit
from cdvft_bench.execution.repeats import remember
from cdvft_bench.execution.triton.merged import KernelFunction
from cdvft_bench.execution.triton.on_chip import TritonFunction
from cdvft_bench.execution.triton.path import misfit as triton_misfit
from cdvft_reference import BlockCirculantLinear, CDVFTLinear
from cdvft_reference.cdvft import cdvft_fft, cdvft_handwritten
from cdvft_reference.circulant import (
    Convention,
    block_circulant_fft,
    block_circulant_handwritten,
    check_convention,
    under_transforms,
)
from cdvft_reference.operands import at_least_float32, check_base, check_operands

Path = Literal["fft", "handwritten", "fused", "stored", "merged", "merged_dense", "native", "triton"]
PATHS: tuple[Path, ...] = get_args(Path)
"""What each does is told in docs/execution.md; "auto" lets the planner pick one of them."""


def _plan_of_graph(d_in: int, d_out: int, p: int, m: int, dtype: torch.dtype, device: str, training: bool) -> str:
    """The planner's pick for as many tokens as a problem has where none are given."""
    from cdvft_bench.analytic.circulant import LARGEST_M
    from cdvft_bench.analytic.kernels import ITEMSIZE
    from cdvft_bench.execution.planner import BUILT_IN, Problem, pick_for

    if device not in BUILT_IN or m > LARGEST_M:
        return "fused"  # as in planner.pick
    name = str(dtype).removeprefix("torch.")
    activations = name if name in ITEMSIZE else "float32"
    return pick_for(Problem(d_in, d_out, p, m, dtype=activations, device=device, training=training))


# Called while a graph is traced, never traced itself; one plan for all numbers of tokens, else each new one would
# compile the graph again.
plan_of_graph = torch.compiler.assume_constant_result(_plan_of_graph)


def check_path(path: str, m: int) -> None:
    """Raise UserError unless ``path`` is known and can execute m diagonals (0: the block-circulant adapter)."""
    if path != "auto" and path not in PATHS:
        raise not_known("path", path, ("auto", *PATHS))
    if path == "merged_dense" and m > 2:
        raise UserError(
            f"path 'merged_dense' folds the gradient of one circulant factor, so m must be 2, not {m}; use 'merged'"
        )


def _resolve(path: str, x: Tensor, diagonals: Sequence[Tensor], circulants: Sequence[Tensor], d_out: int) -> Path:
    if not circulants:
        return "fft"  # m = 1 is one element-wise product: nothing to transform, nothing to choose
    if under_transforms() and path != "fft":
        if path == "auto":
            return "fft"
        raise UserError(
            f"path {path!r} has a backward written by hand, which is opaque to torch.func's transforms (grad, vmap, "
            "jvp, ...); use 'fft' or 'auto' there"
        )
    if path == "auto" and torch.compiler.is_compiling():
        _, q_in, p = circulants[0].shape
        # Of x itself every size may be symbolic in a graph; a factor's are numbers.
        d_in = diagonals[0].shape[0] if diagonals else q_in * p
        training = circulants[0].requires_grad
        return plan_of_graph(d_in, d_out, p, len(diagonals), x.dtype, x.device.type, training)
    if path == "auto":
        from cdvft_bench.execution.planner import pick

        return pick(x, diagonals, circulants, d_out)  # type: ignore[return-value]
    if path in ("native", "triton"):
        c = circulants[0]
        q_out, q_in, p = c.shape
        if path == "native":
            reason = native_misfit(x.device, c.dtype, p, len(circulants))
        else:
            reason = triton_misfit(x.device, c.dtype, x.dtype, (q_out, q_in), p, len(circulants))
        if reason:
            raise UserError(f"path {path!r} cannot execute this layer: {reason}; use 'auto'")
    return path  # type: ignore[return-value]


def _reference(
    x: Tensor, diagonals: Sequence[Tensor], circulants: Sequence[Tensor], d_out: int, path: Path, convention: Convention
) -> Tensor:
    """The change without its scale, by the reference's products."""
    if diagonals:
        product = cdvft_handwritten if path == "handwritten" else cdvft_fft
        return product(x, diagonals, circulants, d_out, convention)
    one = block_circulant_handwritten if path == "handwritten" else block_circulant_fft
    return one(x, circulants[0], d_out, convention)


def change(
    x: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    *,
    alpha: float = 1.0,
    path: str = "auto",
    convention: Convention = "column",
) -> Tensor:
    """``alpha dW x`` alone, for layers whose base is executed elsewhere (several adapters, quantised weights).

    Args:
        x: (..., d_in), floating-point.
        diagonals: m vectors, the first (d_in,), the others (d_out,); empty for the block-circulant adapter.
        circulants: m - 1 factors (q_out, q_in, p); one for the block-circulant adapter.
        d_out: output width.
        alpha: scale.
        path: one of ``PATHS`` or "auto". The merged paths need the base's weight; here they run as "fused".
        convention: "column" or "row", see ``cdvft_reference.circulant``.

    Returns:
        (..., d_out) in the dtype of x.

    Raises:
        UserError, ValueError, TypeError: path, convention, shapes or dtype do not fit.
    """
    check_convention(convention)
    check_path(path, len(diagonals))
    diagonals, circulants = at_least_float32(diagonals, circulants)
    check_operands(x, diagonals, circulants, d_out)
    chosen = _resolve(path, x, diagonals, circulants, d_out)
    return _change(x, diagonals, circulants, d_out, float(alpha), chosen, convention)


def _change(
    x: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    alpha: float,
    path: Path,
    convention: Convention,
) -> Tensor:
    if x.numel() == 0:
        path = "fft"  # nothing to execute, and zero gradients
    with without_autocast(x.device.type):
        if path in ("fft", "handwritten"):
            factors_x = x.to((*diagonals, *circulants)[0].dtype)
            return (_reference(factors_x, diagonals, circulants, d_out, path, convention) * alpha).to(x.dtype)
        keep = path == "stored" and torch.is_grad_enabled()
        plan = _plan(d_out, alpha, convention, len(diagonals), keep, None)
        return _apply(path, x, None, None, plan, diagonals, circulants)


def _casts(kind: str) -> bool:
    """Whether autocast is on; where there is no memory there is no such thing."""
    return kind != "meta" and torch.is_autocast_enabled(kind)


def without_autocast(kind: str) -> AbstractContextManager[Any]:
    """A context in which autocast leaves operands alone."""
    return torch.autocast(kind, enabled=False) if _casts(kind) else nullcontext()


def adapted_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    *,
    alpha: float = 1.0,
    path: str = "auto",
    convention: Convention = "column",
) -> Tensor:
    """``x W^T + b + alpha dW x`` with W and b frozen: a whole adapted layer in one go.

    Args:
        weight: (d_out, d_in), frozen; under a quantised one the change is executed for itself, as by :func:`change`.
        bias: (d_out,), frozen, or None. The others: see :func:`change`.

    Returns:
        (..., d_out) in the dtype of the base layer's output (under autocast, autocast's).

    Raises:
        UserError, ValueError, TypeError: as :func:`change`; also where W or b is to be trained.
    """
    check_convention(convention)
    check_path(path, len(diagonals))
    return run_layer(x, weight, bias, diagonals, circulants, float(alpha), path, convention)


def run_layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    alpha: float,
    path: str,
    convention: Convention,
) -> Tensor:
    """:func:`adapted_linear` for a layer that made its factors and checked path and convention itself.

    It runs at every call of a layer, and on small inputs what is done here is a good part of the time.
    """
    settings = (alpha, path, convention)
    if not torch.compiler.is_compiling():
        again = repeated(x, weight, bias, diagonals, circulants, settings)
        if again is not None:
            return again
    # A quantised weight is a wrapper that knows its own product, and holds no W to add to.
    quantised = type(weight) not in (nn.Parameter, Tensor) and hasattr(weight, "__tensor_flatten__")
    cast = isinstance(x, Tensor) and _casts(x.device.type)
    check_base(x, weight, bias, cast, quantised)
    d_out = int(weight.shape[0])
    diagonals, circulants = at_least_float32(diagonals, circulants)
    check_operands(x, diagonals, circulants, d_out)
    if torch.is_grad_enabled() and (weight.requires_grad or (bias is not None and bias.requires_grad)):
        raise ValueError(
            "weight and bias must be frozen (requires_grad=False); to train them too, add change() to the "
            "base layer's output"
        )
    # Autocast leaves float64 alone.
    dtype = torch.get_autocast_dtype(x.device.type) if cast and x.dtype is not torch.float64 else None
    chosen = _resolve(path, x, diagonals, circulants, d_out)
    if chosen in ("fft", "handwritten") or quantised or x.numel() == 0:
        h = nn.functional.linear(x, weight, bias)
        return h + _change(x, diagonals, circulants, d_out, alpha, chosen, convention).to(h.dtype)
    plan = _plan(d_out, alpha, convention, len(diagonals), chosen == "stored" and torch.is_grad_enabled(), dtype)
    with without_autocast(x.device.type):
        out = _apply(chosen, x, weight, bias, plan, diagonals, circulants)
    if chosen == "native":
        remember(x, weight, bias, diagonals, circulants, settings, plan)
    return out


def _apply(
    path: Path,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    plan: Plan,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
) -> Tensor:
    h: Tensor
    if path == "native":
        h = NativeFunction.apply(x, weight, bias, plan, *diagonals, *circulants)
    elif path == "triton":
        h = TritonFunction.apply(x, weight, bias, plan, *diagonals, *circulants)
    elif path in ("merged", "merged_dense") and weight is not None:
        if path == "merged_dense" and not torch.compiler.is_compiling() and by_kernels(circulants[0]):
            return KernelFunction.apply(x, weight, bias, plan, *diagonals, *circulants)
        h = MergedFunction.apply(x, weight, bias, plan, path == "merged_dense", *diagonals, *circulants)
    else:
        h = FusedFunction.apply(x, weight, bias, plan, *diagonals, *circulants)
    return h


def _new_plan(
    d_out: int, alpha: float, convention: Convention, diagonals: int, keep: bool, dtype: torch.dtype | None
) -> Plan:
    return Plan(d_out, alpha, convention == "row", diagonals, keep, dtype)


_kept_plan = lru_cache(maxsize=1024)(_new_plan)


def _plan(
    d_out: int, alpha: float, convention: Convention, diagonals: int, keep: bool, dtype: torch.dtype | None
) -> Plan:
    make = _new_plan if torch.compiler.is_compiling() else _kept_plan  # a cache means nothing to a tracer
    return make(d_out, alpha, convention, diagonals, keep, dtype)


# --- layers ---------------------------------------------------------------------------------


def _run(
    layer: CDVFTLinear | BlockCirculantLinear,
    x: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    path: str,
) -> Tensor:
    """A layer in one go where its base is plain, else the base's own forward and the change beside it."""
    base: Any = layer._modules["base"]
    if is_plain(base, x):
        held = base._parameters
        weight, bias = held["weight"], held["bias"]
        return run_layer(x, weight, bias, diagonals, circulants, layer.alpha, path, layer.convention)
    h: Tensor = base(x)
    d_out = base.out_features
    return h + change(x, diagonals, circulants, d_out, alpha=layer.alpha, path=path, convention=layer.convention).to(
        h.dtype
    )


class FastCDVFTLinear(CDVFTLinear):
    """:class:`cdvft_reference.CDVFTLinear` on any path of ``execution.PATHS``, or "auto".

    Args:
        base: the layer to adapt, frozen in place.
        path: how to execute it.
        options: those of the reference's layer (m, block_size, alpha, convention, init, generator).
    """

    def __init__(self, base: nn.Linear, path: str = "auto", **options: Any) -> None:
        super().__init__(base, **options)
        check_path(path, self.shapes.m)
        self.execution_path = path

    def forward(self, x: Tensor) -> Tensor:
        if self._merged:
            return cast(Tensor, self.base(x))
        held: Any = self._modules  # as attributes they are looked for in Python, at every call
        return _run(self, x, held["diagonals"](), held["circulants"](), self.execution_path)

    def extra_repr(self) -> str:
        s = self.shapes
        return f"m={s.m}, block_size={s.block_size}, alpha={self.alpha}, path={self.execution_path}"


class FastBlockCirculantLinear(BlockCirculantLinear):
    """:class:`cdvft_reference.BlockCirculantLinear` on any path of ``execution.PATHS``, or "auto"."""

    def __init__(self, base: nn.Linear, path: str = "auto", **options: Any) -> None:
        super().__init__(base, **options)
        check_path(path, 0)
        self.execution_path = path

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) if self.merged else _run(self, x, (), (self.circulant,), self.execution_path)

    def extra_repr(self) -> str:
        return f"block_size={self.circulant.shape[-1]}, alpha={self.alpha}, path={self.execution_path}"
