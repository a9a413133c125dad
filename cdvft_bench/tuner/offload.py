"""Bases whose weights are loaded at their call only: accelerate's offloading to the CPU or to disk."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, SequentialHook, remove_hook_from_module
from accelerate.utils import PrefixedDataset, named_module_tensors
from torch import Tensor, nn


def offload_hook(module: nn.Module) -> AlignDevicesHook | None:
    """The hook that loads a module's weights before its call and takes them away after it; None where none does."""
    hook = module.__dict__.get("_hf_hook")
    hooks = [hook]
    while hooks:
        hook = hooks.pop()
        if isinstance(hook, SequentialHook):
            hooks += hook.hooks
        elif isinstance(hook, AlignDevicesHook) and hook.offload:
            return hook
    return None


def execution_device(base: nn.Module) -> torch.device:
    """The device that a layer computes on: its weight's, or the one that an offloaded weight is loaded to."""
    weight: Any = base.weight
    hook = offload_hook(base)
    if weight.is_meta and hook is not None and hook.execution_device is not None:
        return torch.device(hook.execution_device)
    device: torch.device = weight.device
    return device


def loader(modules: Mapping[str, nn.Module], name: str) -> str | None:
    """The module above ``name`` whose call loads the weights of all that is in it, that of ``name`` too; or None.

    Args:
        modules: a model's modules by their names, the model itself as "".
        name: of one of them.
    """
    while name:
        name = name.rpartition(".")[0]
        hook = offload_hook(modules[name])
        if hook is not None and hook.place_submodules:
            return name
    return None


def _tensors(module: nn.Module, hook: AlignDevicesHook) -> dict[str, Tensor]:
    return dict(named_module_tensors(module, include_buffers=hook.offload_buffers, recurse=hook.place_submodules))


@contextmanager
def loaded(modules: Iterable[nn.Module], written: bool = False) -> Iterator[None]:
    """Load the weights of those modules that are offloaded, for use outside of their call.

    Args:
        modules: some modules, each by itself.
        written: the caller writes to the weights, and they are held in the CPU's memory afterwards: what they were
            loaded from (a file, the weights of another model) may not be these modules' alone.
    """
    found = [(module, hook) for module in modules if (hook := offload_hook(module)) is not None]
    # What another context has loaded already stays loaded, and is its to keep.
    found = [(module, hook) for module, hook in found if any(t.is_meta for t in _tensors(module, hook).values())]
    for module, hook in found:
        hook.pre_forward(module)
    try:
        yield
    finally:
        for module, hook in found:
            if written:
                hook.weights_map = {name: tensor.to("cpu") for name, tensor in _tensors(module, hook).items()}
            hook.post_forward(module, torch.empty(0))


def keep_loaded(module: nn.Module) -> None:
    """Load an offloaded module for good: from now on its weights stay on the device that it computes on."""
    hook = offload_hook(module)
    if hook is not None:
        hook.pre_forward(module)
        hook.offload = False  # else taking the hook off would restore the weights that it was given
        remove_hook_from_module(module)


def find_misnamed(factors: nn.ParameterDict) -> None:
    """Load the factors for good that PEFT has put under another name among the weights that are offloaded.

    Where ``PeftModel.from_pretrained`` dispatches a model again whose weights are in safetensors files, it writes
    those of adapters beside them. It takes the last part of a key for the name of a weight, and puts the adapter's
    name before it: the factor ``LAYER.cdvft_first`` becomes ``LAYER.default.cdvft_first``.
    """
    hook = offload_hook(factors)
    if hook is None or not isinstance(hook.weights_map, PrefixedDataset):
        return
    files, (layer, kind) = hook.weights_map.dataset, hook.weights_map.prefix.rstrip(".").rsplit(".", 1)
    given, names = set(files), list(factors)
    if any(f"{layer}.{kind}.{name}" in given or f"{layer}.{name}.{kind}" not in given for name in names):
        return
    hook.weights_map = {name: files[f"{layer}.{name}.{kind}"] for name in names}
    keep_loaded(factors)
