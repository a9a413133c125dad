"""The forward pass as fvcore's FlopCountAnalysis counts it, with handles for what networks and adapters use."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cdvft_bench.core.counted import FvcoreCount
from cdvft_bench.counting.dispatch import NAMESPACE, fft_flops, watched
from cdvft_bench.counting.fvcore_handles import Handle, all_handles
from cdvft_bench.execution.native import Counts
from cdvft_bench.tensors import tensors_in


class _Context:
    """Stands in for autograd's context while a custom Function is traced through."""

    needs_input_grad = (True,) * 64

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None: ...

    def mark_dirty(self, *tensors: Tensor) -> None: ...

    def set_materialize_grads(self, value: bool) -> None: ...


@contextmanager
def _functions_in_the_open() -> Iterator[None]:
    """Trace through custom autograd Functions instead of over them: their operators are what they cost."""
    original = torch.autograd.Function.__dict__["apply"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if cls.setup_context is not torch.autograd.function._SingleLevelFunction.setup_context:
            return cls.forward(*args, **kwargs)
        return cls.forward(_Context(), *args, **kwargs)

    torch.autograd.Function.apply = classmethod(apply)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.autograd.Function.apply = original  # type: ignore[method-assign]


_STOCK_PRODUCTS = {f"aten::{name}" for name in ("matmul", "mm", "bmm", "linear", "addmm", "einsum", "_convolution")}


class _Traced(nn.Module):
    """A module as a tracer needs it: from the tensors of its inputs, however nested, to the tensors of its output."""

    def __init__(self, module: nn.Module, inputs: tuple[Any, ...] | Mapping[str, Any]) -> None:
        super().__init__()
        self.module = module
        leaves, self.structure = pytree.tree_flatten(dict(inputs) if isinstance(inputs, Mapping) else tuple(inputs))
        self.at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.tensors = tuple(leaves[i] for i in self.at)
        self.others = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]

    def forward(self, *tensors: Tensor) -> Any:
        leaves = list(self.others)
        for i, tensor in zip(self.at, tensors, strict=True):
            leaves[i] = tensor
        given = pytree.tree_unflatten(leaves, self.structure)
        output = self.module(**given) if isinstance(given, dict) else self.module(*given)
        return tuple(tensors_in(output))


def count_forward(module: nn.Module, inputs: tuple[Any, ...] | Mapping[str, Any]) -> FvcoreCount:
    """Count a forward pass with fvcore.

    Args:
        module: traced in eval mode without gradients; its mode is restored.
        inputs: positional inputs, or the keyword inputs of a transformers model; tensors, however nested, and others.

    Raises:
        RuntimeError: torch.jit.trace cannot trace the module.
    """
    target = _Traced(module, inputs)
    training = {m: m.training for m in module.modules()}
    logger = logging.getLogger("fvcore")
    level = logger.level
    logger.setLevel(logging.ERROR)
    module.eval()
    try:
        with torch.no_grad(), _functions_in_the_open(), watched() as seen, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            analysis = FlopCountAnalysis(target, target.tensors)
            analysis.unsupported_ops_warnings(False)
            analysis.uncalled_modules_warnings(False)
            stock = dict(analysis._op_handles)
            ours = {**{name: _as_elementwise(handle) for name, handle in stock.items()}, **all_handles()}
            for name in ("circulant_forward", "circulant_mixed"):
                ours[f"{NAMESPACE}::{name}"] = _as_seen(seen)
            analysis.set_op_handle(**{name: _recording(name, handle, stock) for name, handle in ours.items()})
            recorded: Counter[str] = analysis.by_operator()
            unsupported = Counter(analysis.unsupported_ops())
    finally:
        logger.setLevel(level)
        for m, mode in training.items():
            m.training = mode
    kinds, operators = Counter[str](), Counter[str]()
    for key, value in recorded.items():
        kind, _, name = key.partition(":")
        if kind == _UNSEEN:
            unsupported[name] += value
            continue
        kinds[kind] += value
        if kind != "stock":
            operators[name] += value
    return FvcoreCount(
        macs=int(kinds["macs"]),
        fft_flops=float(kinds["fft"]),
        elementwise_flops=int(kinds["elementwise"]),
        by_operator={name: float(value) for name, value in sorted(operators.items()) if value},
        stock_macs=int(kinds["stock"]),
        unsupported={k.removeprefix("aten::"): v for k, v in sorted(unsupported.items())},
    )


_UNSEEN = "unseen"
"""Kind of a count: calls of an operator of which nothing is known."""


def _as_seen(seen: list[Counts]) -> Handle:
    """A handle for calls of a compiled operator in the order in which the traced program made them.

    A handle sees shapes alone; what the operator does with its data was counted while it was traced.
    """

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        if not seen:
            return Counter({_UNSEEN: 1})
        counts = seen.pop(0)
        found: Counter[str] = Counter(elementwise=counts.elementwise)
        found["fft"] += fft_flops(counts)  # type: ignore[assignment]
        return found

    return handle


def _as_elementwise(handle: Callable[[list[Any], list[Any]], Any]) -> Handle:
    """fvcore's own handle of an operator that is no product; its unit is one an operation."""

    def counts(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        found = handle(inputs, outputs)
        return Counter(elementwise=int(sum(found.values()) if isinstance(found, Mapping) else found))

    return counts


def _recording(name: str, handle: Handle, stock: Mapping[str, Any]) -> Handle:
    """A handle whose counts also say which operator they are of, and what fvcore's own handle makes of a product."""
    short = name.removeprefix("aten::")

    def record(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        counts: Counter[str] = Counter({f"{kind}:{short}": n for kind, n in handle(inputs, outputs).items()})
        if name in _STOCK_PRODUCTS:
            theirs = stock[name](inputs, outputs)
            counts["stock:"] += sum(theirs.values()) if isinstance(theirs, Mapping) else theirs
        return counts

    return record
