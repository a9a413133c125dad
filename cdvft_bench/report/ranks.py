"""The table over workloads as text: cells for the page, the terminal and a CSV file; and as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cdvft_bench.accuracy.pilot import GAIN
from cdvft_bench.analysis.accuracy.plans import Plan
from cdvft_bench.analysis.accuracy.ranking import MATCHED, Cell, Ranking, Row
from cdvft_bench.core.interval import LEAST_SEEDS, Interval
from cdvft_bench.core.text import NOT_MEASURED, clean, listed, percent_bounds, plural
from cdvft_bench.report.page.cards import Table

RANKS = (
    "Mean rank: place by test accuracy among the methods that every workload has, 1 the best; its bounds hold together "
    "at 95 %, by tests of all pairs. W–T–L: workloads on which the method is more accurate than LoRA beyond chance "
    "(Holm over the methods), not told apart, less accurate. Points: mean difference over its workloads with a 95 % "
    "interval. LoRA of like size: the rank whose parameters are nearest, within a factor of two. LoRA of no more time: "
    "the best on validation data whose step, timed beside the method's, is not surely longer."
)


def ranking_table(found: Ranking) -> Table | None:
    """Methods as rows, ranks, differences and workloads as columns; None where no workload can rank."""
    if not found.rows:
        return None
    columns = (
        "method",
        f"mean rank of {found.ranked}",
        "W–T–L, LoRA r=8",
        "points",
        "W–T–L, LoRA of like size",
        "points, like size",
        "W–T–L, LoRA of no more time",
        "points, no more time",
        *(f"{name} [%]" for name in found.workloads),
    )
    rows = tuple(_row(row, found.workloads) for row in found.rows)
    over = f" Ranks are over {listed(found.over)}." if found.over else " Too few methods are measured for ranks."
    title = f"Methods over {plural(len(found.workloads), 'workload')} that can rank them"
    return Table(title, columns, rows, RANKS + over)


def left_out_said(found: Ranking, plans: Sequence[Plan] = ()) -> list[str]:
    """Which workloads do not count, and why; that none does; what is not finished, and what the rest takes."""
    said = [f"{name} does not count: {reason}." for name, reason in found.left_out]
    said += [
        f"{name}: {listed([clean(label) for label in labels])} {'is' if len(labels) == 1 else 'are'} tuned or under "
        f"way, with fewer than {LEAST_SEEDS} seeds on the test split, and not ranked."
        for name, labels in found.unfinished
    ]
    said += [plan.said for plan in plans if plan.said]
    if found.workloads:
        return said
    return [f"No workload can rank methods: it takes a pilot with a gain of {100 * GAIN:g} points.", *said]


@dataclass(frozen=True)
class Match:
    """A method against LoRA: workloads on which it is more accurate, not told apart, less; mean difference, a share."""

    against: str
    wins: int
    ties: int
    losses: int
    mean: Interval


@dataclass(frozen=True)
class Scored:
    """A method on one workload: accuracy, 0 to 1, with its seeds, test examples, learning rate and parameters."""

    setting: str
    accuracy: Interval
    seeds: int
    examples: int
    lr: float
    parameters: int


@dataclass(frozen=True)
class RankedMethod:
    """A row of the table; ``rank`` None where a workload lacks the method, and for the references."""

    method: str
    rank: Interval | None
    matches: tuple[Match, ...]
    workloads: Mapping[str, Scored]


@dataclass(frozen=True)
class Ranked:
    """The table over workloads for a program, what each front tells, and what does not count, with the reason."""

    methods: tuple[RankedMethod, ...]
    ranked: int
    over: tuple[str, ...]
    fronts: Mapping[str, tuple[str, ...]]
    said: tuple[str, ...]


def ranked(found: Ranking, fronts: Mapping[str, tuple[str, ...]], plans: Sequence[Plan] = ()) -> Ranked:
    """The table as plain values.

    Args:
        fronts: sentences on the fronts of each workload. plans: campaigns that lack runs.
    """
    rows = tuple(RankedMethod(row.role, row.rank, _matches(row), _scored(row)) for row in found.rows)
    return Ranked(rows, found.ranked, found.over, fronts, tuple(left_out_said(found, plans)))


def _matches(row: Row) -> tuple[Match, ...]:
    return tuple(
        Match(name, *outcomes, mean)
        for match, name in MATCHED.items()
        if (outcomes := row.outcomes(match)) is not None and (mean := row.mean(match)) is not None
    )


def _scored(row: Row) -> dict[str, Scored]:
    return {
        name: Scored(
            clean(s.label), Interval(s.mean, s.low, s.high), len(s.accuracies), s.answers.shape[1], s.lr, s.parameters
        )
        for name, cell in row.cells.items()
        for s in [cell.score]
    }


def _row(row: Row, workloads: tuple[str, ...]) -> tuple[str, ...]:
    rank = "–" if row.rank is None else f"{row.rank.value:.3g} [{row.rank.low:.3g}, {row.rank.high:.3g}]"
    cells = [clean(row.role), rank]
    for match in MATCHED:
        outcomes, mean = row.outcomes(match), row.mean(match)
        cells += ["–" if outcomes is None else "–".join(map(str, outcomes)), "–" if mean is None else _points(mean)]
    return (*cells, *(_cell(row.cells.get(name)) for name in workloads))


def _points(mean: Interval) -> str:
    return f"{100 * mean.value:+.1f}{percent_bounds(mean)}"


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return NOT_MEASURED
    score = cell.score
    known = score.low is not None and score.high is not None
    bounds = f"{100 * (score.low or 0):.1f}, {100 * (score.high or 0):.1f}" if known else "no interval"
    return f"{100 * score.mean:.1f} [{bounds}], {plural(len(score.accuracies), 'seed')}"
