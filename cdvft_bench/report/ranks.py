"""The table over workloads as text: cells for the page, the terminal and a CSV file."""

from collections.abc import Sequence

from cdvft_bench.accuracy.pilot import GAIN
from cdvft_bench.analysis.accuracy.plans import Plan
from cdvft_bench.analysis.accuracy.ranking import MATCHED, Cell, Ranking, Row
from cdvft_bench.core.interval import Interval
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
    """Which workloads do not count, and why; that none does; which campaigns lack runs, and what these take."""
    said = [f"{name} does not count: {reason}." for name, reason in found.left_out]
    said += [plan.said for plan in plans if plan.said]
    if found.workloads:
        return said
    return [f"No workload can rank methods: it takes a pilot with a gain of {100 * GAIN:g} points.", *said]


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
