"""Fine-tuning runs analysed: the recorded studies hold together, and rules are found where they were put."""

from dataclasses import replace
from pathlib import Path

import pytest

from cdvft_bench.accuracy.analysis import scores
from cdvft_bench.accuracy.preset import read_preset
from cdvft_bench.accuracy.results import read_results
from cdvft_bench.accuracy.search import left, planned
from cdvft_bench.accuracy.training.trial import Trial, TrialResult
from cdvft_bench.analysis.accuracy.maps import (
    cells,
    gradient_growth,
    maps_said,
    rate_maps,
    rate_slope,
    rate_verdict,
    setting_map,
    slope,
)
from cdvft_bench.analysis.accuracy.study import Study, runs_frame, studies
from cdvft_bench.analysis.inputs import read
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.documents import write_document
from cdvft_bench.sweep.step_times import StepCost, StepTimes, read_steps

PROFILES = Path(__file__).parents[2] / "profiles"


@pytest.fixture(scope="module")
def small() -> Study:
    (found,) = read(PROFILES / "accuracy-clothes-vit").studies
    return found


def test_the_recorded_profiles_are_whole() -> None:
    for preset in ("tweets-minilm", "clothes-vit", "problems-smollm2", "tweets-mpnet"):
        made = read_preset(preset)
        runs = planned(made, read_results(PROFILES / f"accuracy-{preset}" / "results.jsonl")[0])
        assert left(made, {run.trial.key: run for run in runs}) == 0
        assert not any(score.at_edge for score in scores(runs))
        assert {run.trial.evaluate for run in runs} == {"validation", "test"}
        assert all(run.accuracy is not None for run in runs)
        assert all(run.formula_parameters in (None, run.parameters) for run in runs)


def test_a_study_is_its_scores_costs_and_fronts(small: Study) -> None:
    frame = small.frame.set_index("setting")
    assert list(frame["accuracy"]) == [score.mean for score in small.scores]
    assert frame.loc["LoRA r=8", "parameters"] > frame.loc["CDVFT m=2 p=d", "parameters"]
    assert (frame["accuracy_low"] < frame["accuracy"]).all()
    assert small.steps is not None
    seconds = {cost.label: cost.seconds for cost in small.steps.costs}
    for front in (front for front in small.fronts if front.costs):
        shares = frame[f"front_{front.kind.name}"].dropna()
        assert shares.between(0, 1).all()
        assert shares.sum() >= 1  # some method is on the front of every draw
        if front.kind.name == "time":
            assert {label: cost.value for label, cost in front.costs.items()} == {
                label: seconds[label].value for label in front.costs
            }


def test_the_headline_says_what_the_paired_difference_says(small: Study) -> None:
    (found,) = [d for d in small.differences() if d.label == "CDVFT m=2 p=d"]
    said = small.headline
    assert said is not None
    word = "not told apart from" if found.p_holm >= 0.05 else "above" if found.mean > 0 else "below"
    assert f"{word} LoRA r=8" in said.text
    assert f"{100 * found.mean:+.1f} points" in said.more


def test_studies_part_what_does_not_compare(small: Study) -> None:
    runs = list(small.runs)
    other = [replace(run, trial=replace(run.trial, examples=9000)) for run in runs[:9]]
    found = studies({"a": [*runs, *other], "b": runs}, ())
    assert sorted(len(study.runs) for study in found) == [9, len(runs), len(runs)]
    assert len({study.name for study in found}) == 3
    assert len(runs_frame({"a": runs})) == len(runs)


def test_steps_of_another_task_are_refused(small: Study, tmp_path: Path) -> None:
    cost = StepCost("LoRA r=8", Interval(0.1, 0.09, 0.11), None, 1000, None)
    steps = StepTimes(
        "x", "minilm", "bbc-news", 16, "cpu", 1, "perf_counter", 9, "LoRA r=8", "profiler", "none", (cost,)
    )
    write_document(steps, tmp_path / "steps.json")
    assert read_steps(tmp_path / "steps.json") == steps
    with pytest.raises(
        UserError, match="the steps are of minilm on bbc-news, but the runs of vit-small-odd on fashion"
    ):
        studies({"a": small.runs}, [steps])
    (tmp_path / "steps.json").write_text("{}")
    with pytest.raises(UserError, match="holds no steps"):
        read_steps(tmp_path / "steps.json")


