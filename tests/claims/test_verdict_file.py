"""Verdicts survive their file, with the environment that judged them; any other file is one clear line."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.claims import verify
from cdvft_bench.claims.ledger.terms import WORDS, Origin
from cdvft_bench.claims.table import rows, summary, verdict_table
from cdvft_bench.claims.verdict import (
    Claimed,
    Reading,
    SourceResult,
    Verdict,
    Verification,
    read_verdicts,
    to_json,
    write_verdicts,
)
from cdvft_bench.cli import main
from cdvft_bench.core.errors import UserError

LEDGER = """
[ledger]
title = "mine"
version = 1
[[claim]]
id = "few"
statement = "it has 192 parameters | <b>"
source = { paper = "p", section = "s" }
quantity = "parameters"
subject = { method = "cdvft" }
layer = "64x64"
law = { kind = "equals", expected = 192 }
witnesses = ["formula", "count"]
verdict = "holds only if"
assumption = "m is 2"
[claim.open]
"subject.m" = [2, 3]
[[claim]]
id = "silent"
statement = "it is accurate"
source = { paper = "p", section = "s" }
quantity = "accuracy"
subject = { method = "cdvft", m = 2 }
law = { kind = "at_most", expected = 1 }
witnesses = ["accuracy"]
verdict = "not measured"
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(LEDGER)
    return path


def test_a_verification_survives_its_file(ledger: Path, tmp_path: Path) -> None:
    found = verify(ledger)
    path = tmp_path / "new" / "verdicts.json"
    write_verdicts(path, found)
    again = read_verdicts(path)
    assert again == found
    assert rows(again) == rows(found)
    assert (verdict_table(again), summary(again)) == (verdict_table(found), summary(found))
    assert again.environment is not None
    assert again.environment.torch
    assert again.created.endswith("+00:00")
    assert again.of("few").readings[0].results[0].text == "192"
    assert [v.word for v in again.verdicts] == ["holds only if", "not measured"]


def test_the_command_writes_it(ledger: Path, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.json"
    done = CliRunner().invoke(main, ["verify", "--ledger", str(ledger), "--output", str(path), "--json"])
    assert done.exit_code == 0, done.output
    kept, printed = json.loads(path.read_text()), json.loads(done.stdout)
    assert printed == {"schema": 1, **kept}
    assert kept["version"] == 1
    assert kept["verdicts"][0]["as_pinned"] is True


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.one_of(st.integers(), numbers, texts, st.booleans(), st.lists(texts, max_size=2).map(tuple))
settings = st.lists(st.tuples(texts, values), max_size=3).map(tuple)
results = st.builds(
    SourceResult,
    st.sampled_from(["formula", "count"]),
    texts,
    st.sampled_from([True, False, None]),
    st.none() | numbers,
    st.none() | numbers,
    texts,
    st.booleans(),
)
readings = st.builds(Reading, settings, st.lists(results, max_size=2).map(tuple), st.booleans())
words = st.sampled_from(WORDS)
needs = st.lists(st.tuples(texts, st.lists(values, max_size=2).map(tuple)), max_size=2).map(tuple)
claims = st.builds(Claimed, texts, texts, st.builds(Origin, texts, texts), texts, texts, words, settings)
verdicts = st.builds(
    Verdict,
    claims,
    words,
    texts,
    readings=st.lists(readings, max_size=2).map(tuple),
    tried=st.just(9),
    judged=st.just(7),
    hits=st.integers(0, 7),
    open=st.integers(0, 2),
    needed=needs,
    chance=st.none() | st.floats(0, 1),
    pinned=texts,
)


@given(st.lists(verdicts, max_size=3, unique_by=lambda v: v.claim.id))
def test_any_verdicts_survive(tmp_path_factory: pytest.TempPathFactory, found: list[Verdict]) -> None:
    path = tmp_path_factory.mktemp("v") / "verdicts.json"
    verification = Verification("t", "a.toml", tuple(found), "2026-01-01T00:00:00+00:00", None, ("x.jsonl",))
    write_verdicts(path, verification)
    assert read_verdicts(path) == verification


GOOD = json.loads(
    to_json(
        Verification(
            "t",
            "a.toml",
            (Verdict(Claimed("x", "s", Origin("p", "s"), "parameters", "equals", "holds"), "holds", "d"),),
        )
    )
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "give|anew"),
        (b"{", "anew"),
        (b"[1, 2]", "it is no JSON object"),
        (b'{"a": "\xff"}', "no UTF-8"),
        (b'{"a": NaN}', "NaN is no number"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"version": ' + b"9" * 10_000 + b"}", "digits"),
        (b'{"case": {}, "status": "ok"}', "holds no verdicts"),
        (json.dumps(GOOD | {"version": 99}).encode(), "update cdvft-bench"),
        (json.dumps(GOOD | {"version": True}).encode(), "version = True"),
        (json.dumps(GOOD | {"verdicts": 3}).encode(), "verdicts = 3 is not a list"),
        (json.dumps(GOOD | {"verdicts": GOOD["verdicts"] * 2}).encode(), "claim 'x' stands twice"),
        (json.dumps(GOOD | {"created": "yesterday"}).encode(), "yesterday"),
        (json.dumps(GOOD | {"created": "2026-01-01T00:00:00"}).encode(), "names no offset"),
        (json.dumps(GOOD | {"environment": {"cpu": "x"}}).encode(), "environment.cores is missing"),
        (json.dumps(GOOD | {"verdicts": [GOOD["verdicts"][0] | {"word": "so so"}]}).encode(), "is not one of holds"),
        (json.dumps(GOOD | {"verdicts": [GOOD["verdicts"][0] | {"hits": 5}]}).encode(), "in no order"),
        (json.dumps(GOOD | {"verdicts": [GOOD["verdicts"][0] | {"chance": 1.5}]}).encode(), "no probability"),
    ],
)
def test_damaged_and_foreign_files_are_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "verdicts.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        read_verdicts(path)
    assert "\n" not in str(caught.value)
    assert "verdicts.json" in str(caught.value)


@pytest.mark.parametrize("name", ["none.json", "", ".", "x" * 300, "a\0b"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_verdicts(tmp_path / name)


def test_an_older_reader_ignores_what_a_newer_writer_adds(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.json"
    path.write_text(json.dumps(GOOD | {"more": 1}))
    found = read_verdicts(path)
    assert replace(found, title="t").verdicts[0].claim.id == "x"


def test_reading_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; import cdvft_bench.claims.verdict, cdvft_bench.claims.table; "
        "bad = {'torch', 'numpy', 'pandas', 'msgspec', 'rich', 'cdvft_bench.methods', 'cdvft_bench.analytic'}; "
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
