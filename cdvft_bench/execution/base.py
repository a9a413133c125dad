"""Which frozen layers may be executed by their weight: the one rule of every layer that adapts another.

A path that runs base and change in one go reads ``weight`` and never calls the base. That is right only where calling
the base is ``x W^T + b`` and nothing else. Whatever is attached to a call, the base is then called itself and the
change is added to its output, as PEFT's LoRA does.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _global

Forwards = Mapping[type[nn.Module], Callable[..., Any]]
"""Classes whose forward is the linear product of their weight, and that forward."""


def own_forwards(*kinds: type[nn.Module]) -> Forwards:
    """The forwards of classes, without those that were replaced on the class before this was called."""
    forwards = {kind: kind.forward for kind in kinds}
    files = {kind: sys.modules[kind.__module__].__file__ for kind in kinds}
    return {k: f for k, f in forwards.items() if getattr(getattr(f, "__code__", None), "co_filename", "") == files[k]}


LINEAR = own_forwards(nn.Linear)

_WATCHERS = ("fvcore.nn.jit_analysis", "torch.utils.module_tracker")
"""Where hooks come from that only watch, as counters do: a count is to be of what runs without it."""

ONLY_WATCHES = "only_watches"
"""Attribute of a forward in a layer's place that watches its calls and changes nothing, as the profiler's ranges."""


def _acts(hooks: Mapping[int, Callable[..., Any]]) -> bool:
    return bool(hooks) and any(getattr(hook, "__module__", "") not in _WATCHERS for hook in hooks.values())


def has_hooks(layer: nn.Module) -> bool:
    """Whether calling a layer calls hooks, its own or those of every module, before, after or in backward."""
    there = (
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or _global._global_forward_hooks
        or _global._global_forward_pre_hooks
        or _global._global_backward_hooks
        or _global._global_backward_pre_hooks
    )
    return bool(there) and (  # asked at every call of a layer, and nearly always there are none
        _acts(layer._forward_hooks)
        or _acts(layer._forward_pre_hooks)
        or bool(layer._backward_hooks)
        or bool(layer._backward_pre_hooks)
        or _acts(_global._global_forward_hooks)
        or _acts(_global._global_forward_pre_hooks)
        or bool(_global._global_backward_hooks)
        or bool(_global._global_backward_pre_hooks)
    )


def is_plain(base: nn.Module, x: Tensor, forwards: Forwards = LINEAR) -> bool:
    """Whether ``base(x)`` is ``x W^T + b`` and nothing else, with W and b frozen: then it need not be called.

    It is not where the class is another one (a subclass, a quantised layer, a parametrised one), its forward was
    replaced on the layer or on the class (accelerate's offloading does so) or is compiled for itself, a call has
    hooks, or W or b is trained, of another device than x (a meta tensor while it is offloaded), of another dtype
    (unless autocast casts it), or no parameter of the layer: a tensor subclass, or recomputed before each call
    (``torch.nn.utils.weight_norm``, pruning).

    Args:
        base: the frozen layer.
        x: its input.
        forwards: the classes that may be plain, see :func:`own_forwards`.
    """
    kind: Any = type(base)
    if "forward" in base.__dict__ and not getattr(base.__dict__["forward"], ONLY_WATCHES, False):
        return False
    if forwards.get(kind) is not kind.forward or base._compiled_call_impl is not None:
        return False
    held = base._parameters
    weight, bias = held.get("weight"), held.get("bias")
    if type(weight) is not nn.Parameter or "bias" not in held or type(bias) not in (nn.Parameter, type(None)):
        return False
    if weight.requires_grad or weight.device != x.device or has_hooks(base):
        return False
    if bias is not None and (bias.requires_grad or bias.device != x.device):
        return False
    return weight.dtype == x.dtype or torch.is_autocast_enabled(x.device.type)
