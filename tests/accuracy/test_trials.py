"""Fine-tuning runs: repeatable, recorded whatever happens, resumable; and what is made of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from cdvft_bench.accuracy import search
from cdvft_bench.accuracy.analysis import differences, front_shares, holm, scores
from cdvft_bench.accuracy.search import Preset, chosen_rate, pending, read_preset, read_results, train
from cdvft_bench.accuracy.trial import Trial, TrialResult, run_trial
from cdvft_bench.cli import main
from cdvft_bench.errors import UserError
from cdvft_bench.report.accuracy import write_accuracy

SMALL = Trial("minilm", "tweets", "cdvft", (("m", 2),), examples=24, epochs=2, batch=8, length=8, scored=24)

PRESET = """
[preset]
name = "tiny"
model = "minilm"
task = "tweets"
examples = 16
epochs = 1
batch = 8
length = 8
scored = 16
lrs = [1e-3, 1e-2]
seeds = [0, 1]

[[method]]
name = "head"

[[method]]
name = "lora"
rank = 8

[[method]]
name = "cdvft"
m = 2
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def preset(tmp_path: Path) -> Preset:
    path = tmp_path / "tiny.toml"
    path.write_text(PRESET)
    return read_preset(path)


def test_the_same_trial_gives_the_same_result() -> None:
    first, second = run_trial(SMALL), run_trial(SMALL)
    assert first.accuracy == second.accuracy
    assert first.losses == second.losses
    assert first.parameters == first.formula_parameters == 12 * 3 * 384
    assert first.step_flops is not None
    assert first.peak_bytes is None
    assert run_trial(replace(SMALL, seed=1)).losses != first.losses


@pytest.mark.parametrize("method", ["head", "full", "block_circulant", "lora"])
def test_every_kind_of_method_runs(method: str) -> None:
    result = run_trial(replace(SMALL, method=method, hyperparameters=(), epochs=1))
    assert result.accuracy is not None
    assert (result.parameters == 0) == (method == "head")


def test_divergence_is_recorded() -> None:
    result = run_trial(replace(SMALL, method="full", hyperparameters=(), lr=1e30, epochs=1))
    assert result.diverged
    assert result.accuracy is None
    assert None in result.losses


def test_a_preset_runs_and_is_complete(preset: Preset, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    said: list[str] = []
    assert train(preset, path, {"cpu": "x"}, "k", budget_s=0.0, say=said.append) > 0
    assert train(preset, path, {"cpu": "x"}, "k", say=said.append) == 0
    results, environments = read_results(path)
    assert environments == {"k": {"cpu": "x"}}
    assert len(results) == len({r.trial.key for r in results}) == 3 * 2 + 3 * 2
    assert {r.trial.evaluate for r in results} == {"validation", "test"}
    assert {r.environment for r in results} == {"k"}
    before = path.read_bytes()
    assert train(preset, path, {"cpu": "x"}, "k") == 0
    assert path.read_bytes() == before
    # A torn last line, as a kill leaves it: it is cut off, and its run is done again.
    path.write_bytes(before[:-30])
    assert train(preset, path, {"cpu": "x"}, "k") == 0
    again, _ = read_results(path)
    assert {r.trial.key: (r.accuracy, r.losses) for r in again} == {
        r.trial.key: (r.accuracy, r.losses) for r in results
    }
    page = write_accuracy(path, tmp_path / "page", "make it")
    text = page.read_text()
    assert "CDVFT m=2" in text
    assert "R4, recent models and generation: not measured" in text
    assert (tmp_path / "page" / "figures" / "front-parameters.png").is_file()
    first = {p.name: p.read_bytes() for p in (tmp_path / "page").rglob("*") if p.is_file()}
    write_accuracy(path, tmp_path / "page", "make it")
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "page").rglob("*") if p.is_file()}
    shown = CliRunner().invoke(main, ["pareto", str(path), "--output", str(tmp_path / "other")])
    assert shown.exit_code == 0, shown.output


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(PRESET)
    path = tmp_path / "r.jsonl"
    code = (
        "import sys, torch; torch.set_num_threads(1); from pathlib import Path; "
        "from cdvft_bench.accuracy.search import read_preset, train; "
        "train(read_preset(sys.argv[1]), Path(sys.argv[2]), {}, 'k')"
    )
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "tiny.toml"), str(path)],
                               stderr=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not path.exists() or path.read_bytes().count(b"\n") < 3):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept, _ = read_results(path)
    assert len(kept) >= 2
    assert train(read_preset(tmp_path / "tiny.toml"), path, {}, "k") == 0
    results, _ = read_results(path)
    assert len(results) == 12
    assert {r.trial.key for r in kept} <= {r.trial.key for r in results}


