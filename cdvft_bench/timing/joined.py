"""Rounds of several processes as one timing of each contender; without torch, as the process that joins them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cdvft_bench.core.interval import LEAST_ROUNDS, Interval
from cdvft_bench.core.timed import Timing, precision_missed
from cdvft_bench.timing.statistics import lag1, median_interval, ratio_interval, samples_of

Figures = tuple[float, ...]


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
        warnings = (f"{precision_missed(precision)}, {said}",)
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
