"""Campaigns from the command line: slices of a budget, rows of a bare node, comparisons, a profile's README."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cdvft_bench.cli import main
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.timing.__main__ import main as bare

GRID = """
[grid]
name = "tiny"
budget_s = 0.05
[[block]]
kind = "layer"
subjects = ["16x16"]
sequence = [4, 8, 12]
device = "cuda"
pass = ["forward"]
[[block.method]]
name = "lora"
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A sweep in slices, and rows of a bare node."""
    folder = tmp_path_factory.mktemp("campaign")
    grid, store, rows = folder / "grid.toml", folder / "a.sqlite", folder / "rows.jsonl"
    grid.write_text(GRID)
    command = ("sweep", grid, "--store", store, "--device", "cpu", "--budget", "0.001s")
    codes = []
    while not codes or codes[-1] == 3:
        codes.append(run(*command).exit_code)
    assert codes == [3, 3, 0]
    methods = [
        "--layers",
        "16x16",
        "--tokens",
        "4,8",
        "--methods",
        "lora,cdvft",
        "--selftest",
        "1",
        "--case-budget",
        "0.2",
    ]
    assert bare([*methods, "--output", str(rows)]) == 0
    return store, rows


def test_rows_come_into_a_store(stores: tuple[Path, Path], tmp_path: Path) -> None:
    _, rows = stores
    store = tmp_path / "b.sqlite"
    done = run("import", rows, "--store", store)
    assert (done.exit_code, done.output) == (0, f"8 records: {rows}\n")
    with Store(store) as opened:
        assert len(opened.keys("ok")) == 8
    missing = run("import", tmp_path / "none.jsonl", "--store", tmp_path / "c.sqlite")
    assert missing.exit_code == 2
    assert not (tmp_path / "c.sqlite").exists()


def test_stores_are_compared(stores: tuple[Path, Path], tmp_path: Path) -> None:
    store, rows = stores
    same = run("compare", store, store, "--json", "--csv", tmp_path / "rows.csv")
    assert same.exit_code == 0
    found = json.loads(same.output)
    assert [row["verdict"] for row in found["rows"]] == ["no difference"] * 3
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 4
    other = run("compare", store, rows, "--tolerance", "1000")
    assert other.exit_code == 0
    assert "only in B" in other.output
    for bad in (
        ("compare", store, tmp_path / "none.sqlite"),
        ("compare", store, rows, "--tolerance", "-1"),
        ("compare", store),
    ):
        assert run(*bad).exit_code == 2


def test_a_profile_gets_its_readme(stores: tuple[Path, Path], tmp_path: Path) -> None:
    done = run("dev", "profile-readme", stores[0], "--output", tmp_path / "README.md")
    assert done.exit_code == 0
    assert "3 cases: 3 done, 0 failed." in (tmp_path / "README.md").read_text()


def test_a_budget_is_a_time(stores: tuple[Path, Path]) -> None:
    done = run("sweep", "smoke", "--store", stores[0], "--budget", "soon")
    assert done.exit_code == 2
    assert "'soon' is no time" in done.output
