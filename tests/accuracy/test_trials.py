"""Fine-tuning runs: repeatable, recorded whatever happens, resumable; and what is made of them."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import msgspec
import pytest
import torch
from click.testing import CliRunner

from cdvft_bench.accuracy import search
from cdvft_bench.accuracy.analysis import scores
from cdvft_bench.accuracy.preset import Preset, read_preset, scale_factors
from cdvft_bench.accuracy.results import read_results
from cdvft_bench.accuracy.search import left, pending, train
from cdvft_bench.accuracy.training.fit import Unread, run_trial
from cdvft_bench.accuracy.training.trial import Trial, TrialResult, packed, scaled, unpacked
from cdvft_bench.accuracy.tuning import Tuning
from cdvft_bench.analysis.accuracy.fronts import fronts_of
from cdvft_bench.cli import main
from cdvft_bench.core.errors import UserError
from cdvft_bench.timing.machine.memory import energy_while

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


def test_a_classifier_must_be_trained() -> None:
    with pytest.raises(UserError, match="leave 'base' out"):
        run_trial(replace(SMALL, method="base", hyperparameters=()))


def test_divergence_is_recorded() -> None:
    result = run_trial(replace(SMALL, method="full", hyperparameters=(), lr=2e9, epochs=1))
    assert result.diverged
    assert result.accuracy is None
    assert None in result.losses


def test_a_preset_runs_and_is_complete(preset: Preset, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    said: list[str] = []
    assert train(preset, path, {"cpu": "x"}, "k", budget=0.0, say=lambda n, text: said.append(text)) == 12
    assert train(preset, path, {"cpu": "x"}, "k", say=lambda n, text: said.append(text)) == 0
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
    pages = []
    for _ in range(2):
        shown = CliRunner().invoke(main, ["pareto", str(path), "--output", str(tmp_path / "page")])
        assert shown.exit_code == 0, shown.output
        pages.append({p.name: p.read_bytes() for p in (tmp_path / "page").rglob("*") if p.is_file()})
    assert pages[0] == pages[1]
    assert b"CDVFT m=2" in pages[0]["report.html"]
    assert {"scores.csv", "runs.csv"} <= set(pages[0])


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(PRESET)
    path = tmp_path / "r.jsonl"
    code = (
        "import sys, torch; torch.set_num_threads(1); from pathlib import Path; "
        "from cdvft_bench.accuracy.preset import read_preset; from cdvft_bench.accuracy.search import train; "
        "train(read_preset(sys.argv[1]), Path(sys.argv[2]), {}, 'k')"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "tiny.toml"), str(path)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not path.exists() or path.read_bytes().count(b"\n") < 4):
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
    def fake(trial: Trial, device: str, measure: object) -> TrialResult:
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
    # What failed is tried again, and what ended is not.
    calls: list[str] = []

    def mended(trial: Trial, device: str, measure: object) -> TrialResult:
        calls.append(trial.method)
        return TrialResult(trial, trial.label, 0.5)

    monkeypatch.setattr(search, "run_trial", mended)
    assert train(preset, path, {}, "k") == 0
    results, _ = read_results(path)
    assert (len(results), [r for r in results if r.error]) == (12, [])
    assert calls == ["lora"] * len(failed)


def test_energy_is_of_a_step_or_none_with_its_reason(preset: Preset, tmp_path: Path) -> None:
    def meter(call: Callable[[], object], device: str) -> Unread:
        call()
        return Unread("a meter", 12.0)

    trial = replace(SMALL, epochs=1)
    metered = run_trial(trial, measure=meter)
    assert (metered.step_joules, metered.energy) == (pytest.approx(12.0 / 3), "a meter")
    assert run_trial(trial, measure=energy_while).step_joules is None
    assert run_trial(trial, measure=energy_while).energy == "energy is read from NVIDIA GPUs only"
    assert run_trial(trial).energy == "no meter was asked for"
    # What was recorded before has no such field; it reads, and is not known.
    rows = [
        asdict(
            TrialResult(
                replace(SMALL, method=method, hyperparameters=(), seed=seed, evaluate="test"),
                method,
                0.5,
                parameters=8,
                scored=2,
                right="8",
                step_joules=joules,
                energy="x",
            )
        )
        for method, joules in (("lora", 2.0), ("block_circulant", 3.0), ("bitfit", None))
        for seed in (0, 1)
    ]
    old = [{k: v for k, v in row.items() if k not in ("step_joules", "energy")} for row in rows]
    for name, some in (("new", rows), ("old", old)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in some))
    fronts = {
        name: next(f for f in fronts_of(scores(read_results(tmp_path / name)[0]), None) if f.kind.name == "energy")
        for name in ("new", "old")
    }
    assert {label: cost.value for label, cost in fronts["new"].costs.items()} == {"lora": 2.0, "block_circulant": 3.0}
    assert fronts["old"].costs == {}
    assert {r.energy for r in read_results(tmp_path / "old")[0]} == {""}


def test_the_rate_is_chosen_on_validation(preset: Preset) -> None:
    contender = preset.contenders[1]

    def rate(results: dict[str, TrialResult]) -> float:
        found = Tuning(preset, results).chosen(contender)
        assert found is not None
        return found.lr

    trials = list(pending(preset, {}))
    tuning = [t for t in trials if t.method == "lora"]
    assert [t.lr for t in tuning] == [1e-3, 1e-2]
    results = {t.key: TrialResult(t, t.label, accuracy) for t, accuracy in zip(tuning, (0.6, 0.7), strict=True)}
    assert rate(results) == 1e-2
    assert Tuning(preset, {}).chosen(contender) is None
    equal = {t.key: TrialResult(t, t.label, 0.6) for t in tuning}
    assert rate(equal) == 1e-3
    diverged = {tuning[0].key: TrialResult(tuning[0], "x", None, diverged=True), tuning[1].key: results[tuning[1].key]}
    assert rate(diverged) == 1e-2


def test_then_the_scale_is_tuned_with_as_many_trials(tmp_path: Path) -> None:
    (tmp_path / "scaled.toml").write_text(PRESET.replace("seeds =", "scales = 2\nsearch_seed = 3\nseeds ="))
    preset = read_preset(tmp_path / "scaled.toml")
    factors = scale_factors(2, 3)
    assert 1 / 8 <= factors[0] < 1 <= factors[1] <= 8
    assert factors == scale_factors(2, 3) != scale_factors(2, 4)
    assert left(preset, {}) == 3 * (2 + 2 + 2)
    results: dict[str, TrialResult] = {}
    while trials := list(pending(preset, results)):
        trial = trials[0]
        score = (
            0.5
            + 0.1 * (trial.lr == 1e-2)
            + 0.1 * (dict(trial.hyperparameters).get("alpha", 0) == round(16 * factors[1], 1))
        )
        results[trial.key] = TrialResult(
            trial, trial.label, score, contender="LoRA r=8" if trial.method == "lora" else "", scored=2, right="8"
        )
    assert len(results) == 3 * 6
    assert left(preset, results) == 0
    tuned = [
        dict(r.trial.hyperparameters)
        for r in results.values()
        if r.trial.method == "lora" and r.trial.evaluate == "test"
    ]
    assert [t["alpha"] for t in tuned] == [round(16 * factors[1], 1)] * 2
    # What has no scale tries as many rates instead, around its best one.
    rates = {r.trial.lr for r in results.values() if r.trial.method == "head"}
    assert rates == {1e-3, 1e-2, *(float(f"{1e-2 * f:.3g}") for f in factors)}
    found = scores(list(results.values()))
    assert {s.label for s in found} == {"Head alone", "LoRA r=8", "CDVFT m=2 p=d fft"}
    assert all(len(s.accuracies) == 2 for s in found)


def test_a_scale_is_the_method_s_own_times_a_factor() -> None:
    assert dict(scaled(SMALL, 2.0).hyperparameters) == {"m": 2, "alpha": 2.0}
    fourier = replace(SMALL, method="fourierft", hyperparameters=(("n_frequency", 10),))
    assert dict(scaled(fourier, 0.5).hyperparameters)["scaling"] == 75
    head = scaled(replace(SMALL, method="head", hyperparameters=()), 2.0)
    assert (head.lr, head.head_lr) == (2e-3, 2e-3)


def test_runs_in_two_processes_are_those_of_one(preset: Preset, tmp_path: Path) -> None:
    small = replace(preset, contenders=preset.contenders[:2], seeds=(0,))
    found = []
    for workers in (1, 2):
        path = tmp_path / f"{workers}.jsonl"
        assert train(small, path, {}, "k", workers=workers) == 0
        results, _ = read_results(path)
        found.append({r.trial.key: (r.accuracy, r.curve, r.contender) for r in results})
    assert found[0] == found[1]
    assert len(found[0]) == 6


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
        ("epochs = 1", "epochs = 1\nscales = -1", "scales = -1"),
        ("epochs = 1", "epochs = 1\nmap = true\nscales = 1", "a map has no scales"),
        ("epochs = 1", "epoch = 1", "no key 'epoch'"),
        ('name = "head"', 'name = "base"\nlrs = [1e-3, 1e-2]', "'base' has no settings"),
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
    with pytest.raises(UserError, match="line 1 is damaged"):
        read_results(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_results(tmp_path / "none.jsonl")
    path.write_text("")
    refused = CliRunner().invoke(main, ["pareto", str(path), "--output", str(tmp_path / "page")])
    assert refused.exit_code == 2
    assert not (tmp_path / "page").exists()


def test_the_classifier_alone_is_tuned_by_its_own_rate(preset: Preset) -> None:
    tuning = [t for t in pending(preset, {}) if t.method == "head"]
    assert [t.head_lr for t in tuning] == [1e-3, 1e-2]
    others = [t for t in pending(preset, {}) if t.method != "head"]
    assert len({t.head_lr for t in others}) == 1


def test_answers_are_packed(tmp_path: Path) -> None:
    for n in range(1, 10):
        right = [bool((i * i) % 3) for i in range(n)]
        assert unpacked(packed(right), n) == right
    assert packed([True, False, False, False, True]) == "88"


def test_results_are_plain_json(tmp_path: Path) -> None:
    result = TrialResult(SMALL, SMALL.label, 0.5, right=packed([True, False]), scored=2)
    assert json.loads(msgspec.json.encode(asdict(result)))["trial"]["method"] == "cdvft"


def test_later_fields_leave_older_keys_alone() -> None:
    """Results of before the optimiser could be chosen, or batches pooled, are still found."""
    assert SMALL.key == replace(SMALL, pool=1).key != replace(SMALL, pool=2).key
    assert SMALL.key == replace(SMALL, optimizer="adamw").key != replace(SMALL, optimizer="sgd").key
    assert Trial("minilm", "tweets", "lora").key == "587e637ace2c9ba3"


def test_plain_descent_sees_the_gradient_s_scale() -> None:
    sgd = run_trial(replace(SMALL, optimizer="sgd", method="block_circulant", hyperparameters=(), lr=1.0, epochs=1))
    adam = run_trial(replace(SMALL, method="block_circulant", hyperparameters=(), lr=1.0, epochs=1))
    assert sgd.curve[0] == adam.curve[0]
    assert sgd.curve != adam.curve
    assert sgd.gradient_rms == adam.gradient_rms
    assert sgd.gradient_rms is not None
    with pytest.raises(UserError, match="'adamw' or 'sgd'"):
        replace(SMALL, optimizer="lion")  # type: ignore[arg-type]


def test_a_map_runs_every_rate_with_every_seed(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(PRESET.replace("seeds =", "map = true\nseeds =") + 'optimizer = "sgd"\n')
    preset = read_preset(tmp_path / "map.toml")
    trials = list(pending(preset, {}))
    assert len(trials) == left(preset, {}) == 3 * 2 * 2
    assert {(t.method, t.optimizer) for t in trials} == {("head", "adamw"), ("lora", "adamw"), ("cdvft", "sgd")}
    assert {t.evaluate for t in trials} == {"validation"}
    done = {t.key: TrialResult(t, t.label, 0.5) for t in trials[:5]}
    assert left(preset, done) == 7
