"""Sum up torch.profiler traces: launches, time by kernel family, host against device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal

import torch
from torch.profiler import ProfilerActivity, profile

from cdvft_bench.timing.result import TraceSummary

# By fragments of operator names (CPU) and of kernel names (CUDA); the first family that matches wins.
_FAMILIES = (
    ("fft", ("fft", "regular_fft", "vector_fft", "bluestein")),
    ("matmul", ("gemm", "mm", "cutlass", "cublas", "bmm", "linear", "xmma", "wgmma", "dot", "attention", "fmha", "flash")),
    ("copy", ("copy", "memcpy", "memset", "clone", "fill", "zero", "cat", "pad", "eye", "index", "slice_backward",
              "select_backward", "ones", "to_copy", "embedding", "arange", "stack", "block_diag")),
    ("reduction", ("sum", "reduce", "norm", "mean", "softmax")),
    ("elementwise", ("elementwise", "add", "mul", "div", "sub", "conj", "neg", "adam", "gelu", "sqrt", "exp", "tanh",
                     "lerp", "addc", "triton", "where", "pow", "erf")),
)  # fmt: skip

_ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
_NO_KERNEL = frozenset(("_unsafe_view", "detach", "detach_", "alias", "lift_fresh", "_local_scalar_dense", "item",
                        "is_nonzero", "result_type", "set_", "resize_", "as_strided_", *_ALLOCATIONS))  # fmt: skip


def family(name: str) -> str:
    """Kernel family of an operator or kernel name: fft, matmul, copy, reduction, elementwise or other."""
    text = name.lower()
    for label, fragments in _FAMILIES:
        if any(fragment in text for fragment in fragments):
            return label
    return "other"


def trace_call(call: Callable[[], object], device: str = "cpu") -> TraceSummary:
    """Profile one call (warm it up before) and sum it up."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    if device == "cuda":
        torch.cuda.synchronize()
    with profile(activities=activities) as profiler:
        call()
        if device == "cuda":
            torch.cuda.synchronize()
    return _summary(profiler, device)


def _summary(profiler: Any, device: str) -> TraceSummary:
    events = profiler.events()
    operators = [e for e in events if e.name.startswith("aten::")]
    host = sum(e.self_cpu_time_total for e in operators) / 1e6
    families: Counter[str] = Counter()
    launched: Counter[str] = Counter()
    device_seconds = 0.0
    if device == "cuda":
        for e in events:
            if e.device_type == torch.autograd.DeviceType.CUDA:
                launched[e.name] += 1
                seconds = e.time_range.elapsed_us() / 1e6
                families[family(e.name)] += seconds
                device_seconds += seconds
    else:
        for e in operators:
            families[family(e.name.removeprefix("aten::"))] += e.self_cpu_time_total / 1e6
        for e in events:
            if e.cpu_parent is None:
                launched.update(_dispatched(e))
    return TraceSummary(
        operators=len(operators),
        launches=sum(launched.values()),
        host_seconds=host,
        device_seconds=device_seconds,
        families=dict(sorted(families.items())),
        by_operator=dict(sorted(launched.items())),
        device=device,
    )


@cache
def _kind(name: str) -> Literal["none", "composite", "kernel"]:
    """What an ATen operator does: launch nothing itself, stand for other operators, or run a kernel."""
    if name in _NO_KERNEL:
        return "none"
    packet = getattr(torch.ops.aten, name, None)
    if packet is None:
        return "kernel"
    overloads = [getattr(packet, o) for o in packet.overloads() if not o.endswith("out")]
    overloads = [o for o in overloads if torch._C._dispatch_has_kernel(o.name())]  # the rest is TorchScript's alone
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    if any(o.has_kernel_for_dispatch_key(key) for o in overloads):
        return "composite"
    return "none" if overloads and all(o.is_view for o in overloads) else "kernel"


def _dispatched(event: Any) -> Iterator[str]:
    """Names of the operators that reach a kernel under ``event``: what the dispatcher sees below autograd.

    A composite operator (linear, matmul, reshape) stands for the ones inside it; what a kernel
    calls on its own account is part of it.
    """
    name = event.name.removeprefix("aten::")
    kind = _kind(name) if event.name.startswith("aten::") else "composite"
    if kind == "kernel":
        yield name
        if family(name) == "elementwise":
            # The dispatcher itself makes an operand explicit that was only marked as conjugated.
            yield from ("clone" for child in event.cpu_children if child.name == "aten::clone")
    elif kind == "composite":
        for child in event.cpu_children:
            yield from _dispatched(child)
