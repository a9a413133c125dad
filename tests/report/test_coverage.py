"""The table of what intervals hold: the documentation shows what the command makes, and every row holds."""

import re
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdvft_bench.analysis.coverage import DRAWS, LEAST, NAIVE, Row, coverage_rows, coverage_table
from cdvft_bench.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "intervals.md"
CELLS = re.compile(r"^\| (.+?) \| (\d+) \| ([\d.]+) % \| ([\d.]+) % \| (\d+) % \|$", re.M)


def printed() -> list[tuple[str, str, float]]:
    return [(kind, n, float(held)) for kind, n, held, *_ in CELLS.findall(PAGE.read_text())]


def test_the_page_has_every_row_and_each_holds_the_truth_often_enough() -> None:
    rows = list(coverage_rows(1))
    assert [kind for kind, *_ in printed()] == [row.kind for row in rows]
    stopped = {row.kind for row in rows if row.kind.startswith("stopped")}
    assert [n for kind, n, _ in printed() if kind not in stopped] == [str(r.n) for r in rows if r.kind not in stopped]
    assert min(held for *_, held in printed()) >= 100 * LEAST
    assert f"{DRAWS:,} draws a row" in PAGE.read_text()
    assert {row.what for row in rows} == set(NAIVE)


def test_the_same_draws_give_the_same_rows() -> None:
    first, again, other = (list(islice(coverage_rows(30, seed), 12)) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert all(0.7 < row.coverage <= 1 for row in first)
    with pytest.raises(ValueError, match="draws = 0"):
        next(coverage_rows(0))


def test_the_table_reads_back() -> None:
    rows = [Row(what, f"kind {i}", 5, 0.951 - i / 100, 0.02, 0.8) for i, what in enumerate(NAIVE)]
    text = coverage_table(rows, 7)
    assert [(kind, float(held)) for kind, _, held, *_ in CELLS.findall(text)] == [
        (f"kind {i}", pytest.approx(95.1 - i)) for i in range(len(NAIVE))
    ]
    assert "Least: 92.1 % (errors of predictions, kind 3, n = 5)" in text


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_command_makes_the_page_s_table(tmp_path: Path) -> None:
    made = CliRunner().invoke(main, ["dev", "coverage", "--output", str(tmp_path / "table.md")])
    assert made.exit_code == 0, made.output
    assert (tmp_path / "table.md").read_text() in PAGE.read_text()