def run(p: int, lr: float, accuracy: float) -> TrialResult:
    trial = Trial("vit-small-fashion", "digits", "block_circulant", (("block_size", p),), lr=lr)
    return TrialResult(trial, trial.label, accuracy, gradient_rms=float(p), scored=10)


def test_the_rule_of_the_rate_is_found() -> None:
    rates = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    best = {1: 1e-1, 10: 1e-2, 100: 1e-3}
    found = cells([run(p, lr, 0.9 if lr == top else 0.1) for p, top in best.items() for lr in rates])
    assert rate_slope(found) == pytest.approx(-1)
    assert "nearest to the rule of 1/p" in rate_verdict(found)
    ends = cells([run(p, lr, lr) for p in best for lr in rates])
    assert "not decided: that of p = 1, 10 and 100" in rate_verdict(ends)
    assert "not measured" in rate_verdict(found[:5])
    assert slope([1, 4, 16], [1, 2, 4]) == pytest.approx(0.5)
    (drawn,) = rate_maps(found)
    assert drawn.framed == ((3, 0), (2, 1), (1, 2))
    assert drawn.lines["1/p"] == pytest.approx([3, 2, 1])  # the rule passes through the best cells
    growth = gradient_growth(found)
    assert growth is not None
    assert growth[1] == pytest.approx(1)


def test_the_recorded_maps() -> None:
    runs = read_results(PROFILES / "accuracy-cpu-maps" / "results.jsonl")[0]
    found = cells(runs)
    drawn = setting_map(found)
    assert drawn is not None
    row = [drawn.values[drawn.rows.index("m = 1"), j] for j in range(len(drawn.columns))]
    assert len(set(row)) == 1  # a diagonal alone has no block
    assert max(drawn.values.values()) <= 1
    assert len(maps_said(found)) == 4


def test_steps_go_with_the_runs_of_their_batch_and_environment_alone(
    small: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdvft_bench.accuracy.draws.DRAWS", 20)  # what is said hangs on none
    assert small.steps is not None
    (key, *_) = {run.environment for run in small.runs}
    here = dict(small.steps.environment)
    counted = replace(
        small.steps, costs=tuple(replace(cost, launches=i + 1) for i, cost in enumerate(small.steps.costs))
    )

    def said(steps: StepTimes, **other: object) -> dict[str, str]:
        (study,) = studies({"a": small.runs}, [steps], environments={key: here | other})
        return {front.kind.name: front.said for front in study.fronts}

    same = said(counted)
    assert {same["time"], same["memory"], same["launches"]} == {""}
    older = replace(small.steps, costs=tuple(replace(cost, launches=None) for cost in small.steps.costs))
    assert said(older)["launches"].startswith("not measured: run 'cdvft-bench steps'")
    assert said(counted, threads=64)["time"] == ""
    for name, value in (("torch", "9.9"), ("cpu", "another"), ("cpu_capability", "AVX2")):
        elsewhere = said(counted, **{name: value})
        assert elsewhere["time"] == elsewhere["launches"]
        assert elsewhere["time"].startswith("not measured in the environment of the runs: the steps'")
        assert value in elsewhere["time"]
        assert elsewhere["parameters"] == ""
    assert "the steps take 17 examples, the runs 32" in said(replace(counted, batch=17))["time"]


def test_every_front_says_what_it_tells_apart(small: Study) -> None:
    for front in small.fronts:
        assert set(front.states) == set(front.costs) == set(front.shares)
        assert bool(front.told) == bool(front.costs)
        for label, state in front.states.items():
            assert state != "off" or front.shares[label] < 0.1  # beaten beyond chance is rarely drawn onto the front


def test_studies_that_can_rank_come_first(small: Study) -> None:
    found = read(PROFILES).studies
    head = {run.trial.key: run for run in small.runs if run.trial.method == "head"}
    alike = [run for run in small.runs if run.trial.method != "full"]
    named = {"label": "Full fine-tuning", "contender": ""}
    alike += [replace(run, trial=replace(run.trial, method="full"), **named) for run in head.values()]
    assert small.cannot_rank == ""
    assert replace(small, runs=alike).cannot_rank.startswith("its pilot does not show a gain of 5 points")
    told = [study.cannot_rank == "" for study in found]
    assert told == sorted(told, reverse=True)