def test_a_failing_run_does_not_cost_the_others(
    preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(trial: Trial, device: str) -> TrialResult:
        if trial.method == "lora":
            raise RuntimeError("out of luck")
        return TrialResult(trial, trial.label, 0.5)

    monkeypatch.setattr(search, "run_trial", fake)
    path = tmp_path / "r.jsonl"
    assert train(preset, path, {}, "k") == 0
    results, _ = read_results(path)
    failed = [r for r in results if r.error]
    assert {r.trial.method for r in failed} == {"lora"}
    assert failed[0].error == "RuntimeError: out of luck"
    assert len(results) == 12


def test_the_rate_is_chosen_on_validation(preset: Preset) -> None:
    contender = preset.contenders[1]
    trials = list(pending(preset, {}))
    tuning = [t for t in trials if t.method == "lora"]
    assert [t.lr for t in tuning] == [1e-3, 1e-2]
    results = {t.key: TrialResult(t, t.label, accuracy) for t, accuracy in zip(tuning, (0.6, 0.7), strict=True)}
    assert chosen_rate(contender, results) == 1e-2
    assert chosen_rate(contender, {}) is None
    equal = {t.key: TrialResult(t, t.label, 0.6) for t in tuning}
    assert chosen_rate(contender, equal) == 1e-3
    diverged = {tuning[0].key: TrialResult(tuning[0], "x", None, diverged=True), tuning[1].key: results[tuning[1].key]}
    assert chosen_rate(contender, diverged) == 1e-2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('model = "minilm"', "", "needs 'model'"),
        ("seeds = [0, 1]", "seeds = []", "seeds"),
        ("lrs = [1e-3, 1e-2]", "lrs = [0.0]", "above 0"),
        ("rank = 8", "rank = 8\nlrs = [1e-3]", "give all as many"),
        ('name = "lora"', 'name = "laura"', "laura"),
        ("rank = 8", "rang = 8", "rang"),
        ("epochs = 1", "epochs = 0", "epochs = 0"),
        ("epochs = 1", "epoch = 1", "no key 'epoch'"),
        ("[preset]", "[preset", "no TOML"),
    ],
)
def test_bad_presets(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(PRESET.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        read_preset(path)
    assert CliRunner().invoke(main, ["train", str(path), "--output", str(tmp_path / "x.jsonl")]).exit_code == 2
    assert not (tmp_path / "x.jsonl").exists()


def test_damaged_results_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"trial": 3}\n{"key": "k", "environment_row": {}}\n')
    with pytest.raises(UserError, match="line 1, are damaged"):
        read_results(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_results(tmp_path / "none.jsonl")
    path.write_text("")
    with pytest.raises(UserError, match="no finished run"):
        write_accuracy(path, tmp_path / "page", "x")
    assert not (tmp_path / "page").exists()


def made(method: str, accuracies: list[float], **hyperparameters: int) -> list[TrialResult]:
    trial = replace(SMALL, method=method, hyperparameters=tuple(hyperparameters.items()), evaluate="test")
    return [TrialResult(replace(trial, seed=i), trial.label, a, parameters=100) for i, a in enumerate(accuracies)]


def test_differences_are_paired_and_corrected() -> None:
    results = [
        *made("lora", [0.70, 0.72, 0.71], rank=8),
        *made("cdvft", [0.75, 0.771, 0.761], m=2),
        *made("cdvft", [0.69, 0.74, 0.70], m=3),
    ]
    found = differences(results, "LoRA r=8")
    assert [d.label for d in found] == ["CDVFT m=2 p=d", "CDVFT m=3 p=d"]
    assert found[0].mean == pytest.approx(0.0507, abs=1e-3)
    assert found[0].low > 0
    assert found[1].low < 0 < found[1].high
    assert found[0].p_holm == pytest.approx(2 * found[0].p)
    with pytest.raises(UserError, match="no run on the test split"):
        differences(results, "BOFT")


def test_runs_at_a_rate_that_was_not_chosen_do_not_count() -> None:
    def run(lr: float, accuracy: float, seed: int, split: str) -> TrialResult:
        trial = replace(SMALL, lr=lr, seed=seed, evaluate=split)
        return TrialResult(trial, trial.label, accuracy)

    early = [run(1e-3, 0.60, 1000, "validation"), run(1e-3, 0.1, 0, "test"), run(1e-3, 0.1, 1, "test")]
    assert scores(early)[0].mean == pytest.approx(0.1)
    late = [run(1e-2, 0.65, 1000, "validation"), run(1e-2, 0.7, 0, "test"), run(1e-2, 0.8, 1, "test")]
    found = scores([*early, *late])
    assert [(s.mean, s.lr) for s in found] == [(pytest.approx(0.75), 1e-2)]


def test_the_classifier_alone_is_tuned_by_its_own_rate(preset: Preset) -> None:
    tuning = [t for t in pending(preset, {}) if t.method == "head"]
    assert [t.head_lr for t in tuning] == [1e-3, 1e-2]
    others = [t for t in pending(preset, {}) if t.method != "head"]
    assert len({t.head_lr for t in others}) == 1


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9]) == [0.9]


def test_front_shares_are_those_of_the_draws() -> None:
    results = [
        *made("lora", [0.70, 0.71], rank=8),
        *made("cdvft", [0.50, 0.51], m=2),
        *made("cdvft", [0.70, 0.71], m=3),
    ]
    found = scores(results)
    costs = {"LoRA r=8": 10.0, "CDVFT m=2 p=d": 20.0, "CDVFT m=3 p=d": 5.0}
    shares = front_shares(found, costs, scored=1000)
    assert shares["CDVFT m=2 p=d"] < 0.01
    assert shares["CDVFT m=3 p=d"] == 1.0
    assert 0.3 < shares["LoRA r=8"] < 0.7


def test_results_are_plain_json(tmp_path: Path) -> None:
    result = made("lora", [0.5], rank=8)[0]
    text = search.msgspec.json.encode(asdict(result)).decode()
    assert json.loads(text)["trial"]["method"] == "lora"
