"""Files as people have them: compressed, in archives, cut off, malformed. What can be mended is, and a note says so."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.timed import TraceSummary
from cdvft_bench.timing.trace import analyse_events, read_trace
from cdvft_bench.timing.traces.events.model import read
from cdvft_bench.timing.traces.files import decoding, scanning, source
from cdvft_bench.timing.traces.files.notes import Notes
from cdvft_bench.timing.traces.files.scanning import Scanner
from tests.timing import cuda_trace as made

EVENTS = made.training_step()
TEXT = json.dumps({"schemaVersion": 1, "traceEvents": EVENTS, "traceName": "x"})
WHOLE = analyse_events(EVENTS)


def summed(tmp_path: Path, content: bytes, name: str = "trace.json") -> TraceSummary:
    path = tmp_path / name
    path.write_bytes(content)
    return read_trace(path)


def same(found: TraceSummary, but: tuple[str, ...] = ("notes",)) -> bool:
    return all(getattr(found, k) == getattr(WHOLE, k) for k in WHOLE.__dataclass_fields__ if k not in but)


# --- packed --------------------------------------------------------------------------------


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.txt", b"no trace" * 10_000)
        archive.writestr("small.json", b"[]")
        archive.writestr("run/trace.json", content)
    return buffer.getvalue()


def tarred(content: bytes, mode: str = "w:gz", inner: str = "run/trace.json") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        info = tarfile.TarInfo(inner)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "two gz members": lambda c: gzip.compress(c[:100]) + gzip.compress(c[100:]),
    "gz with padding": lambda c: gzip.compress(c) + b"\0" * 512,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
    "zip of gz": lambda c: zipped(gzip.compress(c)),
    "tar": lambda c: tarred(c, "w"),
    "tar.gz": tarred,
    "tar.gz of gz": lambda c: tarred(gzip.compress(c), inner="trace.json.gz"),
    "UTF-8 with a mark": lambda c: b"\xef\xbb\xbf" + c,
    "UTF-16": lambda c: c.decode().encode("utf-16"),
    "UTF-16, big end first": lambda c: b"\xfe\xff" + c.decode().encode("utf-16-be"),
}


@pytest.mark.parametrize("kind", PACKED)
def test_packed_files_read_as_plain_ones_whatever_they_are_called(tmp_path: Path, kind: str) -> None:
    found = summed(tmp_path, PACKED[kind](TEXT.encode()), "misnamed.txt")
    assert same(found)
    assert any("archive" in n for n in found.notes) == (kind.split(" ")[0] in ("zip", "tar", "tar.gz"))


def cut_at(content: bytes, share: float) -> bytes:
    return content[: int(share * len(content))]


LONG = json.dumps(
    {
        "traceEvents": [
            e
            for i in range(300)
            for e in (
                made.op("aten::add", 10 * i, 10 * i + 4),
                made.launch(10 * i, 10 * i + 1, i),
                made.kernel(f"kernel_{i * 7919 % 1000}", 10 * i + 2, 10 * i + 5, i),
            )
        ]
    }
).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (cut_at(gzip.compress(LONG, mtime=0), 0.7), "cut off"),
        (cut_at(bz2.compress(LONG * 1), 1.0)[:-8], "cut off"),
        (cut_at(tarred(LONG), 0.7), "cut off"),
        (gzip.compress(LONG, mtime=0)[:5000] + bytes(range(256)) * 8, "compressed file is"),
        (cut_at(LONG, 0.7), "breaks off inside an event"),
        (LONG[: LONG.index(b'"kernel_', len(LONG) // 2)].rstrip(b' "name:,{') + b"", "no end"),
    ],
    ids=["gz", "bz2", "tar.gz", "damaged gz", "plain, in an event", "plain, between events"],
)
def test_files_that_break_off_give_what_they_hold(tmp_path: Path, content: bytes, said: str) -> None:
    found = summed(tmp_path, content)
    assert 50 < found.launches <= 300
    assert any(said in note for note in found.notes), found.notes
    assert abs(found.launches - found.operators) <= 1
    if "compressed file is" not in said:  # bytes that are wrong may still unpack, to something else
        assert found.device_seconds == pytest.approx(3e-6 * found.launches)


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "LIMIT", 10_000)
    with pytest.raises(UserError, match=r"unpacks to more than 10,000 bytes"):
        summed(tmp_path, gzip.compress(LONG, mtime=0), "bomb.json.gz")


def test_an_event_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "LONGEST", 1 << 20)
    found = summed(tmp_path, LONG[:-2] + b', {"ph": "X", "name": "' + b"x" * (4 << 20))
    assert found.launches == 300


# --- malformed -------------------------------------------------------------------------------


def renamed(name: str) -> bytes:
    """The trace with a kernel named as given, unescaped."""
    return TEXT.replace(made.GEMM, name).encode()


MENDED: list[tuple[str, bytes, str]] = [
    ("zeros at the end", TEXT.encode() + b"\0\0", "zeros at the end"),
    ("a byte-order mark", b"\xef\xbb\xbf" + TEXT.encode(), "byte-order mark"),
    ("no end of the list", TEXT.encode()[: TEXT.rindex("]")], "no end"),
    ("no end of the object", TEXT.encode()[:-1], "closing brace"),
    ("a trailing comma", json.dumps(EVENTS)[:-1].encode() + b",]", "trailing comma"),
    ("a comma and no end", json.dumps(EVENTS)[:-1].encode() + b",\n", "no end"),
    ("text after the end", json.dumps(EVENTS).encode() + b"\nDone.", "text after"),
    ("a broken head", b'{"traceName": "C:\\data\\x", ' + TEXT.encode()[1:], "before the events"),
    ("a broken tail", TEXT.encode()[:-1] + b', "path": "C:\\data\\x"}', "behind the events"),
    ("a quote", renamed('gemm<"tn">'), "a quote that was not escaped"),
    ("a quoted word and a comma", renamed('gemm "tn", 128'), "a quote that was not escaped"),
    ("a backslash", renamed("C:\\dir\\gemm"), "a backslash that was not escaped"),
    ("a backslash at the end", renamed("C:\\gemm\\"), "a backslash that was not escaped"),
    ("a backslash and a u", renamed("\\users\\gemm"), "a backslash that was not escaped"),
    ("inf", TEXT.replace('"device": 0', '"device": 0, "occupancy": inf').encode(), "'inf' in place of a number"),
    ("-inf", TEXT.replace('"device": 0', '"x": [-inf, 1], "device": 0').encode(), "'-inf' in place of a number"),
    ("nan", TEXT.replace('"device": 0', '"x": nan, "device": 0').encode(), "'nan' in place of a number"),
    ("N/A", TEXT.replace('"device": 0', '"device": 0, "est. %": N/A').encode(), "'N/A' in place of a number"),
    ("no value", TEXT.replace('"device": 0', '"x": , "device": 0').encode(), "a value was missing"),
    ("a missing comma", TEXT.replace('"device": 0', '"x": 1 "device": 0').encode(), "comma or colon"),
    ("single quotes", TEXT.replace('"kernel"', "'kernel'").encode(), "single quotes"),
    ("a doubled comma", TEXT.replace("}, {", "}, , {", 3).encode(), ""),
    ("lines of events", "\n".join(map(json.dumps, EVENTS)).encode(), "no list around the events"),
]


@pytest.mark.parametrize(("kind", "content", "said"), MENDED, ids=[kind for kind, *_ in MENDED])
def test_what_is_malformed_is_mended_and_noted(tmp_path: Path, kind: str, content: bytes, said: str) -> None:
    found = summed(tmp_path, content)
    names = ("notes", "by_kernel")
    assert same(found, names), found.notes
    assert len(found.by_kernel) == len(WHOLE.by_kernel)
    assert any(said in note for note in found.notes) or not said, found.notes


def test_names_come_through_mending_as_they_were_meant(tmp_path: Path) -> None:
    for name in (
        'gemm<"tn">',
        'gemm "tn", 128',
        "C:\\dir\\gemm",
        "a\\\\b",
        'he said \\"gemm\\"',
        "tab\\tgemm",
        "\\u00e9gemm",
    ):
        (tmp_path / "t.json").write_bytes(renamed(name))
        names = read(tmp_path / "t.json").names
        meant = name.replace('\\"', '"').replace("\\\\", "\\").replace("\\t", "\t").replace("\\u00e9", "é")
        assert (name if "C:" in name else meant) in names


@pytest.mark.parametrize("text", ['"{}"', " {} "])
def test_numbers_written_as_strings_are_numbers(tmp_path: Path, text: str) -> None:
    content = TEXT
    for key in ("ts", "dur", "correlation", "device", "stream"):
        for value in {e[key] if key in e else e.get("args", {}).get(key) for e in EVENTS} - {None}:
            content = content.replace(f'"{key}": {value},', f'"{key}": {text.format(value)},')
            content = content.replace(f'"{key}": {value}}}', f'"{key}": {text.format(value)}}}')
    found = summed(tmp_path, content.encode())
    assert same(found)
    assert any("numbers written as strings" in n for n in found.notes) == (text == '"{}"')


def test_a_damaged_event_costs_itself_alone(tmp_path: Path) -> None:
    text = json.dumps(EVENTS)
    for bad in ('{"ph": "X", {"ph"', '{"ph": "X", "ts": ', '{"ph": "X", "name": "a', "[[[[", '"x"', "7", "null", "tru"):
        found = summed(tmp_path, (text[:-1] + f", {bad}, " + text[1:-1] + "]").encode())
        assert found.operators in (12, 11), bad
        assert found.launches in (10, 9), bad


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no list of traceEvents"),
        (b"{", "no list of traceEvents"),
        (b"\x00\xff\x80garbage", "no list of traceEvents"),
        (b"[" * 100_000, "holds no events"),
        (b'{"a":' * 50_000, "no list of traceEvents"),
        (b"3", "no list of traceEvents"),
        (b'{"events": []}', "no list of traceEvents"),
        (b'{"traceEvents": {}}', "no list of traceEvents"),
        (b'{"traceEvents": []}', "holds no events"),
        (b"[]", "holds no events"),
        (b"[1, 2]", "holds no events"),
        (b'[{"ph": "M"}]', "neither operators nor kernels"),
        (gzip.compress(b"", mtime=0)[:12], "no list of traceEvents"),
        (gzip.compress(TEXT.encode(), mtime=0)[:10] + b"\xff" * 40, "cannot be read"),
        (b"PK\x03\x04 no archive", "cannot be read"),
        pytest.param(tarred(b"", inner="empty"), "no list of traceEvents", id="empty tar"),
        (b"\x28\xb5\x2f\xfd\x00", "zstd"),
    ],
)
def test_files_without_events_are_user_errors_with_their_path(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        read_trace(path)
    assert str(path) in str(caught.value) or "zstd" in said
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.json' is not there"):
        read_trace(tmp_path / "missing.json")
    with pytest.raises(UserError, match="is a folder"):
        read_trace(tmp_path)


# --- streaming ------------------------------------------------------------------------------


def scanned(content: bytes, size: int) -> tuple[list[Any], Notes, dict[str, Any]]:
    notes = Notes()
    pieces = iter([content[i : i + size] for i in range(0, len(content), size)])
    scanner = Scanner(pieces, notes)
    return [e for batch in scanner.batches() for e in batch], notes, scanner.document


def told(events: list[Any]) -> list[tuple[Any, ...]]:
    return [(e.ph, e.cat, e.name, e.pid, e.tid, e.ts, e.dur, getattr(e.args, "correlation", e.args)) for e in events]


texts = st.text(max_size=8) | st.sampled_from(["}, {", '"', "\\", "},{", "]}", '{"ph":', "\u2028", "é"])
values = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6) | texts
nested = st.recursive(values, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3), max_leaves=6)
some_events = st.lists(
    st.fixed_dictionaries(
        {"ph": st.sampled_from("XMsf"), "name": texts, "pid": st.integers(0, 3), "ts": st.floats(0, 1e6)},
        optional={"dur": st.floats(0, 1e3), "args": st.dictionaries(texts, nested, max_size=3)},
    ),
    max_size=8,
)


@given(
    events=some_events,
    size=st.integers(1, 200),
    indent=st.sampled_from([None, 0, 2]),
    before=st.dictionaries(texts.filter(lambda t: t != "traceEvents"), nested, max_size=2),
    after=st.dictionaries(texts.filter(lambda t: t != "traceEvents"), nested, max_size=2),
)
@settings(max_examples=80, deadline=None)
def test_streaming_gives_what_json_gives_wherever_blocks_end(events, size, indent, before, after) -> None:
    text = json.dumps(
        {**before, "traceEvents": events, **{k: v for k, v in after.items() if k not in before}}, indent=indent
    )
    found, notes, _ = scanned(text.encode(), size)
    assert told(found) == told(decoding.plain_events(json.loads(text)["traceEvents"]))
    assert notes.lines() == ()


@given(events=some_events.filter(bool), size=st.integers(1, 200), data=st.data())
@settings(max_examples=80, deadline=None)
def test_a_file_cut_anywhere_gives_its_whole_events(events, size, data) -> None:
    text = json.dumps(events).encode()
    cut = data.draw(st.integers(1, len(text) - 1))
    found, notes, _ = scanned(text[:cut], size)
    every = told(decoding.plain_events(json.loads(text)))
    assert told(found) == every[: len(found)]
    pieces = [json.dumps(event).encode() for event in events]  # "[", then each with ", " before the next
    ends = [1 + sum(len(p) for p in pieces[: i + 1]) + 2 * i for i in range(len(pieces))]
    assert len(found) == sum(end <= cut for end in ends)
    assert notes.lines()


@given(content=st.binary(max_size=300) | texts.map(lambda t: (TEXT[:400] + t + TEXT[400:]).encode()))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "t.json"
    path.write_bytes(content)
    with suppress(UserError):
        assert read_trace(path).launches >= 0


def test_both_decoders_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bare node's and msgspec's, on coarse times, control characters, shapes and odd values."""
    events = [
        *EVENTS,
        made.event("cpu_op", "aten::mm\x01", 600, 610, **{"Input Dims": [[2, 3], [3, 4]], "Input type": ["float"] * 2}),
        {"ph": "X", "cat": "cpu_op", "name": None, "ts": 1, "dur": 2, "args": "none"},
        {"ph": "X", "cat": ["odd"], "name": {"a": 1}, "pid": [1], "tid": None, "ts": 3.25, "dur": 1, "args": [1]},
    ]
    for shift in (0, 1_700_000_000_000_000.25):
        moved = [{**e, "ts": e["ts"] + shift} if "ts" in e else e for e in events]
        path = tmp_path / "t.json"
        path.write_text(json.dumps(moved))
        fast = read_trace(path)
        with monkeypatch.context() as patched:
            patched.setattr(scanning, "decode", decoding.decode_plain)
            assert read_trace(path) == fast == analyse_events(moved)
