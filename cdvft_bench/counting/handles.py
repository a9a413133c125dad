"""Handles: small functions from the shapes of one launch to its arithmetic, made in families by factories."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Price:
    """Arithmetic of one launch.

    Attributes:
        macs: real multiply-adds of matrix products (a complex one is four).
        flops: real additions and multiplications beside them.
        transforms: one-dimensional transforms (one over several dimensions counts once).
        fft_flops: FLOPs of these: 5 n log2 n complex, 2.5 n log2 n with a real side. points: n.
    """

    macs: int = 0
    flops: int = 0
    transforms: int = 0
    fft_flops: float = 0.0
    points: int = 0


Handle = Callable[[Any, Mapping[str, Any], "list[Tensor]"], Price]
"""From arguments, keyword arguments and result tensors of a launch to its price; only shapes and dtypes are read."""


# --- products ------------------------------------------------------------------------------


def _wide(n: int, like: Tensor) -> int:
    return n * (4 if like.is_complex() else 1)


def product(left: int) -> Handle:
    """A matrix product whose left operand is the argument of that number; its last dimension is summed over."""
    return lambda a, k, o: Price(macs=_wide(o[0].numel() * a[left].shape[-1], o[0]))


def grouped(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
    """Products of groups of rows, each with a matrix of its own; every row is in one group."""
    if a[0].dim() == a[1].dim() == 2:  # the groups share out what is summed over
        return Price(macs=a[0].numel() * a[1].shape[-1])
    return product(0)(a, k, o)


def of_operand(operand: int) -> Handle:
    """A product that meets every entry of an operand once."""
    return lambda a, k, o: Price(macs=_wide(a[operand].numel(), o[0]))


def batch_summed(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
    """A sum of products, added to what is there."""
    return Price(macs=_wide(a[1].numel() * a[2].shape[-1], o[0]))


def convolution_macs(inputs: Sequence[int], weight: Sequence[int], outputs: Sequence[int], transposed: bool) -> int:
    """Multiply-adds of a convolution, of its transpose, or of either's gradient of input or weight.

    Args:
        inputs, outputs: shapes (batch, channels, ...). transposed: see below.
        weight: shape (channels out, channels in a group, ...), or (channels in, channels out a group, ...) of a
            transposed one, which multiplies every input with its filters, where the other does so for every output.
    """
    return math.prod(inputs if transposed else outputs) * math.prod(weight[1:])


def convolution(transposed_at: int | None) -> Handle:
    """A convolution; the argument of that number says whether it is a transposed one."""

    def handle(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
        transposed = transposed_at is not None and bool(a[transposed_at])
        return Price(macs=_wide(convolution_macs(a[0].shape, a[1].shape, o[0].shape, transposed), o[0]))

    return handle


def convolution_backward(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
    """Of the gradients that the last argument asks for: of input, weight and bias."""
    one = convolution_macs(a[1].shape, a[2].shape, a[0].shape, bool(a[7]))
    bias = a[0].numel() * _parts(a[0]) if a[10][2] else 0
    return Price(macs=_wide(one * sum(map(bool, a[10][:2])), a[0]), flops=bias)


def attention(first: int, products: int) -> Handle:
    """Attention of queries, keys and values, arguments from ``first`` on, each (..., length, width)."""

    def handle(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
        q, keys, v = a[first : first + 3]
        rows = q.shape[:-1].numel()
        return Price(macs=rows * keys.shape[-2] * (q.shape[-1] + v.shape[-1]) * products // 2)

    return handle


def attention_lengths(name: str, a: Any) -> tuple[int, ...]:
    """Lengths of queries and keys of fused attention; none of other operators, and of sequences of several lengths."""
    if "scaled_dot_product" not in name:
        return ()
    q, keys = a[1:3] if name.endswith("_backward") else a[:2]
    return () if q.is_nested or keys.is_nested else (q.shape[-2], keys.shape[-2])


def lengths(batch: Tensor) -> list[int]:
    """Rows of each sequence of a batch (..., length, width), nested or not."""
    if batch.is_nested:
        return [int(size[0]) for size in batch._nested_tensor_size()]
    return [batch.shape[-2]] * math.prod(batch.shape[:-2])


def projected_attention_macs(queries: Sequence[int], keys: Sequence[int], width: int) -> int:
    """Multiply-adds of self- or cross-attention with its four square projections.

    Args:
        queries, keys: lengths of each sequence. width: of the model; heads share it, so their number says nothing.
    """
    projections = 2 * (sum(queries) + sum(keys)) * width * width
    return projections + 2 * width * sum(q * n for q, n in zip(queries, keys, strict=True))


def native_attention(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
    """``nn.MultiheadAttention``'s fast path: one operator for projections and attention."""
    return Price(macs=projected_attention_macs(lengths(a[0]), lengths(a[1]), a[3]))


