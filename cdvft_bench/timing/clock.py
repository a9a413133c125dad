"""Interleaved, order-randomised timing of several contenders in one run.

Absolute times drift with the machine; a ratio of two contenders timed side by side drifts far less. So every round
times each contender once, in random order, ratios are taken round by round, and their median is given with an interval.
Rounds go on until the intervals are as narrow as asked for, or the budget is spent.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import LEAST_ROUNDS
from cdvft_bench.core.timed import Timing, precision_missed
from cdvft_bench.timing.inputs import l2_bytes
from cdvft_bench.timing.machine.gpu import CLOCK_DROP, GpuState, Look, clocks_of, looking, throttling, watts_of
from cdvft_bench.timing.statistics import FIRST_LOOK, Array, Looks, drift_warnings, lag1, median_interval, samples_of

SHORTEST_SAMPLE = 2e-3  # seconds; shorter calls are batched so that the clock's own noise is small beside them
MOST_CALLS = 10_000  # a sample
QUEUED = 16  # times the flushed memory is written before a contender that is queued: half a millisecond, by bandwidth
MOST_WARM_UPS = 10
STEADY = 0.1  # successive warm-up times that agree to this share are steady
WARM_S = 0.1  # seconds of work before a GPU's clock is looked at again
WARMEST_S = 1.0  # after which it is timed as it is
STEADY_CLOCK = 0.01  # share by which a resting clock may rise between two looks
Timer = Callable[[], float]
"""Returns seconds on a clock that never goes back."""


@dataclass(frozen=True)
class Contender:
    """One thing to time.

    Attributes:
        name: how the result calls it.
        call: what is timed.
        before: called untimed before each call (to rotate inputs, to drop gradients), or None.
        queued: whether a GPU has other work while the first call is launched, which takes long of a graph of hundreds
            of kernels.
        awaited: whether rounds go on until the ratio to it is as precise as asked.
    """

    name: str
    call: Callable[[], object]
    before: Callable[[], object] | None = None
    queued: bool = False
    awaited: bool = True


class Clock(Protocol):
    """Times calls of a contender."""

    method: str

    def __call__(self, contender: Contender, calls: int) -> float:
        """Seconds that ``calls`` calls take, without what is called before them."""


class HostClock:
    """Reads the host's timer around the calls."""

    method = "perf_counter"

    def __init__(self, timer: Timer = time.perf_counter) -> None:
        self._timer = timer

    def __call__(self, contender: Contender, calls: int) -> float:
        timer, call, before = self._timer, contender.call, contender.before
        if before is None:
            start = timer()
            for _ in range(calls):
                call()
            return timer() - start
        total = 0.0
        for _ in range(calls):
            before()
            start = timer()
            call()
            total += timer() - start
        return total


def flush_buffer(device: str | torch.device) -> torch.Tensor:
    """Memory twice the size of the L2 cache: written, it leaves nothing else there."""
    return torch.empty(max(2 * l2_bytes(device), 2**20), dtype=torch.uint8, device=device)


class CudaClock:
    """Reads CUDA events on the current stream.

    Each sample starts on an idle device with a flushed L2 cache, so its first call pays for its launch and finds its
    data in memory; the further ones follow on its heels, as training's steps do. With ``before`` each call starts so.
    """

    method = "cuda_event"

    def __init__(self, device: str | torch.device = "cuda") -> None:
        self._flush = flush_buffer(device)

    def __call__(self, contender: Contender, calls: int) -> float:
        if contender.before is None:
            return self._sample(contender.call, calls, contender.queued)
        total = 0.0
        for _ in range(calls):
            contender.before()
            total += self._sample(contender.call, 1)
        return total

    def _sample(self, call: Callable[[], object], calls: int, queued: bool = False) -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        self._flush.zero_()
        # Without this the host would launch ahead while the flush runs, and launching would look free.
        torch.cuda.synchronize()
        for _ in range(QUEUED if queued else 0):
            self._flush.zero_()
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


@contextmanager
def fixed_threads(threads: int | None) -> Iterator[int]:
    """Set torch's CPU threads for a run, and restore them.

    Raises:
        UserError: fewer than one, or so many that they would not get stacks and end the process.
    """
    most = 4 * (os.cpu_count() or 1)
    if threads is not None and not 1 <= threads <= most:
        raise UserError(f"threads = {threads} is not between 1 and {most}, four a core of this machine; give fewer")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def require_device(device: str | torch.device) -> torch.device:
    """The device, if torch can time on it.

    Raises:
        UserError: torch knows no such device, sees no GPU, or the device is neither a CPU nor a CUDA one.
    """
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device {device!r} is not known; use cpu or cuda") from error
    if place.type not in ("cpu", "cuda"):
        raise UserError(f"device {device!r} cannot be timed; use cpu or cuda")
    if place.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {device!r} is not available: torch sees no GPU here; use cpu")
    return place


