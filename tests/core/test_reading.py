"""Files of users are read by one home: right ones whatever the locale, wrong ones in one line."""

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io import reading
from cdvft_bench.core.io.reading import parse_json, parse_rows, parse_toml, read_json, read_rows, read_text, read_toml

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@given(VALUES)
def test_what_json_writes_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2, max_size=2),
        max_size=5,
    )
)
def test_what_csv_writes_is_read(cells: list[list[str]]) -> None:
    import csv
    import io

    text = io.StringIO(newline="")
    csv.writer(text).writerows([["a", "b"], *cells])
    found = parse_rows(text.getvalue(), "t.csv", "table", "give another")
    assert found.columns == ("a", "b")
    assert [[row["a"], row["b"]] for _, row in found.rows] == cells


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_left_out(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(mark + "ä = 1".encode())
    assert read_text(path, "text", "give another") == "ä = 1"
    path.write_bytes(mark + b'a = "b"')
    assert read_toml(path, "grid", "give another") == {"a": "b"}
    path.write_bytes(mark + b'{"a": 1}')
    assert read_json(path, "config", "give another") == {"a": 1}
    path.write_bytes(mark + b"a,b\r\n1\r\n")
    assert read_rows(path, "table", "give another").rows == ((2, {"a": "1", "b": ""}),)


DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 10_000


@pytest.mark.parametrize(
    ("read", "content", "reason"),
    [
        (read_text, b"\xff", "no UTF-8 text at byte 0"),
        (read_json, DEEP.encode(), "nested too deeply"),
        (read_json, LONG.encode(), "too many digits"),
        (read_json, b"[NaN]", "NaN is no number"),
        (read_json, b"{", "is no JSON"),
        (read_toml, f"a = {DEEP}".encode(), "nested too deeply"),
        (read_toml, f"a = {LONG}".encode(), "too many digits"),
        (read_toml, b"a =", "is no TOML"),
        (read_rows, b"a\n" + b"x" * 200_000, "line 2: field larger than field limit"),
        (read_rows, b"a\n1,2\n", "line 2 has 2 cells, the head has 1"),
        (read_rows, b"a,a\n", "column 'a' stands twice"),
        (read_rows, b'a\n"open\n', "line 2: unexpected end of data"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, read: Any, content: bytes, reason: str) -> None:
    path = tmp_path / "given"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path, "grid", "give a TOML file")
    told = str(caught.value)
    assert told.startswith(f"grid {path} cannot be read: ")
    assert told.endswith("; give a TOML file")
    assert reason in told
    assert told.isprintable()


NAMES = {"none": "No such file", ".": "Is a directory", "x" * 300: "too long", "a\nb": "No such", "\udcff": "No such"}


@pytest.mark.parametrize(("name", "reason"), NAMES.items())
def test_what_is_not_there_is_one_line(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        read_text(tmp_path / name, "ledger", "give a file")
    assert str(caught.value).isprintable()


def test_a_file_is_read_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LIMIT", 2**20)
    path = tmp_path / "file"
    path.write_bytes(b" " * 2**20)
    assert read_text(path, "grid", "give another") == " " * 2**20
    path.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(UserError, match="larger than 1 MiB"):
        read_text(path, "grid", "give another")
    with pytest.raises(UserError, match="larger than 1 MiB"):
        read_text("/dev/zero", "grid", "give another")


@given(st.integers(0, 2**32))
def test_noise_is_refused_or_read_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(rng.choice("[]{}=\"',:0e-\n\\u abc#.") for _ in range(rng.randrange(60)))
    for parse in (parse_json, parse_toml):
        with contextlib.suppress(ValueError):  # and no other error
            parse(text)