def encoder_layer(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
    """``nn.TransformerEncoderLayer``'s fast path: one operator for the whole layer."""
    rows = lengths(a[0])
    inner = a[14].numel() + a[16].numel()  # the two layers of its feed-forward part
    return Price(macs=projected_attention_macs(rows, rows, a[1]) + sum(rows) * inner)


def recurrent_layer(weights: slice, products: int) -> Handle:
    """One layer and direction of a recurrent network; input (steps, batch, width)."""

    def handle(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
        steps = math.prod(a[0].shape[:-1])
        return Price(macs=products * steps * sum(w.numel() for w in a[weights] if w.dim() == 2))

    return handle


# --- transforms and systems ----------------------------------------------------------------


def transform_price(points: int, count: int, real: bool) -> Price:
    """``count`` transforms of ``points`` points, by the rule 5 n log2 n, or half of it where one side is real."""
    price = (2.5 if real else 5.0) * points * math.log2(points)
    return Price(transforms=count, fft_flops=price * count, points=points)


def fft(real_side: str | None) -> Handle:
    """A transform over the dimensions of its second argument; its whole length is of the input, or of the result."""

    def handle(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
        whole = a[0] if real_side == "in" else o[0]
        points = math.prod(whole.shape[d] for d in a[1])
        return transform_price(points, whole.numel() // points, real_side is not None)

    return handle


def solve_flops(matrix: Sequence[int], sides: Sequence[int], factored: bool) -> int:
    """Real FLOPs of dense systems by LU: 2/3 n^3 a factorisation (rounded), 2 n^2 a right-hand side.

    Args:
        matrix: shape (..., n, n). sides: shape (..., n, k) or (..., k, n).
        factored: the factors are given.
    """
    n, batch = matrix[-1], math.prod(matrix[:-2])
    factoring = 0 if factored else batch * round(2 * n**3 / 3)
    return factoring + 2 * n * math.prod(sides)


# --- element by element --------------------------------------------------------------------


def _parts(tensor: Tensor) -> int:
    return 2 if tensor.is_complex() else 1


def an_output(real: int, complex_: int | None = None) -> Handle:
    """FLOPs an entry of the result; of complex ones twice as many, if nothing is said."""

    def handle(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
        price = real * _parts(o[0]) if complex_ is None or not o[0].is_complex() else complex_
        return Price(flops=o[0].numel() * price)

    return handle


def an_input(real: int) -> Handle:
    """FLOPs an entry of the first argument; of complex ones twice as many."""
    return lambda a, k, o: Price(flops=a[0].numel() * real * _parts(a[0]))


def times(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
    """An element-wise product: 6 FLOPs of two complex numbers, else one a part."""
    both = all(isinstance(x, Tensor) and x.is_complex() for x in a[:2])
    return Price(flops=o[0].numel() * (6 if both else _parts(o[0])))


def over(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
    """A quotient: 11 FLOPs by a complex number, ``a conj(b) / |b|^2``, else one a part."""
    by_complex = isinstance(a[1], Tensor) and a[1].is_complex()
    return Price(flops=o[0].numel() * (11 if by_complex else _parts(o[0])))


def by_form(argument: str, prices: Mapping[str, int]) -> Handle:
    """FLOPs an output, by a keyword argument; the first of ``prices`` is its default."""
    default = next(iter(prices))
    return lambda a, k, o: Price(flops=o[0].numel() * prices[k.get(argument, default)])


def norm(gain: int, training: int | None = None) -> Handle:
    """A norm: mean, distance, variance (2) and scaling are 5 FLOPs an entry; with given statistics 2.

    Args:
        gain: the argument that holds the gain, of one FLOP; the next is a shift, of another.
        training: the argument that says whether statistics are taken; None where they always are.
    """

    def handle(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
        each = 5 if training is None or a[training] else 2
        return Price(flops=a[0].numel() * (each + sum(isinstance(x, Tensor) for x in a[gain : gain + 2])))

    return handle


def batch_norm(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
    """A norm over a batch; its first boolean argument says whether statistics are taken."""
    return norm(1, next(i for i in range(3, len(a)) if isinstance(a[i], bool)))(a, k, o)


def norm_backward(gain: int) -> Handle:
    """Of a norm with a mean; the last argument says which gradients are asked for: of input, gain and shift."""

    def handle(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
        of_input, of_gain, of_shift = map(bool, a[-1])
        each = 2 if of_input or of_gain else 0  # the normalised input once more
        if of_input:  # times the gain; two sums, one of products; what they take away, scaled
            each += 7 + isinstance(a[gain], Tensor)
        return Price(flops=a[0].numel() * (each + 2 * of_gain + of_shift))

    return handle


def rms_norm(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
    """A norm without a mean: squared, summed, scaled, and times its gain."""
    return Price(flops=a[0].numel() * (3 + isinstance(a[2], Tensor)))


def rms_norm_backward(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
    """Of the gradients that the last argument asks for: of input and gain."""
    of_input, of_gain = map(bool, a[-1])
    each = 1 + (5 + isinstance(a[4], Tensor) if of_input else 0) + 2 * of_gain
    return Price(flops=a[0].numel() * each)


def pooled(dimensions: int) -> Handle:
    """Means over windows; a window is given by one width, or by one a dimension."""
    return lambda a, k, o: Price(flops=o[0].numel() * math.prod(a[1]) ** (dimensions if len(a[1]) == 1 else 1))


ADAMW_FLOPS = 14  # weight decay 1, first moment 3, second moment 4, denominator 3, update 3


def fused_update(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
    """AdamW's update of all parameters at once."""
    return Price(flops=ADAMW_FLOPS * sum(t.numel() for t in a[0]))


def many(a: Any, k: Mapping[str, Any], o: list[Tensor]) -> Price:
    """One FLOP an entry of the tensors in the first argument."""
    return Price(flops=sum(t.numel() for t in a[0]))
