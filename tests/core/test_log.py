"""A record log: kills cost the torn line alone, damage is named by its line, one process writes at a time."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io import log as module
from cdvft_bench.core.io.log import VERSION, Log, parse_line, read_log

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.lists(st.dictionaries(st.text().filter(lambda key: key != "log"), JSON, max_size=3), max_size=5)


def entries_of(path: Path) -> list[dict[str, Any]]:
    return [entry for _, entry in read_log(path)]


@settings(max_examples=50, deadline=None)
@given(ENTRIES, st.integers(0, 10_000))
def test_a_log_cut_anywhere_gives_back_its_whole_lines_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, Any]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "rows.jsonl"
    with Log(path) as log:
        for entry in entries:
            log.append(entry)
    data = path.read_bytes()
    kept = data[: cut % (len(data) + 1)]
    path.write_bytes(kept)
    torn = kept.rpartition(b"\n")[2]
    complete = torn in data.split(b"\n") and torn != b""  # cut between a line and its end: the line is there
    whole = max(0, kept.count(b"\n") + complete - 1)  # the first line tells the version
    assert entries_of(path) == entries[:whole]
    with Log(path) as log:
        assert log.entries == entries[:whole]
        log.append({"more": 1})
    assert entries_of(path) == [*entries[:whole], {"more": 1}]
    assert parse_line(path.read_bytes().splitlines()[0]) == {"log": VERSION}


def test_a_log_of_the_first_version_loads_and_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": "a"}\n\n{"key": "b"}\n{"ke')
    with Log(path) as log:
        assert log.entries == [{"key": "a"}, {"key": "b"}]
        log.append({"key": "c"})
    assert entries_of(path) == [{"key": "a"}, {"key": "b"}, {"key": "c"}]


def test_two_processes_do_not_write_to_one_log(tmp_path: Path) -> None:
    with Log(tmp_path / "rows.jsonl"), pytest.raises(UserError, match="another process is writing to"):
        Log(tmp_path / "rows.jsonl")
    Log(tmp_path / "rows.jsonl").close()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"nonsense", "damaged"),
        (b"[1]", "no JSON object"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "damaged"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": "\xff"}', "no UTF-8"),
        (b'{"log": 99}', "update cdvft-bench"),
        (b'{"log": "x"}', "update cdvft-bench"),
    ],
)
def test_a_damaged_line_is_named_by_its_number(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"b": 2}\n')
    with pytest.raises(UserError, match=words) as caught:
        entries_of(path)
    assert "\n" not in str(caught.value)
    if "update" not in words:
        assert "line 2" in str(caught.value)
    before = path.read_bytes()
    with pytest.raises(UserError, match=words):
        Log(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_log_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("buy milk")
    with pytest.raises(UserError, match="no log of this suite"):
        Log(path)
    assert path.read_text() == "buy milk"


def test_what_is_no_json_is_not_written(tmp_path: Path) -> None:
    with Log(tmp_path / "rows.jsonl") as log, pytest.raises(ValueError, match="JSON"):
        log.append({"seconds": float("nan")})
    assert entries_of(tmp_path / "rows.jsonl") == []


def test_compressed_logs_are_read_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps({"a": "x" * 1000}).encode() + b"\n"))
    assert entries_of(path) == [{"a": "x" * 1000}]
    monkeypatch.setattr(module, "UNPACKED", 100)
    with pytest.raises(UserError, match="expands beyond"):
        entries_of(path)
    monkeypatch.undo()
    whole = path.read_bytes()
    path.write_bytes(gzip.compress(gzip.decompress(whole)[:-9]))
    with pytest.raises(UserError, match="line 1 is damaged: its end is missing"):
        entries_of(path)
    path.write_bytes(whole[:20])
    with pytest.raises(UserError, match="cannot be read"):
        entries_of(path)
