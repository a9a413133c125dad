"""Findings as a section of the report."""

from __future__ import annotations

from pathlib import Path

from cdvft_bench.expressivity.findings.finding import Finding, read_findings
from cdvft_bench.report.figures.style import Styles
from cdvft_bench.report.page.expressivity import expressivity_section, expressivity_table

COMMITTED = Path(__file__).parents[2] / "profiles" / "expressivity-cpu"


def test_every_finding_of_the_committed_profile_is_shown():
    findings = read_findings(COMMITTED)
    section = expressivity_section(findings, Styles([]))
    assert [row[0].text for row in section.tables[0].rows] == [f.id for f in findings]
    assert sum(int(count) for _, count in section.facts) == len(findings)


def test_a_finding_that_its_profile_contradicts_says_so():
    findings = [
        Finding("a", "One.", "proved", {"share_of_all": 0.25}, "Always.", False),
        Finding("b", "Two.", "conjectured", {}, "Never.", None),
    ]
    table = expressivity_table(findings)
    assert list(table["profile agrees"]) == ["NO", "not measured"]
    assert list(table["figures"]) == ["share of all 0.2500", "not measured"]
