"""Methods over workloads: mean ranks with intervals, wins, ties and losses against LoRA, and what was not measured.

Only workloads that can rank count: those whose pilot shows tuned full fine-tuning well above training nothing but the
classifier (``accuracy.pilot``). The others are named with the reason.

A rank's interval holds by tests of all pairs: a method that b others beat beyond chance and that beats w of n is
between place 1 + b and n - w (as Mohamad, Goeman and van Zwet 2019 count). Holm's correction runs over all pairs of
all workloads, so that all intervals of the table hold together; where nothing is told apart they say 1 to n.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cdvft_bench.accuracy.analysis import Difference, Estimate, Score, estimate, holm, paired
from cdvft_bench.accuracy.draws import CostOf
from cdvft_bench.accuracy.pilot import REFERENCES
from cdvft_bench.accuracy.results import tuning_runs, unfinished
from cdvft_bench.accuracy.training.trial import BASE, HEAD, TrialResult
from cdvft_bench.analysis.accuracy.answers import best_tuned
from cdvft_bench.analysis.accuracy.pairs import BASELINE, beyond_chance, differences_to, told_apart
from cdvft_bench.analysis.cases import CIRCULANT, title_of
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.student import joint_freedom
from cdvft_bench.core.text import clean, listed, percent_bounds, plural

if TYPE_CHECKING:
    from cdvft_bench.analysis.accuracy.study import Study

LIKE = 2.0
"""A LoRA of up to so many times the parameters, or as many times fewer, is of like size."""
LEAST = 4
"""Methods beside the references that a workload must have to enter the ranks; its differences count in any case."""

Outcome = Literal["win", "tie", "loss"]
Match = Literal["lora", "like", "timed"]
MATCHED: Mapping[Match, str] = {
    "lora": BASELINE,
    "like": "the LoRA of like size",
    "timed": "the best LoRA of no more step time",
}
"""What a method is set against: each with the methods' own budget held equal another way."""


def outcome(difference: Difference) -> Outcome:
    """More accurate beyond chance, not told apart, or less, by the rule of ``told_apart``."""
    if not told_apart(difference):
        return "tie"
    return "win" if difference.mean > 0 else "loss"


@dataclass(frozen=True)
class Cell:
    """A method on one workload.

    Attributes:
        score: of the setting that stands for the role there, the best on validation data where there are several.
        rank: among the methods that every workload of the ranks has; equal accuracies share their mean place.
        lora: against LoRA r = 8, None of itself. like: against the LoRA of like size, None where none was run.
        timed: against the LoRA that is best on validation data among those whose step is not surely longer than the
            method's; None where steps were not timed side by side.
    """

    score: Score
    rank: Interval | None
    lora: Difference | None
    like: Difference | None
    timed: Difference | None = None


@dataclass(frozen=True)
class Row:
    """A method over workloads.

    Attributes:
        role: what the method is called where widths differ. method: its name in the suite.
        cells: by workload; a workload that is not there was not measured.
        rank: mean over the workloads of the ranks; None where one of them lacks it, and of the references.
    """

    role: str
    method: str
    cells: Mapping[str, Cell]
    rank: Interval | None

    def outcomes(self, match: Match = "lora") -> tuple[int, int, int] | None:
        """Wins, ties and losses against what ``MATCHED`` says; None where it met none."""
        words = [outcome(one) for one in self._against(match)]
        return (words.count("win"), words.count("tie"), words.count("loss")) if words else None

    def mean(self, match: Match = "lora") -> Interval | None:
        """Mean difference over the workloads that it was measured on; they count alike."""
        parts = self._against(match)
        return mean_of(parts).interval if parts else None

    def _against(self, match: Match) -> list[Difference]:
        found: list[Difference | None] = [getattr(cell, match) for cell in self.cells.values()]
        return [one for one in found if one is not None]


@dataclass(frozen=True)
class Ranking:
    """The table over workloads.

    Attributes:
        workloads: names of those that can rank. left_out: others, with the reason. unfinished: of workloads that can
            rank, methods without test runs that count. rows: best mean rank first, then methods that were not
            measured everywhere, then the references.
        ranked: how many methods have ranks: those that every workload of ``over`` has. over: workloads of the ranks.
    """

    workloads: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    unfinished: tuple[tuple[str, tuple[str, ...]], ...]
    rows: tuple[Row, ...]
    ranked: int
    over: tuple[str, ...]


