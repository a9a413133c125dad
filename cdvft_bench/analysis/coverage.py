"""How often the suite's 95 % intervals hold the truth, by simulation: what the documentation promises is this table.

Rounds of one process are drawn independently, correlated with their neighbours, drifting and with heavy tails, and
stopped when their interval is narrow; processes differ from each other; fine-tuning runs differ by seed and example.
Every row calls the functions that the suite measures with, on figures whose true value is known.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.accuracy.analysis import estimate
from cdvft_bench.core.interval import LEAST_ROUNDS, LEAST_SEEDS, Interval
from cdvft_bench.core.student import half_width
from cdvft_bench.predictor.fit import interval as range_of
from cdvft_bench.timing.statistics import Array, Looks, lag1, median_interval, ratio_interval

DRAWS = 2000
"""Of every row: a coverage of 95 % is then known within one point."""
LEAST = 0.93
"""Coverage that every row must have."""
ROUNDS = (5, 6, 8, 10, 15, 20, 50, 100)
PROCESSES = (3, 4, 5, 8)
SEEDS = (3, 4, 5, 6, 8, 10)
ERRORS = (10, 20, 30, 40, 100)
NOISE = 0.02
"""Standard deviation of a round's logarithm; coverage does not depend on it."""

Draw = Callable[[np.random.Generator, int], Array]


@dataclass(frozen=True)
class Row:
    """One kind of figures.

    Attributes:
        what: of which there are n. kind: how they are drawn. n: how many.
        coverage: share of the intervals that hold the true value. half_width: median, relative to the value.
        naive: coverage of what is not printed for that reason, of the same figures, see ``NAIVE``.
        correlation: mean measured lag-1 correlation; None where there is none.
    """

    what: str
    kind: str
    n: int
    coverage: float
    half_width: float
    naive: float
    correlation: float | None = None


NAIVE = {
    "rounds of one process": "percentile bootstrap",
    "processes of 10 rounds": "hierarchical bootstrap",
    "seeds of 200 examples": "Satterthwaite",
    "errors of predictions": "sample quantiles",
}
"""Kinds of figures, and the interval of each that the suite does not print."""
_FEW, _RESAMPLES = 300, 200
"""Draws of which the naive interval is made, since bootstraps take longest; resamples of each."""


def coverage_rows(draws: int = DRAWS, seed: int = 0) -> Iterator[Row]:
    """All rows; the same draws and seed give the same rows.

    Raises:
        ValueError: draws < 1.
    """
    if draws < 1:
        raise ValueError(f"draws = {draws} is too few; it must be >= 1")
    rng = np.random.default_rng(seed)
    for kind, draw in KINDS.items():
        for n in ROUNDS:
            yield _rounds_row(rng, kind, draw, n, draws)
    for kind, draw in STOPPED.items():
        yield _stopped_row(rng, kind, draw, draws)
    for kind, (between, draw) in BETWEEN.items():
        for n in PROCESSES:
            yield _processes_row(rng, kind, between, draw, n, draws)
    for spread in (0.0, 0.02, 0.1):
        for n in SEEDS:
            yield _seeds_row(rng, spread, n, draws)
    for kind in ("independent", "heavy tails", "skewed"):
        for n in ERRORS:
            yield _errors_row(rng, kind, KINDS[kind], n, draws)


# --- how figures are drawn: standard deviation about 1, median 0 ------------------------------


def _independent(rng: np.random.Generator, n: int) -> Array:
    return rng.standard_normal(n)


def _correlated(r: float) -> Draw:
    def draw(rng: np.random.Generator, n: int) -> Array:
        values = rng.standard_normal(n)
        for i in range(1, n):
            values[i] = r * values[i - 1] + math.sqrt(1 - r * r) * values[i]
        return values

    return draw


def _drifting(rng: np.random.Generator, n: int) -> Array:
    """Three standard deviations from the first round to the last; the truth is the middle."""
    return rng.standard_normal(n) + np.linspace(-1.5, 1.5, n)


def _heavy(rng: np.random.Generator, n: int) -> Array:
    return rng.standard_t(3, n)


def _disturbed(rng: np.random.Generator, n: int) -> Array:
    """One round in ten is disturbed, by ten standard deviations."""
    return rng.standard_normal(n) * np.where(rng.random(n) < 0.1, 10.0, 1.0)


def _skewed(rng: np.random.Generator, n: int) -> Array:
    """Log-normal: a long tail of slow rounds."""
    return np.exp(rng.standard_normal(n)) - 1


KINDS: dict[str, Draw] = {
    "independent": _independent,
    "correlated 0.3": _correlated(0.3),
    "correlated 0.6": _correlated(0.6),
    "drifting": _drifting,
    "heavy tails": _heavy,
    "disturbed": _disturbed,
    "skewed": _skewed,
}
STOPPED: dict[str, Draw] = {
    "stopped when narrow": _independent,
    "stopped when narrow, correlated 0.6": _correlated(0.6),
}
BETWEEN: dict[str, tuple[float, Draw]] = {
    "differ less than rounds": (0.25, _independent),
    "differ as rounds do": (1.0, _independent),
    "differ more than rounds": (4.0, _independent),
    "differ with heavy tails": (1.0, _heavy),
}
"""How much more processes differ than rounds do, and with which distribution."""


# --- rows ------------------------------------------------------------------------------------


