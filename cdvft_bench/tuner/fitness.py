"""What an adapter can be put on, under which name and how executed: checked for all layers before one is touched."""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from cdvft_bench.core.errors import UserError
from cdvft_bench.execution.native import path as native_path
from cdvft_bench.execution.triton import path as triton_path
from cdvft_bench.tuner.config import CdvftConfig
from cdvft_bench.tuner.layer import CdvftLayer, Settings, settings_of, widths
from cdvft_bench.tuner.offload import loader
from cdvft_reference.circulant import compute_dtype


def base_of(module: nn.Module) -> nn.Module:
    """The layer below the adapters of a layer; the layer itself where it has none."""
    base: nn.Module = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    return base


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


def check_layer(config: CdvftConfig, key: str, modules: Mapping[str, nn.Module]) -> None:
    """See that an adapter of this configuration can be put on a layer, and that it will have its effect there.

    Args:
        config: the configuration. key: the layer's name. modules: of the whole model, by name, itself as "".

    Raises:
        UserError, TypeError: it cannot; the message names the layer and the reason.
    """
    base = base_of(modules[key])
    settings = resolve_settings(config, key, base)
    reason = _unread(modules, key) or _misfit(settings, base)
    if reason:
        raise UserError(f"{key}: {reason}")
    weight: Any = base.weight
    above = loader(modules, key) if weight.is_meta else None
    if above is not None:
        raise UserError(
            f"{key}: its weight is offloaded together with {above or 'the whole model'}, which knows "
            "nothing of an adapter; add the adapter before offloading"
        )


def _unread(modules: Mapping[str, nn.Module], key: str) -> str:
    """Why an adapter on a layer would have no effect: its owner reads its weight instead of calling it; or empty."""
    above, _, name = key.rpartition(".")
    owner = modules[above]
    if isinstance(owner, nn.MultiheadAttention) and name == "out_proj":
        return (
            "torch.nn.MultiheadAttention reads the weight of its out_proj without calling it; leave it out with "
            "exclude_modules"
        )
    if isinstance(owner, nn.TransformerEncoderLayer) and name in ("linear1", "linear2") and _has_fast_path(owner):
        return (
            "in evaluation torch.nn.TransformerEncoderLayer reads this weight on its fast path without calling the "
            "layer: the adapter would have no effect there; leave it out with exclude_modules, or call "
            "torch.backends.mha.set_fastpath_enabled(False) first, in every process that uses the model"
        )
    return ""


def _has_fast_path(owner: nn.TransformerEncoderLayer) -> bool:
    """Whether some input may take torch's fast path: what its forward asks of the layer alone."""
    attention: Any = owner.self_attn
    return (
        torch.backends.mha.get_fastpath_enabled()
        and attention.batch_first
        and attention.in_proj_bias is not None
        and attention._qkv_same_embed_dim
        and attention.num_heads % 2 == 0
        and bool(owner.activation_relu_or_gelu)
        and owner.norm1.eps == owner.norm2.eps
    )


def _misfit(settings: Settings, base: nn.Module) -> str:
    """Why a named path cannot execute a layer on any device of this machine; empty where it can."""
    shapes, weight = settings.shapes, base.weight
    count = len(shapes.circulants)
    if settings.path not in ("native", "triton") or not count:
        return ""
    floating = isinstance(weight, torch.Tensor) and weight.dtype.is_floating_point
    given: torch.dtype = weight.dtype if floating else torch.float32  # type: ignore[assignment]
    q_out, q_in, p = shapes.circulants[0]
    factors = compute_dtype(given)
    if settings.path == "native":
        reason = native_path.misfit(torch.device("cpu"), factors, p, count)
    else:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # 16-bit activations, which autocast may bring, fit where float32 does not.
        reasons = [
            triton_path.misfit(device, factors, activations, (q_out, q_in), p, count)
            for activations in (given, torch.bfloat16)
        ]
        reason = reasons[0] if all(reasons) else ""
    return f"path {settings.path!r} cannot execute this layer: {reason}; use 'auto'" if reason else ""


_RESERVED = frozenset(
    {*dir(nn.ParameterDict()), *dir(nn.ModuleDict()), *CdvftLayer.adapter_layer_names}
    | {"__base__", "base_model", "model", "base_layer", "modules_to_save", "original_module", "token_adapter"}
)
"""What torch's dictionaries, PEFT and this method call parts of their own."""


def _own_names(module: nn.Module) -> Iterator[str]:
    """The names of all modules, parameters and buffers of a model, each by itself, without its adapters'."""
    skipped: tuple[str, ...] = ()
    if isinstance(module, BaseTunerLayer):
        skipped = (*module.adapter_layer_names, *module.other_param_names)
    elif isinstance(module, AuxiliaryTrainingWrapper):
        skipped = ("modules_to_save", "token_adapter")
    for name, child in module.named_children():
        if name not in skipped:
            yield name
            yield from _own_names(child)
    for name in (*module._parameters, *module._buffers):
        yield name


def check_name(adapter_name: str, model: nn.Module) -> None:
    """See that an adapter's name can be told from all other names in the keys of a state dictionary.

    PEFT leaves out of a saved adapter what has another adapter's name as a part of its key: beside an adapter "mlp",
    one on ``mlp.0`` would lose its tensors.

    Raises:
        UserError: it cannot.
    """
    if not isinstance(adapter_name, str) or not adapter_name or adapter_name in (".", ".."):
        raise UserError(f"adapter name {adapter_name!r} is no name; give some text")
    wrong = sorted({c for c in adapter_name if c in "./\\\0"})
    if wrong:
        raise UserError(
            f"adapter name {adapter_name!r} has a {wrong[0]!r}, and names a key of the model's tensors and a folder; "
            "use letters, digits, - and _"
        )
    if adapter_name in _RESERVED:
        raise UserError(f"adapter name {adapter_name!r} is taken by torch or PEFT for a part of their own; use another")
    if adapter_name in _own_names(model):
        raise UserError(
            f"adapter name {adapter_name!r} is also the name of a part of the model, and PEFT would take tensors of "
            "that part for this adapter's when it saves; use another"
        )


def check_saved(config: CdvftConfig) -> None:
    """See that no module to save is taken for a part of an adapted layer: PEFT looks at how names end.

    Raises:
        UserError: one is.
    """
    for name in config.modules_to_save or ():
        taken = [part for part in (*CdvftLayer.adapter_layer_names, "base_layer") if part.endswith(name)]
        if taken:
            raise UserError(
                f"modules_to_save: PEFT would take {taken[0]!r}, a part of every adapted layer, for {name!r}, since it "
                f"ends so; put the name of its owner before it, OWNER.{name}, or rename the module"
            )


def warn_of_unused(config: CdvftConfig, adapted: Iterable[str]) -> None:
    """Warn of patterns of a configuration that match none of the adapted layers."""
    keys = list(adapted)
    for option in ("block_size_pattern", "m_pattern"):
        unused = sorted(p for p in getattr(config, option) if not any(matches(p, key) for key in keys))
        if unused and keys:
            warnings.warn(f"{option}: {', '.join(unused)} matches no adapted layer and has no effect", stacklevel=2)