def time_interleaved(
    contenders: Sequence[Contender],
    *,
    precision: float = 0.05,
    budget_s: float = 2.0,
    min_rounds: int = LEAST_ROUNDS,
    max_rounds: int = 200,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    timer: Timer = time.perf_counter,
) -> Timing:
    """Time contenders side by side.

    Args:
        contenders: the first is the subject; ratios are its time over each other's.
        precision: relative half-width of every awaited ratio's interval that is enough (of the time's own interval
            where none is awaited). It is looked at after 10 rounds and then ever more rarely; it must
            still be reached when half as many rounds again are made.
        budget_s: seconds of measuring after warm-up; a round that would exceed it is not begun. ``min_rounds``
            are made all the same, unless one round alone costs more than the budget: then one is made.
        min_rounds, max_rounds: rounds kept.
        seed: of the order.
        device: "cuda" times with events, "cpu" with the host's timer.
        threads: torch's CPU threads, None as they are.
        timer: of the host, injected by tests.

    Returns:
        samples and ratios paired by round; what makes them doubtful stands in ``warnings``.

    Raises:
        UserError: no contender, two of one name, an argument out of range, or no such device.
    """
    place = _check(contenders, precision, budget_s, min_rounds, max_rounds, threads, device)
    with warmed_up(contenders, place, threads, timer, budget_s) as (samplers, look, method, used):
        before = look()
        table, states = _rounds(samplers, precision, budget_s, min_rounds, max_rounds, seed, timer, look)
    names = [c.name for c in contenders]
    ratios = table[:, :1] / table[:, 1:] if len(names) > 1 else table
    intervals = [median_interval(column) for column in ratios.T]
    correlations = [r for column in ratios.T if (r := lag1(column)) is not None]
    reached = max(median_interval(column).half_width for column in _judged(table, contenders).T)
    warnings = (
        *_round_warnings(len(table), budget_s, precision, reached),
        *drift_warnings(table, names, precision),
        *throttling([before, *states]),
    )
    return Timing(
        samples=tuple(samples_of(name, column.tolist()) for name, column in zip(names, table.T, strict=True)),
        ratios=dict(zip(names[1:], intervals, strict=True)) if len(names) > 1 else {},
        rounds=len(table),
        method=method,
        threads=used,
        warnings=warnings,
        calls={s.contender.name: s.calls for s in samplers},
        correlation=max(correlations, default=None),
        clocks_mhz=clocks_of(states),
        watts=watts_of(states),
    )


def _check(
    contenders: Sequence[Contender],
    precision: float,
    budget_s: float,
    min_rounds: int,
    max_rounds: int,
    threads: int | None,
    device: str,
) -> torch.device:
    names = [c.name for c in contenders]
    if not names or len(set(names)) != len(names):
        raise UserError(f"contenders {names} cannot be timed; give at least one, each with a name of its own")
    for name, value in (("precision", precision), ("budget_s", budget_s)):
        if not (value > 0 and math.isfinite(value)):
            raise UserError(f"{name} = {value} is out of range; it must be a number > 0")
    if not 1 <= min_rounds <= max_rounds:
        raise UserError(
            f"min_rounds = {min_rounds}, max_rounds = {max_rounds}: 1 <= min_rounds <= max_rounds must hold"
        )
    if threads is not None and threads < 1:
        raise UserError(f"threads = {threads} is too few; it must be >= 1, or None to leave torch's as they are")
    return require_device(device)


