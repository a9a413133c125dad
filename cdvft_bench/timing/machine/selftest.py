"""The clock timed against itself: does it find a difference where there is none, and one where there is?"""

import time
from collections.abc import Callable

import torch

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.timed import SelfTest
from cdvft_bench.timing.clock import Contender, Timer, require_device, time_interleaved
from cdvft_bench.timing.inputs import random_inputs

MARGIN = 0.01  # a ratio's error that nobody would act on


def selftest(
    call: Callable[[], object] | None = None,
    *,
    comparisons: int = 20,
    device: str = "cpu",
    precision: float = 0.02,
    budget_s: float = 1.0,
    max_rounds: int = 200,
    seed: int = 0,
    threads: int | None = None,
    timer: Timer = time.perf_counter,
) -> SelfTest:
    """Time a call against itself ``comparisons`` times, and against one that makes it twice.

    Args:
        call: what to time; None for a linear layer of width 768 on 256 random tokens.
        comparisons: A/A runs, each with its own order.
        device, precision, budget_s, max_rounds, threads, timer: see :func:`time_interleaved`.
        seed: of the first comparison; each further one takes the next.

    Raises:
        UserError: comparisons < 1, or no such device.
    """
    if comparisons < 1:
        raise UserError(f"comparisons = {comparisons} is too few; make at least 1")
    require_device(device)
    work = call or _linear(device)

    def compare(subject: Callable[[], object], at: int) -> tuple[Interval, float, tuple[str, ...]]:
        timing = time_interleaved(
            (Contender("subject", subject), Contender("call", work)),
            precision=precision,
            budget_s=budget_s,
            max_rounds=max_rounds,
            seed=seed + at,
            device=device,
            threads=threads,
            timer=timer,
        )
        return timing.ratios["call"], timing.samples[1].median, timing.warnings

    runs = [compare(work, at) for at in range(comparisons)]
    doubled, _, doubled_warnings = compare(lambda: (work(), work()), comparisons)
    intervals = [interval for interval, _, _ in runs]
    widths = [i.half_width for i in intervals]
    seconds = sorted(s for _, s, _ in runs)
    return SelfTest(
        comparisons=comparisons,
        excluded=sum(_outside(i, 1.0) for i in intervals) / comparisons,
        excluded_by_1_percent=sum(_outside(i, 1.0, MARGIN) for i in intervals) / comparisons,
        largest_deviation=max(abs(i.value - 1) for i in intervals),
        widest_half_width=max(widths) if all(i.low is not None for i in intervals) else None,
        doubled=doubled,
        doubled_found=doubled.low is not None and not _outside(doubled, 2.0, MARGIN),
        seconds=seconds[comparisons // 2],
        warnings=tuple(dict.fromkeys((*(w for _, _, ws in runs for w in ws), *doubled_warnings))),
    )


def _outside(interval: Interval, value: float, margin: float = 0.0) -> bool:
    """Whether the whole interval lies more than ``margin`` (relative) away from ``value``; False without bounds."""
    return interval.side(value, value * margin) != "undecided"


def _linear(device: str) -> Callable[[], object]:
    weight, x = (random_inputs(shape, device=device, seed=i)[0] for i, shape in enumerate(((768, 768), (256, 768))))

    def call() -> object:
        with torch.no_grad():
            return torch.nn.functional.linear(x, weight)

    return call
