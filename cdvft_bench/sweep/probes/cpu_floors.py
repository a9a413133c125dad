"""Times that the compiled kernels cannot go below on this CPU, beside what they take, for several vector widths.

Two floors, neither of which a kernel can beat: its arithmetic (to the last addition, ``native_costs``) at the rate of
multiply-adds that fill both units, and what the stages of its transforms read and write at the rate of the cache that
holds a signal. Both rates are measured by loops that are compiled as the kernels are. One thread.
"""

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from cdvft_bench.core.text import markdown_table
from cdvft_bench.sweep.probes.widths import by_turns

WIDTHS, ROWS = (384, 768, 1024, 4096), 128
QUICK = WIDTHS[:1]
APART = 12
"""Multiply-adds of one round of the loop in ``native/rates.h``."""


@dataclass(frozen=True)
class Found:
    """One kernel on one width: seconds of :data:`ROWS` rows, m = 2, p = d, float32.

    Attributes:
        lanes: floats of a vector. flops, bytes: a second, of multiply-adds and of a signal's cache.
        arithmetic_s, traffic_s: floors. measured_s: the least of many calls.
    """

    target: str
    lanes: int
    d: int
    kernel: str
    flops: float
    bytes: float
    arithmetic_s: float
    traffic_s: float
    measured_s: float


def _least(call: Callable[[], object], budget_s: float) -> float:
    least, end = float("inf"), time.perf_counter() + budget_s
    while time.perf_counter() < end or least == float("inf"):
        begun = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - begun)
    return least


def measure_here(widths: Sequence[int], budget_s: float) -> Iterator[Found]:
    """Both kernels on each width, in this process, for the target that $CDVFT_BENCH_TARGET names."""
    import torch

    from cdvft_bench.analytic.circulant import Factor
    from cdvft_bench.analytic.linear import LinearShape
    from cdvft_bench.core.errors import UserError
    from cdvft_bench.execution import native, native_costs
    from cdvft_bench.execution.native.build import library
    from cdvft_bench.execution.native.radices import stages
    from cdvft_bench.timing.clock import fixed_threads

    made = library(torch.float32)
    if isinstance(made, str):
        raise UserError(f"there are no compiled kernels: {made}")
    lanes, share = made.lanes(), budget_s / (4 * len(widths))
    rounds, out = 200_000, torch.empty(APART * lanes)
    loop = (ctypes.c_int64(rounds), ctypes.c_void_p(out.data_ptr()))
    flops = 2 * APART * lanes * rounds / _least(lambda: made.multiply_add(*loop), share)
    with fixed_threads(1), torch.no_grad():
        for d in widths:
            radices = stages(d, lanes)
            assert radices is not None
            signal, times = torch.zeros(2 * d), max(1, 2_000_000 // d)
            sweep = (ctypes.c_void_p(signal.data_ptr()), ctypes.c_int64(2 * d), ctypes.c_int64(times))
            rate = 2 * 4 * 2 * d * times / _least(lambda s=sweep: made.read_and_write(*s), share)  # type: ignore[misc]
            x, g, a, c = torch.randn(ROWS, d), torch.randn(ROWS, d), [torch.randn(d)] * 2, [torch.randn(1, 1, d)]
            layer, factors = LinearShape(d, d, False), [Factor(d, d, d, ROWS, "float32")]
            calls = {
                "forward": lambda x=x, a=a, c=c, d=d: native.forward(x, None, a, c, d, 1.0, False),
                "backward": lambda x=x, g=g, a=a, c=c: native.backward(x, g, a, c, 1.0, False, True),
            }
            works = (
                native_costs.forward_work(layer, ROWS, factors, 2, False),
                native_costs.backward_work(layer, ROWS, factors, 2),
            )
            for (name, call), work in zip(calls.items(), works, strict=True):
                arithmetic = sum(native_costs.arithmetic(work, d, lanes, 4))
                moved = int(work.transforms) * (len(radices) + 1) * 2 * 4 * 2 * d  # all stages, then across the lanes
                target = os.environ.get("CDVFT_BENCH_TARGET") or "native"
                floors = (arithmetic / flops, moved / rate)
                yield Found(target, lanes, d, name, flops, rate, *floors, _least(call, share))


def measure(targets: Sequence[str], widths: Sequence[int], budget_s: float) -> list[Found]:
    """Each width for every target, a process a target."""
    arguments = (str(widths == QUICK), str(budget_s / len(targets)))
    return [Found(**json.loads(line)) for line in by_turns(__name__, arguments, targets, 1)]


def table(found: Sequence[Found]) -> str:
    """Markdown: floors and measured time by kernel, width and target, in nanoseconds a row."""
    head = ("kernel", "d", "target", "floats", "GFLOP/s", "GB/s")
    columns = (*head, "arithmetic, ns", "traffic, ns", "measured, ns", "over floor")
    rows = []
    for f in sorted(found, key=lambda f: (f.d, f.kernel != "forward")):
        times = (f.arithmetic_s, f.traffic_s, f.measured_s)
        cells = [f.kernel, f.d, f.target, f.lanes, f"{f.flops / 1e9:.0f}", f"{f.bytes / 1e9:.0f}"]
        cells += [f"{1e9 * t / ROWS:.0f}" for t in times]
        cells.append(f"{f.measured_s / max(f.arithmetic_s, f.traffic_s):.2f} x")
        rows.append(cells)
    return "\n".join(markdown_table(columns, rows))


if __name__ == "__main__":
    for entry in measure_here(QUICK if sys.argv[1] == "True" else WIDTHS, float(sys.argv[2])):
        print(json.dumps(asdict(entry)), flush=True)
