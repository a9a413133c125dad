"""Rounds of many contenders in one process: every ratio of a table shares its baseline and its rounds.

A contender that takes many times as long as the baseline joins every second to fifth round, so that it costs no more
than a few of the others. Rounds of several processes become one timing of each contender in ``timing.joined``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from cdvft_bench.timing.clock import Contender, Timer, require_device, warmed_up
from cdvft_bench.timing.joined import Rounds
from cdvft_bench.timing.machine.gpu import GpuState, clocks_of, watts_of
from cdvft_bench.timing.statistics import FIRST_LOOK, Array, Looks

LEAST_SAMPLES = 2
"""Samples of every contender in a process: of three processes, six, which make an interval."""
WARMING = 0.25
"""Share of the budget that may be spent before it, on contenders whose times are not steady yet."""
DEAR = 4.0
"""Times of the baseline beyond which a contender does not join every round."""
RAREST = 5
"""It joins one round in so many at least."""


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
