"""Adapted layers: a frozen ``nn.Linear`` or GPT-2 ``Conv1D`` with one or several CDVFT adapters."""

import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D

from cdvft_bench.core.errors import UserError
from cdvft_bench.execution.base import is_plain, own_forwards
from cdvft_bench.execution.mixed import mixed_change
from cdvft_bench.execution.paths import change, run_layer
from cdvft_bench.tuner.config import CdvftConfig
from cdvft_bench.tuner.offload import execution_device, find_misnamed, keep_loaded, loaded, offload_hook
from cdvft_reference.cdvft import FactorShapes, cdvft_dense
from cdvft_reference.circulant import compute_dtype, dense_block_circulant
from cdvft_reference.layer import writable_weight

PLAIN = own_forwards(nn.Linear, Conv1D)
"""The bases that may be executed by their weight, where nothing is attached to them."""


@dataclass(frozen=True)
class Settings:
    """What one adapter is on one layer: its factors' shapes, and the configuration's scale, convention and path."""

    shapes: FactorShapes
    diagonals: bool
    alpha: float
    convention: Any
    path: str


def widths(layer: nn.Module) -> tuple[int, int]:
    """d_in and d_out of a layer that can be adapted: linear, quantised linear, or Conv1D.

    Raises:
        TypeError: it is neither a linear layer nor a Conv1D, or its weight is used without calling it.
    """
    if isinstance(layer, NonDynamicallyQuantizableLinear):
        raise TypeError(
            "torch.nn.MultiheadAttention reads the weight of its out_proj without calling it: an adapter there would "
            "have no effect; leave it out with exclude_modules"
        )
    if isinstance(layer, Conv1D):
        d_in, d_out = getattr(layer.weight, "ds_shape", layer.weight.shape)  # under ZeRO-3 the weight itself is empty
        return int(d_in), int(d_out)
    if isinstance(layer, nn.Linear):  # quantised layers are subclasses, or hold a quantised weight
        return layer.in_features, layer.out_features
    raise TypeError(
        f"a {type(layer).__name__} cannot be adapted; target torch.nn.Linear or transformers' Conv1D layers"
    )


def settings_of(config: CdvftConfig, m: int, block_size: int | None, d_in: int, d_out: int) -> Settings:
    """The settings of a configuration on a layer.

    Raises:
        UserError: the block size exceeds the layer.
    """
    p = min(d_in, d_out) if block_size is None else block_size
    if p > max(d_in, d_out):
        raise UserError(
            f"block_size = {p} is larger than a layer of {d_in} x {d_out}; give at most {max(d_in, d_out)}, or leave "
            "the layer out"
        )
    shapes = FactorShapes(d_in, d_out, m if config.diagonals else 2, p)
    return Settings(shapes, config.diagonals, float(config.alpha), config.convention, config.path)


class Factors(nn.ParameterDict):
    """Factors of one kind by adapter. Calling it gives one, so that what loads weights at a forward loads these."""

    def __call__(self, adapter_name: str) -> Tensor:  # torch's dictionary refuses to be called
        if "_hf_hook" in self.__dict__:
            find_misnamed(self)
        return self.forward(adapter_name)

    def forward(self, adapter_name: str) -> Tensor:
        held = self._parameters.get(adapter_name)
        factor: Tensor = self[adapter_name] if held is None else held  # a parametrised one is held elsewhere
        return factor


def _warn_of_lost_gradient(gradient: Tensor) -> None:
    warnings.warn(
        "the factors of an adapter are offloaded, so their gradients are lost with the copies they were loaded to; "
        "add the adapter to the offloaded base model instead: its factors then stay on the device that computes",
        stacklevel=2,
    )


