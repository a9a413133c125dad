"""Closed forms alone: the same as a whole sweep's, resumable, and flat in memory."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdvft_bench.cli import main
from cdvft_bench.sweep import evaluate as sources
from cdvft_bench.sweep.engines import formula as formula_engine
from cdvft_bench.sweep.grid import read_grid
from cdvft_bench.sweep.run import run_grid
from cdvft_bench.sweep.storage.store import Store

GRID = """
[grid]
name = "many"
[[block]]
kind = "layer"
subjects = ["768x768", "4096x1024"]
sequence = SEQUENCE
dtype = ["float32", "bfloat16"]
pass = ["forward", "step"]
device = "cuda"
[[block.method]]
name = "lora"
rank = [8, 16]
[[block.method]]
name = "cdvft"
m = [1, 2, 3]
"""  # 40 cases a number of tokens

MEASURED = """
import resource, sys
from pathlib import Path
from cdvft_bench.sweep.run import run_grid
outcome = run_grid(sys.argv[1], Path(sys.argv[2]), engine="formula")
print(outcome.run, outcome.failed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def grid(folder: Path, cases: int) -> Path:
    path = folder / f"{cases}.toml"
    path.write_text(GRID.replace("SEQUENCE", str(list(range(1, cases // 40 + 1)))))
    return path


def test_formulas_are_those_of_a_sweep_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    path, store = grid(tmp_path, 80), tmp_path / "s.sqlite"
    first = formula_engine.run(list(read_grid(str(path)))[:30], Store(store, create=True))
    assert (first.run, first.skipped, first.left) == (30, 0, 0)
    second = run_grid(str(path), store, engine="formula")
    assert (second.run, second.skipped, second.failed, second.left) == (50, 30, 0, 0)
    with Store(store) as opened:
        records = list(opened.records())
    assert len(records) == 80
    for record in records[::9]:
        assert record.predicted == sources.predict(record.case)
        assert record.counted is record.timed is None
        assert record.label == sources.label(record.case)


def test_a_spent_budget_leaves_the_rest(tmp_path: Path) -> None:
    path, store = grid(tmp_path, 80), tmp_path / "s.sqlite"
    command = ["sweep", str(path), "--store", str(store), "--engine", "formula"]
    result = CliRunner().invoke(main, [*command, "--budget", "0.000001s"])
    assert result.exit_code == 3, result.output
    assert "cases left" in result.output
    assert CliRunner().invoke(main, command).exit_code == 0
    with Store(store) as opened:
        assert len(opened.keys("ok")) == 80


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_cases_take_no_more_memory_than_ten_thousand(tmp_path: Path) -> None:
    most = {}
    for cases in (10_000, 100_000):
        command = [sys.executable, "-c", MEASURED, str(grid(tmp_path, cases)), str(tmp_path / f"{cases}.sqlite")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        run, failed, most[cases] = map(int, done.stdout.split())
        assert (run, failed) == (cases, 0)
    print(f"KiB at most: {most}")
    assert most[100_000] - most[10_000] < 100 * 1024  # keys alone: three sets of 16 characters a case
    with Store(tmp_path / "100000.sqlite") as store:
        assert store.intact()
        assert sum(1 for _ in store.records()) == 100_000
