"""The model wrapper: finds the layers to adapt, checks them all before it touches one, and puts adapters in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn

from cdvft_bench.errors import UserError
from cdvft_bench.tuner.config import CdvftConfig
from cdvft_bench.tuner.layer import CdvftLayer, CdvftLinear, Settings, settings_of, widths


def _matching(patterns: Mapping[str, int], key: str, default: int | None) -> int | None:
    """The value of the first pattern, a name or regular expression, that ends the module's name."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", key):
            return value
    return default


class CdvftModel(BaseTuner):
    """CDVFT adapters in a pretrained model; made by ``peft.get_peft_model(model, CdvftConfig(...))``."""

    prefix: str = "cdvft_"
    tuner_layer_cls = CdvftLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def _settings(self, config: CdvftConfig, target: nn.Module, key: str) -> Settings:
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        try:
            d_in, d_out = widths(base)
            m = _matching(config.m_pattern, key, config.m)
            p = _matching(config.block_size_pattern, key, config.block_size)
            return settings_of(config, m or config.m, p, d_in, d_out)
        except UserError as error:
            raise UserError(f"{key}: {error}") from error
        except TypeError as error:
            raise TypeError(f"{key}: {error}") from error

    def _pre_injection_hook(self, model: nn.Module, config: CdvftConfig, adapter_name: str) -> None:
        # One layer that does not fit must not leave a model that is adapted by half.
        prepared = self._prepare_adapter_config(config, self.get_model_config(model))
        if prepared.target_modules == "all-linear":
            return  # PEFT resolves it to linear layers alone
        for key, module in model.named_modules():
            if not key or isinstance(module, nn.ParameterDict) or self.prefix in key:
                continue
            inside_adapter = ".base_layer" in key
            if not inside_adapter and self._check_target_module_exists(prepared, key):
                self._settings(prepared, module, key)

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
        settings = self._settings(config, target, current_key)
        if isinstance(target, CdvftLinear):
            target.update_layer(adapter_name, settings, config)
            return
        module = CdvftLinear(target, adapter_name, settings, config)
        if adapter_name not in self.active_adapters:
            module.requires_grad_(False)  # a further adapter is not trained until it is set active
        self._replace_module(parent, target_name, module, target)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Hand ``adapter_names`` of a forward call to every adapted layer."""
        names = kwargs.pop("adapter_names", None)
        if names is None:
            yield
            return
        if self.training:
            raise ValueError("adapter_names mixes adapters in a batch for inference only; call model.eval() first")
        layers = [layer for layer in self.modules() if isinstance(layer, CdvftLayer)]
        known = {name for layer in layers for name in layer.cdvft_settings} | {"__base__"}
        unknown = sorted(set(names) - known)
        if unknown:
            raise ValueError(f"adapter_names has {', '.join(unknown)}, but the model has {', '.join(sorted(known))}")

        def add(names: list[str], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, {**kwargs, "adapter_names": names}

        hooks = [layer.register_forward_pre_hook(partial(add, list(names)), with_kwargs=True) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