def _rounds_row(rng: np.random.Generator, kind: str, draw: Draw, n: int, draws: int) -> Row:
    values = [np.exp(NOISE * draw(rng, n)) for _ in range(draws)]
    found = [median_interval(v) for v in values]
    naive = [_bootstrap([v], rng) for v in values[:_FEW]]
    correlation = float(np.mean([lag1(v) or 0.0 for v in values]))
    return Row("rounds of one process", kind, n, _held(found), _width(found), _held(naive), correlation)


def _stopped_row(rng: np.random.Generator, kind: str, draw: Draw, draws: int, most: int = 200) -> Row:
    """As the clock makes rounds: until the interval is as narrow as half of a round's own deviation."""
    found, naive, rounds = [], [], []
    for i in range(draws):
        values = np.exp(NOISE * draw(rng, most))
        looks, n = Looks(NOISE / 2), 1
        while n < most and not (looks.due(n) and looks.enough(values[:n, None])):
            n += 1
        found.append(median_interval(values[:n]))
        rounds.append(n)
        if i < _FEW:
            naive.append(_bootstrap([values[:n]], rng))
    n = int(np.median(rounds))
    return Row("rounds of one process", kind, n, _held(found), _width(found), _held(naive))


def _processes_row(rng: np.random.Generator, kind: str, between: float, draw: Draw, n: int, draws: int) -> Row:
    found, naive, within = [], [], _correlated(0.3)
    for i in range(draws):
        processes = [np.exp(NOISE * (between * own + within(rng, 10))) for own in draw(rng, n)]
        found.append(ratio_interval(processes))
        if i < _FEW:
            naive.append(_bootstrap(processes, rng))
    return Row("processes of 10 rounds", kind, n, _held(found), _width(found), _held(naive))


def _bootstrap(processes: Sequence[Array], rng: np.random.Generator) -> Interval:
    """Percentile bootstrap, over the rounds of one process, or over processes and the rounds in them."""
    table = np.stack(processes)
    count, rounds = table.shape
    which = rng.integers(0, count, (_RESAMPLES, count))
    at = rng.integers(0, rounds, (_RESAMPLES, count, rounds))
    medians = np.median(table[which[:, :, None], at], axis=2)
    low, high = np.quantile(np.median(medians, axis=1), [0.025, 0.975])
    return Interval(float(np.median(table)), float(low), float(high))


def _seeds_row(rng: np.random.Generator, spread: float, n: int, draws: int, examples: int = 200) -> Row:
    """Accuracy of 60 % whose seeds deviate by ``spread``, and whose examples by 20 points."""
    found, naive = [], []
    for i in range(draws):
        chance = 0.6 + rng.normal(0, spread, (n, 1)) + rng.normal(0, 0.2, (1, examples))
        table = (rng.random((n, examples)) < chance).astype(np.int64)
        found.append(estimate(table).interval)
        if i < _FEW:
            naive.append(_satterthwaite(table))
    kind = f"deviation of the seeds {100 * spread:g} points"
    return Row("seeds of 200 examples", kind, n, _held(found, 0.6), _width(found), _held(naive, 0.6))


def _satterthwaite(table: NDArray[np.int64]) -> Interval:
    seeds, examples = table.shape
    by_seed, by_example = table.mean(1).var(ddof=1) / seeds, table.mean(0).var(ddof=1) / examples
    total = float(by_seed + by_example)
    freedom = total**2 / (by_seed**2 / (seeds - 1) + by_example**2 / (examples - 1))
    mean, half = float(table.mean()), half_width(math.sqrt(total), float(freedom))
    return Interval(mean, mean - half, mean + half)


def _errors_row(rng: np.random.Generator, kind: str, draw: Draw, n: int, draws: int) -> Row:
    """Whether the next error lies in the range around a prediction that n errors give."""
    held, naive, widths = 0, 0, []
    for _ in range(draws):
        *known, following = 0.2 * draw(rng, n + 1)
        low, high = range_of(np.array(known)) or (0.0, math.inf)
        held += low <= math.exp(following) <= high
        low_quantile, high_quantile = np.quantile(known, [0.025, 0.975])
        naive += bool(low_quantile <= following <= high_quantile)
        widths.append(math.log(high / low) / 2)
    return Row("errors of predictions", kind, n, held / draws, float(np.median(widths)), naive / draws)


def _held(found: Sequence[Interval], truth: float = 1.0) -> float:
    return sum(i.low is not None and i.high is not None and i.low <= truth <= i.high for i in found) / len(found)


def _width(found: Sequence[Interval]) -> float:
    return float(np.median([i.half_width for i in found]))


def coverage_table(rows: Sequence[Row], draws: int) -> str:
    """The rows as Markdown, one table a kind of figures."""
    lines = []
    for what, naive in NAIVE.items():
        lines += [f"### {what.capitalize()}", "", f"| figures | n | holds the truth | half-width | {naive} |"]
        lines.append("|:--|--:|--:|--:|--:|")
        lines += [
            f"| {r.kind} | {r.n} | {100 * r.coverage:.1f} % | {100 * r.half_width:.1f} % | {100 * r.naive:.0f} % |"
            for r in rows
            if r.what == what
        ]
        lines.append("")
    least = min(rows, key=lambda row: row.coverage)
    lines.append(
        f"{draws:,} draws a row. Fewer than {LEAST_ROUNDS} rounds, or {LEAST_SEEDS} seeds, print no interval. Least: "
        f"{100 * least.coverage:.1f} % ({least.what}, {least.kind}, n = {least.n})."
    )
    return "\n".join(lines) + "\n"
