"""Interleaved, order-randomised timing of several contenders in one run.

Absolute times drift with the machine; a ratio of two contenders timed side by side drifts far
less. So every round times each contender once, in random order, ratios are taken round by round,
and their median is given with a bootstrap interval. Rounds go on until the intervals are as narrow
as asked for, or the budget is spent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cdvft_bench.timing.result import Interval, Samples, Timing

Seconds = Callable[[Callable[[], object], int], float]
"""Times ``n`` calls of a callable and returns seconds in all."""

SHORTEST_SAMPLE = 2e-3  # seconds; shorter calls are batched so that the clock's own noise is small beside them
RESAMPLES = 1000


@dataclass(frozen=True)
class Contender:
    """One thing to time.

    Attributes:
        name: how the result calls it.
        call: what is timed.
        before: called untimed before each sample, or None.
    """

    name: str
    call: Callable[[], object]
    before: Callable[[], object] | None = None


@contextmanager
def fixed_threads(threads: int | None) -> Iterator[int]:
    """Set torch's CPU threads for the time of a run, and restore them."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def host_seconds(call: Callable[[], object], n: int) -> float:
    """Seconds that ``n`` calls take on the host."""
    start = time.perf_counter()
    for _ in range(n):
        call()
    return time.perf_counter() - start


class CudaClock:
    """Times with CUDA events, the L2 cache flushed before every sample."""

    def __init__(self) -> None:
        size = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self._flush = torch.empty(max(2 * size, 2**20), dtype=torch.uint8, device="cuda")

    def __call__(self, call: Callable[[], object], n: int) -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        self._flush.zero_()
        torch.cuda.synchronize()
        start.record()
        for _ in range(n):
            call()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1e3


def bootstrap_median(values: NDArray[np.float64], seed: int = 0) -> Interval:
    """Median with its 95 % percentile-bootstrap interval; no interval from fewer than three values."""
    median = float(np.median(values))
    if len(values) < 3:
        return Interval(median, None, None)
    rng = np.random.default_rng(seed)
    draws = np.median(values[rng.integers(0, len(values), (RESAMPLES, len(values)))], axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(median, float(low), float(high))


def _drift(seconds: NDArray[np.float64]) -> float:
    """Relative change of the median from the first third of the rounds to the last."""
    third = len(seconds) // 3
    return float(np.median(seconds[-third:]) / np.median(seconds[:third]) - 1) if third >= 3 else 0.0


def time_interleaved(
    contenders: Sequence[Contender],
    *,
    precision: float = 0.05,
    budget_s: float = 2.0,
    min_rounds: int = 5,
    max_rounds: int = 200,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    clock: Seconds | None = None,
    now: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Time contenders side by side.

    Args:
        contenders: the first is the subject; ratios are its time over each other's.
        precision: relative half-width of every ratio's interval at which to stop.
        budget_s: seconds of measuring after which to stop; ``min_rounds`` are made all the same,
            unless one round alone costs more than the budget.
        min_rounds, max_rounds: rounds kept.
        seed: of the order and of the bootstrap.
        device: "cuda" times with events, anything else with the host's clock.
        threads: torch's CPU threads, None as they are.
        clock, now: injected by tests.

    Raises:
        ValueError: no contender, or two of one name.
    """
    names = [c.name for c in contenders]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"contenders {names} must be at least one, each with a name of its own")
    read: Seconds = clock or (CudaClock() if device == "cuda" else host_seconds)
    warnings: list[str] = []
    with fixed_threads(threads) as used:
        start = now()
        batches = [_warm_up(c, read) for c in contenders]
        rng = np.random.default_rng(seed)
        rounds: list[NDArray[np.float64]] = []
        spent_on_round = 0.0
        start = now()
        while len(rounds) < max_rounds:
            spent = now() - start
            if spent >= budget_s and (len(rounds) >= min_rounds or spent_on_round > budget_s):
                break
            if len(rounds) >= max(min_rounds, 5) and _precise(np.array(rounds), precision, seed):
                break
            begun = now()
            row = np.empty(len(contenders))
            for i in rng.permutation(len(contenders)):
                before = contenders[i].before
                if before is not None:
                    before()
                row[i] = read(contenders[i].call, batches[i]) / batches[i]
            rounds.append(row)
            spent_on_round = now() - begun
    table = np.array(rounds)
    if len(rounds) < 3:
        warnings.append(f"only {len(rounds)} rounds fit into {budget_s:g} s: no interval; raise the budget to quote a ratio")
    elif len(contenders) > 1 and not _precise(table, precision, seed):
        warnings.append(f"the asked precision of {precision:g} was not reached in {len(rounds)} rounds and {budget_s:g} s")
    drift = _drift(table[:, -1])
    if abs(drift) > 0.1:
        warnings.append(f"the machine drifted: {names[-1]} changed by {drift:+.0%} from the first rounds to the last")
    samples = tuple(
        Samples(name, tuple(float(s) for s in column), *(float(q) for q in np.quantile(column, [0.5, 0.25, 0.75])))
        for name, column in zip(names, table.T, strict=True)
    )
    ratios = {name: bootstrap_median(table[:, 0] / table[:, i], seed) for i, name in enumerate(names) if i}
    method = "cuda_event" if device == "cuda" else "perf_counter"
    return Timing(samples, ratios, len(rounds), method, used, tuple(warnings))


def _precise(table: NDArray[np.float64], precision: float, seed: int) -> bool:
    for i in range(1, table.shape[1]):
        interval = bootstrap_median(table[:, 0] / table[:, i], seed)
        if interval.low is None or interval.high is None or interval.high - interval.low > 2 * precision * interval.value:
            return False
    return True


def _warm_up(contender: Contender, read: Seconds, most: int = 10) -> int:
    """Call until two successive times agree to 20 %, and return the calls that make one sample long enough."""
    previous = float("inf")
    for _ in range(most):
        if contender.before is not None:
            contender.before()
        current = read(contender.call, 1)
        if current > 0.5 or abs(current - previous) <= 0.2 * previous:  # a slow call is not repeated to warm up
            break
        previous = current
    # A contender that prepares each sample is called once a sample.
    return 1 if contender.before is not None else max(1, min(1000, int(SHORTEST_SAMPLE / max(current, 1e-9))))
