"""Columns of the page: what goes in comes out, small, safe and the same every time."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from cdvft_bench.analysis.agreement import counted_launches
from cdvft_bench.core.case import Case
from cdvft_bench.report.page.dataset import Column, command, embed, launches_by_family, machine, record_columns
from cdvft_bench.report.page.latex import escape, latex_table
from tests.report.report_records import ENVIRONMENTS, HOSTILE, failed, make_records

NASTY = (
    HOSTILE, "</script><script>alert(1)</script>", "<!--<script>", "javascript:alert(1)", "\u2028line\u2029",
    "=HYPERLINK(1)", "\\end{document}", "%{customdata}", "'; rm -rf ~ #", "]]>", "😀", "two\nlines",
)  # fmt: skip


def unpacked(text: str) -> dict:
    """A block as the page reads it, the columns' values in the place of where they lie."""
    data = gzip.decompress(base64.b64decode(text))
    end = data.index(b"\n") + 1
    document = json.loads(data[:end])
    assert end % 8 == 0
    for column in document["columns"]:
        assert column["at"] % 8 == 0
        column["values"] = np.frombuffer(data, f"<{column['type']}", document["rows"], end + column["at"]).tolist()
    return document


@pytest.mark.parametrize("text", NASTY)
def test_no_text_leaves_its_block(text: str) -> None:
    block = embed([Column("a", text, text, "text", [text, "fine"])])
    assert not set(block) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
    column = unpacked(block)["columns"][0]
    shown = column["words"][column["values"][0]]
    assert "\u2028" not in shown
    assert "\x00" not in shown


def test_columns_hold_every_record_and_its_origin() -> None:
    records = make_records("64x64", 64)
    records[2] = failed(records[2], "boom")
    stores = {id(r): "a.sqlite" for r in records}
    guesses = {(records[1].case.key, records[1].environment): 1.25}
    columns = {c.name: c for c in record_columns(records, ENVIRONMENTS, stores, guesses)}
    assert {len(c.values) for c in columns.values()} == {len(records)}
    assert columns["key"].values == [r.case.key for r in records]
    assert set(columns["store"].values) == {"a.sqlite"}
    assert columns["median"].values[2] is None
    assert columns["error"].values[2] == "boom"
    assert columns["predicted"].values[1] == 1.25
    assert columns["agreement"].values[2] == "not measured"
    m = {r.label: v for r, v in zip(records, columns["m"].values, strict=True)}
    assert m["CDVFT m=3 p=d"] == 3


def test_launches_by_family_add_up() -> None:
    for record in make_records("64x64", 64):
        assert sum(launches_by_family(record).values()) == counted_launches(record)


def test_same_columns_give_the_same_text_and_numbers_are_rounded() -> None:
    columns = [Column("x", "x", "", "number", [1.23456789, float("nan"), None, 3.0])]
    assert embed(columns) == embed(columns)
    found = unpacked(embed(columns))["columns"][0]
    assert found["type"] == "f4"
    assert found["values"] == pytest.approx([1.2346, np.nan, np.nan, 3], rel=1e-7, nan_ok=True)


@pytest.mark.parametrize(
    ("value", "type_"), [(2**24, "f4"), (2**24 + 1, "f8"), (2**52 + 1, "f8"), (1e300, "f8"), (1.5e-42, "f8"), (0, "f4")]
)
def test_figures_take_the_bytes_that_they_need(value: float, type_: str) -> None:
    column = Column("x", "x", "", "count", [value, None, 2])
    found = unpacked(embed([Column("a", "a", "", "text", ["one", "two", "one"]), column]))["columns"]
    assert found[0]["values"] == [0, 1, 0]
    assert (found[1]["type"], found[1]["values"][0], found[1]["values"][2]) == (type_, pytest.approx(value), 2)


@pytest.mark.parametrize(("words", "type_"), [(256, "u1"), (257, "u2"), (65_537, "u4")])
def test_texts_are_numbered_in_the_bytes_that_they_need(words: int, type_: str) -> None:
    texts = [f"{i:06}" for i in range(words)]
    found = unpacked(embed([Column("a", "a", "", "text", texts)]))["columns"][0]
    assert (found["type"], found["words"], found["values"][-1]) == (type_, texts, words - 1)


def test_a_machine_is_named_by_what_the_record_ran_on() -> None:
    fields = {"cpu": "A CPU", "gpus": ("A GPU",)}
    assert (machine(fields, "cpu"), machine(fields, "cuda"), machine(None, "cpu")) == ("A CPU", "A GPU", "not recorded")


def test_commands_are_quoted_for_a_shell() -> None:
    case = Case("lora", (("r", 8),), "layer", "x; rm -rf ~", 2, 64)
    assert command(case) == (
        "cdvft-bench time lora r=8 --layer 'x; rm -rf ~' --batch 2 --tokens 64 --dtype float32 --pass step --device cpu"
    )
    assert "`" not in command(replace(case, subject="$(reboot)")).replace("'$(reboot)'", "")


@pytest.mark.parametrize("text", NASTY)
def test_latex_prints_texts_as_they_are(text: str) -> None:
    import pandas as pd

    plain = escape(text)
    assert plain.isascii()
    for control in ("\\end{document}", "$\\frac"):
        assert control not in plain
    lines = latex_table(pd.DataFrame({"a": [text], "b & c": [1]}), text, "t").splitlines()
    row = next(line for line in lines if line.endswith("& 1 \\\\"))
    assert row.count(" & ") == 1
