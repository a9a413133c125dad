"""The model wrapper: finds the layers to adapt, checks them all before it touches one, and puts adapters in."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from cdvft_bench.core.errors import UserError
from cdvft_bench.tuner.config import CdvftConfig
from cdvft_bench.tuner.layer import CdvftLayer, CdvftLinear, Settings, settings_of, widths
from cdvft_bench.tuner.offload import loader

DEFAULT_TARGETS: dict[str, list[str] | str] = {
    # Models that PEFT's table for LoRA lacks and its tables for other methods have; the same layers, by their names
    # before and from transformers 5.
    "dinov2": ["query", "value", "q_proj", "v_proj"],
    "vit": ["query", "value", "q_proj", "v_proj"],
    "llava": r".*language_model\..*\.(q_proj|v_proj)",
    **TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
}
"""The layers that are adapted where ``target_modules`` is not given, by the model's type."""


def matches(pattern: str, key: str) -> bool:
    """Whether a pattern, a name or regular expression, ends the module's name ``key``."""
    return re.match(rf"(.*\.)?({pattern})$", key) is not None


def resolve_settings(config: CdvftConfig, key: str, layer: nn.Module) -> Settings:
    """The settings of a configuration on the layer named ``key``, patterns taken into account.

    Raises:
        UserError: the block size exceeds the layer. TypeError: the layer is of a kind that cannot be adapted.
    """

    def value(patterns: Mapping[str, int]) -> int | None:
        return next((number for pattern, number in patterns.items() if matches(pattern, key)), None)

    try:
        m, p = value(config.m_pattern), value(config.block_size_pattern)
        d_in, d_out = widths(layer)
        return settings_of(config, m or config.m, p or config.block_size, d_in, d_out)
    except (UserError, TypeError) as error:
        raise type(error)(f"{key}: {error}") from error


def _warn_of_unused(config: CdvftConfig, adapted: Iterable[str]) -> None:
    keys = list(adapted)
    for option in ("block_size_pattern", "m_pattern"):
        unused = sorted(p for p in getattr(config, option) if not any(matches(p, key) for key in keys))
        if unused and keys:
            warnings.warn(f"{option}: {', '.join(unused)} matches no adapted layer and has no effect", stacklevel=2)


def _expansion(model: nn.Module, call: Mapping[str, Any]) -> int:
    """How often a call of generate repeats every sample: once a beam, or once a returned sequence."""
    configs = [c for c in (call.get("generation_config"), getattr(model, "generation_config", None)) if c is not None]
    sources = [call, *(vars(c) for c in configs)]
    numbers = [next((s[n] for s in sources if s.get(n) is not None), 1) for n in ("num_beams", "num_return_sequences")]
    return max(numbers)


SAVES_BIASES = hasattr(BaseTuner, "_get_learnable_bias_state_dict")
"""Whether this version of PEFT saves the trained biases of a method that it does not know; 0.21 does, 0.19 does not."""


class CdvftModel(BaseTuner):
    """CDVFT adapters in a pretrained model; made by ``peft.get_peft_model(model, CdvftConfig(...))``."""

    prefix: str = "cdvft_"
    tuner_layer_cls = CdvftLayer
    target_module_mapping = DEFAULT_TARGETS

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Put an adapter in, the first or a further one, unless some layer does not fit: then no layer is touched."""
        self._check_fit(model, self.peft_config[adapter_name], kwargs.get("state_dict"))
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def _check_fit(self, model: nn.Module, config: CdvftConfig, state_dict: Mapping[str, Any] | None) -> None:
        prepared = self._prepare_adapter_config(config, self.get_model_config(model))
        prepared = _maybe_include_all_linear_layers(copy.copy(prepared), model)
        modules = dict(model.named_modules())
        named = {key.rsplit(f".{self.prefix}", 1)[0].removeprefix("_orig_mod.") for key in state_dict or ()}
        inside = tuple(f"{key}." for key, module in modules.items() if isinstance(module, BaseTunerLayer))
        adapted = []
        for key, module in modules.items():
            if not key or key.startswith(inside):
                continue
            if key in named if state_dict is not None else self._check_target_module_exists(prepared, key):
                resolve_settings(prepared, key, _base(module))
                above = loader(modules, key) if _base(module).weight.is_meta else None
                if above is not None:
                    raise UserError(f"{key}: its weight is offloaded together with {above or 'the whole model'}, which "
                                    "knows nothing of an adapter; add the adapter before offloading")  # fmt: skip
                adapted.append(key)
        _warn_of_unused(prepared, adapted)
        if config.bias != "none" and not SAVES_BIASES:
            warnings.warn(
                f"this version of PEFT does not save trained biases (bias={config.bias!r}); install peft 0.21, or "
                "merge before saving",
                stacklevel=2,
            )

    def _create_and_replace(
        self,
        config: CdvftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        settings = resolve_settings(config, current_key, _base(target))
        if isinstance(target, CdvftLinear):
            target.update_layer(adapter_name, settings, config)
            return
        module = CdvftLinear(target, adapter_name, settings, config)
        if adapter_name not in self.active_adapters:
            module.requires_grad_(False)  # a further adapter is not trained until it is set active
        self._replace_module(parent, target_name, module, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        if isinstance(new_module, CdvftLinear):
            setattr(parent, child_name, new_module)  # PEFT would move its factors to an offloaded weight's device: none
        else:
            super()._replace_module(parent, child_name, new_module, child)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Hand ``adapter_names`` of a forward or generate call to every adapted layer and every module to save."""
        names = kwargs.pop("adapter_names", None)
        if names is None:
            yield
            return
        if self.training:
            raise ValueError("adapter_names mixes adapters in a batch for inference only; call model.eval() first")
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise TypeError(f"adapter_names is a {type(names).__name__}; give a list with one name a sample")
        known = {n for m in self.modules() if isinstance(m, CdvftLayer) for n in m.cdvft_settings} | {"__base__"}
        unknown = sorted(set(names) - known)
        if unknown:
            raise ValueError(f"adapter_names has {', '.join(unknown)}, but the model has {', '.join(sorted(known))}")
        repeats = _expansion(self.model, kwargs)

        def add(module: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            # An encoder sees every sample once, a decoder that searches with beams sees it once a beam.
            repeated = bool(given) and repeats > 1 and len(given[0]) == len(names) * repeats
            mine = [name for name in names for _ in range(repeats)] if repeated else list(names)
            return given, {**options, "adapter_names": mine}

        mixed = [m for m in self.modules() if isinstance(m, CdvftLayer | AuxiliaryTrainingWrapper)]
        hooks = [module.register_forward_pre_hook(add, with_kwargs=True) for module in mixed]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _base(module: nn.Module) -> nn.Module:
    base: nn.Module = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    return base
