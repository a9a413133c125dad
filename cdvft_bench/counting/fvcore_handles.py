"""fvcore's handles for what networks and adapters use: from the traced values of an operator to its counts.

A trace holds the operators that a program calls, a dispatch mode those that run. What is the same operator in both has
one price (``operator_prices``); here stand those that a trace alone has.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cdvft_bench.counting import handles as h
from cdvft_bench.counting.operator_prices import PRICES

Handle = Callable[[list[Any], list[Any]], "Counter[str]"]
"""From traced inputs and outputs to counts by kind: "macs", "fft", "elementwise"."""

_DTYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "ComplexHalf": torch.complex32,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}


def _value(value: Any) -> Any:
    """A traced value as it was given: a tensor without data, a list, or a constant."""
    if value.isCompleteTensor():
        dtype = _DTYPES.get(value.type().scalarType(), torch.float32)
        return torch.empty(value.type().sizes(), dtype=dtype, device="meta")
    if value.node().kind() == "prim::ListConstruct":
        return [_value(v) for v in value.node().inputs()]
    return value.toIValue()


def _einsum(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> h.Price:
    work = contract(a[0], [t.shape for t in a[1]], a[2] if len(a) > 2 else None)
    macs, product, addition = (4, 6, 2) if o[0].is_complex() else (1, 1, 1)
    return h.Price(macs=macs * work.macs, flops=product * work.products + addition * work.additions)


def _recurrent(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> h.Price:
    """A recurrent network: every step multiplies with each matrix of every layer and direction once."""
    matrices = [t for some in a if isinstance(some, list) for t in some if isinstance(t, Tensor) and t.dim() == 2]
    return h.Price(macs=math.prod(a[0].shape[:-1]) * sum(t.numel() for t in matrices))


def _fft(real_side: str | None) -> h.Handle:
    """A transform, fft(input, n, dim, norm) or fftn(input, s, dim, norm); of a real one the longer side is real."""

    def handle(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> h.Price:
        shape = list((o[0] if real_side in (None, "out") else a[0]).shape)
        sizes, dims = a[1:3]
        # torch gives a real input of a complex transform over one dimension a real one, mirrored.
        real = real_side is not None or (isinstance(dims, int) and not a[0].is_complex())
        sizes = [sizes] if isinstance(sizes, int) else sizes
        if dims is None:
            dims = range(-len(sizes or shape), 0)
        dims = [dims] if isinstance(dims, int) else dims
        for dim, n in zip(dims, sizes or [-1] * len(dims), strict=True):
            shape[dim] = shape[dim] if n == -1 else n
        points = math.prod(shape[dim] for dim in dims)
        return h.transform_price(points, math.prod(shape) // points, real)

    return handle


def _gelu(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> h.Price:
    return h.an_output(9 if a[1] == "tanh" else 5)(a, k, o)


_TRACED: dict[str, h.Handle | None] = {
    name: handle
    for text, handle in (
        (
            """
            T __and__ __or__ adaptive_max_pool2d as_strided broadcast_tensors conj contiguous detach_ diagonal diff
            dropout expand_as lift_fresh max_pool1d max_pool2d max_pool3d meshgrid movedim numpy_T pad pixel_unshuffle
            real resolve_conj swapaxes t tensor_split tile to type_as unbind unflatten unfold view_as view_as_complex
            view_as_real
            """,
            None,
        ),
        ("matmul", h.product(0)),
        ("einsum", _einsum),
        ("scaled_dot_product_attention", h.attention(0, 2)),
        ("lstm gru rnn_tanh rnn_relu", _recurrent),
        ("linalg_solve", lambda a, k, o: h.Price(flops=h.solve_flops(a[0].shape, a[1].shape, factored=False))),
        ("fft_rfft fft_ihfft fft_rfft2 fft_rfftn", _fft("in")),
        ("fft_irfft fft_hfft fft_irfft2 fft_irfftn", _fft("out")),
        ("fft_fft fft_ifft fft_fft2 fft_ifft2 fft_fftn fft_ifftn", _fft(None)),
        ("kron", h.an_output(1)),
        ("glu log_sigmoid", h.an_output(3)),
        ("softmax log_softmax", h.an_output(4)),
        ("gelu", _gelu),  # its form is no keyword in a trace
        ("layer_norm group_norm", h.norm(2)),
        ("rms_norm", h.rms_norm),
        ("batch_norm instance_norm", h.norm(1, 5)),
        ("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d", h.an_input(1)),
        ("linalg_norm", h.an_input(2)),
    )
    for name in text.split()
}


def _counting(name: str) -> Handle:
    """A price, asked on tensors without data; one that is registered later counts, too."""

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        price = _TRACED[name] if name in _TRACED else PRICES[name]
        if price is None:
            return Counter()
        found = price([_value(i) for i in inputs], {}, [_value(o) for o in outputs if o.isCompleteTensor()])
        counts: Counter[str] = Counter(macs=found.macs, elementwise=found.flops)
        counts["fft"] += found.fft_flops  # type: ignore[assignment]
        return counts

    return handle


def all_handles() -> Mapping[str, Handle]:
    """By the name of the operator as it is traced; with those of other libraries that have a registered price."""
    return {name if "::" in name else f"aten::{name}": _counting(name) for name in (*PRICES, *_TRACED)}


# --- einsum ----------------------------------------------------------------------------------


Sizes = dict[str, int]
"""Size of each label of an operand; a label that it lacks has size 1, as one that it broadcasts."""


@dataclass
class Contraction:
    """Arithmetic of an einsum.

    Attributes:
        macs: multiply-adds of its matrix products. products: entry by entry, where a pair has nothing to sum over.
        additions: entries that are summed outside of products.
    """

    macs: int = 0
    products: int = 0
    additions: int = 0


def contract(equation: str, shapes: Sequence[Sequence[int]], path: Sequence[int] | None = None) -> Contraction:
    """Follow an einsum through its pairs.

    Args:
        equation: as ``torch.einsum`` takes it, with or without "->" and "...".
        shapes: of the operands.
        path: pairs of positions to contract, one after the other; None goes from left to right.
    """
    operands, kept = _read(equation.replace(" ", ""), shapes)
    work = Contraction()
    # In how many operands a label that is summed over still stands.
    counts = Counter(label for one in operands for label, n in one.items() if n != 1 and label not in kept)
    steps = iter(path or ())
    while len(operands) > 1:
        i, j = sorted((next(steps), next(steps))) if path else (0, 1)
        b, a = operands.pop(j), operands.pop(i)
        made = _pair(a, b, counts, work)
        operands.insert(len(operands) if path else 0, made)
    left = operands[0]
    # One operand is always summed; of several only what no pair has summed before.
    if any(n != 1 or len(shapes) == 1 for label, n in left.items() if label not in kept):
        work.additions += math.prod(left.values())
    return work


def _pair(a: Sizes, b: Sizes, counts: Counter[str], work: Contraction) -> Sizes:
    together: list[str] = []
    alone_a: list[str] = []
    alone_b: list[str] = []
    for label in list(counts):
        in_a, in_b = a.get(label, 1) != 1, b.get(label, 1) != 1
        if in_a and in_b:
            counts[label] -= 1
            if counts[label] == 1:
                together.append(label)
                counts[label] = 0
        elif counts[label] == 1 and (in_a or in_b):
            (alone_a if in_a else alone_b).append(label)
            counts[label] = 0
    a, b = _summed(a, alone_a, work), _summed(b, alone_b, work)
    whole = {label: max(a.get(label, 1), b.get(label, 1)) for label in {**a, **b}}
    if together:
        work.macs += math.prod(whole.values())
    else:
        work.products += math.prod(whole.values())
    return {label: 1 if label in together else n for label, n in whole.items()}


def _summed(operand: Sizes, labels: Sequence[str], work: Contraction) -> Sizes:
    if not labels:
        return operand
    work.additions += math.prod(operand.values())
    return {label: 1 if label in labels else n for label, n in operand.items()}


def _read(equation: str, shapes: Sequence[Sequence[int]]) -> tuple[list[Sizes], set[str]]:
    """Sizes by label of each operand, and the labels of the result."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    operands = []
    for term, shape in zip(terms, shapes, strict=True):
        before, dots, after = term.partition("...")
        middle = len(shape) - len(before) - len(after) if dots else 0
        # The dimensions of an ellipsis line up at its right end.
        labels = [*before, *(f".{middle - i}" for i in range(middle)), *after]
        operands.append(dict(zip(labels, shape, strict=True)))
    dotted = {label for one in operands for label in one if label.startswith(".")}
    if arrow:
        return operands, set(right.replace("...", "")) | (dotted if "..." in right else set())
    seen = Counter(label for term in terms for label in term.replace("...", ""))
    return operands, dotted | {label for label, n in seen.items() if n == 1}
