"""What a sweep keeps beside its records: chosen traces, the clock's own test; and how long a slice may take."""

from pathlib import Path

import pytest

from cdvft_bench.core.errors import UserError
from cdvft_bench.sweep.engines.local import run
from cdvft_bench.sweep.grid import Limits, read_grid
from cdvft_bench.sweep.run import run_grid
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.timing.trace import read_trace
from tests.sweep import work
from tests.sweep.work import seeded

GRID = """
[grid]
name = "kept"
budget_s = 0.02
[[block]]
kind = "layer"
subjects = ["32x32"]
sequence = [8]
pass = ["forward"]
[[block.method]]
name = "frozen"
[[block.method]]
name = "cdvft"
[[block]]
kind = "layer"
subjects = ["32x32"]
sequence = [8]
pass = ["forward"]
keep_trace = true
[[block.method]]
name = "cdvft"
"""


def written(folder: Path, text: str = GRID) -> str:
    path = folder / "grid.toml"
    path.write_text(text)
    return str(path)


def test_chosen_traces_are_kept_and_every_record_has_the_clock_s_own_test(tmp_path: Path) -> None:
    grid, store = written(tmp_path), tmp_path / "s.sqlite"
    assert run_grid(grid, store).run == 2
    with Store(store) as opened:
        records = {r.case.method: r for r in opened.records()}
    for record in records.values():
        assert record.timed is not None
        assert record.timed.selftest is not None
        assert record.timed.selftest.comparisons == 20
    (path,) = (tmp_path / "traces").iterdir()
    assert path.name == f"CDVFT-m=2-p=d-fft-32x32-8-tokens-float32-forward-cpu-{records['cdvft'].case.key}.json.gz"
    assert path.stat().st_size <= 1_000_000
    timed = records["cdvft"].timed
    assert timed is not None
    assert timed.trace is not None
    assert read_trace(path).by_operator == timed.trace.by_operator
    path.unlink()  # as if the sweep was killed between the record and its trace
    assert run_grid(grid, store).run == 0
    assert path.exists()


def test_a_grid_says_which_traces_and_modes(tmp_path: Path) -> None:
    grid = read_grid(written(tmp_path))
    assert [case.method for case in grid.traced()] == ["cdvft"]
    assert grid.limits.modes is None
    modes = read_grid(written(tmp_path, GRID.replace("0.02", '0.02\nmodes = ["eager", "graph"]')))
    assert modes.limits.modes == ("eager", "graph")
    for old, new, said in (
        ("keep_trace = true", 'keep_trace = "yes"', "keep_trace = 'yes' must be true or false"),
        ("0.02", '0.02\nmodes = ["fast"]', "must be a list of eager, graph, compile"),
        ("0.02", '0.02\nmodes = "graph"', "must be a list of eager, graph, compile"),
    ):
        with pytest.raises(UserError, match=said):
            read_grid(written(tmp_path, GRID.replace(old, new)))
    with pytest.raises(UserError, match="precision = 0"):
        run_grid(written(tmp_path), tmp_path / "s.sqlite", precision=0.0)


def test_a_slow_case_does_not_outrun_its_slice(tmp_path: Path) -> None:
    """It is left for the next slice, where it may take its own limit, and not recorded as failed before."""
    cases = [seeded(0), seeded(3), seeded(7)]  # the second never ends
    with Store(tmp_path / "s.sqlite", create=True) as store:
        first = run(cases, store, Limits(timeout_s=500), work=work.misbehave, preload=["tests.sweep.work"], budget_s=4)
        assert (first.run, first.failed, first.left) == (1, 0, 2)
        assert store.keys() == {cases[0].key}
        second = run(cases, store, Limits(timeout_s=2), work=work.misbehave, preload=["tests.sweep.work"], budget_s=60)
        assert (second.run, second.failed, second.left) == (2, 1, 0)
        (failed,) = store.keys("failed")
        assert failed == cases[1].key
