"""The suite's own ledger: all of it judged once, in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from cdvft_bench.claims import to_json, to_junit, verify
from cdvft_bench.claims.table import THIS_SUITE, rows, short_table, summary, verdict_table
from cdvft_bench.claims.verdict import Verification
from tests.texts import same_text

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def verification() -> Verification:
    return verify()


def test_every_verdict_is_as_pinned(verification: Verification) -> None:
    assert verification.as_pinned, [(v.claim.id, v.pinned) for v in verification.verdicts if v.pinned]


def test_51_81_has_one_ratio_behind_it_and_51_89_none(verification: Verification) -> None:
    verdict = verification.of("flops-against-fourierft")
    assert verdict.tried == verdict.judged > 3000
    assert verdict.hits == 3
    assert "51.89 never" in verdict.detail
    assert "1 different ratio" in verdict.detail
    d, tokens, log = 768, 256, 9.584962500721156
    lead = (d**2 * 2 * log + 2 * tokens * d**2) / (tokens * (3 * d * log + 2 * d))
    assert verdict.readings[0].results[0].ratio == pytest.approx(lead, rel=1e-12)
    assert round(lead, 2) == 51.81


def test_both_witnesses_say_the_same(verification: Verification) -> None:
    compared = 0
    for verdict in verification.verdicts:
        for reading in verdict.readings:
            ratios = [t.ratio for t in reading.results if t.ratio is not None]
            if len(ratios) == 2:
                assert ratios[0] == pytest.approx(ratios[1], rel=1e-9), (verdict.claim.id, reading.setting)
                compared += 1
    assert compared > 50


def test_the_backward_of_autograd_is_complex(verification: Verification) -> None:
    verdict = verification.of("transforms-backward")
    assert dict(verdict.needed) == {"subject.path": ("handwritten",)}
    other = next(r for r in verdict.readings if dict(r.setting)["subject.path"] == "fft")
    assert {t.text.split(") ")[0] for t in other.results} == {"(1, 0, 2"}


def test_what_nobody_recorded_is_not_measured_and_says_what_would_supply_it(verification: Verification) -> None:
    for name in ("m-2-is-enough", "accuracy-like-lora", "accuracy-like-fourierft", "step-time-like-lora"):
        verdict = verification.of(name)
        assert verdict.word == "not measured"
        assert "--records" in verdict.detail


def test_tables(verification: Verification) -> None:
    table = verdict_table(verification).splitlines()
    assert len(table) == len(verification.verdicts) + 2
    assert {line.replace("\\|", "").count("|") for line in table} == {4}
    for row in rows(verification):
        assert row.numbers or row.verdict == "not measured"
    assert "all as pinned" in summary(verification)


def test_junit(verification: Verification) -> None:
    suite = ET.fromstring(to_junit(verification)).find("testsuite")
    assert suite is not None
    assert int(suite.attrib["tests"]) == len(suite.findall("testcase")) == len(verification.verdicts)
    assert suite.attrib["failures"] == "0"
    silent = [v.claim.id for v in verification.verdicts if v.word == "not measured"]
    assert [c.attrib["name"] for c in suite.findall("testcase") if c.find("skipped") is not None] == silent


def test_json(verification: Verification) -> None:
    document = json.loads(to_json(verification))
    assert document["as_pinned"] is True
    assert [v["claim"]["id"] for v in document["verdicts"]] == [v.claim.id for v in verification.verdicts]
    first = document["verdicts"][0]
    assert first["readings"][0]["results"][0]["ratio"] == pytest.approx(16 / 3)


def test_the_documents_show_these_verdicts(verification: Verification) -> None:
    """Made by ``cdvft-bench verify --markdown table > docs/verdicts.md``, and with ``--short`` for the README."""
    shown, now = (ROOT / "docs" / "verdicts.md").read_text().splitlines(), verdict_table(verification).splitlines()
    same_text("\n".join(map(_settled, shown)), "\n".join(map(_settled, now)))
    assert short_table(verification) in (ROOT / "README.md").read_text()


def _settled(line: str) -> str:
    """A row without what a search's last digits decide: how far the suite's own findings are off, and the numbers."""
    if f"({THIS_SUITE}," not in line:
        return line
    statement, verdict = line.split(" | ")[:2]
    return f"{statement} | {verdict.split('**: ')[0]}"
