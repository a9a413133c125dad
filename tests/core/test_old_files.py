"""Files that earlier versions wrote load whole: every one under profiles/."""

import json
from pathlib import Path

import pytest

from cdvft_bench.accuracy.rehearsal import MethodCost
from cdvft_bench.accuracy.results import contender_of, read_results
from cdvft_bench.accuracy.training.trial import Trial, TrialResult
from cdvft_bench.core.case import Value, todays_label
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.io.log import read_log
from cdvft_bench.expressivity import profile
from cdvft_bench.expressivity.findings.finding import read_findings
from cdvft_bench.methods import make_method
from cdvft_bench.sweep.step_times import StepCost, read_steps
from cdvft_bench.sweep.storage.store import Store

PROFILES = Path(__file__).parents[2] / "profiles"


def files(pattern: str) -> list[Path]:
    found = sorted(PROFILES.glob(pattern))
    assert found, pattern
    return found


@pytest.mark.parametrize("path", files("*/records.jsonl.gz"), ids=lambda path: path.parent.name)
def test_stores_load_whole(path: Path) -> None:
    lines = [entry for _, entry in read_log(path)]
    with Store(path) as store:
        records, environments = list(store.records()), store.environments()
    assert len(records) == sum("record" in line for line in lines) > 0
    assert set(environments) == {line["key"] for line in lines if "environment" in line}
    assert {record.environment for record in records} <= set(environments)
    keys = {record.case.key for record in records}
    with Store(path) as store:
        assert store.keys() == keys


@pytest.mark.parametrize("path", files("*/results.jsonl"), ids=lambda path: path.parent.name)
def test_fine_tuning_results_load_whole(path: Path) -> None:
    results, environments = read_results(path)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert len(environments) == sum("environment_row" in line for line in lines) > 0
    assert len(results) == len({json.dumps(line["trial"], sort_keys=True) for line in lines if "trial" in line}) > 0
    assert {result.environment for result in results} <= set(environments)


@pytest.mark.parametrize("path", files("*/steps.json"), ids=lambda path: path.parent.name)
def test_step_times_load(path: Path) -> None:
    assert read_steps(path).costs


@pytest.mark.parametrize("path", files("*/rows.jsonl"), ids=lambda path: path.parent.name)
def test_studies_load_whole(path: Path) -> None:
    loaded = profile.load(path.parent)
    jobs = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert sum(map(len, loaded.rows.values())) == sum(len(job["rows"]) for job in jobs) > 0
    assert read_findings(path.parent)


@pytest.mark.parametrize(
    ("old", "label"),
    [
        ("CDVFT m=2 p=d auto", "CDVFT m=2 p=d"),
        ("CDVFT m=3 p=64 auto zero_circulant", "CDVFT m=3 p=64 zero_circulant"),
        ("BCA p=32 auto", "BCA p=32"),
        ("CDVFT m=2 p=d merged_dense", "CDVFT m=2 p=d merged_dense"),
        ("C3A p=gcd", "C3A p=d"),
        ("LoRA r=8", "LoRA r=8"),
    ],
)
def test_old_labels_read_as_todays(old: str, label: str) -> None:
    """What users get is not named in a label, so an older file's row is the same one as a new file's."""
    assert todays_label(old) == label
    assert StepCost(old, Interval(1.0), None, 1, None).label == MethodCost(old, 1.0, 1.0, 1.0).label == label


@pytest.mark.parametrize("given", [{}, {"path": "auto"}, {"path": "native", "block_size": 64}])
def test_labels_name_every_path_but_auto(given: dict[str, int | str]) -> None:
    for name in ("cdvft", "block_circulant"):
        words = make_method(name, given).label.split()
        assert ("auto" in words, words[-1] == given.get("path", "fft")) == (False, given.get("path") != "auto")


@pytest.mark.parametrize(
    ("method", "values", "old", "label"),
    [
        ("block_circulant", {"block_size": 32}, "BCA p=32", "BCA p=32 fft"),
        ("cdvft", {"alpha": 2.0, "block_size": 96}, "CDVFT m=2 p=96 alpha=2", "CDVFT m=2 p=96 fft alpha=2"),
        ("cdvft", {"path": "auto"}, "CDVFT m=2 p=d auto", "CDVFT m=2 p=d"),
        ("cdvft", {"path": "fft"}, "CDVFT m=2 p=d fft", "CDVFT m=2 p=d fft"),
        ("c3a", {"block_size": 32}, "C3A p=32", "C3A p=32"),
        ("head", {}, "Head alone", "Head alone"),
    ],
)
def test_runs_of_before_name_the_path_they_took(method: str, values: dict[str, Value], old: str, label: str) -> None:
    trial = Trial("minilm", "tweets", method, tuple(values.items()), 1e-3)
    assert contender_of(TrialResult(trial, old, 0.5)) == label
    assert contender_of(TrialResult(trial, "tuned", 0.5, contender=old)) == label
