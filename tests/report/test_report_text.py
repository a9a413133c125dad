"""Text and grouping: what is printed cannot break a page, and records land where they belong."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.analysis.groups import latest, paper_setting, sections
from cdvft_bench.core.text import clean, integer, interval, listed, markdown, plural, prefixed, significant, slug
from tests.report.report_records import HOSTILE, make_records


@given(st.text())
def test_clean_is_one_printable_encodable_line(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode()
    assert (
        cleaned.isprintable()
        or cleaned.replace("\u00a0", " ").strip() == ""
        or all(c.isprintable() or c.isspace() for c in cleaned)
    )
    assert not set(cleaned) & set("\n\r\t\x00\u202e")


@given(st.text())
def test_markdown_leaves_no_markup(text: str) -> None:
    escaped = markdown(text)
    assert "<" not in escaped
    assert ">" not in escaped
    assert "|" not in escaped.replace("\\|", "")
    assert "`" not in escaped.replace("\\`", "")


@given(st.text())
def test_slug_is_a_file_name(text: str) -> None:
    name = slug(text)
    assert 0 < len(name) <= 80
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_numbers() -> None:
    assert [integer(n) for n in (0, 1234567)] == ["0", "1,234,567"]
    assert [significant(x) for x in (0.0, 0.0123449, 12.3456, 123456.7)] == ["0", "0.01234", "12.35", "123,457"]
    assert significant(1e-9) == "1.000e-09"
    assert [prefixed(x) for x in (12, 999_999, 23_456_789, 1.2e12)] == ["12", "999,999", "23.46 M", "1.200 T"]
    assert interval(1.319, 1.3, 1.3456) == "1.32× [1.30, 1.35]"
    assert interval(1.319, None, None) == "1.32× [no interval]"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert (plural(1, "case"), plural(2, "case"), plural(2, "row is", "rows are")) == (
        "1 case",
        "2 cases",
        "2 rows are",
    )


def test_latest_keeps_the_newest_of_a_case_on_a_machine() -> None:
    records = make_records()
    older = [replace(r, created="2025-12-31T00:00:00Z", label="old") for r in records]
    elsewhere = [replace(r, environment="elsewhere") for r in records[:3]]
    mixed = [*older, *records, *elsewhere]
    random.Random(3).shuffle(mixed)
    kept, replaced = latest(mixed)
    assert replaced == len(older)
    assert len(kept) == len(records) + 3
    assert all(r.label != "old" for r in kept)


def test_order_does_not_depend_on_the_store() -> None:
    records = make_records(workloads=((8, 128, "step"), (8, 16, "forward"))) + make_records("1024x1024", 1024)
    shuffled = records.copy()
    random.Random(1).shuffle(shuffled)
    assert latest(records)[0] == latest(shuffled)[0]
    assert sections(records) == sections(shuffled)


def test_sections_part_what_may_not_be_compared() -> None:
    records = (
        make_records() + make_records(dtype="bfloat16") + make_records(environment="b") + make_records("64x64", 64)
    )
    found = sections(records)
    assert len(found) == 4
    assert len({s.anchor for s in found}) == 4
    assert sum(len(s.records) for s in found) == len(records)
    assert {s.machine for s in found} == {"machine 1", "machine 2"}
    assert [s.machine for s in sections(make_records())] == [""]


def test_sections_of_like_names_get_anchors_of_their_own() -> None:
    records = [r for name in ("a:b", "a-b", "a b", HOSTILE, HOSTILE + "!") for r in make_records(name, 32)[:2]]
    anchors = [s.anchor for s in sections(records)]
    assert len(set(anchors)) == 5


def test_paper_setting() -> None:
    labels = sorted(r.label for r in paper_setting(make_records()))
    assert labels == ["CDVFT m=2 p=d", "CDVFT m=2 p=d handwritten"]
    explicit = [r for r in make_records() if "p=d" not in r.label]
    assert sorted(r.label for r in paper_setting(explicit)) == ["CDVFT m=2 p=384", "CDVFT m=2 p=384 handwritten"]
