"""Pages of fine-tuning runs: what is committed follows from its rows; what the figures hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdvft_bench.accuracy.preset import read_preset
from cdvft_bench.accuracy.published import cdvft_cost, joined, published_runs
from cdvft_bench.accuracy.results import read_results
from cdvft_bench.accuracy.search import planned
from cdvft_bench.accuracy.trial import Trial, TrialResult
from cdvft_bench.analysis.accuracy.maps import cells, rate_slope, rate_verdict, slope
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.report.accuracy.maps_page import write_maps
from cdvft_bench.report.accuracy.page import write_accuracy
from cdvft_bench.sweep.steps import StepCost, StepTimes, read_steps, write_steps
from tests.texts import same_text

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "profiles" / "accuracy-cpu-small" / "results.jsonl"
GENERATION = ROOT / "profiles" / "accuracy-cpu-generation" / "results.jsonl"
STARTS = ROOT / "profiles" / "accuracy-cpu-starts" / "results.jsonl"
MAPS = ROOT / "profiles" / "accuracy-cpu-maps" / "results.jsonl"


def test_the_committed_profile_is_whole() -> None:
    preset = read_preset("cpu-small")
    runs = planned(preset, read_results(SMALL)[0])
    assert len(runs) == len(preset.contenders) * (len(preset.contenders[0].lrs) + 2 + len(preset.seeds))
    assert all(run.accuracy is not None and run.curve for run in runs)
    assert all(run.formula_parameters in (None, run.parameters) for run in runs)


def regenerated(results: Path, name: str, preset: str, folder: Path) -> str:
    """The page made anew, with the step times beside the results where there are any."""
    steps = results.with_name("steps.json")
    timed = " --steps steps.json" if steps.exists() else ""
    command = f"cdvft-bench pareto results.jsonl{timed} --preset {preset} --output {name}"
    page = write_accuracy(results, folder, command, steps if timed else None, read_preset(preset))
    text = page.read_text()
    same_text((ROOT / "reports" / name / "accuracy.md").read_text(), text)
    return text


def test_the_committed_page_regenerates(tmp_path: Path) -> None:
    regenerated(SMALL, "accuracy-cpu-small", "cpu-small", tmp_path / "page")


def test_the_committed_generation_regenerates(tmp_path: Path) -> None:
    preset = read_preset("cpu-generation")
    runs = planned(preset, read_results(GENERATION)[0])
    assert len(runs) == 1 + sum(len(c.lrs) + len(preset.seeds) for c in preset.contenders[1:])
    text = regenerated(GENERATION, "accuracy-cpu-generation", "cpu-generation", tmp_path / "page")
    assert "(edge)" not in text  # every best rate lies between two that were tried
    (said,) = [line for line in text.splitlines() if line.startswith("- R4")]
    assert "exact match under greedy decoding" in said
    assert "not measured" not in said


def test_the_committed_starts_regenerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    preset = read_preset("docs/examples/initialisation.toml")
    runs = planned(preset, read_results(STARTS)[0])
    assert len(runs) == sum(len(c.lrs) + len(c.factors) + len(preset.seeds) for c in preset.contenders)
    text = regenerated(STARTS, "accuracy-cpu-starts", "docs/examples/initialisation.toml", tmp_path / "page")
    assert "(edge)" not in text
    assert text.count("the same for every method") == 4  # no front where nothing costs more than another
    assert (tmp_path / "page" / "figures" / "starts.svg").exists()


def test_the_committed_maps_regenerate(tmp_path: Path) -> None:
    command = "cdvft-bench maps results.jsonl --preset cpu-maps --output accuracy-cpu-maps"
    page = write_maps(MAPS, tmp_path / "page", command, read_preset("cpu-maps"))
    same_text((ROOT / "reports" / "accuracy-cpu-maps" / "accuracy.md").read_text(), page.read_text())


def test_steps_of_another_task_are_refused(tmp_path: Path) -> None:
    cost = StepCost("LoRA r=8", Interval(0.1, 0.09, 0.11), None, 1000, None)
    steps = StepTimes(
        "x", "minilm", "bbc-news", 16, "cpu", 1, "perf_counter", 9, "LoRA r=8", "profiler", "none", (cost,)
    )
    write_steps(steps, tmp_path / "steps.json")
    assert read_steps(tmp_path / "steps.json") == steps
    with pytest.raises(UserError, match="the steps are of minilm on bbc-news"):
        write_accuracy(SMALL, tmp_path / "page", "x", tmp_path / "steps.json")
    (tmp_path / "steps.json").write_text("{}")
    with pytest.raises(UserError, match="does not hold steps"):
        read_steps(tmp_path / "steps.json")


def test_published_runs_join_where_the_formula_gives_their_parameters() -> None:
    found = {run.experiment: match for run in published_runs() if (match := joined(run)) is not None}
    assert {"lora-rank32", "c3a-default", "vera-default", "boft-default", "fourierft-default"} <= set(found)
    assert "miss-bat" not in found
    assert "lora-rank32-mica" not in found
    label, parameters, flops = cdvft_cost({"m": 2})
    query, value = 3 * 3072, 3072 + 1024 + 3 * 1024  # value is 3072 to 1024: three blocks of 1024 in a row
    assert (label, parameters) == ("CDVFT m=2 p=d", 28 * (query + value))
    assert 0 < flops < found["lora-rank32"].flops


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
