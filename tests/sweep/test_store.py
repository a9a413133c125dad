"""The store keeps what it is given, and says so when it cannot."""

from __future__ import annotations

import gzip
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from cdvft_bench.counting.result import Counted, PassCount
from cdvft_bench.errors import UserError
from cdvft_bench.sweep import witness
from cdvft_bench.sweep.grid import make_case
from cdvft_bench.sweep.record import Record
from cdvft_bench.sweep.store import Store
from cdvft_bench.timing.environment import read_environment
from cdvft_bench.timing.result import Interval, Samples, Timed, Timing

CASE = make_case("cdvft", {"m": 2, "block_size": "d/2"}, "layer", "48x32", sequence=8)


def record(case=CASE, **changes) -> Record:
    timing = Timing(
        (Samples("CDVFT", (0.1, 0.2, 1 / 3), 0.2, 0.1, 1 / 3),),
        {"frozen": Interval(1.5, 1.4, 1.6), "lora r=8": Interval(0.7, None, None)}, 3, "perf_counter", 2, ("drifted",),
    )  # fmt: skip
    count = PassCount(1, 2, 3, 4.5, 5, {"mm": 1}, {"strange": 2})
    values = {
        "case": case,
        "status": "ok",
        "label": "CDVFT ✓ <b>",
        "predicted": witness.predict(case),
        "counted": Counted(7, count, None, None, None, 24, ("a note",)),
        "timed": Timed(timing, None, None),
        "error": None,
        "environment": read_environment().key,
        "created": "2026-01-01T00:00:00.000+00:00",
        "seconds": 1.25,
    }
    return Record(**{**values, **changes})


def filled(path: Path, *records: Record) -> Store:
    store = Store(path, create=True)
    store.put_environment(read_environment())
    for one in records:
        store.put(one)
    return store


def test_round_trip(tmp_path: Path) -> None:
    with filled(tmp_path / "deep" / "s.sqlite", record()) as store:
        assert store.get(CASE.key) == record()
        assert list(store.records()) == [record()]
        assert store.keys() == store.keys("ok") == {CASE.key}
        assert store.keys("failed") == set()
        assert store.environments() == {read_environment().key: read_environment()}
        assert store.get("0" * 16) is None
        assert store.intact()
    with Store(tmp_path / "deep" / "s.sqlite") as store:
        assert list(store.records()) == [record()]


def test_text_form_is_lossless_and_deterministic(tmp_path: Path) -> None:
    other = make_case("lora", {"rank": 8}, "layer", "48x32")
    with filled(
        tmp_path / "s.sqlite", record(), record(other, status="failed", error="ümlaut\u2028", counted=None)
    ) as store:
        store.export_text(tmp_path / "a.jsonl.gz")
        store.export_text(tmp_path / "b.jsonl.gz")
        store.export_text(tmp_path / "c.jsonl")
        want = list(store.records())
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) == (tmp_path / "c.jsonl").read_bytes()
    with Store(tmp_path / "a.jsonl.gz") as store:
        assert list(store.records()) == want
        assert len(store.environments()) == 1


def test_merge_takes_the_newer_record(tmp_path: Path) -> None:
    newer = record(created="2026-02-01T00:00:00.000+00:00", seconds=9.0)
    with filled(tmp_path / "a.sqlite", record()) as a, filled(tmp_path / "b.sqlite", newer) as b:
        assert a.merge(b) == 1
        assert a.get(CASE.key) == newer
        assert b.merge(a) == 0


def test_keys_are_stable() -> None:
    assert make_case("cdvft", {"block_size": 16, "m": 2}, "layer", "48x32", sequence=8) == CASE
    assert CASE.key == "548ccbcc583c8650"
    assert replace(CASE, seed=1).key != CASE.key


def test_files_that_are_no_stores(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        Store(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("hello, I am a text, and a longer one than a header of SQLite")
    with pytest.raises(UserError, match="cannot be used as a store"):
        Store(tmp_path / "text.sqlite")
    with sqlite3.connect(tmp_path / "other.sqlite") as db:
        db.execute("CREATE TABLE cats (name TEXT)")
    with pytest.raises(UserError, match="no store of this suite"):
        Store(tmp_path / "other.sqlite")
    filled(tmp_path / "new.sqlite").close()
    with sqlite3.connect(tmp_path / "new.sqlite") as db:
        db.execute("UPDATE meta SET schema = 99")
    with pytest.raises(UserError, match="schema 99"):
        Store(tmp_path / "new.sqlite")
    (tmp_path / "bad.jsonl").write_text('{"record": {"case": 3}}\n')
    with pytest.raises(UserError, match="line 1 is no record"):
        Store(tmp_path / "bad.jsonl")
    (tmp_path / "bad.jsonl.gz").write_bytes(b"not compressed")
    with pytest.raises(UserError, match="cannot be read"):
        Store(tmp_path / "bad.jsonl.gz")
