"""Rows of a bare node come into a store with their closed form, and a broken file is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from cdvft_bench.core.case import Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.sweep import evaluate as sources
from cdvft_bench.sweep.storage.imports import put_slice, read_slice
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.timing.bare import expand
from cdvft_bench.timing.slice import Settings, run_slice


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slice") / "rows.jsonl"
    entries = expand(["32x24"], [8], ["frozen", "lora:rank=4", "cdvft:block_size=d+d/4"])
    settings = Settings(case_s=0.01, modes=("eager", "graph"), energy_s=0.01)
    run_slice([e for e in entries if isinstance(e, Case)], path, settings, say=lambda _: None)
    return path


def test_rows_become_records(rows: Path) -> None:
    records = read_slice(rows).records
    assert len(records) == 8
    for record in records:
        assert record.status == "ok"
        assert record.label == sources.label(record.case)
        assert record.predicted == sources.predict(record.case)
        assert record.counted is None
        assert record.timed is not None
        assert record.timed.timing is not None
        assert record.timed.timing.samples[0].name == (record.label if record.case.method != "frozen" else "frozen")
        assert record.timed.modes is not None
        assert record.timed.energy is not None
        assert record.timed.trace is not None
        parts = record.timed.trace.parts
        forward, backward = record.predicted.forward, record.predicted.backward
        step = record.case.pass_ == "step"
        # The clock's third source of the adapter's launches, beside formula and count.
        assert parts["adapter"].launches == forward.adapter_launches + step * backward.adapter_launches


def test_a_store_takes_them_once(rows: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "records.sqlite", create=True) as store:
        assert put_slice(store, rows) == 8
        assert put_slice(store, rows) == 0
        assert {r.case.key for r in store.records()} == {r.case.key for r in read_slice(rows).records}
        assert sorted(store.records(), key=lambda r: r.case.key) == sorted(
            read_slice(rows).records, key=lambda r: r.case.key
        )
        assert store.environments() == dict(read_slice(rows).environments)
    with Store(rows) as store:  # every command that reads a store reads the rows as they are, too
        assert len(store.keys("ok")) == 8


def test_a_counted_record_is_not_replaced(rows: Path, tmp_path: Path) -> None:
    record = next(r for r in read_slice(rows).records if r.case.method == "cdvft")
    counted = replace(record, counted=sources.count(record.case), created="2000-01-01T00:00:00+00:00")
    failed = replace(next(r for r in read_slice(rows).records if r.case.method == "lora"), status="failed", error="x")
    with Store(tmp_path / "records.sqlite", create=True) as store:
        for environment in read_slice(rows).environments.values():
            store.put_environment(environment)
        store.put(counted)
        store.put(replace(failed, created="2999-01-01T00:00:00+00:00"))
        assert put_slice(store, rows) == 7
        assert store.get(counted.case.key) == counted
        assert store.get(failed.case.key) != failed


def test_an_unfinished_last_line_is_left_out(rows: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(rows.read_bytes()[:-20])
    assert len(read_slice(path).records) == 7


def test_what_is_no_slice_is_refused(rows: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = rows.read_bytes().splitlines(keepends=True)
    head = lines[0] + lines[1]  # version and environment
    for data, part in (
        (b"", "holds no row"),
        (head, "holds no row"),
        (b"".join(lines[2:]), "line 1 is no record.*environment"),
        (head + b"nonsense\n", "line 3 is no record"),
        (head + b'{"strange": 1}\n', "line 3 is no record.*strange"),
        (head + b"{}\n", "line 3 is no record.*neither"),
        (head + lines[3].replace(b'"lora"', b'"lore"'), "line 3 .*lore"),
        (head + lines[3].replace(b'["rank",4]', b'["rank",0]'), "line 3 .*rank"),
        (head + lines[4].replace(b'["block_size",24]', b'["block_size","d"]'), "line 3 .*not written as"),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=part):
            read_slice(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_slice(tmp_path / "nowhere.jsonl")
