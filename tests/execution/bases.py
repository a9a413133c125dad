"""What may be attached to a frozen linear layer so that calling it is more than the product of its weight."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

Attach = Callable[[nn.Linear], nn.Linear]


class OwnForward(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


class Doubled(torch.Tensor):
    """A weight that is worth twice what it holds."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not nn.functional.linear:
            return super().__torch_function__(function, types, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return 2 * function(*args, **(kwargs or {}))


class Tanh(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.tanh()


def forward_replaced(layer: nn.Linear) -> nn.Linear:
    own = layer.forward
    layer.forward = functools.update_wrapper(lambda x: own(x) * 3, own)  # type: ignore[method-assign]
    return layer


def forward_hook(layer: nn.Linear) -> nn.Linear:
    layer.register_forward_hook(lambda module, given, output: output + 1)
    return layer


def forward_pre_hook(layer: nn.Linear) -> nn.Linear:
    layer.register_forward_pre_hook(lambda module, given: (given[0] * 2,))
    return layer


def backward_hook(layer: nn.Linear) -> nn.Linear:
    layer.register_full_backward_hook(lambda module, given, output: (given[0] * 3,))
    return layer


def backward_pre_hook(layer: nn.Linear) -> nn.Linear:
    layer.register_full_backward_pre_hook(lambda module, output: (output[0] * 5,))
    return layer


def own_forward(layer: nn.Linear) -> nn.Linear:
    other = OwnForward(layer.in_features, layer.out_features, dtype=layer.weight.dtype)
    other.load_state_dict(layer.state_dict())
    return other


def subclass_weight(layer: nn.Linear) -> nn.Linear:
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Doubled), requires_grad=False)
    return layer


def parametrised(layer: nn.Linear) -> nn.Linear:
    parametrize.register_parametrization(layer, "weight", Tanh())
    return layer


def parametrised_bias(layer: nn.Linear) -> nn.Linear:
    parametrize.register_parametrization(layer, "bias", Tanh())
    return layer


def old_weight_norm(layer: nn.Linear) -> nn.Linear:
    torch.nn.utils.weight_norm(layer)
    with torch.no_grad():
        layer.weight_g.mul_(2)  # the weight follows at the next call
    return layer


def pruned(layer: nn.Linear) -> nn.Linear:
    prune.l1_unstructured(layer, "weight", amount=0.5)
    with torch.no_grad():
        layer.weight_orig.mul_(2)
    return layer


def pruned_bias(layer: nn.Linear) -> nn.Linear:
    prune.l1_unstructured(layer, "bias", amount=2)
    return layer


ON_THE_LAYER: dict[str, Attach] = {
    f.__name__: f
    for f in (
        forward_replaced,
        forward_hook,
        forward_pre_hook,
        backward_hook,
        backward_pre_hook,
        own_forward,
        subclass_weight,
        parametrised,
        parametrised_bias,
        old_weight_norm,
        pruned,
        pruned_bias,
    )
}


@contextmanager
def of_all_layers(kind: str) -> Iterator[None]:
    """Hooks of every module, or a forward replaced on the class."""
    module = torch.nn.modules.module
    if kind == "class_forward":
        own = nn.Linear.forward
        nn.Linear.forward = lambda self, x: own(self, x) * 3  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Linear.forward = own  # type: ignore[method-assign]
        return

    def output(layer: nn.Module, given: Any, result: Tensor) -> Any:
        return result + 1 if isinstance(layer, nn.Linear) else None

    def gradient(layer: nn.Module, given: Any, result: Any) -> Any:
        return (given[0] * 3,) if isinstance(layer, nn.Linear) else None

    handle = {
        "global_forward_hook": lambda: module.register_module_forward_hook(output),
        "global_pre_hook": lambda: module.register_module_forward_pre_hook(
            lambda layer, given: (given[0] * 2,) if isinstance(layer, nn.Linear) else None
        ),
        "global_backward_hook": lambda: module.register_module_full_backward_hook(gradient),
    }[kind]()
    try:
        yield
    finally:
        handle.remove()


OF_ALL_LAYERS = ("class_forward", "global_forward_hook", "global_pre_hook", "global_backward_hook")