def ranking(studies: Iterable[Study]) -> Ranking:
    """The table over workloads of fine-tuning runs; without rows where none of them can rank."""
    able: dict[str, Study] = {}
    left_out = []
    for study in studies:
        if not study.scores:
            continue
        if study.cannot_rank:
            left_out.append((clean(study.name), study.cannot_rank))
        else:
            able[study.name] = study
    short = [name.partition(" (")[0] for name in able]
    known = {
        clean(brief if short.count(brief) == 1 else study.name): study
        for brief, study in zip(short, able.values(), strict=True)
    }
    named = {name: roles(study.scores, study.runs) for name, study in known.items()}
    methods = {role: score.method for scored in named.values() for role, score in scored.items()}
    rivals = {name: [r for r, s in scored.items() if s.method not in REFERENCES] for name, scored in named.items()}
    over = tuple(name for name, some in rivals.items() if len(some) >= LEAST)
    ranked = [role for role in methods if over and all(role in rivals[name] for name in over)]
    places = ranks({name: {role: named[name][role] for role in ranked} for name in over})
    lora = {name: _against_baseline(scored) for name, scored in named.items()}
    like = {name: _against_like(scored) for name, scored in named.items()}
    timed = {name: _against_timed(scored, known[name]) for name, scored in named.items()}
    rows = []
    for role, method in methods.items():
        cells = {
            name: Cell(
                scored[role], places.get(name, {}).get(role), *(some[name].get(role) for some in (lora, like, timed))
            )
            for name, scored in named.items()
            if role in scored
        }
        mine = [cell.rank for cell in cells.values() if cell.rank is not None]
        rows.append(Row(role, method, cells, _mean_rank(mine) if role in ranked else None))
    rows.sort(key=_order)
    waiting = tuple((name, some) for name, study in known.items() if (some := tuple(unfinished(study.runs))))
    return Ranking(tuple(named), tuple(left_out), waiting, tuple(rows), len(ranked), over)


def said_of(found: Ranking, role: str) -> str:
    """What the table says of a method, in a sentence; empty where no workload can rank it."""
    row = next((row for row in found.rows if row.role == role and row.cells), None)
    if row is None:
        return ""
    parts = []
    if row.rank is not None:
        low, high = row.rank.low, row.rank.high
        parts.append(f"its mean rank is {row.rank.value:.3g} [{low:.3g}, {high:.3g}] of {found.ranked} methods")
    for match, name in MATCHED.items():
        outcomes, mean = row.outcomes(match), row.mean(match)
        if outcomes is not None and mean is not None:
            wins, ties, losses = outcomes
            parts.append(
                f"against {name} it is more accurate on {wins}, not told apart on {ties}, less accurate on {losses} "
                f"({100 * mean.value:+.1f} points{percent_bounds(mean)} in the mean)"
            )
    where = f"{plural(len(row.cells), 'workload')} that can rank methods ({listed(list(row.cells))})"
    return f"Over {where}, {role}: {'; '.join(parts)}."


def role_of(score: Score) -> str:
    """What a method is called on workloads of any width: "CDVFT m=2 p=d", "C3A p<d", "FourierFT".

    Rank and m stand in it, sizes that follow the model's width do not; nor does the path, which changes no weight.
    """
    if score.method in (HEAD, BASE):
        return score.label
    given = dict(score.hyperparameters)
    words = [title_of(score.method)]
    if score.method in ("lora", "dora"):
        words.append(f"r={given.get('rank', 8)}")
    if score.method == "cdvft":
        words.append(f"m={given.get('m', 2)}")
    if score.method in CIRCULANT:
        words.append("p=d" if given.get("block_size") is None else "p<d")
    if "init" in given:
        words.append(str(given["init"]))
    return clean(" ".join(words))


def roles(found: Sequence[Score], runs: Sequence[TrialResult]) -> dict[str, Score]:
    """Scores by role; of several settings of one role the best on validation data."""
    alike: dict[str, list[Score]] = {}
    for score in found:
        alike.setdefault(role_of(score), []).append(score)
    tried = tuning_runs(runs)
    return {role: best for role, some in alike.items() if (best := best_tuned(tried, some)) is not None}


