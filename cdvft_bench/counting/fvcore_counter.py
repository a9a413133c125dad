"""The forward pass as fvcore's FlopCountAnalysis counts it, with handles for what the adapters use."""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import Tensor, nn

from cdvft_bench.core.counted import FvcoreCount
from cdvft_bench.counting.dispatch import names, solve_flops
from cdvft_bench.counting.native_operators import NAMESPACE, fft_flops, watched
from cdvft_bench.execution.native import Counts

Handle = Callable[[list[Any], list[Any]], "Counter[str]"]

_FREE = names(
    """
    T __and__ __or__ all any arange as_strided bitwise_and bitwise_or block_diag cat clone conj conj_physical
    constant_pad_nd contiguous detach_ diagonal diff dropout embedding eq expand_as eye flip ge gt index
    index_put_ le lift_fresh logical_and logical_not lt masked_fill movedim ne new_ones new_zeros numpy_T ones
    ones_like pad real repeat repeat_interleave resolve_conj scalar_tensor stack t to tril triu type_as unbind
    view_as where zeros zeros_like
    """
)


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


def _is_complex(value: Any) -> bool:
    return value.isCompleteTensor() and value.type().scalarType() in ("ComplexFloat", "ComplexDouble", "ComplexHalf")


def _numel(value: Any) -> int:
    return math.prod(get_shape(value) or [])


def _macs(n: int, like: Any) -> Counter[str]:
    return Counter(macs=n * (4 if _is_complex(like) else 1))


