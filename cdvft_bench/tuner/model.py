"""The model wrapper: finds the layers to adapt, checks them all before it touches one, and puts adapters in."""

import copy
import warnings
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from cdvft_bench.core.errors import UserError
from cdvft_bench.tuner.config import CdvftConfig, check_supported
from cdvft_bench.tuner.fitness import base_of, check_layer, check_name, check_saved, resolve_settings, warn_of_unused
from cdvft_bench.tuner.layer import CdvftLayer, CdvftLinear

# Models that PEFT's table for LoRA lacks and its tables for other methods have; the same layers, by their names before
# and from transformers 5.
_BESIDE: dict[str, list[str] | str] = {
    "dinov2": ["query", "value", "q_proj", "v_proj"],
    "vit": ["query", "value", "q_proj", "v_proj"],
    "llava": r".*language_model\..*\.(q_proj|v_proj)",
}
DEFAULT_TARGETS: Mapping[str, list[str] | str] = MappingProxyType(
    ChainMap(TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, _BESIDE)
)
"""The layers that are adapted where ``target_modules`` is not given, by the model's type: PEFT's table for LoRA, as
it is when it is asked, then those of this module."""


def _expansion(model: nn.Module, call: Mapping[str, Any]) -> int:
    """How often a call of generate repeats every sample: once a beam, or once a returned sequence."""
    configs = [c for c in (call.get("generation_config"), getattr(model, "generation_config", None)) if c is not None]
    sources = [call, *(vars(c) for c in configs)]
    numbers = [next((s[n] for s in sources if s.get(n) is not None), 1) for n in ("num_beams", "num_return_sequences")]
    return max(numbers)


SAVES_BIASES = hasattr(BaseTuner, "_get_learnable_bias_state_dict")
"""Whether this version of PEFT saves the trained biases of a method that it does not know; 0.21 does, 0.19 does not."""

TELLS_FACTORS = hasattr(BaseTuner, "_remap_adapter_state_dict_for_load")
"""Whether this version of PEFT tells factors from modules whose names begin as theirs; 0.21 does, 0.19 does not."""


class CdvftModel(BaseTuner):
    """CDVFT adapters in a pretrained model; made by ``peft.get_peft_model(model, CdvftConfig(...))``."""

    prefix: str = "cdvft_"
    tuner_layer_cls = CdvftLayer
    target_module_mapping = DEFAULT_TARGETS

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Put an adapter in, the first or a further one, unless some layer does not fit: then no layer is touched."""
        check_name(adapter_name, model)
        self._check_fit(model, self.peft_config[adapter_name], kwargs.get("state_dict"))
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def _check_fit(self, model: nn.Module, config: CdvftConfig, state_dict: Mapping[str, Any] | None) -> None:
        check_supported(config)
        check_saved(config)
        prepared = self._prepare_adapter_config(config, self.get_model_config(model))
        prepared = _maybe_include_all_linear_layers(copy.copy(prepared), model)
        modules = dict(model.named_modules())
        named = {key.rsplit(f".{self.prefix}", 1)[0].removeprefix("_orig_mod.") for key in state_dict or ()}
        inside = tuple(f"{key}." for key, module in modules.items() if isinstance(module, BaseTunerLayer))

        def is_meant(key: str) -> bool:
            return key in named if state_dict is not None else bool(self._check_target_module_exists(prepared, key))

        adapted = [key for key in modules if key and not key.startswith(inside) and is_meant(key)]
        for key in adapted:
            check_layer(prepared, key, modules)
        warn_of_unused(prepared, adapted)
        alike = [key for key in modules if f".{self.prefix}" in f".{key}" and not key.startswith(inside)]
        if alike and not TELLS_FACTORS:
            warnings.warn(
                f"this version of PEFT takes {alike[0]!r} for a factor of an adapter, by its name, when it saves and "
                "loads; install peft 0.21, or rename it",
                stacklevel=2,
            )
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
        settings = resolve_settings(config, current_key, base_of(target))
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

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter from every layer, from those in modules whose names start as the factors' do, too."""
        super().delete_adapter(adapter_name)
        for layer in self._layers():
            if adapter_name in layer.cdvft_settings:
                layer.delete_adapter(adapter_name)

    def _layers(self) -> list[CdvftLayer]:
        return [module for module in self.model.modules() if isinstance(module, CdvftLayer)]

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Add the change of the active (or named) adapters to the weights of all layers, or to none.

        Args:
            adapter_names: which; None is all active ones.
            safe_merge: refuse where a result is not finite.

        Raises:
            ValueError: ``safe_merge`` found a value that is not finite. TypeError: a base's weight cannot be written.
        """
        self._check_merge_allowed()
        self._check_merge(safe_merge, adapter_names)
        for layer in self._layers():
            layer.merge(safe_merge=False, adapter_names=adapter_names)

    def unmerge_adapter(self) -> None:
        """Take merged changes out of all layers again."""
        for layer in self._layers():
            layer.unmerge()

    def _check_merge(self, safe_merge: bool, adapter_names: list[str] | None) -> None:
        for layer in self._layers():
            layer.check_merge(safe_merge, adapter_names)

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> nn.Module:
        if merge:
            self._check_merge(safe_merge, adapter_names)
        unloaded: nn.Module = super()._unload_and_optionally_merge(merge, progressbar, False, adapter_names)
        return unloaded

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Refused: a product of factors has no weighted sum of the same form.

        Raises:
            UserError: always.
        """
        raise UserError(
            "add_weighted_adapter is not supported by CDVFT: the sum of two changes is not one of the same factors; "
            "activate both, model.base_model.set_adapter([...]), which adds their changes, or make LoRA of each by "
            "peft.convert_to_lora and combine those"
        )

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Hand ``adapter_names`` of a forward or generate call to every adapted layer and every module to save."""
        names = kwargs.pop("adapter_names", None)
        if names is None:
            yield
            return
        if self.training:
            raise ValueError("Cannot pass `adapter_names` when the model is in training mode. Call model.eval() first")
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
