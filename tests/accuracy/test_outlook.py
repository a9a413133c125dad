"""How far a campaign is, what the rest takes and what its design sees: against runs of known cost and spread."""

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from cdvft_bench.accuracy.analysis import paired, scores
from cdvft_bench.accuracy.outlook import outlook
from cdvft_bench.accuracy.pilot import components
from cdvft_bench.accuracy.preset import read_presets
from cdvft_bench.accuracy.rehearsal import (
    MethodCost,
    Rehearsal,
    label_of,
    read_rehearsal,
    rehearsed,
)
from cdvft_bench.accuracy.search import left
from cdvft_bench.accuracy.training.trial import Trial, TrialResult
from cdvft_bench.analysis.accuracy.plans import plans
from cdvft_bench.core.errors import UserError
from cdvft_bench.documents import write_document
from tests.accuracy.test_protocol import _all, _read, _runner

RECORDED = Path(__file__).parents[2] / "profiles" / "accuracy-rehearsals"


def spent(trial: Trial, start: float = 2.0, step: float = 0.5, example: float = 0.01) -> float:
    """Core-seconds of a machine that does as it is told."""
    return start + math.ceil(trial.examples / trial.batch) * trial.epochs * step + trial.scored * example


def costly(trial: Trial) -> TrialResult:
    return replace(_runner()(trial), cpu_seconds=spent(trial))


def test_a_rehearsal_finds_what_a_step_and_an_example_take_and_sums_it_up(tmp_path: Path) -> None:
    preset = _read(tmp_path)
    ran: list[Trial] = []

    def run(trial: Trial) -> TrialResult:
        ran.append(trial)
        return TrialResult(trial, trial.label, 0.5, cpu_seconds=spent(trial))

    found = rehearsed(preset, run, {"cpu": "x"}, threads=1)
    # Three seconds tell a longer run from the shortest: of half a second a step twelve more are enough.
    assert {t.examples for t in ran} == {8, 4 * 8, 13 * 8}
    assert max(t.scored for t in ran) == 16 + 400
    assert [cost.label for cost in found.costs] == [label_of(c) for c in preset.contenders]
    for cost in found.costs:
        assert (cost.start_s, cost.step_s, cost.example_s) == pytest.approx((2.0, 0.5, 0.01))
    ended = _all(preset, costly)
    whole = sum(spent(r.trial) for r in ended.values()) / 3600
    ahead = outlook(preset, [], found)
    assert (ahead.done, ahead.left) == (0, 40)
    assert ahead.hours_left == pytest.approx(whole)
    assert ahead.rehearsed
    assert "by a rehearsal" in ahead.sentences[0]
    write_document(found, tmp_path / "rehearsal.json")
    assert read_rehearsal(tmp_path / "rehearsal.json") == found
    (tmp_path / "rehearsal.json").write_text("{}")
    with pytest.raises(UserError, match="holds no rehearsal"):
        read_rehearsal(tmp_path / "rehearsal.json")
    with pytest.raises(UserError, match="LoRA r=8 does not run here: RuntimeError: no"):
        rehearsed(preset, lambda trial: TrialResult(trial, trial.label, None, error="RuntimeError: no"), {})


def test_what_is_left_is_reckoned_from_what_was_done(tmp_path: Path) -> None:
    preset = _read(tmp_path)
    ended = list(_all(preset, costly).values())
    rng = random.Random(3)
    for n in (10, rng.randrange(21, 35), 40):
        part = ended[:n]
        found = outlook(preset, part)
        assert (found.done, found.left) == (n, left(preset, {r.trial.key: r for r in part}))
        assert found.hours == pytest.approx(sum(r.cpu_seconds or 0 for r in part) / 3600)
        if n == 40:
            assert (found.hours_left, found.missing) == (0, ())
            assert "left" not in found.sentences[0]
        else:
            assert found.missing
    half = [r for r in ended if r.trial.method != "cdvft"]
    found = outlook(preset, half)
    assert found.missing == ("CDVFT m=2 p=d fft",)
    # No run of CDVFT says what it takes: those of the other methods do.
    assert found.hours_left == pytest.approx(sum(spent(r.trial) for r in ended if r.trial.method == "cdvft") / 3600)
    assert outlook(preset, []).hours_left is None
    assert outlook(preset, []).sentences[0].count("core-hours not measured") == 1


def test_the_power_is_that_of_the_spread_against_lora(tmp_path: Path) -> None:
    preset = _read(tmp_path)
    ended = list(_all(preset, costly).values())
    found = outlook(preset, ended)
    assert found.pilot is not None
    assert found.seen is not None
    one, family = found.seen
    assert one < family
    scored = scores(ended)
    base = next(s for s in scored if s.label == "LoRA r=8")
    tables = [table for s in scored if s is not base and (table := paired(s, base)) is not None]
    seen = sorted(components(table).detectable(3, 400) for table in tables)
    assert one == pytest.approx(seen[len(seen) // 2])
    early = outlook(preset, ended[:5])
    assert (early.seen, early.pilot) == (None, None)
    assert "not known before" in early.sentences[2]
    assert early.sentences[1] == "Pilot: not measured."


def test_plans_name_the_command_and_its_cost() -> None:
    (found,) = (plan for plan in plans({}) if plan.outlook.preset == "tweets-mpnet")
    assert found.said == (
        "mpnet-base on tweets-distinct: not measured; cdvft-bench train tweets-mpnet --output results.jsonl "
        "(core-hours not measured)."
    )
    costs = tuple(MethodCost(name, 0.0, 3.6, 0.36) for name in found.outlook.missing)
    rehearsal = Rehearsal("tweets-mpnet", found.model, found.task, "cpu", 1, costs, {"cpu": "A CPU"})
    (again,) = (plan for plan in plans({}, [rehearsal]) if plan.outlook.preset == "tweets-mpnet")
    # Ten methods: seven times 100 steps and six times 500, scored on 1,500 examples; five times 500 steps on 4,000.
    tuning = 7 * (100 * 3.6 + 1500 * 0.36) + 6 * (500 * 3.6 + 1500 * 0.36)
    hours = 10 * (tuning + 5 * (500 * 3.6 + 4000 * 0.36)) / 3600
    assert again.outlook.hours_left == pytest.approx(hours)
    assert f"(about {hours:.1f} core-hours by a rehearsal, A CPU)" in again.said


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*/rehearsal.json")), ids=lambda path: path.parent.name)
def test_a_recorded_rehearsal_knows_every_method_of_its_preset(path: Path) -> None:
    kept = read_rehearsal(path)
    found = outlook(read_presets(kept.preset)[0], [], kept)
    assert found.rehearsed
    assert found.hours_left