def _matmul(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    left = get_shape(inputs[0])
    return _macs(_numel(outputs[0]) * (left[-1] if left else 0), outputs[0])


def _addmm(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return _matmul(inputs[1:], outputs)


def _einsum(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    equation = inputs[0].toIValue().replace(" ", "")
    operands = [get_shape(v) for v in inputs[1].node().inputs()]
    sizes: dict[str, int] = {}
    for labels, shape in zip(equation.split("->")[0].split(","), operands, strict=True):
        if "..." in labels:  # the ellipsis takes the dimensions that no label names
            before, after = labels.split("...")
            middle = len(shape) - len(before) - len(after)
            labels = before + "".join(chr(0x3B1 + i) for i in range(middle)) + after
        sizes.update(zip(labels, shape, strict=True))
    if math.prod(sizes.values()) == _numel(outputs[0]):  # nothing is summed: torch multiplies element by element
        return Counter(elementwise=(6 if _is_complex(outputs[0]) else 1) * _numel(outputs[0]))
    return _macs(math.prod(sizes.values()), outputs[0])


def _solve(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter(elementwise=solve_flops(get_shape(inputs[0]), get_shape(inputs[1]), factored=False))


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    q, k, v = (get_shape(i) for i in inputs[:3])
    return Counter(macs=math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1]))


def _convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    weight = get_shape(inputs[1])
    return Counter(macs=_numel(outputs[0]) * math.prod(weight[1:]))


def _fft(real_side: str | None, dimensions: int = 1) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        shape = get_shape({"in": inputs[0], "out": outputs[0], None: outputs[0]}[real_side])
        if dimensions == 1:
            points = shape[inputs[2].toIValue()]  # fft(input, n, dim, norm)
        else:
            points = math.prod(shape[-dimensions:])
        price = 5.0 if real_side is None else 2.5
        return Counter(fft=price * math.prod(shape) * math.log2(points))

    return handle


def _fft_c2c(dimensions: int = 1) -> Handle:
    # Over one dimension real data takes a real transform, mirrored; over two torch makes it complex first.
    complex_handle, real_handle = _fft(None, dimensions), _fft("in" if dimensions == 1 else None, dimensions)

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        return (complex_handle if _is_complex(inputs[0]) else real_handle)(inputs, outputs)

    return handle


def _pointwise(real: int, complex_: int | None = None) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        price = real if not _is_complex(outputs[0]) else (2 * real if complex_ is None else complex_)
        return Counter(elementwise=price * _numel(outputs[0]))

    return handle


def _product(both_complex: int) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        if all(_is_complex(i) for i in inputs[:2]):
            price = both_complex
        else:
            price = 2 if _is_complex(outputs[0]) else 1
        return Counter(elementwise=price * _numel(outputs[0]))

    return handle


def _reduction(price: int) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        return Counter(elementwise=price * (2 if _is_complex(inputs[0]) else 1) * _numel(inputs[0]))

    return handle


def _free(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter()


_HANDLES: dict[str, Handle] = {
    **{f"aten::{name}": _free for name in _FREE},
    **dict.fromkeys(("aten::mm", "aten::bmm", "aten::matmul", "aten::linear", "aten::mv", "aten::dot"), _matmul),
    **dict.fromkeys(("aten::addmm", "aten::addmm_", "aten::baddbmm"), _addmm),
    "aten::einsum": _einsum,
    "aten::linalg_solve": _solve,
    "aten::_convolution": _convolution,
    "aten::scaled_dot_product_attention": _attention,
    "aten::fft_rfft": _fft("in"),
    "aten::fft_irfft": _fft("out"),
    "aten::fft_fft": _fft_c2c(),
    "aten::fft_ifft": _fft_c2c(),
    "aten::fft_fft2": _fft_c2c(2),
    "aten::fft_ifft2": _fft_c2c(2),
    **dict.fromkeys(("aten::add", "aten::add_", "aten::sub", "aten::sub_", "aten::rsub"), _pointwise(1)),
    **dict.fromkeys(("aten::mul", "aten::mul_"), _product(6)),
    **dict.fromkeys(("aten::div", "aten::div_"), _product(11)),
    **dict.fromkeys(
        (
            "aten::neg",
            "aten::sqrt",
            "aten::rsqrt",
            "aten::exp",
            "aten::tanh",
            "aten::sigmoid",
            "aten::pow",
            "aten::relu",
            "aten::cos",
            "aten::sin",
            "aten::reciprocal",
            "aten::abs",
            "aten::clamp",
        ),
        _pointwise(1),
    ),
    **dict.fromkeys(("aten::addcmul", "aten::addcmul_"), _pointwise(2, 8)),
    "aten::kron": _pointwise(1),
    **dict.fromkeys(("aten::sum", "aten::mean"), _reduction(1)),
    **dict.fromkeys(("aten::linalg_norm", "aten::linalg_vector_norm", "aten::norm"), _reduction(2)),
}

_STOCK_PRODUCTS = {f"aten::{name}" for name in ("matmul", "mm", "bmm", "linear", "addmm", "einsum", "_convolution")}


class _Keywords(nn.Module):
    """Calls a model with keyword arguments and returns plain tensors, which a tracer needs."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *values: Tensor) -> Any:
        output = self.model(**dict(zip(self.names, values, strict=True)))
        if isinstance(output, Tensor):
            return output
        return tuple(v for v in output.values() if isinstance(v, Tensor))


def count_forward(module: nn.Module, inputs: tuple[Any, ...] | Mapping[str, Any]) -> FvcoreCount:
    """Count a forward pass with fvcore.

    Args:
        module: traced in eval mode without gradients; its mode is restored.
        inputs: positional inputs, or the keyword inputs of a transformers model.

    Raises:
        RuntimeError: torch.jit.trace cannot trace the module.
    """
    if isinstance(inputs, Mapping):
        target: nn.Module = _Keywords(module, list(inputs))
        inputs = tuple(inputs.values())
    else:
        target = module
    training = {m: m.training for m in module.modules()}
    logger = logging.getLogger("fvcore")
    level = logger.level
    logger.setLevel(logging.ERROR)
    module.eval()
    try:
        with torch.no_grad(), _functions_in_the_open(), watched() as seen, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            analysis = FlopCountAnalysis(target, inputs)
            analysis.unsupported_ops_warnings(False)
            analysis.uncalled_modules_warnings(False)
            stock = {name: handle for name, handle in analysis._op_handles.items() if name in _STOCK_PRODUCTS}
            handles = _HANDLES | {f"{NAMESPACE}::circulant_forward": _as_seen(seen)}
            analysis.set_op_handle(**{name: _recording(name, handle, stock) for name, handle in handles.items()})
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


def _recording(name: str, handle: Handle, stock: Mapping[str, Any]) -> Handle:
    """A handle whose counts also say which operator they are of, and what fvcore's own handle makes of it."""
    short = name.removeprefix("aten::")

    def record(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        counts: Counter[str] = Counter({f"{kind}:{short}": n for kind, n in handle(inputs, outputs).items()})
        if name in stock:
            theirs = stock[name](inputs, outputs)
            counts["stock:"] += sum(theirs.values()) if isinstance(theirs, Mapping) else theirs
        return counts

    return record
