"""The store keeps what it is given, and says so when it cannot."""

import gzip
import math
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.core.case import Case
from cdvft_bench.core.counted import Counted, PassCount
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.timed import Samples, Timed, Timing
from cdvft_bench.sweep import evaluate as sources
from cdvft_bench.sweep.grid import make_case
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.sweep.storage.textform import UnstorableError
from cdvft_bench.timing.machine.environment import read_environment

HERE = read_environment()
CASE = make_case("cdvft", {"m": 2, "block_size": "d/2"}, "layer", "48x32", sequence=8)


def record(case=CASE, **changes) -> Record:
    timing = Timing(
        (Samples("CDVFT", (0.1, 0.2, 1 / 3), 0.2, 0.1, 1 / 3),),
        {"frozen": Interval(1.5, 1.4, 1.6), "lora r=8": Interval(0.7, None, None)},
        3,
        "perf_counter",
        2,
        ("drifted",),
    )
    count = PassCount(1, 2, 3, 4.5, 5, {"mm": 1}, {"strange": 2})
    values = {
        "case": case,
        "status": "ok",
        "label": "CDVFT ✓ <b>",
        "predicted": sources.predict(case),
        "counted": Counted(7, count, None, None, None, 24, ("a note",)),
        "timed": Timed(timing, None, None),
        "error": None,
        "environment": HERE.key,
        "created": "2026-01-01T00:00:00.000+00:00",
        "seconds": 1.25,
    }
    return Record(**{**values, **changes})


def filled(path: Path, *records: Record) -> Store:
    store = Store(path, create=True)
    store.put_environment(HERE)
    for one in records:
        store.put(one)
    return store


def test_round_trip(tmp_path: Path) -> None:
    with filled(tmp_path / "deep" / "s.sqlite", record()) as store:
        assert store.get(CASE.key) == record()
        assert list(store.records()) == [record()]
        assert store.keys() == store.keys("ok") == {CASE.key}
        assert store.keys("failed") == set()
        assert store.environments() == {HERE.key: HERE}
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


def test_a_finished_record_is_not_lost_to_a_failed_one(tmp_path: Path) -> None:
    failed = record(created="2026-02-01T00:00:00.000+00:00", status="failed", error="x", counted=None, timed=None)
    with filled(tmp_path / "a.sqlite", record()) as a, filled(tmp_path / "b.sqlite", failed) as b:
        assert a.merge(b) == 0
        assert b.merge(a) == 1
        assert a.get(CASE.key) == b.get(CASE.key) == record()


def test_environments_keep_the_key_that_records_hold(tmp_path: Path) -> None:
    # As from an older version, whose environment had fewer fields, hence another key.
    with filled(tmp_path / "s.sqlite", record()) as store:
        store.export_text(tmp_path / "s.jsonl")
    key, text = HERE.key, (tmp_path / "s.jsonl").read_text()
    (tmp_path / "s.jsonl").write_text(text.replace(key, "0" * len(key)))
    with Store(tmp_path / "s.jsonl") as old, Store(tmp_path / "t.sqlite", create=True) as store:
        assert store.merge(old) == 1
        assert set(store.environments()) == {"0" * len(key)} == {r.environment for r in store.records()}


