"""What the factorisation can express, as a section of the report: the findings of a recorded profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdvft_bench.core.text import NOT_MEASURED, clean, significant
from cdvft_bench.report.figures.style import Styles
from cdvft_bench.report.page.model import SectionView
from cdvft_bench.report.page.views import view

if TYPE_CHECKING:
    from pandas import DataFrame

    from cdvft_bench.expressivity.findings.finding import Finding

CAPTION = (
    "Findings of a recorded profile: each is proved, checked numerically or conjectured under the assumptions beside "
    "it. The proofs, tables and figures behind them are in docs/expressivity.md, which "
    "'cdvft-bench expressivity report PROFILE --output docs' writes."
)
_AGREES = {True: "yes", False: "NO", None: NOT_MEASURED}


def expressivity_table(findings: Sequence[Finding]) -> DataFrame:
    """One row a finding, its figures in full."""
    from pandas import DataFrame

    columns = ["finding", "statement", "assumptions", "known as", "profile agrees", "figures"]
    rows = [(f.id, f.statement, f.assumptions, f.label, _AGREES[f.holds], _figures(f)) for f in findings]
    return DataFrame([[clean(cell) for cell in row] for row in rows], columns=columns)


def _figures(finding: Finding) -> str:
    named = (f"{name.replace('_', ' ')} {significant(value)}" for name, value in finding.evidence.items())
    return ", ".join(named) or NOT_MEASURED


def expressivity_section(findings: Sequence[Finding], styles: Styles) -> SectionView:
    """The section: how the findings are known, and the table."""
    known = Counter(f.label for f in findings)
    return SectionView(
        anchor="expressivity",
        title="What the factorisation can express",
        facts=tuple((label, f"{n:,}") for label, n in known.most_common()),
        findings=(),
        figures=(),
        skipped=(),
        tables=(view(expressivity_table(findings), "Findings", "expressivity", CAPTION, styles),),
    )
