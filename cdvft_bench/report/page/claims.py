"""The verdicts of the claims as a section of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdvft_bench.core.text import clean
from cdvft_bench.report.figures.style import Styles
from cdvft_bench.report.page.model import SectionView
from cdvft_bench.report.page.views import view

if TYPE_CHECKING:
    from pandas import DataFrame

    from cdvft_bench.claims.table import VerdictRow

CAPTION = (
    "Judged by cdvft-bench verify: each claim in the ledger's words, the verdict with what it rests on, and the "
    "sources' numbers. A claim that the records cannot judge is not measured."
)


def claims_table(verdicts: Sequence[VerdictRow]) -> DataFrame:
    """One row a claim."""
    from pandas import DataFrame

    columns = ["claim", "stated as", "source", "verdict", "because", "numbers"]
    rows = [(v.id, v.statement, v.origin, v.verdict, v.detail, v.numbers or "not measured") for v in verdicts]
    return DataFrame([[clean(cell) for cell in row] for row in rows], columns=columns)


def claims_section(verdicts: Sequence[VerdictRow], styles: Styles) -> SectionView:
    """The section: how many claims hold, and the table."""
    words = Counter("holds only if" if v.verdict.startswith("holds only if") else v.verdict for v in verdicts)
    return SectionView(
        anchor="claims",
        title="Claims and verdicts",
        facts=tuple((word, f"{n:,}") for word, n in words.most_common()),
        findings=(),
        figures=(),
        skipped=(),
        tables=(view(claims_table(verdicts), "Verdicts", "claims", CAPTION, styles),),
    )
