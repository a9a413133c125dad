"""Stores that are damaged, locked, removed, of a newer version, or of a machine whose clock was stepped back."""

import gzip
import json
import random
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cdvft_bench.cli import main
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.sweep.storage import store as module
from cdvft_bench.sweep.storage.imports import check_fields, put_rows
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.sweep.storage.tables import write_table
from cdvft_bench.sweep.storage.textform import UnstorableError
from tests.fuzz.damage import damage_database, make_good


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_good(tmp_path_factory.mktemp("good"))


@pytest.fixture
def path(good: dict[str, Path], tmp_path: Path) -> Path:
    copy = tmp_path / "s.sqlite"
    copy.write_bytes(good["store.sqlite"].read_bytes())
    return copy


def held(path: Path) -> tuple[dict[str, Environment], list[Record]]:
    with Store(path) as store:
        return store.environments(), list(store.records())


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_store_is_read_or_refused_in_one_line(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    if seed % 2:
        damage_database(path, rng)
    else:
        data = bytearray(path.read_bytes())
        for _ in range(rng.choice((1, 10, 100))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(data))
    told = ""
    try:
        held(path)
        check_fields(path)
    except UserError as error:
        told = str(error)
    assert not told or (str(path) in told and "\n" not in told)


def set_cell(path: Path, column: str, value: Any) -> None:
    with sqlite3.connect(path) as database:
        database.execute(f'UPDATE records SET "{column}" = ? WHERE rowid = 1', (value,))
    database.close()


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("created", "2026-01-01T00:00:00", "names no offset from UTC"),
        ("created", "yesterday", "is no time"),
        ("seconds", -1.0, "seconds = -1.0 is no finite number >= 0"),
        ("seconds", float("inf"), "is no finite number"),
        ("status", "perhaps", "is neither ok nor failed"),
        ("predicted", '{"x":' * 100_000 + "1" + "}" * 100_000, "ecursion"),
        ("case", "{}", "missing required field"),
        ("key", "0" * 16, "not that of its key"),
        ("label", b"\xff", "is no text"),
    ],
)
def test_what_no_run_records_is_refused(path: Path, column: str, value: Any, words: str) -> None:
    set_cell(path, column, value)
    with pytest.raises(UserError, match="is damaged: record") as caught:
        held(path)
    assert words in str(caught.value)


def test_what_could_not_be_read_again_is_not_kept(path: Path) -> None:
    environments, (first, *_) = held(path)
    assert first.environment in environments
    with Store(path) as store:
        for wrong in (replace(first, seconds=-1.0), replace(first, created="2026-01-01T00:00:00")):
            with pytest.raises(UnstorableError, match=r"seconds = -1|names no offset"):
                store.put(wrong)
    assert held(path)[1][0] == first


def test_a_held_store_is_named_as_such(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPENING", 0.05)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UserError, match=r"s\.sqlite cannot be used: another process holds it; wait"):
        Store(path)
    holder.execute("ROLLBACK")
    holder.close()
    assert len(held(path)[1]) == 4


def test_a_store_that_is_removed_in_mid_run_is_missed(path: Path) -> None:
    records = held(path)[1]
    with Store(path) as store:
        store.put(records[0])
        path.unlink()
        with pytest.raises(UserError, match="it was removed or replaced while it was in use; put it back"):
            store.put(records[1])


def test_a_later_result_wins_though_the_clock_was_stepped_back(path: Path, tmp_path: Path) -> None:
    environments, (first, *_) = held(path)
    earlier = "2001-01-01T00:00:00+00:00"
    other = next(iter(environments))
    with Store(path) as store:
        again = replace(first, seconds=9.0, created=earlier, sequence=0)
        store.put(again)
        assert store.get(first.case.key) == again
        elsewhere = replace(next(iter(environments.values())), cpu="another")
        third = replace(first, seconds=8.0, created=earlier, sequence=0, environment=store.put_environment(elsewhere))
        store.put(third)
        assert store.get(first.case.key) == third
        store.export_text(tmp_path / "out.jsonl")
        write_table(store, tmp_path / "out.csv")
    assert other in held(path)[0]
    # Whatever way it takes, and in whatever order stores are merged, the later one stays.
    for name in ("out.jsonl", "out.csv", "s.sqlite"):
        with Store(tmp_path / f"{name}.merged", create=True) as merged:
            merged.take(environments, [first])
            put_rows(merged, tmp_path / name)
            assert merged.get(first.case.key) == third
            merged.take(environments, [first])
            assert merged.get(first.case.key) == third
            assert merged.get(first.case.key, first.environment) == again


def test_stores_of_schema_2_are_taken_on(path: Path) -> None:
    before = held(path)
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE records DROP COLUMN sequence")
        database.execute("UPDATE meta SET schema = 2")
    database.close()
    older = path.read_bytes()
    assert held(path) == before
    path.write_bytes(older)
    reading = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    assert reading.execute("SELECT schema FROM meta").fetchone() == (2,)
    reading.close()


@pytest.mark.parametrize("name", ["s.sqlite", "s.jsonl", "s.jsonl.gz", "s.csv"])
def test_fields_of_a_newer_version_are_not_dropped_in_silence(path: Path, tmp_path: Path, name: str) -> None:
    newer = tmp_path / name
    with Store(path) as store:
        if newer.suffix == ".csv":
            write_table(store, newer)
        elif newer != path:
            store.export_text(newer)
    if newer == path:
        with sqlite3.connect(path) as database:
            (text,) = database.execute("SELECT predicted FROM records WHERE predicted IS NOT NULL").fetchone()
            document = json.loads(text)
            document["forward"]["joules"] = 3
            database.execute("UPDATE records SET predicted = ? WHERE predicted = ?", (json.dumps(document), text))
        database.close()
        place = "predicted.forward.joules"
    else:
        plain = gzip.decompress(newer.read_bytes()) if newer.suffix == ".gz" else newer.read_bytes()
        quote = b'""' if newer.suffix == ".csv" else b'"'
        key = quote + b"covers" + quote + b":"
        assert key in plain
        plain = plain.replace(key, quote + b"joules" + quote + b":3," + key, 1)
        newer.write_bytes(gzip.compress(plain) if newer.suffix == ".gz" else plain)
        place = "record.predicted.joules"
    target = tmp_path / "all.sqlite"
    result = CliRunner().invoke(main, ["import", str(newer), "--store", str(target)])
    assert result.exit_code == 2, result.output
    assert place in result.output
    assert "update cdvft-bench" in result.output
    assert not target.exists()


def test_an_exported_table_runs_no_formula(path: Path, tmp_path: Path) -> None:
    environments, (first, *_) = held(path)
    labels = ["=cmd|' /C calc'!A0", "+1", "-2+3", " @SUM(A1)", "＝1", "plain"]
    target = tmp_path / "t.sqlite"
    with Store(target, create=True) as store:
        for seed, label in enumerate(labels):
            record = replace(first, case=replace(first.case, seed=seed), label=label)
            store.take(environments, [record])
        write_table(store, tmp_path / "t.csv")
    import csv

    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["label"] for row in rows) == sorted([*(f"'{label}" for label in labels[:-1]), "plain"])
    with Store(tmp_path / "back.sqlite", create=True) as back:
        assert put_rows(back, tmp_path / "t.csv") == len(labels)
        assert sorted(r.label for r in back.records()) == sorted(labels)