class Sampler:
    """Takes samples of one contender, each of as many calls as make it long enough."""

    def __init__(self, contender: Contender, clock: Clock) -> None:
        self.contender = contender
        self.calls = 1
        self._clock = clock

    def sample(self) -> float:
        """Seconds of one call."""
        collecting = gc.isenabled()
        gc.disable()  # a collection inside one contender's sample would be charged to it alone
        try:
            seconds = self._clock(self.contender, self.calls)
        finally:
            if collecting:
                gc.enable()
        if seconds <= 0:
            raise UserError(f"contender {self.contender.name!r} took no time that the clock can read; time more work")
        return seconds / self.calls

    def fit(self, seconds: float) -> bool:
        """Adjust the calls of a sample to ``seconds`` a call; whether the last sample was long enough."""
        enough = seconds * self.calls >= SHORTEST_SAMPLE / 2 or self.calls == MOST_CALLS
        if not enough:
            self.calls = min(MOST_CALLS, math.ceil(SHORTEST_SAMPLE / seconds))
        return enough

    def warm_up(self, budget_s: float) -> None:
        """Call at least once, until times are steady and samples long enough, or the budget or a cap is reached."""
        previous, spent = math.inf, 0.0
        for _ in range(MOST_WARM_UPS):
            seconds = self.sample()
            spent += seconds * self.calls
            steady = abs(seconds - previous) <= STEADY * seconds
            if (self.fit(seconds) and steady) or spent >= budget_s:
                return
            previous = seconds


@contextmanager
def warmed_up(
    contenders: Sequence[Contender],
    place: torch.device,
    threads: int | None,
    timer: Timer,
    budget_s: float,
    at: Callable[[int], None] = lambda index: None,
) -> Iterator[tuple[list[Sampler], Look, str, int]]:
    """Samplers of warmed contenders, what looks at the device, the clock's name and the threads used.

    ``at`` is told of the contender that runs next, by its index.
    """
    with fixed_threads(threads) as used, torch.cuda.device(place if place.type == "cuda" else -1):
        clock: Clock = CudaClock(place) if place.type == "cuda" else HostClock(timer)
        samplers = [Sampler(c, clock) for c in contenders]
        for i, sampler in enumerate(samplers):
            at(i)
            sampler.warm_up(budget_s / len(samplers))
        look = looking(place)
        if place.type == "cuda":
            warm_clock(samplers, look, timer)
        yield samplers, look, clock.method, used


def _rounds(
    samplers: Sequence[Sampler],
    precision: float,
    budget_s: float,
    min_rounds: int,
    max_rounds: int,
    seed: int,
    timer: Timer,
    look: Look,
) -> tuple[Array, list[GpuState | None]]:
    rng = np.random.default_rng(seed)
    rows: list[Array] = []
    states: list[GpuState | None] = []
    looks = Looks(precision, max(min_rounds, FIRST_LOOK))
    start = timer()
    while len(rows) < max_rounds:
        if rows:
            spent = timer() - start
            one = spent / len(rows)
            if spent + one > budget_s and (len(rows) >= min_rounds or one > budget_s):
                break
        if looks.due(len(rows)) and looks.enough(_judged(np.array(rows), [s.contender for s in samplers])):
            break
        row = np.empty(len(samplers))
        for i in rng.permutation(len(samplers)):
            row[i] = samplers[i].sample()
            samplers[i].fit(row[i])  # a first call that compiled something has misled the warm-up
        rows.append(row)
        states.append(look())
    return np.array(rows), states


def warm_clock(samplers: Sequence[Sampler], look: Look, timer: Timer) -> None:
    """Keep a GPU at work until its clock rests: an idle one begins far below its boost.

    Contenders run in turn for ``WARM_S``, and then until of two looks so long apart the second is higher by
    ``STEADY_CLOCK`` at most, and lower by no more than a clock at a power cap is, which never stands still; or
    ``WARMEST_S`` are over. Where no clock can be read, ``WARM_S`` are all.
    """
    begun, before = timer(), look()
    while True:
        start = timer()
        while timer() - start < WARM_S:
            for sampler in samplers:
                sampler.sample()
        now = look()
        change = now.clock_mhz / before.clock_mhz - 1 if now and before and before.clock_mhz else None
        steady = now is None or (change is not None and -CLOCK_DROP <= change <= STEADY_CLOCK)
        if steady or timer() - begun >= WARMEST_S:
            return
        before = now


def _judged(table: Array, contenders: Sequence[Contender]) -> Array:
    """What must be precise: the ratios that are awaited, or the time itself where there are none."""
    awaited = [i for i, contender in enumerate(contenders) if i and contender.awaited]
    return table[:, :1] / table[:, awaited] if awaited else table[:, :1]


def _round_warnings(rounds: int, budget_s: float, precision: float, reached: float) -> Iterator[str]:
    if rounds < LEAST_ROUNDS:
        few = f"{rounds} rounds fit into {budget_s:g} s, {LEAST_ROUNDS} make an interval"
        yield f"{few}; raise the budget to quote a ratio"
    elif reached > precision:
        yield f"{precision_missed(precision)}, {reached:.1%} was, in {rounds} rounds"