def ranks(named: Mapping[str, Mapping[str, Score]]) -> dict[str, dict[str, Interval]]:
    """Place of every method on every workload, with intervals that hold together at 95 %.

    Args:
        named: scores by workload and role; the same roles on each.
    """
    told = beyond_chance(named)
    beats, beaten = Counter((w, better) for w, better, _ in told), Counter((w, worse) for w, _, worse in told)
    found: dict[str, dict[str, Interval]] = {}
    for name, scored in named.items():
        means = {role: score.mean for role, score in scored.items()}
        found[name] = {
            role: Interval(
                0.5 + sum(v > mean for v in means.values()) + 0.5 * sum(v == mean for v in means.values()),
                1.0 + beaten[name, role],
                float(len(means) - beats[name, role]),
            )
            for role, mean in means.items()
        }
    return found


def mean_of(parts: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates, those of different workloads, each with the same weight."""
    n = len(parts)
    mean = math.fsum(part.mean for part in parts) / n
    errors = [part.error for part in parts if part.error is not None]
    if len(errors) < n:
        return Estimate(mean, None, 0)
    variance = math.fsum(error**2 for error in errors) / n**2
    freedom = joint_freedom((error**2, part.freedom) for error, part in zip(errors, parts, strict=True))
    return Estimate(mean, math.sqrt(variance), freedom)


def _against_baseline(scored: Mapping[str, Score]) -> dict[str, Difference]:
    base = scored.get(BASELINE)
    if base is None:
        return {}
    named = {score.label: role for role, score in scored.items()}
    return {named[label]: one for label, one in differences_to(list(scored.values()), base.label).items()}


def _against_like(scored: Mapping[str, Score]) -> dict[str, Difference]:
    """Every method but LoRA against the LoRA whose parameters are nearest to its own."""

    def near(score: Score, loras: Sequence[Score]) -> Score | None:
        distance = {one.label: abs(math.log(one.parameters / score.parameters)) for one in loras}
        found = min(loras, key=lambda one: (distance[one.label], one.parameters))
        return found if distance[found.label] <= math.log(LIKE) else None

    return _against_lora(scored, lambda score, loras: near(score, loras) if score.parameters else None)


def _against_timed(scored: Mapping[str, Score], study: Study) -> dict[str, Difference]:
    """Every method but LoRA against the best LoRA, on validation data, whose step is not surely longer."""
    seconds = next((front.costs for front in study.fronts if front.kind.name == "time"), {})
    tried = tuning_runs(study.runs)

    def bounds(score: Score) -> tuple[float, float]:
        cost: CostOf = seconds[score.label]
        return cost.low or cost.value, cost.high or cost.value

    def best(score: Score, loras: Sequence[Score]) -> Score | None:
        known = [one for one in loras if {one.label, score.label} <= seconds.keys()]
        return best_tuned(tried, [one for one in known if bounds(one)[0] <= bounds(score)[1]])

    return _against_lora(scored, best)


def _against_lora(
    scored: Mapping[str, Score], rival: Callable[[Score, Sequence[Score]], Score | None]
) -> dict[str, Difference]:
    """Every method but LoRA and the references against the LoRA that is its rival; Holm over these."""
    loras = [s for s in scored.values() if s.method == "lora"]
    found: dict[str, tuple[Score, Score, Estimate]] = {}
    for role, score in scored.items():
        if not loras or score.method in ("lora", *REFERENCES):
            continue
        other = rival(score, loras)
        if other is not None and (table := paired(score, other)) is not None:
            found[role] = score, other, estimate(table)
    corrected = holm([value.p for *_, value in found.values()])
    return {
        role: Difference(value.mean, value.error, value.freedom, score.label, other.label, p)
        for (role, (score, other, value)), p in zip(found.items(), corrected, strict=True)
    }


def _mean_rank(places: Sequence[Interval]) -> Interval:
    def mean(values: Iterable[float | None]) -> float:
        return math.fsum(value or 0.0 for value in values) / len(places)

    return Interval(mean(p.value for p in places), mean(p.low for p in places), mean(p.high for p in places))


def _order(row: Row) -> tuple[object, ...]:
    mean = math.fsum(cell.score.mean for cell in row.cells.values()) / len(row.cells)
    place = math.inf if row.rank is None else row.rank.value
    return row.method in REFERENCES, place, -len(row.cells), -mean, row.role
