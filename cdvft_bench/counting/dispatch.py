"""Count what the operator dispatcher sees: every operator of a pass, ATen's or this suite's own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cdvft_bench.core.counted import PassCount
from cdvft_bench.counting.native_operators import NAMESPACE, fft_flops, watched
from cdvft_bench.execution.native import Counts


def names(text: str) -> frozenset[str]:
    """Names of operators, from a text of them."""
    return frozenset(text.split())


ADAMW_FLOPS = 14  # weight decay 1, first moment 3, second moment 4, denominator 3, update 3

_NO_KERNEL = {"_unsafe_view", "detach", "alias", "lift_fresh", "_local_scalar_dense", "is_same_size", "sym_size"}
_WITHOUT_OUTPUT = {"_linalg_check_errors"}  # reads a solver's error codes back
_MOVES = _WITHOUT_OUTPUT | names(
    """
    zeros zeros_like new_zeros ones ones_like new_ones full full_like new_full fill_ zero_ copy_ clone _to_copy
    eye constant_pad_nd slice_backward select_backward index index_put_ index_put _conj_physical conj_physical
    where cat stack gather embedding arange masked_fill masked_fill_ slice_scatter select_scatter block_diag
    repeat flip roll tril triu scatter native_dropout bernoulli_ _foreach_copy_ index_select
    embedding_dense_backward scalar_tensor eq ne lt le gt ge logical_and logical_not logical_or bitwise_and
    bitwise_not any all diagonal_backward scatter_add cumsum new_empty unfold_backward complex
    view_as_complex_copy rand conj_physical_
    """
)
_ADDITIVE = {"add", "add_", "sub", "sub_", "rsub"}
_PRODUCTS = {"mul", "mul_"}
_QUOTIENTS = {"div", "div_"}
_UNARY = names(
    """
    neg neg_ abs sqrt sqrt_ rsqrt exp exp_ log tanh sigmoid reciprocal pow sin cos relu erf maximum minimum
    clamp clamp_min sgn sign
    """
)
_PER_OUTPUT = {"addcmul": 2, "addcmul_": 2, "addcdiv_": 2, "lerp_": 3, "lerp": 3}
_PER_INPUT = {"sum": 1, "mean": 1, "linalg_vector_norm": 2, "norm": 2}


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


class count_dispatch(TorchDispatchMode):  # noqa: N801 - reads as the verb it is in a with statement
    """Context manager: counts every operator dispatched inside, see ``PassCount``.

    Usage::

        with count_dispatch() as counter:
            y = module(x)
        print(counter.result())
    """

    def __init__(self) -> None:
        super().__init__()
        self._operators: Counter[str] = Counter()
        self._unpriced: Counter[str] = Counter()
        self._macs = 0
        self._elementwise = 0
        self._ffts = 0
        self._fft_flops = 0.0
        self._read = 0
        self._written = 0
        self._compiled_additions = 0
        self._compiled_multiplications = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        namespace, _, name = func._schema.name.partition("::")
        if namespace == NAMESPACE:
            with watched() as seen:
                out = func(*args, **kwargs)
            if seen:
                self._count_seen(name, seen)
                return out
        else:
            out = func(*args, **kwargs)
        if namespace not in ("aten", NAMESPACE) or func.is_view or name in _NO_KERNEL or "empty" in name:
            return out
        outputs = list(_tensors(out))
        if not outputs and (name.startswith(("_foreach", "_fused"))):
            outputs = list(_tensors(args[0]))
        if not any(t.numel() for t in outputs) and name not in _WITHOUT_OUTPUT:
            return out
        self._operators[name] += 1
        given = tuple(value for key, value in kwargs.items() if key != "out")  # written, not read
        read, written = _traffic(name, (args, given), outputs)
        self._read += read
        self._written += written
        self._price(name, args, kwargs, outputs)
        return out

    def result(self) -> PassCount:
        """What was counted so far."""
        return PassCount(
            macs=self._macs,
            elementwise_flops=self._elementwise,
            ffts=self._ffts,
            fft_flops=self._fft_flops,
            launches=sum(self._operators.values()),
            operators=dict(sorted(self._operators.items())),
            unpriced=dict(sorted(self._unpriced.items())),
            read=self._read,
            written=self._written,
            compiled_additions=self._compiled_additions,
            compiled_multiplications=self._compiled_multiplications,
        )

    def _count_seen(self, name: str, seen: Sequence[Counts]) -> None:
        """An operator of this suite, by what its kernels were seen to do."""
        self._operators[name] += 1
        for counts in seen:
            self._elementwise += counts.elementwise
            self._ffts += counts.transforms
            self._fft_flops += fft_flops(counts)
            self._read += counts.read
            self._written += counts.written
            self._compiled_additions += counts.additions
            self._compiled_multiplications += counts.multiplications

    def _price(self, name: str, args: Any, kwargs: Mapping[str, Any], outputs: list[Tensor]) -> None:
        if name in _MATMUL:
            self._macs += _MATMUL[name](args, outputs)
        elif name in _FFT:
            length, count, real = _FFT[name](args, outputs[0])
            self._ffts += count
            self._fft_flops += (2.5 if real else 5.0) * length * math.log2(length) * count
        elif name not in _MOVES:
            flops = _elementwise(name, args, outputs)
            if flops is None:
                self._unpriced[name] += 1
            else:
                self._elementwise += flops


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, each once, an expanded dimension at the size it is stored in."""
    distinct = {(t.data_ptr(), t.shape, t.stride(), t.dtype): t for t in tensors}
    return sum(
        math.prod(n for n, stride in zip(t.shape, t.stride(), strict=True) if stride) * t.element_size()
        if t.numel()
        else 0
        for t in distinct.values()
    )