def with_figure(value: float) -> Record:
    one = record()
    assert one.timed is not None
    assert one.timed.timing is not None
    samples = (replace(one.timed.timing.samples[0], seconds=(0.1, value)),)
    return replace(one, timed=replace(one.timed, timing=replace(one.timed.timing, samples=samples)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_figures_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    with filled(tmp_path / "s.sqlite") as store:
        with pytest.raises(UnstorableError, match=r"timing\.samples\[0\]\.seconds\[1\] = -?(nan|inf) is no finite"):
            store.put(with_figure(value))
        assert store.keys() == set()
        store.put(record())  # the refused one leaves no transaction open
        assert store.keys() == {CASE.key}


@given(value=st.floats(min_value=0, allow_infinity=False), text=st.text())
def test_any_figure_and_text_survive(value: float, text: str) -> None:
    one = replace(with_figure(value), error=text, label=text)
    with Store(":memory:", create=True) as store:
        store.put_environment(HERE)
        store.put(one)
        assert store.get(CASE.key) == one


def test_writes_that_fail_are_said(tmp_path: Path) -> None:
    with filled(tmp_path / "s.sqlite", record()) as store:
        store._db.execute("PRAGMA query_only = ON")  # as on a disk that is mounted for reading
        with pytest.raises(UserError, match=r"s\.sqlite cannot be used: it cannot be written there"):
            store.put(record())
        assert store.get(CASE.key) == record()
    with filled(tmp_path / "t.sqlite") as store:
        with pytest.raises(UserError, match="FOREIGN KEY"):
            store.put(record(environment="of nowhere"))
        with pytest.raises(UserError, match="cannot be written"):
            store.export_text(tmp_path / "t.sqlite" / "out.jsonl")


def test_a_failed_export_leaves_the_older_file(tmp_path: Path) -> None:
    with filled(tmp_path / "s.sqlite", record()) as store:
        store.export_text(tmp_path / "s.jsonl.gz")
        before = (tmp_path / "s.jsonl.gz").read_bytes()
        store._db.execute("UPDATE records SET timed = '{}'")
        with pytest.raises(UserError, match="is damaged: record"):
            store.export_text(tmp_path / "s.jsonl.gz")
        assert (tmp_path / "s.jsonl.gz").read_bytes() == before
        assert sorted(p.name for p in tmp_path.iterdir()) == ["s.jsonl.gz", "s.sqlite"]


def test_a_damaged_text_form_is_refused_as_a_whole(tmp_path: Path) -> None:
    with filled(tmp_path / "s.sqlite", record()) as store:
        store.export_text(tmp_path / "s.jsonl.gz")
    whole = (tmp_path / "s.jsonl.gz").read_bytes()
    damaged = {
        "short": whole[: len(whole) // 2],
        "flipped": whole[:40] + bytes([whole[40] ^ 255]) + whole[41:],
        "cut line": gzip.compress(gzip.decompress(whole)[:-9]),
        "latin": gzip.compress(gzip.decompress(whole).replace("✓".encode(), b"\xe9")),
    }
    for name, data in damaged.items():
        (tmp_path / f"{name}.jsonl.gz").write_bytes(data)
        with pytest.raises(UserError, match=r"cannot be read|is no record|its end is missing"):
            Store(tmp_path / f"{name}.jsonl.gz")


WORDS = st.text(max_size=8)
CASES = st.builds(
    Case,
    method=WORDS,
    hyperparameters=st.lists(st.tuples(WORDS, st.integers() | st.booleans() | WORDS), max_size=3).map(tuple),
    kind=st.sampled_from(["layer", "model"]),
    subject=WORDS,
    batch=st.integers(1, 9),
    sequence=st.integers(1, 9),
    dtype=WORDS,
    pass_=st.sampled_from(["forward", "step"]),
    device=WORDS,
    seed=st.integers(0, 9),
)


@given(CASES, CASES)
def test_keys_tell_cases_apart(one: Case, other: Case) -> None:
    assert one.key == replace(one).key
    assert (one.key == other.key) == (repr(one) == repr(other))  # 1 and True are equal, but not the same value


def test_keys_are_the_same_in_every_process() -> None:
    code = "from tests.sweep.test_store import CASE; print(CASE.key)"
    root = Path(__file__).parents[2]
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": f"{root}:{root / 'reference'}"},
        )
        assert done.stdout.strip() == CASE.key


def test_keys_are_stable() -> None:
    assert make_case("cdvft", {"block_size": 16, "m": 2}, "layer", "48x32", sequence=8) == CASE
    assert CASE.key == "548ccbcc583c8650"
    assert replace(CASE, seed=1).key != CASE.key


def test_files_that_are_no_stores(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        Store(tmp_path / "none.sqlite")
    with pytest.raises(UserError, match="export STORE"):
        Store(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="cannot be used as a store"):
        Store(tmp_path, create=True)  # a folder
    (tmp_path / "text.sqlite").write_text("hello, I am a text, and a longer one than a header of SQLite")
    with pytest.raises(UserError, match="cannot be used: it is no SQLite file"):
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
