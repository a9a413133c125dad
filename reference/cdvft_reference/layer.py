"""Adapted linear layers: a frozen ``nn.Linear`` plus ``alpha * dW x``."""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from .cdvft import FactorShapes, cdvft_dense, cdvft_fft, cdvft_handwritten
from .circulant import (
    Convention,
    block_circulant_fft,
    block_circulant_handwritten,
    block_circulant_shape,
    check_convention,
    compute_dtype,
    dense_block_circulant,
)
from .operands import NO_WIDER, Factors, at_least_float32, refuse_input

Path = Literal["fft", "handwritten", "dense"]
Init = Literal["zero_diagonal", "zero_circulant", "random"]


def default_block_size(d_in: int, d_out: int) -> int:
    """The largest block that pads neither width needlessly: ``min(d_in, d_out)``, so p = d when square."""
    return min(d_in, d_out)


class FactorList(nn.ParameterList):
    """Factors of one kind. Calling it gives them, so that what loads weights at a module's forward loads these."""

    def __call__(self) -> list[Tensor]:  # torch's list refuses to be called
        return self.forward()

    def forward(self) -> list[Tensor]:
        found: list[Any] = list(self._parameters.values())  # the list's iterator asks for each by name
        return found if len(found) == len(self) else list(self)  # where one is parametrised it is held elsewhere


def writable_weight(base: nn.Module) -> nn.Parameter:
    """The weight of a layer, where writing to it changes what the layer computes.

    Raises:
        TypeError: it is quantised, computed from other parameters, or not loaded.
    """
    weight: Any = base.weight
    if isinstance(weight, Tensor) and "weight" not in base._parameters:
        raise TypeError(
            "the weight is computed from other parameters (a parametrisation, weight norm or pruning) and cannot "
            "take a change; make it permanent first, as torch.nn.utils.parametrize.remove_parametrizations does"
        )
    if type(weight) is not nn.Parameter or not weight.dtype.is_floating_point:
        kind = type(weight).__name__
        raise TypeError(f"a quantised weight ({kind}) cannot take a change; dequantise the base model first")
    if weight.numel() == 0:
        raise TypeError("the weight holds nothing here, as under ZeRO-3, which partitions it; gather it first")
    if weight.is_meta:
        raise TypeError(
            "the weight is on the meta device, offloaded or never loaded, and cannot take a change; load "
            "the base model's weights first"
        )
    return weight


