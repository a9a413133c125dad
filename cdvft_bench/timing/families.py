"""What an operator or kernel is, by its name: its family, and whether it launches anything."""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

import torch

Kind = Literal["none", "composite", "kernel"]

# A family is told by a part of the name anywhere, or by one of its words; the first that fits wins.
_FAMILIES: tuple[tuple[str, tuple[str, ...], frozenset[str]], ...] = (
    ("native", ("circulant_forward", "circulant_backward"), frozenset()),  # transforms and element-wise work in one
    ("elementwise", ("triton_poi",), frozenset()),
    ("reduction", ("triton_red", "triton_per"), frozenset()),
    ("fft", ("fft", "bluestein", "spradix0", "dpradix0", "realcomplex"), frozenset()),
    ("matmul", ("gemm", "gemv", "cutlass", "cublas", "xmma", "wgmma", "nvjet", "splitk", "attention", "fmha", "flash_",
                "matmul", "triton_tem"),
     frozenset({"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "linear", "einsum", "convolution", "conv2d",
                "conv1d"})),
    ("reduction", ("reduce_kernel", "softmax"), frozenset({"norm", "welford"})),
    ("copy", ("memcpy", "memset", "slice_backward", "select_backward", "index_select"),
     frozenset({"copy", "clone", "fill", "zero", "zeros", "ones", "full", "cat", "pad", "eye", "index", "gather",
                "scatter", "embedding", "arange", "stack", "diag", "roll", "flip", "repeat", "contiguous", "tril",
                "triu", "transpose"})),
    ("reduction", (),
     frozenset({"sum", "reduce", "mean", "amax", "amin", "max", "min", "argmax", "any", "all", "cumsum"})),
    ("elementwise", ("elementwise",),
     frozenset({"add", "sub", "mul", "div", "rsub", "conj", "neg", "abs", "sqrt", "rsqrt", "exp", "log", "pow", "tanh",
                "sigmoid", "gelu", "silu", "relu", "erf", "lerp", "addcmul", "addcdiv", "where", "foreach", "multi",
                "adam", "adamw", "dropout", "bernoulli", "threshold", "clamp", "maximum", "minimum", "sin", "cos", "eq",
                "ne", "lt", "le", "gt", "ge", "not", "and", "or", "reciprocal", "normal", "uniform", "distribution"})),
)  # fmt: skip

_VIEWS = frozenset({"as_strided", "view", "_unsafe_view", "expand", "t", "transpose", "permute", "unsqueeze", "squeeze",
                    "slice", "select", "detach", "alias", "unflatten", "narrow", "resize_", "as_strided_"})  # fmt: skip
_NO_KERNEL = frozenset({"_unsafe_view", "detach", "detach_", "alias", "lift_fresh", "_local_scalar_dense", "item",
                        "is_nonzero", "result_type", "set_", "resize_", "as_strided_", "empty", "empty_like",
                        "empty_strided", "new_empty", "new_empty_strided"})  # fmt: skip


def _words(name: str) -> frozenset[str]:
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return frozenset(re.split(r"[^a-z0-9]+", apart.lower()))


NAMESPACES = ("aten::", "cdvft::")
"""Of the operators that a dispatch mode sees."""


def is_operator(name: str) -> bool:
    """Whether an event's name is that of an operator that a dispatch mode sees."""
    return name.startswith(NAMESPACES)


def bare(name: str) -> str:
    """An operator's name without its namespace."""
    for namespace in NAMESPACES:
        name = name.removeprefix(namespace)
    return name


@cache
def family(name: str) -> str:
    """Family of an operator (its bare name) or kernel: fft, matmul, reduction, copy, elementwise, native or other."""
    if name in _VIEWS:
        return "other"
    text, words = name.lower(), _words(name)
    for label, parts, whole in _FAMILIES:
        if words & whole or any(part in text for part in parts):
            return label
    return "other"


@cache
def short_kernel(name: str) -> str:
    """A kernel's name without return type, namespaces, template arguments and parameters."""
    text = name.removeprefix("void ")
    text = text.replace("(anonymous namespace)", "")
    text = re.split(r"[<(]", text, maxsplit=1)[0].strip()
    return text.rsplit("::", 1)[-1] or name


@cache
def kind(name: str) -> Kind:
    """What an operator (by its bare name) does: launch nothing itself, stand for others, or run a kernel.

    A composite (linear, matmul, reshape) is only a name for the operators inside it, which are the
    ones that a dispatch mode sees; views and bare allocations launch nothing. The installed torch's
    registry tells them apart; a name it does not know is taken for a kernel.
    """
    if name in _NO_KERNEL:
        return "none"
    packet = getattr(torch.ops.aten, name, None)
    if packet is None:
        return "kernel"
    overloads = [getattr(packet, o) for o in packet.overloads() if not o.endswith("out")]
    overloads = [o for o in overloads if torch._C._dispatch_has_kernel(o.name())]  # the rest is TorchScript's alone
    implicit = torch._C.DispatchKey.CompositeImplicitAutograd
    if any(o.has_kernel_for_dispatch_key(implicit) for o in overloads):
        return "composite"
    return "none" if overloads and all(o.is_view for o in overloads) else "kernel"