def _traffic(name: str, inputs: Any, outputs: list[Tensor]) -> tuple[int, int]:
    """Bytes that an operator must read and write."""
    args = inputs[0]
    read, written = _bytes(_tensors(inputs)), _bytes(outputs)
    if name.startswith(("new_", "zeros", "ones", "full", "eye")) or name in ("fill_", "zero_"):
        read = 0
    elif name == "copy_":  # the destination is not read
        read = _bytes([args[1]])
    elif name == "constant_pad_nd":  # a crop reads what it keeps
        read = min(read, written)
    elif name == "index":
        read = written + _bytes(_tensors(args[1]))
    elif name == "index_put_":
        read = _bytes(_tensors(args[1:]))
        written = _bytes([args[2]])
    elif name == "native_layer_norm_backward" and list(args[-1]) == [False, True, False]:  # the gain is not used
        read = _bytes(_tensors((args[:2], args[3:5])))
    elif name == "_fused_adamw_":  # parameters and moments are written; gradients and step counters only read
        written = _bytes(_tensors((args[0], args[2], args[3])))
    return read, written


def _complex(n: int, like: Tensor) -> int:
    return n * (4 if like.is_complex() else 1)


def _attention(q: Tensor, k: Tensor, v: Tensor, products: int) -> int:
    # (..., heads, length, width): scores take length * keys * width, values length * keys * width of v.
    rows = q.shape[:-1].numel()
    return rows * k.shape[-2] * (q.shape[-1] + v.shape[-1]) * products // 2


_MATMUL: dict[str, Callable[[Any, list[Tensor]], int]] = {
    "mm": lambda a, o: _complex(o[0].numel() * a[0].shape[-1], o[0]),
    "bmm": lambda a, o: _complex(o[0].numel() * a[0].shape[-1], o[0]),
    "addmm": lambda a, o: _complex(o[0].numel() * a[1].shape[-1], o[0]),
    "addmm_": lambda a, o: _complex(o[0].numel() * a[1].shape[-1], o[0]),
    "baddbmm": lambda a, o: _complex(o[0].numel() * a[1].shape[-1], o[0]),
    "mv": lambda a, o: _complex(a[0].numel(), o[0]),
    "dot": lambda a, o: _complex(a[0].numel(), o[0]),
    "convolution": lambda a, o: o[0].numel() * a[1].shape[1:].numel(),
    "convolution_backward": lambda a, o: a[0].numel() * a[2].shape[1:].numel() * sum(bool(m) for m in a[10][:2]),
}
for _name in (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
):
    _MATMUL[_name] = lambda a, o: _attention(a[0], a[1], a[2], 2)
    # Five products: the scores again, then the gradients of v, of the probabilities, of q and of k.
    _MATMUL[_name + "_backward"] = lambda a, o: _attention(a[1], a[2], a[3], 5)


def _c2c(args: Any, out: Tensor) -> tuple[int, int, bool]:
    length = math.prod(out.shape[d] for d in args[1])
    return length, out.numel() // length, False


_FFT: dict[str, Callable[[Any, Tensor], tuple[int, int, bool]]] = {
    "_fft_r2c": lambda a, o: (n := math.prod(a[0].shape[d] for d in a[1]), a[0].numel() // n, True),
    "_fft_c2r": lambda a, o: (n := math.prod(o.shape[d] for d in a[1]), o.numel() // n, True),
    "_fft_c2c": _c2c,
}


def solve_flops(matrix: Sequence[int], sides: Sequence[int], factored: bool) -> int:
    """Real FLOPs of dense systems by LU: 2/3 n^3 a factorisation (rounded), 2 n^2 a right-hand side.

    Args:
        matrix: shape (..., n, n). sides: shape (..., n, k) or (..., k, n).
        factored: the factors are given.
    """
    n, batch = matrix[-1], math.prod(matrix[:-2])
    factoring = 0 if factored else batch * round(2 * n**3 / 3)
    return factoring + 2 * n * math.prod(sides)


_SOLVES: dict[str, Callable[[Any], int]] = {
    "_linalg_solve_ex": lambda a: solve_flops(a[0].shape, a[1].shape, factored=False),
    "linalg_lu_solve": lambda a: solve_flops(a[0].shape, a[2].shape, factored=True),
}


def _elementwise(name: str, args: Any, outputs: list[Tensor]) -> int | None:
    """Real FLOPs of an operator that is neither a product, an FFT nor a move; None where no price is known."""
    if name in _SOLVES:
        return _SOLVES[name](args)
    out = outputs[0]
    n, wide = out.numel(), 2 if out.is_complex() else 1
    if name in _ADDITIVE:
        return n * wide
    if name in _PRODUCTS:
        both = all(isinstance(a, Tensor) and a.is_complex() for a in args[:2])
        return n * (6 if both else wide)
    if name in _QUOTIENTS:
        both = isinstance(args[1], Tensor) and args[1].is_complex()
        return n * (11 if both else wide)  # (a conj(b)) / |b|^2: a product, a square norm, two divisions
    if name in _UNARY:
        return n * wide
    if name in ("addcmul", "addcmul_") and out.is_complex():
        return n * 8  # a complex product and a complex sum
    if name == "native_layer_norm_backward" and list(args[-1]) == [False, True, False]:
        return args[0].numel() * 4  # of the gain alone: subtract the mean, scale, multiply, add
    if name in _PER_OUTPUT:
        return n * _PER_OUTPUT[name] * wide
    if name in _PER_INPUT:
        return args[0].numel() * _PER_INPUT[name] * (2 if args[0].is_complex() else 1)
    if name == "_fused_adamw_":
        return ADAMW_FLOPS * sum(t.numel() for t in args[0])
    if name.startswith("_foreach_") and name.endswith("_"):
        return sum(t.numel() for t in args[0])
    return None
