"""Rounds of many contenders in one process: every ratio of a table shares its baseline and its rounds.

A contender that takes many times as long as the baseline joins every second to fifth round, so that it costs no more
than a few of the others. Rounds of several processes are joined to one timing of each contender by :func:`joined`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cdvft_bench.core.interval import LEAST_ROUNDS, Interval
from cdvft_bench.core.timed import Timing
from cdvft_bench.timing.clock import Contender, Timer, require_device, samples_of, warmed_up
from cdvft_bench.timing.machine.gpu import GpuState, clocks_of, watts_of
from cdvft_bench.timing.statistics import FIRST_LOOK, Array, Looks, lag1, median_interval, ratio_interval

Figures = tuple[float, ...]
LEAST_SAMPLES = 2
"""Samples of every contender in a process: of three processes, six, which make an interval."""
WARMING = 0.25
"""Share of the budget that may be spent before it, on contenders whose times are not steady yet."""
DEAR = 4.0
"""Times of the baseline beyond which a contender does not join every round."""
RAREST = 5
"""It joins one round in so many at least."""


@dataclass(frozen=True)
class Rounds:
    """Rounds of one process.

    Attributes:
        seconds: of one call by contender, one figure a round; None in a round that it did not join.
        calls: that one sample of each contender was made of, in the last round.
        method, threads: of the clock, see ``Timing``. clocks_mhz, watts: of the GPU after each round, see ``Timing``.
    """

    seconds: Mapping[str, tuple[float | None, ...]]
    calls: Mapping[str, int]
    method: str
    threads: int
    clocks_mhz: tuple[float, ...] = ()
    watts: tuple[float, ...] = ()


def time_rounds(
    contenders: Sequence[Contender],
    baseline: str,
    *,
    precision: float = 0.05,
    budget_s: float = 5.0,
    max_rounds: int = 30,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    timer: Timer = time.perf_counter,
    at: Callable[[int], None] = lambda index: None,
) -> Rounds:
    """Time contenders side by side, in random order round by round.

    Args:
        contenders: each with a name of its own. baseline: name of the one that others are compared with.
        precision: relative half-width of every ratio's interval at which to stop, see ``statistics.Looks``.
        budget_s: seconds after warm-up; every contender gets ``LEAST_SAMPLES`` all the same.
        max_rounds: rounds kept. seed: of the order. device, threads, timer: see ``clock.time_interleaved``.
        at: told of the contender that runs next, by its index.

    Raises:
        UserError: no such device, or a contender takes no time.
    """
    place = require_device(device)
    rng = np.random.default_rng(seed)
    states: list[GpuState | None] = []
    with warmed_up(contenders, place, threads, timer, WARMING * budget_s, at) as (samplers, look, method, used):
        every = [1] * len(samplers)
        looks, start = Looks(precision, FIRST_LOOK), timer()
        table = np.empty((0, len(samplers)))
        base = [c.name for c in contenders].index(baseline)
        while len(table) < max_rounds:
            spent = timer() - start
            enough = bool(len(table)) and int((~np.isnan(table)).sum(axis=0).min()) >= LEAST_SAMPLES
            if enough and (spent * (1 + 1 / len(table)) > budget_s or _narrow(looks, table, base)):
                break
            row = np.full(len(samplers), math.nan)
            for i in rng.permutation(len(samplers)):
                if len(table) % every[i] == 0:
                    at(int(i))
                    row[i] = samplers[i].sample()
                    samplers[i].fit(row[i])
            if not len(table):
                cost = row * [s.calls for s in samplers]
                every = [min(RAREST, max(1, math.ceil(c / (DEAR * cost[base])))) for c in cost]
            table = np.vstack([table, row])
            states.append(look())
    return Rounds(
        {c.name: _figures(column) for c, column in zip(contenders, table.T, strict=True)},
        {s.contender.name: s.calls for s in samplers},
        method,
        used,
        clocks_of(states),
        watts_of(states),
    )


def _narrow(looks: Looks, table: Array, base: int) -> bool:
    """Whether the ratios of those that join every round are precise."""
    if not looks.due(len(table)):
        return False
    whole = [i for i in range(table.shape[1]) if i != base and not np.isnan(table[:, i]).any()]
    return looks.enough(table[:, whole] / table[:, [base]])


def _figures(column: Array) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(s) else float(s) for s in column)


def joined(
    before: Timing | None,
    found: Rounds,
    subject: str,
    name: str,
    beside: Mapping[str, str],
    group: str,
    precision: float,
) -> Timing:
    """A contender's timing with the rounds of a further process; ratios are over the processes, see ``ratio_interval``.

    Args:
        before: of the processes so far, None for the first. found: of the further one.
        subject: the contender in ``found``. name: how the timing calls it.
        beside: contenders to compare it with, by the name that the timing calls them.
        group: see ``Timing``. precision: of a ratio; a warning says where an interval is wider.
    """
    names = {name: subject, **beside}
    every = list(zip(*(found.seconds[key] for key in names.values()), strict=True))
    kept = [i for i, row in enumerate(every) if None not in row]
    rows = [every[i] for i in kept]
    columns = [tuple(float(s) for s in column if s is not None) for column in zip(*rows, strict=True)]
    if before is not None:
        columns = [(*s.seconds, *column) for s, column in zip(before.samples, columns, strict=True)]
    split = (*(before.split if before else ()), len(rows))
    ends = np.cumsum(split)
    ratios: dict[str, Interval] = {}
    correlations: list[float] = []
    for i, other in enumerate(beside, 1):
        processes = np.split(np.array(columns[0]) / np.array(columns[i]), ends[:-1])
        ratios[other] = ratio_interval(processes)
        known = [r for values in processes if (r := lag1(values)) is not None]
        correlations += [float(np.mean(known))] if known else []
    samples = tuple(samples_of(which, column) for which, column in zip(names, columns, strict=True))
    reached = max((i.half_width for i in ratios.values()), default=median_interval(np.array(columns[0])).half_width)
    warnings: tuple[str, ...] = ()
    if ends[-1] < LEAST_ROUNDS:
        warnings = (f"{ends[-1]} rounds so far, {LEAST_ROUNDS} make an interval; give a budget, or go on with the run",)
    elif reached > precision:
        said = f"{reached:.1%} was, in {len(split)} processes" if math.isfinite(reached) else "it has no interval"
        warnings = (f"the asked precision of {precision:.1%} was not reached, {said}",)
    return Timing(
        samples,
        ratios,
        int(ends[-1]),
        found.method,
        found.threads,
        warnings,
        {which: found.calls[key] for which, key in names.items()},
        group,
        len(split),
        max(correlations, default=None),
        split,
        _longer(before.clocks_mhz if before else None, found.clocks_mhz, kept),
        _longer(before.watts if before else None, found.watts, kept),
    )


def _longer(before: Figures | None, found: Figures, kept: Sequence[int]) -> Figures:
    """Figures of the rounds so far and of those kept of a further process; empty where one of them has none."""
    more = tuple(found[i] for i in kept) if found else ()
    return more if before is None else (*before, *more) if before and more else ()
