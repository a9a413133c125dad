"""The front against its definition, by brute force."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.accuracy.published.reading import campaign
from cdvft_bench.analysis.accuracy.published import COSTS, notes, pareto_front, published_frame, style_key
from cdvft_bench.core.errors import UserError

coordinate = st.integers(-4, 4).map(float) | st.floats(allow_nan=False)


@given(st.lists(st.tuples(coordinate, coordinate), max_size=30))
def test_front_against_the_definition(points) -> None:
    def beaten(i: int) -> bool:
        cost, score = points[i]
        return any(c <= cost and s >= score and (c < cost or s > score) for c, s in points)

    front = pareto_front([c for c, _ in points], [s for _, s in points])
    assert sorted(front) == [i for i in range(len(points)) if not beaten(i)]
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def test_bad_points() -> None:
    with pytest.raises(UserError, match="score 1 is NaN"):
        pareto_front([1.0, 2.0], [1.0, float("nan")])
    with pytest.raises(UserError, match="2 costs and 1 scores"):
        pareto_front([1.0, 2.0], [1.0])


def test_published_runs_say_which_fronts_they_are_on() -> None:
    runs = campaign().runs
    frame = published_frame(runs).set_index("experiment")
    assert list(frame["score"]) == sorted(frame["score"], reverse=True)
    for name, cost in COSTS.items():
        for run in runs:
            beaten = any(
                cost(o) <= cost(run) and o.score >= run.score and (cost(o) < cost(run) or o.score > run.score)
                for o in runs
            )
            assert bool(frame.loc[run.experiment, f"front_{name}"]) is not beaten


def test_dora_is_told_from_lora() -> None:
    assert {style_key(run) for run in campaign().runs if "dora" in run.experiment} == {"dora"}


def test_a_run_without_a_cost_is_on_no_front_of_it() -> None:
    best = replace(max(campaign().runs, key=lambda run: run.score), score=1.0, train_time_s=None)
    frame = published_frame([*campaign().runs, replace(best, experiment="unknown cost")]).set_index("experiment")
    assert not frame.loc["unknown cost", "front_seconds"]
    assert frame.loc["unknown cost", "seconds"] != frame.loc["unknown cost", "seconds"]
    assert frame.loc["unknown cost", "front_parameters"]


def test_strangers_are_named() -> None:
    (note,) = notes(campaign())
    assert "lora-rank32-mica (mica)" in note
    assert "psoft-fast (PSOFT)" in note
    assert " lora-rank32 (" not in note
