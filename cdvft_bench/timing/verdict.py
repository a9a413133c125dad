"""What bounds a traced call: launching, memory bandwidth or arithmetic. Says "unknown" where a trace cannot tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from cdvft_bench.timing.chrome import Event
from cdvft_bench.timing.traffic import ITEMSIZE

IDLE = 0.4  # share of the span without work on the device from which launching may be the bound
CPU_OVERHEAD = 0.5  # the same on a CPU, where the profiler itself costs some microseconds an operator
MAJOR = 0.6  # share of kernel time that a bound must explain
# FLOPs a byte at which arithmetic and bandwidth take equally long: devices of 2010 to 2026 lie between these,
# in 16- and 32-bit arithmetic, from one core without matrix units to GPUs with them.
LOWEST_RIDGE: dict[str, float] = {"cpu": 3.0, "cuda": 8.0}
HIGHEST_RIDGE: dict[str, float] = {"cpu": 400.0, "cuda": 700.0}
_MOVING = ("elementwise", "reduction", "copy", "fft")  # families of few FLOPs a byte on every device
_OPERANDS = {"aten::mm": 0, "aten::bmm": 0, "aten::addmm": 1, "aten::baddbmm": 1}


def products(leaves: Iterable[Event]) -> tuple[float, float] | None:
    """FLOPs and bytes of the matrix products among leaf operators (2 FLOPs a multiply-add, each matrix moved once).

    None where a product's shapes were not recorded.
    """
    flops = moved = 0.0
    for event in leaves:
        first = _OPERANDS.get(event.name)
        if first is None:
            continue
        dims, types = event.args.get("Input Dims"), event.args.get("Input type")
        try:
            a, b, dtype = list(dims[first]), list(dims[first + 1]), str(types[first])  # type: ignore[index]
            inner, columns, rows, batch = a[-1], b[-1], a[-2], math.prod(a[:-2])
            flops += 2.0 * batch * rows * inner * columns * (4 if "complex" in dtype else 1)
            moved += 1.0 * batch * (rows * inner + inner * columns + rows * columns) * ITEMSIZE[dtype]
        except (TypeError, IndexError, KeyError, OverflowError):
            return None
    return flops, moved


def judge(
    device: Literal["cpu", "cuda"],
    busy: float | None,
    starved: float | None,
    families: Mapping[str, float],
    work: tuple[float, float] | None,
    span: float = 0.0,
) -> tuple[str, str]:
    """Verdict and its reason.

    Args:
        device: "cpu" or "cuda".
        busy: share of the span in which the device (on a CPU: a leaf operator) ran.
        starved: seconds in which the device had nothing launched to run (CPU: None).
        families: kernel seconds by family.
        work: FLOPs and bytes of the matrix products, see :func:`products`.
        span: seconds that the trace lasts.

    Returns:
        "launch-bound", "bandwidth-bound", "compute-bound" or "unknown", and why.
    """
    total = sum(families.values())
    if busy is None or total <= 0:
        return "unknown", "the trace holds no kernel time"
    if device == "cpu" and busy < CPU_OVERHEAD:
        return "launch-bound", (
            f"leaf operators run in {busy:.0%} of the span; the rest is Python, dispatch, autograd and the profiler"
        )
    if device == "cuda" and 1 - busy > IDLE:
        waiting = (starved or 0.0) / span if span else 0.0
        outside = 1 - busy - waiting
        if waiting >= (1 - busy) / 2:
            return "launch-bound", (
                f"the device is idle in {1 - busy:.0%} of the span, in {waiting:.0%} because nothing had been launched"
            )
        return "unknown", (
            f"the device is idle in {1 - busy:.0%} of the span, but in {outside:.0%} of it before its first kernel, "
            "after its last, or with work launched: a synchronisation, a dependency or launch latency"
        )
    moving = sum(families.get(f, 0.0) for f in _MOVING) / total
    matmul = families.get("matmul", 0.0) / total
    if moving >= MAJOR:
        said = f"{moving:.0%} of kernel time is element-wise work, copies, reductions and FFTs: few FLOPs a byte"
        return "bandwidth-bound", said
    if matmul < MAJOR:
        said = f"matrix products take {matmul:.0%} of kernel time, work of few FLOPs a byte {moving:.0%}"
        return "unknown", f"{said}; neither explains {MAJOR:.0%}"
    if work is None or not work[1]:
        return "unknown", f"matrix products take {matmul:.0%} of kernel time, but their shapes were not recorded"
    intensity = work[0] / work[1]
    said = f"matrix products take {matmul:.0%} of kernel time at {intensity:.3g} FLOPs a byte"
    if intensity > HIGHEST_RIDGE[device]:
        return "compute-bound", f"{said}, above what any device's memory holds back"
    if intensity < LOWEST_RIDGE[device]:
        return "bandwidth-bound", f"{said}, less than any device can compute with at full speed"
    return "unknown", f"{said}: whether that is compute- or bandwidth-bound depends on the device's ridge point"
