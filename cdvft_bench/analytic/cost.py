"""The cost of adapting a layer or model: a value with addition, scaling and conventions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from cdvft_bench.analytic.conventions import Flops, convention
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernel, Kernels, Kind, Scope, added, product, times
from cdvft_bench.core.errors import UserError

Pass = Literal["forward", "backward", "step"]
PASSES: tuple[Pass, ...] = get_args(Pass)


@dataclass(frozen=True)
class Totals:
    """Kernels summed up. Exact integers; FFTs stay countable through ``Cost.flops``.

    Attributes:
        macs: real multiply-adds of matrix products.
        elementwise_flops: real additions and multiplications outside matrix products and FFTs.
        ffts: one-dimensional transforms (a 2-D transform counts once).
        launches: kernel-launching operators.
        read, written: bytes.
    """

    macs: Count
    elementwise_flops: Count
    ffts: Count
    launches: Count
    read: Count
    written: Count


def total(kernels: Kernels) -> Totals:
    """Sum a sequence of kernels."""
    macs: Count = 0
    elementwise: Count = 0
    ffts: Count = 0
    launches: Count = 0
    read: Count = 0
    written: Count = 0
    for k in kernels:
        macs = added(macs, product(k.macs, k.launches))
        elementwise = added(elementwise, product(k.flops, k.launches))
        ffts = added(ffts, product(k.fft_batch, k.launches))
        launches = added(launches, k.launches)
        read = added(read, product(k.read, k.launches))
        written = added(written, product(k.written, k.launches))
    return Totals(macs, elementwise, ffts, launches, read, written)


def flops(kernels: Kernels, convention_name: str, kind: Kind | None = None) -> Flops:
    """FLOPs of a sequence of kernels under a named convention, of one ``kind`` or of all."""
    price = convention(convention_name)
    result: Any = 0.0
    for k in kernels:
        transforms = price.fft(k.fft_length, k.fft_batch, k.fft_real)
        if kind is None or k.kind == kind:
            one: Any = price.mac * k.macs + price.elementwise * k.flops + transforms
        elif k.kind == "native" and kind in ("fft", "elementwise"):  # one kernel of both
            one = transforms if kind == "fft" else price.elementwise * k.flops
        else:
            continue
        result = result + one * k.launches
    return result.astype(np.float64) if isinstance(result, np.ndarray) else float(result)


ADAMW_FLOPS = 14
"""Real FLOPs of one AdamW update of one parameter: weight decay 1, first moment 3 (lerp), second
moment 4, denominator 3 (square root, bias correction, epsilon), update 3."""


@dataclass(frozen=True)
class Cost:
    """What one training step of an adapted layer (or model) costs, by closed form.

    The optimiser is AdamW in its fused form: one launch that advances the step counters, one
    that updates every parameter.

    Attributes:
        parameters: trainable parameters.
        tensors: trainable parameter tensors.
        forward, backward: the kernels of each pass, base layer and adapter.
        saved_bytes: bytes of activations kept from forward for backward: distinct storages that
            are neither parameters nor buffers of the layer.
        parameter_dtype: dtype of the trainable parameters, hence of gradients and moments.
    """

    parameters: Count
    tensors: Count
    forward: Kernels = ()
    backward: Kernels = ()
    saved_bytes: Count = 0
    parameter_dtype: str = "float32"

    def __add__(self, other: Cost) -> Cost:
        if self.parameter_dtype != other.parameter_dtype:
            raise ValueError(
                f"costs of {self.parameter_dtype} and {other.parameter_dtype} parameters do not add: "
                "a fused optimiser launches once a dtype"
            )
        return Cost(
            added(self.parameters, other.parameters),
            self.tensors + other.tensors,
            self.forward + other.forward,
            self.backward + other.backward,
            added(self.saved_bytes, other.saved_bytes),
            self.parameter_dtype,
        )

    def __mul__(self, n: int) -> Cost:
        """``n`` layers alike, trained by one optimiser."""
        return Cost(
            product(self.parameters, n),
            self.tensors * n,
            times(self.forward, n),
            times(self.backward, n),
            product(self.saved_bytes, n),
            self.parameter_dtype,
        )

    __rmul__ = __mul__

    @property
    def optimizer_bytes(self) -> Count:
        """Bytes of AdamW state: two moments a parameter and a float32 step counter a tensor."""
        return 2 * self.parameters * ITEMSIZE[self.parameter_dtype] + 4 * self.tensors

    @property
    def update(self) -> Kernels:
        """Kernels of the optimiser step; none where nothing is trained."""
        size = ITEMSIZE[self.parameter_dtype]
        # An array comes from a grid of adapted layers, which all train something.
        any_ = min(self.tensors, 1) if isinstance(self.tensors, int) else 1
        return (
            Kernel(
                "_foreach_add_",
                "elementwise",
                any_,
                flops=self.tensors,
                read=4 * self.tensors,
                written=4 * self.tensors,
                scope="optimizer",
            ),
            Kernel(
                "_fused_adamw_",
                "elementwise",
                any_,
                flops=ADAMW_FLOPS * self.parameters,
                read=4 * self.parameters * size + 4 * self.tensors,
                written=3 * self.parameters * size,
                scope="optimizer",
            ),
        )

    def kernels(self, pass_: Pass, scope: Scope | None = None) -> Kernels:
        """Kernels of a pass ("step" is forward, backward and update), of one scope or of all.

        Raises:
            UserError: the pass is not known.
        """
        if pass_ not in PASSES:
            raise UserError(f"pass {pass_!r} is not known; use one of {', '.join(PASSES)}")
        chosen: dict[Pass, Kernels] = {
            "forward": self.forward,
            "backward": self.backward,
            "step": self.forward + self.backward + self.update,
        }
        return tuple(k for k in chosen[pass_] if scope is None or k.scope == scope)

    def total(self, pass_: Pass, scope: Scope | None = None) -> Totals:
        """Exact sums over a pass."""
        return total(self.kernels(pass_, scope))

    def flops(self, pass_: Pass, convention_name: str, scope: Scope | None = None, kind: Kind | None = None) -> Flops:
        """FLOPs of a pass under a named convention."""
        return flops(self.kernels(pass_, scope), convention_name, kind)

    def launches(self, pass_: Pass, scope: Scope | None = None) -> Count:
        """Kernel-launching operators of a pass."""
        return self.total(pass_, scope).launches
