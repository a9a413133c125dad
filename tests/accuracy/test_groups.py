"""Groups of presets: one after the other, in one file and one budget, with nothing lost or doubled."""

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from cdvft_bench.accuracy import search
from cdvft_bench.accuracy.preset import Preset, read_preset, read_presets
from cdvft_bench.accuracy.results import read_results
from cdvft_bench.accuracy.search import planned, train, train_all
from cdvft_bench.accuracy.training.fit import run_trial
from cdvft_bench.accuracy.training.trial import Trial, TrialResult
from cdvft_bench.cli import main
from cdvft_bench.core import budget
from cdvft_bench.core.errors import UserError

MEMBER = """
[preset]
name = "{task}"
model = "{model}"
task = "{task}"
examples = 16
epochs = 1
batch = 16
length = 8
scored = 8
lrs = [1e-2]
seeds = [0, 1]

[[method]]
name = "lora"
rank = 8

[[method]]
name = "cdvft"
"""
GROUP = '[group]\nname = "both"\npresets = ["one.toml", "two.toml"]\n'


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def group(tmp_path: Path) -> Path:
    (tmp_path / "one.toml").write_text(MEMBER.format(model="minilm", task="tweets"))
    (tmp_path / "two.toml").write_text(MEMBER.format(model="minilm", task="bbc-news"))
    (tmp_path / "both.toml").write_text(GROUP)
    return tmp_path / "both.toml"


def test_the_full_gpu_preset_is_the_three_gpu_presets() -> None:
    names = ["gpu-mpnet-tweets", "gpu-vit-fashion", "gpu-smollm2-arithmetic"]
    assert [preset.name for preset in read_presets("gpu-full")] == names
    models = {preset.contenders[0].trial.model for preset in read_presets("gpu-full")}
    assert models == {"mpnet-base", "vit-base", "smollm2-135m"}
    assert read_presets("cpu-small") == (read_preset("cpu-small"),)


def test_slices_lose_and_double_nothing(group: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    presets, path = read_presets(group), tmp_path / "r.jsonl"
    clock = SimpleNamespace(now=0.0)

    def run(trial: Trial, device: str, measure: object) -> TrialResult:
        clock.now += 10
        return replace(run_trial(trial, device), seconds=10.0)

    monkeypatch.setattr(search, "run_trial", run)
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: clock.now))
    said: list[tuple[int, str]] = []
    sizes, lefts = [], []
    for _ in range(4):  # three runs a slice: the second one ends in the middle of the second preset
        outcome = train_all(presets, path, {"cpu": "x"}, "k", budget_s=35.0, say=lambda n, text: said.append((n, text)))
        sizes.append(len(read_results(path)[0]))
        lefts.append(outcome.due)
    assert (sizes, lefts) == ([3, 6, 8, 8], [5, 2, 0, 0])
    assert [n for n, _ in said] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert said[0][1].startswith("tweets: LoRA r=8")
    results, environments = read_results(path)
    assert environments == {"k": {"cpu": "x"}}
    lines = path.read_text().splitlines()
    assert len(lines) == 2 + 8  # after the log's version and the environment
    assert len({r.trial.key for r in results}) == 8
    assert [len(planned(preset, results)) for preset in presets] == [4, 4]
    # The same as a preset's own file.
    alone = tmp_path / "alone.jsonl"
    assert train(presets[1], alone, {}, "k") == 0
    expected = {r.trial.key: r.curve for r in read_results(alone)[0]}
    assert {r.trial.key: r.curve for r in planned(presets[1], results)} == expected

    # One page of all of them.
    made = CliRunner().invoke(main, ["pareto", str(path), "--preset", str(group), "--output", str(tmp_path / "page")])
    assert made.exit_code == 0, made.output
    text = (tmp_path / "page" / "report.html").read_text()
    for task in ("tweets", "bbc-news"):
        assert f"<h3>minilm on {task}</h3>" in text


def fake(trial: Trial, device: str, measure: object) -> TrialResult:
    if trial.task == "tweets":
        raise UserError("the tweets are in a package that is not installed")
    return TrialResult(trial, trial.label, 0.5, scored=2, right="8")


def test_the_command_says_what_is_left(group: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        search, "run_trial", lambda trial, *_: TrialResult(trial, trial.label, 0.5, scored=2, right="8")
    )
    clock = itertools.count(0, 600)
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    command = ["train", str(group), "--output", str(tmp_path / "r.jsonl")]
    sliced = CliRunner().invoke(main, [*command, "--budget", "540s"])
    assert sliced.exit_code == 3, sliced.output
    assert "7 runs or more are left; run the same command again" in sliced.output
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert len(read_results(tmp_path / "r.jsonl")[0]) == 8


def test_a_preset_that_cannot_run_does_not_keep_others(
    group: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "run_trial", fake)
    path = tmp_path / "r.jsonl"
    outcome = train_all(read_presets(group), path, {}, "k")
    assert outcome.left == {"tweets": 4, "bbc-news": 0}
    assert outcome.due == 0
    assert list(outcome.refused) == ["tweets"]
    assert len(read_results(path)[0]) == 4
    told = CliRunner().invoke(main, ["train", str(group), "--output", str(path)])
    assert told.exit_code == 2
    assert "tweets: the tweets are in a package" in told.output
    with pytest.raises(UserError, match="the tweets are in"):
        train_all(read_presets(tmp_path / "one.toml"), path, {}, "k")
    path.write_text('{"trial": 3}\n{}\n')
    with pytest.raises(UserError, match="damaged"):
        train_all(read_presets(group), path, {}, "k")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[group]\nname = "x"\n', "needs presets"),
        ("[group]\npresets = []\n", "needs presets"),
        ("[group]\npresets = [3]\n", "needs presets"),
        ('[group]\npresets = ["one.toml"]\nseeds = [1]\n', "not 'seeds'"),
        ('[group]\npresets = ["one.toml"]\n[preset]\n', "not 'preset'"),
        ('[group]\npresets = ["one.toml", "one.toml"]\n', "different names"),
        ('[group]\npresets = ["gpu-full"]\n', "is a group itself"),
        ('[group]\npresets = ["none"]\n', "cannot be read: .* give a TOML file, or one of"),
    ],
)
def test_bad_groups(text: str, message: str, group: Path) -> None:
    group.write_text(text)
    with pytest.raises(UserError, match=message):
        read_presets(group)


def test_what_takes_one_preset_says_so(group: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a group; name one of it: tweets, bbc-news"):
        read_preset(group)
    told = CliRunner().invoke(main, ["steps", str(group), "--output", str(tmp_path / "s.json")])
    assert told.exit_code == 2
    assert not (tmp_path / "s.json").exists()


def test_nothing_is_trained_twice_for_two_presets(group: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "run_trial", fake)
    two = read_presets(group)[1]
    other: Preset = replace(two, name="other", contenders=two.contenders[:1])
    assert train_all((two, other), tmp_path / "r.jsonl", {}, "k").due == 0
    assert len(read_results(tmp_path / "r.jsonl")[0]) == 4