class AdaptedLinear(nn.Module):
    """A frozen ``nn.Linear`` with an additive weight change; subclasses say which.

    ``h = W x + b + alpha * dW x``. The base's parameters are frozen in place. Adapter parameters
    are kept in float32 where the base is float16 or bfloat16, else in the base's dtype, and the
    change is computed in that dtype; the output has the dtype of the base's output, so the layer
    also works under autocast.

    A state dict holds W and the factors, also of a merged layer (without ``keep_base`` W is then what subtracting dW
    leaves); loading one unmerges the layer first.

    Args:
        base: the layer to adapt.
        alpha: scale of the weight change, finite.
        convention: circulant convention, "column" or "row".
        path: "fft" (FFTs, autograd's backward), "handwritten" (FFTs, the paper's backward) or
            "dense" (builds dW: the oracle).

    Raises:
        TypeError: ``base`` is no ``nn.Linear`` or its weight is not real floating-point.
        ValueError: an option is unknown or ``alpha`` is not finite.
    """

    def __init__(self, base: nn.Linear, alpha: float, convention: Convention, path: Path) -> None:
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base is a {type(base).__name__}; it must be a torch.nn.Linear")
        if not math.isfinite(alpha):
            raise ValueError(f"alpha = {alpha} is not finite; give a finite scale")
        if path not in get_args(Path):
            raise ValueError(f"path {path!r} is not known; use one of {', '.join(get_args(Path))}")
        check_convention(convention)
        compute_dtype(base.weight.dtype)
        self.base = base.requires_grad_(False)
        self.alpha = float(alpha)
        self.convention: Convention = convention
        self.path: Path = path
        self._kept_weight: Tensor | None = None
        self._merged = False
        self.register_state_dict_post_hook(_without_change)

    @property
    def merged(self) -> bool:
        """Whether the base weight currently holds ``W + alpha * dW``."""
        return self._merged

    def _parameter(self, *shape: int) -> nn.Parameter:
        weight = self.base.weight
        return nn.Parameter(torch.empty(*shape, dtype=compute_dtype(weight.dtype), device=weight.device))

    @property
    def factor_dtype(self) -> torch.dtype:
        """The dtype in which the change is computed: the factors', at least float32."""
        diagonals, circulants = self._held()
        return compute_dtype((*diagonals, *circulants)[0].dtype)

    def _held(self) -> Factors:
        raise NotImplementedError

    def factors(self) -> Factors:
        """The diagonals and the circulants; in float32 where the layer was cast to 16 bits."""
        return at_least_float32(*self._held())

    def change(self, x: Tensor) -> Tensor:
        """``dW x`` (without alpha), (..., d_in) to (..., d_out), ``x`` in the factors' dtype."""
        raise NotImplementedError

    def delta_weight(self) -> Tensor:
        """``alpha * dW`` as a dense (d_out, d_in) matrix in the factors' dtype."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        dtype = self.factor_dtype
        if x.dtype not in NO_WIDER.get(dtype, ()):
            refuse_input(x, dtype)
        if x.shape[-1] != self.base.in_features:
            raise ValueError(f"input has width {x.shape[-1]}; this layer has d_in = {self.base.in_features}")
        h: Tensor = self.base(x)
        if self._merged:
            return h
        factors_x = x.to(dtype)
        if self.path == "dense":
            change = nn.functional.linear(factors_x, self.delta_weight())
        else:
            change = self.change(factors_x) * self.alpha
        return h + change.to(h.dtype)

    @torch.no_grad()
    def merge(self, keep_base: bool = True) -> None:
        """Add ``alpha * dW`` to the base weight, so that forward is the base layer alone.

        Args:
            keep_base: keep a copy of the base weight, so that :meth:`unmerge` restores it bit for
                bit. Without it no copy is held and unmerging subtracts, which leaves a rounding
                error of the weight's dtype: (W + dW) - dW is not W in floating point.

        Raises:
            TypeError: the base's weight cannot be written, see :func:`writable_weight`.
        """
        if self._merged:
            return
        weight = writable_weight(self.base)
        if keep_base:
            self._kept_weight = weight.detach().clone()
        weight.copy_(weight.to(self.factor_dtype) + self.delta_weight())
        self._merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take ``alpha * dW`` out of the base weight again, see :meth:`merge`."""
        if not self._merged:
            return
        writable_weight(self.base).copy_(self._plain_weight())
        self._kept_weight, self._merged = None, False

    def _plain_weight(self) -> Tensor:
        """W itself, while the base holds ``W + alpha * dW``."""
        if self._kept_weight is not None:
            return self._kept_weight
        weight = self.base.weight
        return (weight.to(self.factor_dtype) - self.delta_weight()).to(weight.dtype)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        # What is loaded is W and factors, whole or in part: neither may meet a weight that holds the old change.
        self.unmerge()
        super()._load_from_state_dict(*args, **kwargs)