class CdvftLayer(BaseTunerLayer):
    """Parameters of the adapters of one layer, each kind a dictionary by adapter name.

    Equal shapes are stacked: ``cdvft_first`` (d_in,) is a_1, ``cdvft_last`` (m - 1, d_out) the other diagonals,
    ``cdvft_circulant`` (q_out, q_in, p) the first circulant factor, ``cdvft_circulants`` (m - 2, q_out, q_out, p) the
    others. An adapter has only those that its m and kind call for. Factors are float32 on 16-bit and quantised bases.
    """

    adapter_layer_names = ("cdvft_first", "cdvft_last", "cdvft_circulant", "cdvft_circulants")
    other_param_names = ("cdvft_settings",)

    def __init__(self, base_layer: nn.Module, **kwargs: Any) -> None:
        self.base_layer = base_layer
        self.cdvft_first = Factors({})
        self.cdvft_last = Factors({})
        self.cdvft_circulant = Factors({})
        self.cdvft_circulants = Factors({})
        self.cdvft_settings: dict[str, Settings] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.kwargs = kwargs
        self.in_features, self.out_features = widths(self.get_base_layer())

    def update_layer(self, adapter_name: str, settings: Settings, config: CdvftConfig) -> None:
        """Add an adapter, or replace the one of that name."""
        weight = self.get_base_layer().weight
        dtype = compute_dtype(weight.dtype) if weight.dtype.is_floating_point else torch.float32
        device = execution_device(self.get_base_layer())
        shapes = settings.shapes
        self.cdvft_settings[adapter_name] = settings

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, dtype=dtype, device=device))

        for held in (self.cdvft_first, self.cdvft_last, self.cdvft_circulant, self.cdvft_circulants):
            keep_loaded(held)  # the hook that offloads it knows nothing of a further adapter
            if adapter_name in held:
                del held[adapter_name]
        if settings.diagonals:
            self.cdvft_first[adapter_name] = parameter(shapes.d_in)
            if shapes.m > 1:
                self.cdvft_last[adapter_name] = parameter(shapes.m - 1, shapes.d_out)
        if shapes.m > 1:
            self.cdvft_circulant[adapter_name] = parameter(*shapes.circulants[0])
        if shapes.m > 2:
            self.cdvft_circulants[adapter_name] = parameter(shapes.m - 2, *shapes.circulants[1])
        self.reset_parameters(adapter_name, config.init)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @torch.no_grad()
    def reset_parameters(self, adapter_name: str, init: str) -> None:
        """Draw the initial factors, as ``cdvft_reference.CDVFTLinear`` does."""
        diagonals, circulants = self._stored(adapter_name)
        if not diagonals:
            circulants[0].normal_(std=self._deviation(circulants[0])) if init == "random" else circulants[0].zero_()
            return
        for c in circulants:
            c.normal_(std=self._deviation(c))
        for a in diagonals:
            a.normal_() if init == "random" else a.fill_(1.0)
        if init == "zero_circulant":
            circulants[-1].zero_()
        elif init == "zero_diagonal":
            diagonals[-1].zero_()

    @staticmethod
    def _deviation(c: Tensor) -> float:
        return float(c.shape[1] * c.shape[2]) ** -0.5

    def factors(self, adapter_name: str) -> tuple[list[Tensor], list[Tensor]]:
        """The diagonals and the circulant factors of an adapter, in the order in which they are applied.

        They are at least float32, even where the whole model was cast to 16 bit afterwards: no FFT takes bfloat16.

        Raises:
            ValueError: there is no such adapter on this layer.
        """
        diagonals, circulants = self._stored(adapter_name)
        if all(t.dtype is torch.float32 for t in (*diagonals, *circulants)):
            return diagonals, circulants
        return [a.to(compute_dtype(a.dtype)) for a in diagonals], [c.to(compute_dtype(c.dtype)) for c in circulants]

    def _stored(self, adapter_name: str) -> tuple[list[Tensor], list[Tensor]]:
        """The factors as they are held: views of the parameters, in the parameters' dtype."""
        if adapter_name not in self.cdvft_settings:
            raise ValueError(f"adapter {adapter_name!r} is not on this layer; it has {', '.join(self.cdvft_settings)}")
        settings = self.cdvft_settings[adapter_name]
        held: Any = self._modules  # attributes of modules are looked for in Python, at every call
        m, diagonals, circulants = settings.shapes.m, [], []
        if settings.diagonals:
            diagonals.append(self._factor(held["cdvft_first"], adapter_name))
        if settings.diagonals and m > 1:
            last = self._factor(held["cdvft_last"], adapter_name)
            diagonals += (last.view(-1),) if m == 2 else last.unbind(0)
        if m > 1:
            circulants.append(self._factor(held["cdvft_circulant"], adapter_name))
        if m > 2:
            circulants += self._factor(held["cdvft_circulants"], adapter_name).unbind(0)
        return diagonals, circulants

    @staticmethod
    def _factor(held: Factors, adapter_name: str) -> Tensor:
        factor = held(adapter_name)
        kept = held._parameters.get(adapter_name, factor)
        if kept is not factor and factor.requires_grad and torch.is_grad_enabled():  # loaded for this call alone
            factor.register_hook(_warn_of_lost_gradient)
        return factor

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """As PEFT's, to the device that the base computes on: an offloaded weight is on none."""
        super()._move_adapter_to_device_of_base_layer(adapter_name, device or execution_device(self.get_base_layer()))

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """``alpha dW`` in the base weight's orientation, at least float32."""
        diagonals, circulants = self.factors(adapter_name)
        s = self.cdvft_settings[adapter_name]
        if diagonals:
            dense = cdvft_dense(diagonals, circulants, self.out_features, s.convention)
        else:
            dense = dense_block_circulant(circulants[0], self.in_features, self.out_features, s.convention)
        dense = dense * s.alpha
        return dense.T if isinstance(self.get_base_layer(), Conv1D) else dense

    def delete_adapter(self, adapter_name: str) -> None:
        super().delete_adapter(adapter_name)
        self.cdvft_settings.pop(adapter_name, None)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True


