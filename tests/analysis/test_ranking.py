"""The table over workloads: synthetic runs of known answer come out as they were made."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from cdvft_bench.accuracy.analysis import Estimate
from cdvft_bench.accuracy.draws import CostOf
from cdvft_bench.accuracy.results import final_runs, workloads
from cdvft_bench.accuracy.training.trial import Split, Trial, TrialResult, packed
from cdvft_bench.analysis.accuracy.pairs import states
from cdvft_bench.analysis.accuracy.ranking import Ranking, mean_of, ranking, role_of, said_of
from cdvft_bench.analysis.accuracy.study import fronted, studies
from cdvft_bench.analysis.inputs import Campaign
from cdvft_bench.core.interval import Interval
from cdvft_bench.report.ranks import left_out_said, ranking_table
from cdvft_bench.report.terminal.overview import show_ranking
from cdvft_bench.sweep.step_times import StepCost, StepTimes

Setting = tuple[str, tuple[tuple[str, int | str], ...]]
HEAD, FULL, LORA, LORA1 = ("head", ()), ("full", ()), ("lora", (("rank", 8),)), ("lora", (("rank", 1),))
OURS, C3A, BCA = ("cdvft", (("m", 2), ("path", "auto"))), ("c3a", (("block_size", 128),)), ("block_circulant", ())
PARAMETERS = {HEAD: 0, FULL: 10**7, LORA: 73_728, LORA1: 9_216, OURS: 13_824, C3A: 13_824, BCA: 4_608}


def made(
    shares: Mapping[Setting, float], task: str = "tweets", n: int = 2000, seeds: Sequence[int] = range(4), seed: int = 0
) -> list[TrialResult]:
    """Final runs that answer as a share of the examples right, the same examples with every seed."""
    rng = random.Random(seed)
    runs = []
    for (method, given), share in shares.items():
        for one in seeds:
            trial = Trial("minilm", task, method, given, seed=one, evaluate="test", scored=n)
            right = [rng.random() < share for _ in range(n)]
            parameters = PARAMETERS[method, given]
            runs.append(
                TrialResult(trial, trial.label, sum(right) / n, scored=n, right=packed(right), parameters=parameters)
            )
    return runs


def exact(shares: Mapping[Setting, int], task: str, n: int = 1000) -> list[TrialResult]:
    """Final runs that answer just the first examples right, so many with each of four seeds."""
    runs = made(dict.fromkeys(shares, 0.0), task, n)
    return [
        replace(run, accuracy=k / n, right=packed([i < k for i in range(n)]))
        for run in runs
        for k in [shares[run.trial.method, run.trial.hyperparameters]]
    ]


def ranked(**runs: Sequence[TrialResult]) -> Ranking:
    return ranking(studies(runs))


APART = {HEAD: 0.3, FULL: 0.95, LORA: 0.8, OURS: 0.7, C3A: 0.6, BCA: 0.5}


def test_methods_far_apart_have_their_places_and_no_doubt() -> None:
    other = {**APART, OURS: 0.8, LORA: 0.7}
    found = ranked(a=made(APART, "tweets", seed=1), b=made(other, "bbc-news", seed=2))
    assert found.workloads == found.over == ("minilm on tweets", "minilm on bbc-news")
    assert found.ranked == 4
    places = {row.role: (row.rank.value, row.rank.low, row.rank.high) for row in found.rows if row.rank}
    assert places == {
        "LoRA r=8": (1.5, 1.5, 1.5),
        "CDVFT m=2 p=d": (1.5, 1.5, 1.5),
        "C3A p<d": (3, 3, 3),
        "BCA p=d": (4, 4, 4),
    }
    rows = {row.role: row for row in found.rows}
    assert rows["CDVFT m=2 p=d"].outcomes() == (1, 0, 1)
    assert rows["C3A p<d"].outcomes() == (0, 0, 2)
    assert rows["Full fine-tuning"].outcomes() == (2, 0, 0)
    assert rows["LoRA r=8"].outcomes() is None
    assert {rows["Head alone"].rank, rows["Full fine-tuning"].rank} == {None}
    assert [row.role for row in found.rows][-2:] == ["Full fine-tuning", "Head alone"]


def test_methods_alike_are_not_told_apart() -> None:
    alike = {HEAD: 0.3, FULL: 0.9, **dict.fromkeys((LORA, OURS, C3A, BCA), 0.7)}
    found = ranked(a=made(alike, seed=3), b=made(alike, "bbc-news", seed=4))
    for row in found.rows:
        if row.rank is not None:
            assert (row.rank.low, row.rank.high) == (1, 4)
            assert row.rank.low <= row.rank.value <= row.rank.high
            assert row.outcomes() in ((0, 2, 0), None)
            mean = row.mean()
            assert mean is None or mean.low < 0 < mean.high  # type: ignore[operator]
    equal = ranked(a=exact({HEAD: 100, FULL: 900, **dict.fromkeys((LORA, OURS, C3A, BCA), 500)}, "tweets"))
    assert {row.rank.value for row in equal.rows if row.rank} == {2.5}


def test_ranks_hold_the_truth_as_often_as_they_say() -> None:
    """With two pairs of equal methods no interval of the table may leave the truth out more often than 5 %."""
    rng = np.random.default_rng(5)
    wrong = 0
    for seed in range(60):
        low = float(rng.uniform(0.55, 0.65))
        shares = {HEAD: 0.3, FULL: 0.95, LORA: 0.7, OURS: 0.7, C3A: low, BCA: low}
        found = ranked(a=made(shares, n=400, seeds=range(3), seed=seed))
        rank = {row.role: row.rank for row in found.rows if row.rank}
        # Of equals either may be the better one: their intervals hold both places, or one of the two tests is wrong.
        wrong += any(rank[r].low > 1 or rank[r].high < 2 for r in ("LoRA r=8", "CDVFT m=2 p=d"))  # type: ignore[operator]
        wrong += any(rank[r].low > 3 or rank[r].high < 4 for r in ("C3A p<d", "BCA p=d"))  # type: ignore[operator]
    assert wrong <= 7  # of 60, with a chance of 5 % each: more happen once in 100


def test_the_mean_difference_is_that_of_the_workloads() -> None:
    base = {HEAD: 200, FULL: 950, LORA: 700, OURS: 650, C3A: 640, BCA: 500}
    found = ranked(a=exact(base, "tweets"), b=exact({**base, OURS: 690}, "bbc-news"))
    row = next(row for row in found.rows if row.role == "CDVFT m=2 p=d")
    mean = row.mean()
    assert mean is not None
    assert mean.value == pytest.approx((-0.05 - 0.01) / 2)
    parts = [Estimate(0.02, 0.003, 4), Estimate(0.04, 0.004, 9)]
    joined = mean_of(parts)
    assert joined.mean == pytest.approx(0.03)
    assert joined.error == pytest.approx(0.0025)
    assert 4 <= joined.freedom <= 9
    assert mean_of([*parts, Estimate(0.0, None, 0)]).error is None


def test_lora_of_like_size_is_the_nearest_by_parameters() -> None:
    shares = {HEAD: 0.3, FULL: 0.95, LORA: 0.8, LORA1: 0.5, OURS: 0.7, BCA: 0.6}
    found = ranked(a=made(shares, seed=6))
    (row,) = (row for row in found.rows if row.role == "CDVFT m=2 p=d")
    (cell,) = row.cells.values()
    assert cell.like is not None
    assert cell.like.against == "LoRA r=1"
    assert (row.outcomes(), row.outcomes("like")) == ((0, 0, 1), (1, 0, 0))
    without = ranked(a=made({s: v for s, v in shares.items() if s != LORA1}, seed=6))
    assert all(row.outcomes("like") is None for row in without.rows)  # r = 8 has five times the parameters


def test_what_was_not_measured_is_said_and_not_ranked() -> None:
    fewer = {s: v for s, v in APART.items() if s != C3A}
    first = made({**APART, LORA1: 0.55}, seed=7)
    found = ranked(a=first, b=made({**fewer, LORA1: 0.55}, "bbc-news", seed=8))
    assert found.ranked == 4
    row = next(row for row in found.rows if row.role == "C3A p<d")
    assert row.rank is None
    shown = ranking_table(found)
    assert shown is not None
    (cells,) = (cells for cells in shown.rows if cells[0] == "C3A p<d")
    assert cells[-1] == "not measured"
    assert cells[1] == "–"
    # A workload that has just begun keeps no method from its rank, and its differences count.
    begun = made({HEAD: 0.3, FULL: 0.95, LORA: 0.8, OURS: 0.7}, "bbc-news", seed=9)
    found = ranked(a=first, b=begun)
    assert found.over == ("minilm on tweets",)
    assert found.ranked == 5
    assert next(row for row in found.rows if row.role == "CDVFT m=2 p=d").outcomes() == (0, 0, 2)


def test_at_equal_step_time_the_best_lora_that_is_no_slower_is_the_rival() -> None:
    runs = made({**APART, LORA1: 0.6}, seed=14)
    labels = {run.trial.method + str(dict(run.trial.hyperparameters).get("rank", "")): run.label for run in runs}
    seconds = {"cdvft": (1.0, 0.98, 1.02), "lora8": (1.1, 1.05, 1.2), "lora1": (1.01, 0.99, 1.03), "c3a": (2, 1.9, 2.1)}
    costs = tuple(StepCost(labels[name], Interval(*value), None, 1, None) for name, value in seconds.items())
    steps = StepTimes("a", "minilm", "tweets", runs[0].trial.batch, "cpu", 1, "", 9, "LoRA r=8", "", "", costs)
    found = ranking(studies({"a": runs}, [steps]))
    rivals = {row.role: cell.timed.against for row in found.rows for cell in row.cells.values() if cell.timed}
    assert rivals == {"CDVFT m=2 p=d": "LoRA r=1", "C3A p<d": "LoRA r=1"}  # no tuning run: the smaller of equals
    row = next(row for row in found.rows if row.role == "CDVFT m=2 p=d")
    assert (row.outcomes("lora"), row.outcomes("timed")) == ((0, 0, 1), (1, 0, 0))
    assert "against the best LoRA of no more step time it is more accurate on 1" in said_of(found, row.role)
    assert all(row.outcomes("timed") is None for row in ranked(a=runs).rows)  # steps were not timed


def test_a_workload_that_cannot_rank_is_left_out_with_the_reason() -> None:
    near = made({**APART, FULL: 0.33}, "bbc-news", seed=10)
    none = made({s: v for s, v in APART.items() if s != FULL}, "digits", seed=11)
    found = ranked(a=made(APART, seed=12), b=near, c=none)
    assert found.workloads == ("minilm on tweets",)
    reasons = dict(found.left_out)
    assert "does not show a gain of 5 points" in reasons["minilm on bbc-news"]
    assert "no pilot" in reasons["minilm on digits"]
    empty = ranked(b=near)
    assert (empty.rows, ranking_table(empty)) == ((), None)
    assert left_out_said(empty)[0].startswith("No workload can rank methods")
    screen = StringIO()
    show_ranking(Campaign(runs={"b": near}), Console(file=screen, width=120))
    assert "No workload can rank methods" in screen.getvalue()
    assert "mpnet-base on tweets-distinct: not measured; cdvft-bench train tweets-mpnet" in screen.getvalue()


def test_roles_are_those_of_any_width() -> None:
    def role(method: str, **given: int | str) -> str:
        trial = Trial("minilm", "tweets", method, tuple(given.items()), evaluate="test", scored=8)
        (study,) = studies({"a": [TrialResult(trial, trial.label, 0.5, scored=8, right="f0")]})
        return role_of(study.scores[0])

    assert role("cdvft", m=3, block_size=64, path="auto") == role("cdvft", m=3, block_size=128) == "CDVFT m=3 p<d"
    assert role("cdvft", m=2, path="native") == role("cdvft") == "CDVFT m=2 p=d"
    assert role("cdvft", init="random") == "CDVFT m=2 p=d random"
    assert role("fourierft", n_frequency=1000) == role("fourierft", n_frequency=384) == "FourierFT"
    assert role("lora", rank=1) == "LoRA r=1"
    assert role("head") == "Head alone"


def test_the_setting_of_a_role_is_chosen_on_validation_data() -> None:
    small, large = ("cdvft", (("block_size", 64), ("m", 2))), ("cdvft", (("block_size", 128), ("m", 2)))
    PARAMETERS.update({small: 100, large: 200})
    runs = made({**APART, small: 0.9, large: 0.6}, seed=13)
    tuned = [
        replace(r, trial=replace(r.trial, evaluate="validation", seed=1000, examples=500), accuracy=accuracy)
        for r in runs
        for setting, accuracy in ((small, 0.7), (large, 0.8))
        if (r.trial.method, r.trial.hyperparameters) == setting and r.trial.seed == 0
    ]
    found = ranked(a=[*tuned, *runs])
    (row,) = (row for row in found.rows if row.role == "CDVFT m=2 p<d")
    (cell,) = row.cells.values()
    assert cell.score.label == "CDVFT m=2 p=128 fft"  # less accurate on the test split


def test_tuning_runs_belong_to_the_runs_they_chose_for() -> None:
    def run(examples: int, split: Split, scored: int = 8, **other: int) -> TrialResult:
        trial = Trial("minilm", "tweets", "head", examples=examples, evaluate=split, scored=scored, **other)  # type: ignore[arg-type]
        return TrialResult(trial, trial.label, 0.5, scored=scored, right="00")

    tuned, final, longer = run(3000, "validation"), run(8000, "test"), run(9000, "test")
    found = workloads([tuned, final, longer, run(9000, "validation"), run(8000, "validation", epochs=3)])
    sizes = {name: [r.trial.examples for r in rows] for name, rows in found.items()}
    assert sorted(sizes.values()) == [[3000, 8000], [8000], [9000, 9000]]
    assert all(("9,000 examples" in name) == (9000 in rows) for name, rows in sizes.items())
    # Runs that scored other examples do not compare; tuning runs serve both.
    twice = workloads([tuned, final, run(8000, "test", 16)])
    assert [len(rows) for rows in twice.values()] == [2, 2]
    assert [name.endswith(f"{n} scored)") for name, n in zip(twice, (8, 16), strict=True)] == [True, True]


def test_states_of_a_front_follow_from_what_is_told() -> None:
    exactly = {name: CostOf(value) for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 3.0))}
    labels = list(exactly)
    assert states(labels, exactly, set()) == {"a": "on", "b": "open", "c": "open", "d": "open"}
    # b beats a: both on. c is less accurate than a, which is cheaper. d beats all.
    told = {("b", "a"), ("a", "c"), ("b", "c"), ("d", "a"), ("d", "b"), ("d", "c")}
    assert states(labels, exactly, told) == {"a": "on", "b": "on", "c": "off", "d": "on"}
    # Costs that overlap are not told apart: nothing is surely cheaper.
    blurred = {name: CostOf(cost.value, 0.5, 4.0) for name, cost in exactly.items()}
    assert states(labels, blurred, told) == {"a": "open", "b": "open", "c": "open", "d": "on"}
    rng = random.Random(14)
    for _ in range(50):
        accuracy = {name: rng.random() for name in labels}
        cost = {name: CostOf(float(rng.randrange(1, 5))) for name in labels}
        every = {(a, b) for a in labels for b in labels if accuracy[a] > accuracy[b]}
        found = states(labels, cost, every)
        for name in labels:
            beaten = any(accuracy[o] > accuracy[name] and cost[o].value <= cost[name].value for o in labels)
            assert found[name] == ("off" if beaten else "on")
    assert math.isclose(CostOf(1.0, 0.5, 2.0).spread, math.log(4) / 3.92)


def test_a_method_with_fewer_than_three_seeds_is_named_and_not_ranked() -> None:
    """Two of an unstable rate's seeds look like a result; what is not finished enters no rank, front or verdict."""
    early = made({OURS: 0.99}, seeds=(0, 1), seed=9)
    others = made({s: share for s, share in APART.items() if s != OURS}, seed=1)
    (study,) = studies({"a": [*early, *others]})
    assert {score.method for score in study.scores} == {"head", "full", "lora", "c3a", "block_circulant"}
    assert all(early[0].label not in front.costs for front in study.fronts)
    found = ranked(a=[*early, *others])
    assert found.unfinished == (("minilm on tweets", (early[0].label,)),)
    assert not any(row.role == "CDVFT m=2 p=d" for row in found.rows)
    (said,) = left_out_said(found)
    assert said.startswith(f"minilm on tweets: {early[0].label} is tuned or under way, with fewer than 3 seeds")
    # A quick campaign, of which no method has three seeds, shows all of them.
    quick = [run for run in [*early, *others] if run.trial.seed < 2]
    assert len(studies({"a": quick})[0].scores) == 6
    base = replace(quick[0], trial=replace(quick[0].trial, method="base", hyperparameters=()), label="Untrained")
    assert len(final_runs([*quick, base])) == 7
    assert "Untrained" in final_runs([*early, *others, base])
    assert ranked(a=[*made({OURS: 0.7}, seed=9), *others]).unfinished == ()


def test_only_workloads_that_can_rank_have_fronts_shown_where_one_can() -> None:
    weak = made({OURS: 0.7, LORA: 0.71}, "bbc-news", seed=3)
    both = studies({"a": made(APART, seed=1), "b": weak})
    assert [study.name for study in fronted(both)] == ["minilm on tweets"]
    out = StringIO()
    show_ranking(Campaign(runs={"a": made(APART, seed=1), "b": weak}), Console(file=out, width=200))
    assert "minilm on tweets\n  Against" in out.getvalue().replace("\n\n", "\n")
    assert "minilm on bbc-news does not count: no pilot" in out.getvalue()
    assert "minilm on bbc-news\n" not in out.getvalue()
    assert [study.name for study in fronted(studies({"b": weak}))] == ["minilm on bbc-news"]