@torch.no_grad()
def _without_change(layer: AdaptedLinear, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    """A merged layer is saved as W and factors: a layer that loads W + dW and the factors would count dW twice."""
    key = prefix + "base.weight"
    if layer.merged and key in state:
        state[key] = layer._plain_weight().detach().to(state[key].device, copy=True)


class CDVFTLinear(AdaptedLinear):
    """A frozen linear layer with a CDVFT weight change (arXiv 2505.00580).

    Args:
        base: the layer to adapt; it is frozen in place.
        m: number of diagonal factors (m - 1 circulant ones), >= 1; the paper's setting is 2.
        block_size: circulant block size p, >= 1; default ``min(d_in, d_out)``.
        alpha: scale of the weight change.
        convention: "column" or "row".
        init: "zero_diagonal" (default: the last diagonal is zero, the others one, circulant
            vectors normal with variance 1 / d_in of their factor), "zero_circulant" (the last
            circulant is zero, all diagonals one; needs m >= 2) or "random" (no factor is zero:
            dW starts away from zero). The first two start at dW = 0 exactly, with a gradient
            that is not zero.
        path: see :class:`AdaptedLinear`.
        generator: source of the random initial values.

    Raises:
        TypeError, ValueError: see :class:`AdaptedLinear` and :class:`FactorShapes`.
    """

    def __init__(
        self,
        base: nn.Linear,
        m: int = 2,
        block_size: int | None = None,
        alpha: float = 1.0,
        convention: Convention = "column",
        init: Init = "zero_diagonal",
        path: Path = "fft",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(base, alpha, convention, path)
        p = default_block_size(base.in_features, base.out_features) if block_size is None else block_size
        self.shapes = FactorShapes(base.in_features, base.out_features, m, p)
        if init not in get_args(Init):
            raise ValueError(f"init {init!r} is not known; use one of {', '.join(get_args(Init))}")
        if init == "zero_circulant" and m < 2:
            raise ValueError(f"init 'zero_circulant' needs m >= 2, but m = {m} has no circulant factor")
        self.init: Init = init
        self.diagonals = FactorList([self._parameter(*s) for s in self.shapes.diagonals])
        self.circulants = FactorList([self._parameter(*s) for s in self.shapes.circulants])
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the initial factors again, as ``init`` says."""
        for c in self.circulants:
            c.normal_(std=(c.shape[1] * c.shape[2]) ** -0.5, generator=generator)
        for a in self.diagonals:
            a.fill_(1.0)
        if self.init == "random":
            for a in self.diagonals:
                a.normal_(generator=generator)
        elif self.init == "zero_circulant":
            self.circulants[-1].zero_()
        else:
            self.diagonals[-1].zero_()

    def _held(self) -> Factors:
        return self.diagonals(), self.circulants()

    def change(self, x: Tensor) -> Tensor:
        product = cdvft_handwritten if self.path == "handwritten" else cdvft_fft
        return product(x, *self.factors(), self.shapes.d_out, self.convention)

    def delta_weight(self) -> Tensor:
        return self.alpha * cdvft_dense(*self.factors(), self.shapes.d_out, self.convention)

    def extra_repr(self) -> str:
        return f"m={self.shapes.m}, block_size={self.shapes.block_size}, alpha={self.alpha}, path={self.path}"


class BlockCirculantLinear(AdaptedLinear):
    """A frozen linear layer with a block-circulant weight change (BCA, arXiv 2505.00582).

    CDVFT without its diagonals: ``dW`` is one block-circulant factor, ``q_out * q_in * p``
    parameters, starting at zero. The gradient of c is p times a dense layer's, so the paper
    divides the learning rate by p.

    Args:
        base, alpha, convention, path: see :class:`AdaptedLinear`.
        block_size: p, >= 1; default ``min(d_in, d_out)``.
    """

    def __init__(
        self,
        base: nn.Linear,
        block_size: int | None = None,
        alpha: float = 1.0,
        convention: Convention = "column",
        path: Path = "fft",
    ) -> None:
        super().__init__(base, alpha, convention, path)
        p = default_block_size(base.in_features, base.out_features) if block_size is None else block_size
        shape = block_circulant_shape(base.in_features, base.out_features, p)
        self.circulant = self._parameter(*shape)
        nn.init.zeros_(self.circulant)

    def _held(self) -> Factors:
        return (), (self.circulant,)

    def change(self, x: Tensor) -> Tensor:
        product = block_circulant_handwritten if self.path == "handwritten" else block_circulant_fft
        _, (c,) = self.factors()
        return product(x, c, self.base.out_features, self.convention)

    def delta_weight(self) -> Tensor:
        _, (c,) = self.factors()
        return self.alpha * dense_block_circulant(c, self.base.in_features, self.base.out_features, self.convention)

    def extra_repr(self) -> str:
        return f"block_size={self.circulant.shape[-1]}, alpha={self.alpha}, path={self.path}"
