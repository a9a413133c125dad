"""fvcore's handles for what networks and adapters use: from the traced values of an operator to its counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from fvcore.nn.jit_handles import get_shape

from cdvft_bench.counting import handles
from cdvft_bench.counting.einsum import contract
from cdvft_bench.counting.operator_prices import PRICES, names

Handle = Callable[[list[Any], list[Any]], "Counter[str]"]
"""From traced inputs and outputs to counts by kind: "macs", "fft", "elementwise"."""

_FREE = names(
    """
    T __and__ __or__ adaptive_max_pool2d all amax amin any arange argmax argmin argsort as_strided bincount
    bitwise_and bitwise_not bitwise_or block_diag broadcast_tensors bucketize cat ceil clone conj conj_physical
    constant_pad_nd contiguous cummax cumsum detach_ diagonal diff dropout embedding eq expand_as eye flip floor full
    full_like ge gt im2col index index_put index_put_ index_select isfinite isin isinf isnan le lift_fresh linspace
    logical_and logical_not logical_or logical_xor lt masked_fill masked_fill_ masked_scatter masked_select max
    max_pool1d max_pool2d max_pool3d meshgrid min movedim ne new_ones new_zeros nonzero numpy_T one_hot ones ones_like
    pad pixel_shuffle pixel_unshuffle real repeat repeat_interleave resolve_conj round scalar_tensor scatter scatter_
    searchsorted select_scatter slice_scatter sort stack swapaxes t tensor_split tile to topk tril triu trunc type_as
    unbind unflatten unfold view_as view_as_complex view_as_real where zeros zeros_like
    """
)

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


def _is_complex(value: Any) -> bool:
    return value.isCompleteTensor() and value.type().scalarType() in ("ComplexFloat", "ComplexDouble", "ComplexHalf")


def _numel(value: Any) -> int:
    return math.prod(get_shape(value) or [])


def _is_given(value: Any) -> bool:
    return str(value.type()) != "NoneType"


def _macs(n: int, like: Any) -> Counter[str]:
    return Counter(macs=n * (4 if _is_complex(like) else 1))


# --- products ------------------------------------------------------------------------------


def _matmul(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    left = get_shape(inputs[0])
    return _macs(_numel(outputs[0]) * (left[-1] if left else 0), outputs[0])


def _matrix_vector(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return _macs(_numel(inputs[0]), outputs[0])


def _after_sum(handle: Handle) -> Handle:
    """The same of an operator whose first input is what the product is added to."""
    return lambda inputs, outputs: handle(inputs[1:], outputs)


def _batch_summed(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return _macs(_numel(inputs[1]) * get_shape(inputs[2])[-1], outputs[0])


def _grouped(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    left, right = get_shape(inputs[0]), get_shape(inputs[1])
    if len(left) == len(right) == 2:  # the groups share out what is summed over
        return _macs(math.prod(left) * right[-1], outputs[0])
    return _matmul(inputs, outputs)


def _einsum(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    path = _value(inputs[2]) if len(inputs) > 2 else None
    work = contract(inputs[0].toIValue(), [get_shape(v) for v in inputs[1].node().inputs()], path)
    complex_ = _is_complex(outputs[0])
    return Counter(
        macs=work.macs * (4 if complex_ else 1),
        elementwise=work.products * (6 if complex_ else 1) + work.additions * (2 if complex_ else 1),
    )


def _convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    x, weight, y = get_shape(inputs[0]), get_shape(inputs[1]), get_shape(outputs[0])
    return _macs(handles.convolution_macs(x, weight, y, bool(inputs[6].toIValue())), outputs[0])


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    q, k, v = (get_shape(i) for i in inputs[:3])
    return Counter(macs=math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1]))


def _rows(shape: list[int]) -> list[int]:
    return [shape[-2]] * math.prod(shape[:-2])


def _native_attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    q, k = get_shape(inputs[0]), get_shape(inputs[1])
    return Counter(macs=handles.projected_attention_macs(_rows(q), _rows(k), q[-1]))


def _encoder_layer(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    shape = get_shape(inputs[0])
    feed_forward = math.prod(shape[:-1]) * (_numel(inputs[14]) + _numel(inputs[16]))
    return Counter(macs=handles.projected_attention_macs(_rows(shape), _rows(shape), shape[-1]) + feed_forward)


def _recurrent(parameters: int, packed: int) -> Handle:
    """A recurrent network: every step multiplies with each matrix of every layer and direction once.

    Args:
        parameters: the input that lists them. packed: the same where sequences are packed, after their lengths.
    """

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        is_list = inputs[parameters].node().kind() == "prim::ListConstruct"
        listed = inputs[parameters if is_list else packed].node().inputs()
        matrices = [get_shape(v) for v in listed if len(get_shape(v)) == 2]
        steps = math.prod(get_shape(inputs[0])[:-1])
        return _macs(steps * sum(math.prod(m) for m in matrices), outputs[0])

    return handle


# --- transforms and systems ----------------------------------------------------------------


def _solve(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter(elementwise=handles.solve_flops(get_shape(inputs[0]), get_shape(inputs[1]), factored=False))


def _transform(price: float, points: int, entries: int) -> Counter[str]:
    """Transforms of ``points`` points of ``entries`` in all."""
    found: Counter[str] = Counter()
    found["fft"] = price * entries * math.log2(points)  # type: ignore[assignment]
    return found


def _fft(real_side: str | None) -> Handle:
    """A transform over one dimension: fft(input, n, dim, norm); the longer side of a real one is its real side."""

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        shape = list(get_shape(outputs[0] if real_side in (None, "out") else inputs[0]))
        n, dim = inputs[1].toIValue(), inputs[2].toIValue()
        if n is not None:
            shape[dim] = n
        # torch gives a real input of a complex transform a real one, mirrored.
        real = real_side is not None or not _is_complex(inputs[0])
        return _transform(2.5 if real else 5.0, shape[dim], math.prod(shape))

    return handle


def _fft_many(real_side: str | None, last_two: bool) -> Handle:
    """A transform over several dimensions, in one launch: fftn(input, s, dim, norm)."""

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        shape = list(get_shape(outputs[0] if real_side in (None, "out") else inputs[0]))
        sizes, dims = _value(inputs[1]), _value(inputs[2])
        if dims is None:
            many = len(sizes) if sizes is not None else len(shape)
            dims = [-2, -1] if last_two else list(range(-many, 0))
        for dim, n in zip(dims, sizes or [-1] * len(dims), strict=True):
            shape[dim] = shape[dim] if n == -1 else n
        points = math.prod(shape[dim] for dim in dims)
        return _transform(5.0 if real_side is None else 2.5, points, math.prod(shape))

    return handle


# --- element by element --------------------------------------------------------------------


def _pointwise(real: int, complex_: int | None = None) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        price = real if not _is_complex(outputs[0]) else (2 * real if complex_ is None else complex_)
        return Counter(elementwise=price * _numel(outputs[0]))

    return handle


def _product(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    both = all(_is_complex(i) for i in inputs[:2])
    return Counter(elementwise=(6 if both else 2 if _is_complex(outputs[0]) else 1) * _numel(outputs[0]))


def _quotient(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    price = 11 if _is_complex(inputs[1]) else 2 if _is_complex(outputs[0]) else 1
    return Counter(elementwise=price * _numel(outputs[0]))


def _reduction(price: int) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        return Counter(elementwise=price * (2 if _is_complex(inputs[0]) else 1) * _numel(inputs[0]))

    return handle


def _norm(statistics: int, gain: int, given: int | None = None) -> Handle:
    """A norm: FLOPs an entry for its statistics and scaling (2 where they are given), one each for gain and shift.

    Args:
        gain: the input that holds the gain; a shift comes next. given: the input that is false where they are given.
    """

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        each = 2 if given is not None and not inputs[given].toIValue() else statistics
        # Of an RMS norm the next input is no tensor.
        each += sum(i.isCompleteTensor() for i in inputs[gain : gain + 2])
        return Counter(elementwise=each * _numel(inputs[0]))

    return handle


def _gelu(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter(elementwise=(9 if inputs[1].toIValue() == "tanh" else 5) * _numel(outputs[0]))


def _free(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter()


def _named(text: str, handle: Handle) -> dict[str, Handle]:
    return {f"aten::{name}": handle for name in text.split()}


_HANDLES: dict[str, Handle] = {
    **_named(" ".join(_FREE), _free),
    **_named("mm bmm matmul linear _int_mm", _matmul),
    **_named("mv dot vdot", _matrix_vector),
    **_named("addmm addmm_ baddbmm baddbmm_", _after_sum(_matmul)),
    **_named("addmv addmv_", _after_sum(_matrix_vector)),
    **_named("addbmm addbmm_", _batch_summed),
    **_named("_grouped_mm", _grouped),
    **_named("einsum", _einsum),
    **_named("_convolution", _convolution),
    **_named("scaled_dot_product_attention", _attention),
    **_named("_native_multi_head_attention", _native_attention),
    **_named("_transformer_encoder_layer_fwd", _encoder_layer),
    **_named("lstm", _recurrent(2, 3)),
    **_named("gru rnn_tanh rnn_relu", _recurrent(2, 3)),
    **_named("linalg_solve", _solve),
    **_named("fft_rfft fft_ihfft", _fft("in")),
    **_named("fft_irfft fft_hfft", _fft("out")),
    **_named("fft_fft fft_ifft", _fft(None)),
    **_named("fft_rfft2", _fft_many("in", last_two=True)),
    **_named("fft_rfftn", _fft_many("in", last_two=False)),
    **_named("fft_irfft2", _fft_many("out", last_two=True)),
    **_named("fft_irfftn", _fft_many("out", last_two=False)),
    **_named("fft_fft2 fft_ifft2", _fft_many(None, last_two=True)),
    **_named("fft_fftn fft_ifftn", _fft_many(None, last_two=False)),
    **_named("add add_ sub sub_ rsub", _pointwise(1)),
    **_named("mul mul_", _product),
    **_named("div div_", _quotient),
    **_named(
        """
        abs atan2 clamp clamp_ clamp_max clamp_min cos erf erfinv exp exp_ exp2 expm1 floor_divide fmod hardtanh
        hardtanh_ leaky_relu log log1p log2 maximum minimum neg pow reciprocal relu relu_ remainder rsqrt sigmoid
        sigmoid_ sign sin sqrt square tan tanh tanh_ kron
        """,
        _pointwise(1),
    ),
    **_named("addcmul addcmul_", _pointwise(2, 8)),
    **_named("silu silu_ addcdiv addcdiv_", _pointwise(2)),
    **_named("elu elu_ glu hardsigmoid hardswish hardswish_ log_sigmoid softplus", _pointwise(3)),
    **_named("mish softmax log_softmax", _pointwise(4)),
    **_named("gelu", _gelu),
    **_named("layer_norm group_norm", _norm(5, 2)),
    **_named("rms_norm", _norm(3, 2)),
    **_named("batch_norm instance_norm", _norm(5, 1, given=5)),
    **_named("sum mean", _reduction(1)),
    **_named("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d", _reduction(1)),
    **_named("linalg_norm linalg_vector_norm norm", _reduction(2)),
    **_named("logsumexp", _reduction(3)),
    **_named("var std var_mean std_mean", _reduction(4)),
}


def _from_price(name: str) -> Handle:
    """The price that was registered for another library's operator, asked on tensors without data."""

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        price = PRICES[name]
        if price is None:
            return Counter()
        found = price([_value(i) for i in inputs], {}, [_value(o) for o in outputs if o.isCompleteTensor()])
        counts: Counter[str] = Counter(macs=found.macs, elementwise=found.flops)
        counts["fft"] += found.fft_flops  # type: ignore[assignment]
        return counts

    return handle


def all_handles() -> Mapping[str, Handle]:
    """By the name of the operator as it is traced; with those of other libraries that have a registered price."""
    return {**_HANDLES, **{name: _from_price(name) for name in PRICES if "::" in name}}