class CdvftLinear(nn.Module, CdvftLayer):
    """A linear layer or Conv1D with CDVFT adapters."""

    base_layer: Any
    get_base_layer: Any
    active_adapters: list[str]
    _active_adapter: Any

    def __init__(
        self, base_layer: nn.Module, adapter_name: str, settings: Settings, config: CdvftConfig, **kwargs: Any
    ) -> None:
        super().__init__()
        CdvftLayer.__init__(self, base_layer, **kwargs)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, settings, config)

    def forward(self, x: Tensor, *args: Any, adapter_names: list[str] | None = None, **kwargs: Any) -> Tensor:
        """(..., d_in) to (..., d_out); ``adapter_names``, one a sample, mixes adapters in a batch."""
        if self.disable_adapters:
            if self.merged:
                self.unmerge()
            return self.base_layer(x, *args, **kwargs)
        if adapter_names is not None:
            return self._mixed_batch(x, adapter_names, *args, **kwargs)
        if self.merged:
            return self.base_layer(x, *args, **kwargs)
        active = [name for name in self.active_adapters if name in self.cdvft_settings]
        base: Any = self._modules["base_layer"]
        if len(active) == 1 and is_plain(base, x, PLAIN):
            return self._whole(x, active[0])
        h = self.base_layer(x, *args, **kwargs)
        for name in active:
            h = h + self._change(x, name).to(h.device, h.dtype)
        return h

    def _whole(self, x: Tensor, name: str) -> Tensor:
        base: Any = self._modules["base_layer"]
        weight, bias = base._parameters["weight"], base._parameters["bias"]
        weight = weight.t() if isinstance(base, Conv1D) else weight
        diagonals, circulants = self.factors(name)
        s = self.cdvft_settings[name]  # of a configuration, which checked path and convention
        return run_layer(x, weight, bias, diagonals, circulants, s.alpha, s.path, s.convention)

    def _change(self, x: Tensor, name: str) -> Tensor:
        diagonals, circulants = self.factors(name)
        s = self.cdvft_settings[name]
        x = x.to((*diagonals, *circulants)[0].device)  # the base may have brought it elsewhere at its call
        return change(x, diagonals, circulants, self.out_features, alpha=s.alpha, path=s.path, convention=s.convention)

    def _mixed_batch(self, x: Tensor, adapter_names: list[str], *args: Any, **kwargs: Any) -> Tensor:
        if len(x) != len(adapter_names):
            raise ValueError(  # this and the others as PEFT says it, for who matches its words
                "Length of `adapter_names` should be the same as the number of inputs, but got "
                f"{len(adapter_names)} and {len(x)} respectively; give one a sample"
            )
        if self.merged:
            raise ValueError(
                "Cannot pass `adapter_names` when there are merged adapters, please call `unmerge_adapter` first."
            )
        h = self.base_layer(x, *args, **kwargs)
        alike: dict[Settings, dict[str, int]] = {}
        for name in sorted(set(adapter_names) & set(self.cdvft_settings)):
            known = alike.setdefault(self.cdvft_settings[name], {})
            known[name] = len(known)
        for settings, known in alike.items():
            h = h + self._changes(x, settings, known, adapter_names).to(h.device, h.dtype)
        return h

    def _changes(self, x: Tensor, settings: Settings, known: dict[str, int], adapter_names: list[str]) -> Tensor:
        """The change of each sample's adapter, of those ``known`` (and numbered), which have the same settings."""

        def banks(held: Factors) -> list[Tensor]:
            return [torch.stack([self._factor(held, name) for name in known])] if next(iter(known)) in held else []

        diagonals = banks(self.cdvft_first) + [a for last in banks(self.cdvft_last) for a in last.unbind(1)]
        circulants = banks(self.cdvft_circulant) + [c for rest in banks(self.cdvft_circulants) for c in rest.unbind(1)]
        x = x.to((*diagonals, *circulants)[0].device)
        adapters = torch.tensor([known.get(name, -1) for name in adapter_names], device=x.device)
        path = "fft" if settings.path == "fft" else "auto"  # no other is of mixed batches, or of all of them
        return mixed_change(
            x,
            adapters,
            diagonals,
            circulants,
            self.out_features,
            alpha=settings.alpha,
            path=path,
            convention=settings.convention,
        )

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the change of the active (or named) adapters to the base weight.

        Args:
            safe_merge: refuse, and leave the weight alone, where the result is not finite.
            adapter_names: which; None is all active ones.

        Raises:
            ValueError: ``safe_merge`` found a value that is not finite. TypeError: the base's weight cannot be written.
        """
        names = self._to_merge(adapter_names)
        if not names:
            return
        with self._loaded(written=True):
            weight = writable_weight(self.get_base_layer())
            weight.copy_(self._with_changes(weight, names, safe_merge))
        self.merged_adapters += names

    @torch.no_grad()
    def check_merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Raise what :meth:`merge` would, and write nothing."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # merge itself warns of what is merged already
            names = self._to_merge(adapter_names)
        if names and safe_merge:
            with self._loaded():
                self._with_changes(writable_weight(self.get_base_layer()), names, safe_merge)
        elif names and offload_hook(self.get_base_layer()) is None:  # reading a weight from disk takes its time
            writable_weight(self.get_base_layer())

    def _to_merge(self, adapter_names: list[str] | None) -> list[str]:
        asked = dict.fromkeys(check_adapters_to_merge(self, adapter_names))
        return [name for name in asked if name in self.cdvft_settings]

    def _loaded(self, written: bool = False) -> AbstractContextManager[None]:
        return loaded((self, *self.base_layer.modules()), written)

    def _with_changes(self, weight: Tensor, names: list[str], safe_merge: bool) -> Tensor:
        """A weight with the changes of adapters, each rounded to the weight's dtype."""
        for name in names:
            wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
            weight = (wide + self.get_delta_weight(name).to(weight.device)).to(weight.dtype)
            if safe_merge and not torch.isfinite(weight).all():
                raise ValueError(
                    f"NaNs detected in the merged weights. The adapter {name} seems to be broken: with it they have "
                    "values that are not finite; nothing was merged"
                )
        return weight

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take merged changes out again, up to the rounding of the weight's dtype."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        with self._loaded(written=True):
            weight = writable_weight(self.get_base_layer())
            while self.merged_adapters:
                name = self.merged_adapters.pop()
                if name in self.cdvft_settings:
                    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
                    weight.copy_((wide - self.get_delta_weight(name).to(weight.device)).to(weight.dtype))

    def __repr__(self) -> str:
        return "cdvft." + super().__repr__()
