"""Tables: what goes out comes back the same, and what is no table is refused before a store is touched."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdvft_bench.cli import main
from cdvft_bench.core.errors import UserError
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.sweep.storage.tables import put_table, read_table, write_table

PROFILE = Path(__file__).parents[2] / "profiles" / "cpu-quick" / "records.jsonl.gz"
PARQUET = pytest.param(
    ".parquet", marks=pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow")
)


@pytest.mark.parametrize("suffix", [".csv", PARQUET])
def test_round_trip(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{suffix}"
    with Store(PROFILE) as store, Store(tmp_path / "s.sqlite", create=True) as other:
        first = next(store.records())
        hostile = replace(first, case=replace(first.case, seed=77), label='=1+1,"x"\n<b>µ</b>', error="NaN")
        other.merge(store)
        other.put(hostile)
        n = write_table(other, path)
        with Store(tmp_path / "back.sqlite", create=True) as back:
            assert put_table(back, path) == n == len(other.keys())
            assert list(back.records()) == list(other.records())
            assert back.environments() == other.environments()


def test_rows_of_several_machines_keep_their_environments(tmp_path: Path) -> None:
    with Store(PROFILE) as store, Store(tmp_path / "s.sqlite", create=True) as other:
        other.merge(store)
        (key, environment), *_ = other.environments().items()
        elsewhere = replace(environment, cpu="another")
        other.put_environment(elsewhere)
        first = next(store.records())
        other.put(replace(first, case=replace(first.case, seed=5), environment=elsewhere.key))
        write_table(other, tmp_path / "t.csv")
    cpus = {r.case.seed: e.cpu for r, e in read_table(tmp_path / "t.csv")}
    assert cpus[5] == "another"
    assert cpus[first.case.seed] == environment.cpu
    assert key != elsewhere.key


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    foreign, damaged = tmp_path / "f.csv", tmp_path / "d.csv"
    foreign.write_text("a,b\n1,2\n")
    damaged.write_text("record,environment_row\n{},{}\n")
    store = tmp_path / "s.sqlite"
    for path, message in (
        (foreign, "no column 'record'"),
        (damaged, "line 2 is no record"),
        (tmp_path / "none.csv", "cannot be read"),
        (tmp_path / "x.txt", "must end in"),
    ):
        with pytest.raises(UserError, match=message):
            read_table(path)
    for path in (foreign, damaged):
        result = CliRunner().invoke(main, ["import", str(path), "--store", str(store)])
        assert result.exit_code == 2, result.output
    assert not store.exists()


def test_commands(tmp_path: Path) -> None:
    table, store = tmp_path / "t.csv", tmp_path / "s.sqlite"
    result = CliRunner().invoke(main, ["export", str(PROFILE), str(table)])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(main, ["import", str(table), "--store", str(store)])
    assert result.exit_code == 0, result.output
    with Store(store) as opened, Store(PROFILE) as original:
        assert opened.keys() == original.keys()
