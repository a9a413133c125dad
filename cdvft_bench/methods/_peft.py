"""Methods that Hugging Face PEFT implements: how PEFT adapts layers and models for them.

The closed forms of these methods list the operators that PEFT's own layers dispatch, at the
versions in constraints.txt, on an adapter as ``peft.get_peft_model`` makes it. Its parameters take
the base's dtype, except that 16-bit ones are cast to float32, which costs casts at every step.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernels, adapter_dtype, copy, elementwise, mixed, mm
from cdvft_bench.analytic.linear import LinearShape, frozen_backward, frozen_forward
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods.base import Method, linear_targets

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True)
class PeftNames:
    """How PEFT calls a method and its hyperparameters.

    Attributes:
        config: its config class, e.g. "LoraConfig".
        names: of hyperparameters that PEFT calls otherwise than this suite.
        fixed: what the config holds besides; it tells methods of one config apart.
    """

    config: str
    names: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def peft_type(self) -> str:
        """PEFT's name of the method, e.g. "LORA"."""
        return self.config.removesuffix("Config").upper()


@dataclass(frozen=True)
class PeftMethod(Method):
    """A method that ``peft.get_peft_model`` applies, from a config.

    Class attributes:
        peft: how PEFT calls it.
    """

    peft: ClassVar[PeftNames]

    def options(self, layers: Mapping[str, LinearShape]) -> dict[str, Any]:
        """Values of PEFT's config for the linear layers of these names and shapes."""
        own = {self.peft.names.get(f.name, f.name): getattr(self, f.name) for f in fields(self)}
        return {**own, **self.peft.fixed, "target_modules": list(layers)}

    def config(self, layers: Mapping[str, LinearShape]) -> PeftConfig:
        """PEFT's config of this method for the linear layers of these names and shapes."""
        import peft

        made: PeftConfig = getattr(peft, self.peft.config)(**self.options(layers))
        return made

    def environment(self) -> AbstractContextManager[object]:
        """Entered while PEFT builds the adapter."""
        return nullcontext()

    def adapt_linear(self, base: nn.Linear) -> nn.Module:
        """PEFT's adapted layer around ``base``, initialised as PEFT does.

        Raises:
            UserError: the hyperparameters do not fit the layer's widths.
        """
        from torch import nn

        # PEFT adapts named modules of a model, so the layer gets a model of its own. What it shares
        # with other layers (VeRA's projections) it holds itself, so nothing else need be kept.
        adapted = self._adapt(nn.Sequential(OrderedDict(layer=base)), ["layer"])
        return adapted.get_submodule("base_model.model.layer")

    def adapt_model(self, model: nn.Module, targets: Sequence[str]) -> nn.Module:
        """PEFT's model around ``model``, whose target layers are replaced in place.

        Raises:
            UserError: no linear layer matches ``targets``, or the hyperparameters do not fit one that does.
        """
        return self._adapt(model, linear_targets(model, targets))

    def _adapt(self, model: nn.Module, names: Sequence[str]) -> nn.Module:
        from peft import get_peft_model

        layers = {}
        for name in names:
            linear: nn.Linear = model.get_submodule(name)  # type: ignore[assignment]
            layers[name] = LinearShape(linear.in_features, linear.out_features, linear.bias is not None)
            try:
                self.check(layers[name])
            except UserError as error:
                raise UserError(f"layer {name!r}: {error}") from error
        with self.environment(), warnings.catch_warnings():
            # PEFT asks transformers for a property by its old name; nothing that the user could mend.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            adapted: nn.Module = get_peft_model(model, self.config(layers))
        return adapted


def first_misfit(layer: LinearShape, misfit: Count | bool | NDArray[np.bool_]) -> tuple[int, int] | None:
    """Widths (d_in, d_out) of the first layer of a grid for which ``misfit`` holds, or None."""
    d_in, d_out, misfits = np.broadcast_arrays(layer.d_in, layer.d_out, misfit)
    found = np.flatnonzero(misfits)
    return (int(d_in.flat[found[0]]), int(d_out.flat[found[0]])) if found.size else None


def check_blocks(method: Method, block_size: int, layer: LinearShape) -> None:
    """Raise UserError unless ``block_size`` divides the layer's inputs."""
    widths = first_misfit(layer, layer.d_in % block_size != 0)
    if widths:
        raise UserError(
            f"block_size = {block_size} does not divide d_in = {widths[0]}, which {method.title} cuts into whole "
            f"blocks; use a divisor of {widths[0]}"
        )


def divisors(n: Count) -> list[int]:
    """Divisors of ``n``, in order, for examples."""
    return [d for d in range(1, int(n) + 1) if n % d == 0]


# --- kernels that several of PEFT's layers share ------------------------------------------


def cast(n: Count, source: str, target: str) -> Kernels:
    """A cast of ``n`` elements; nothing where the dtypes are the same."""
    return () if source == target else (copy("_to_copy", n, source, to=target),)


def add_result(n: Count, base: str, adapter: str) -> Kernels:
    """``(result + change).to(base)``: the sum takes the wider of the two dtypes."""
    return (mixed("add", n, adapter, (n, base), (n, adapter)), *cast(n, adapter, base))


def add_result_backward(n: Count, base: str, adapter: str) -> Kernels:
    """The gradient of ``add_result`` in the adapter's dtype, and cast again for the base layer."""
    return (*cast(n, base, adapter), *cast(n, adapter, base))


def base_backward(layer: LinearShape, tokens: Count, dtype: str) -> Kernels:
    """The gradient that the frozen layer passes on, added to the adapter's."""
    return (*frozen_backward(layer, tokens, dtype), elementwise("add", tokens * layer.d_in, dtype))


def beside_base(
    layer: LinearShape, tokens: Count, dtype: str, change: Kernels, change_backward: Kernels
) -> tuple[Kernels, Kernels]:
    """Both passes of ``(base(x) + change(x.to(adapter's dtype))).to(dtype)``, PEFT's usual layer."""
    adapter = adapter_dtype(dtype)
    n_in, n_out = tokens * layer.d_in, tokens * layer.d_out
    forward = (
        *frozen_forward(layer, tokens, dtype),
        *cast(n_in, dtype, adapter),
        *change,
        *add_result(n_out, dtype, adapter),
    )
    backward = (
        *add_result_backward(n_out, dtype, adapter),
        *change_backward,
        *cast(n_in, adapter, dtype),
        *base_backward(layer, tokens, dtype),
    )
    return forward, backward


def dense_change(
    layer: LinearShape,
    tokens: Count,
    dtype: str,
    build: Kernels,
    build_backward: Kernels,
    parameters: Count,
    tensors: Count = 1,
    kept: Count = 0,
) -> Cost:
    """Cost of ``base(x) + x dW^T`` with a dW that is built anew at every pass.

    Args:
        layer, tokens, dtype: as in ``Method.cost``.
        build, build_backward: kernels that make dW from the parameters, and their gradients from dW's.
        parameters, tensors: trained. kept: bytes that building keeps for backward beside dW and x.
    """
    adapter = adapter_dtype(dtype)
    forward, backward = beside_base(
        layer,
        tokens,
        dtype,
        (*build, mm(tokens, layer.d_in, layer.d_out, adapter)),
        (mm(layer.d_out, tokens, layer.d_in, adapter), mm(tokens, layer.d_out, layer.d_in, adapter), *build_backward),
    )
    saved: Count = (layer.weights + tokens * layer.d_in) * ITEMSIZE[adapter]  # dW, x
    saved = saved + kept
    return Cost(parameters, tensors, forward, backward, saved, adapter)
