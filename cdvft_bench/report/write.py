"""A report's folder: the page, the tables as CSV and LaTeX, and on request the pictures. As a whole or not at all.

LaTeX needs booktabs; the text of a record is made harmless in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cdvft_bench.analysis.accuracy.published import published_frame
from cdvft_bench.analysis.accuracy.study import runs_frame
from cdvft_bench.analysis.agreement import passes_frame
from cdvft_bench.analysis.inputs import Campaign
from cdvft_bench.analysis.kernels import kernels_frame
from cdvft_bench.claims.table import rows
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import check_replaceable, write_folder
from cdvft_bench.core.text import clean, harmless
from cdvft_bench.report.page import cards
from cdvft_bench.report.page.build import page
from cdvft_bench.report.ranks import ranking_table

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class ReportPaths:
    """What was written."""

    directory: Path
    html: Path
    figures: tuple[Path, ...]
    tables: tuple[Path, ...]


def write_report(
    campaign: Campaign,
    out_dir: Path,
    *,
    command: str,
    title: str = "cdvft-bench report",
    claims: bool = True,
    formats: Sequence[str] = (),
) -> ReportPaths:
    """Write a report of all that was read into ``out_dir``.

    The same files give the same bytes: no time of writing, no path of this machine.

    Args:
        campaign: what was read. out_dir: a new or empty folder, or one that holds a report, which is replaced.
        command: how to make the report again; it is printed on the page. title: of the page.
        claims: whether the page speaks of claims and of the reviewers' questions.
        formats: of pictures beside the page, of "png", "svg", "pdf"; the page itself needs none.

    Raises:
        UserError: there is nothing to report, or ``out_dir`` holds files that are no part of a report.
    """
    if not (campaign.records or campaign.runs or campaign.comparisons):
        names = ", ".join(origin.name for origin in campaign.origins) or "no file"
        raise UserError(f"{names}: no record to report; run a grid first (cdvft-bench run)")
    check_replaceable(out_dir)
    target = out_dir.resolve()
    files = {"report.html": page(campaign, title=title, command=command, claims=claims).encode()}
    for name, frame in tables(campaign).items():
        files[f"tables/{name}.csv"] = csv(frame)
    for name, (frame, caption) in papers(campaign).items():
        files[f"tables/{name}.csv"] = csv(frame)
        files[f"tables/{name}.tex"] = latex_table(frame, caption, name).encode()
    files |= _pictures(campaign, formats)
    write_folder(target, files)
    return ReportPaths(
        directory=target,
        html=target / "report.html",
        figures=tuple(target / name for name in files if name.startswith("figures/")),
        tables=tuple(target / name for name in files if name.startswith("tables/")),
    )


def tables(campaign: Campaign) -> dict[str, DataFrame]:
    """What the page rounds and leaves out, in full, by file name."""
    import pandas as pd

    frames: dict[str, DataFrame] = {}
    if campaign.records:
        frames["records"] = campaign.frame
        frames["passes"] = passes_frame(campaign.records)
        frames["notes"] = notes(campaign)
    if campaign.environments:
        one = cards.environment_table(campaign.environments)
        frames["environments"] = pd.DataFrame(one.rows, columns=["fact", *one.columns[1:]])
    if campaign.runs:
        frames["runs"] = runs_frame(campaign.runs)
        scored = [study.frame for study in campaign.studies if study.scores]
        if scored:
            frames["scores"] = pd.concat(scored, ignore_index=True)
    if campaign.comparisons:
        frames["published"] = pd.concat(
            [
                published_frame(one.runs).assign(comparison=clean(one.name), metric=one.metric)
                for one in campaign.comparisons
            ],
            ignore_index=True,
        )
    if campaign.kernels:
        frames["kernels"] = kernels_frame(campaign.kernels)
    if campaign.evaluation or campaign.published:
        made = cards.prediction_tables(campaign.evaluation, campaign.published)
        frames |= {
            f"prediction-{i}": pd.DataFrame(one.rows, columns=list(one.columns)) for i, one in enumerate(made, 1)
        }
    return frames


def papers(campaign: Campaign) -> dict[str, tuple[DataFrame, str]]:
    """Tables that a paper would print, with their captions."""
    import pandas as pd

    made: dict[str, tuple[DataFrame, str]] = {}
    if campaign.overview:
        one = cards.overview_table(campaign.overview)
        made["overview"] = pd.DataFrame(one.rows, columns=list(one.columns)), one.title
    ranked = ranking_table(campaign.ranking)
    if ranked:
        made["ranking"] = pd.DataFrame(ranked.rows, columns=list(ranked.columns)), ranked.title
    if campaign.verification:
        columns = ["claim", "stated as", "origin", "verdict", "because", "numbers"]
        cells = [(v.id, v.statement, v.origin, v.verdict, v.detail, v.numbers) for v in rows(campaign.verification)]
        frame = pd.DataFrame([[clean(cell) for cell in row] for row in cells], columns=columns)
        made["claims"] = frame, "Claims and verdicts."
    return made


def notes(campaign: Campaign) -> DataFrame:
    """What counting and timing could not do, or want a reader to know; the causes of failures."""
    import pandas as pd

    made = []
    for record in campaign.records:
        timing = record.timed.timing if record.timed else None
        said = (
            ("count", record.counted.notes if record.counted else ()),
            ("clock", record.timed.notes if record.timed else ()),
            ("clock, warning", timing.warnings if timing else ()),
            ("failure", (record.error or "no cause recorded",) if record.status == "failed" else ()),
        )
        where = (record.case.key, record.environment, record.label, record.case.subject, record.case.pass_)
        made += [(*where, source, note) for source, texts in said for note in texts]
    columns = ["key", "environment", "setting", "subject", "pass", "source", "note"]
    return pd.DataFrame([[clean(cell) for cell in row] for row in made], columns=columns)


def csv(frame: DataFrame) -> bytes:
    """A frame as CSV; a text that a spreadsheet would run as a formula gets an apostrophe in front."""
    return frame.map(harmless).to_csv(index=False, lineterminator="\n").encode()


def _pictures(campaign: Campaign, formats: Sequence[str]) -> dict[str, bytes]:
    if not formats:
        return {}
    from cdvft_bench.report.figures.pictures import pictures
    from cdvft_bench.report.figures.style import check_formats

    chosen = check_formats(formats)
    frame = campaign.frame
    methods = dict(zip(frame["setting"], frame["method"], strict=True))
    scored = [study for study in campaign.studies if study.scores]
    drawn = pictures(campaign.overview, methods, scored)
    return {name: content for one in drawn for name, content in one.files(chosen).items()}


# --- tables for LaTeX -----------------------------------------------------------------------


_NAMED = {
    "\\": "backslash",
    "^": "asciicircum",
    "~": "asciitilde",
    "<": "less",
    ">": "greater",
    "|": "bar",
    '"': "quotedbl",
}
_MATHS = {"×": r"\times", "÷": r"\div", "−": "-", "→": r"\to", "±": r"\pm", "·": r"\cdot"}
_ESCAPES = {
    **{c: f"\\{c}" for c in "{}$&#_%"},
    **{c: f"\\text{name}{{}}" for c, name in _NAMED.items()},
    **{c: rf"\({name}\)" for c, name in _MATHS.items()},
    **{"…": r"\ldots{}", "’": "'", "–": "--"},
}


def escape(value: object) -> str:
    """Text that LaTeX prints as it is; a character outside of ASCII that it may not know is named by its number."""
    return "".join(_ESCAPES.get(c) or (c if c.isascii() else f"[U+{ord(c):04X}]") for c in clean(value))


def latex_table(frame: DataFrame, caption: str, label: str) -> str:
    """A frame as a ``longtable`` (packages booktabs and longtable): texts left, figures right."""
    columns = [str(c) for c in frame.columns]
    head = " & ".join(escape(c) for c in columns) + r" \\"
    lines = [
        "% needs \\usepackage{booktabs,longtable} and \\usepackage[T1]{fontenc}",
        rf"\begin{{longtable}}{{{'l' * min(2, len(columns))}{'r' * max(0, len(columns) - 2)}}}",
        rf"\caption{{{escape(caption)}}}\label{{tab:{label}}}\\",
        *(r"\toprule", head, r"\midrule", r"\endfirsthead"),
        *(r"\toprule", head, r"\midrule", r"\endhead"),
    ]
    lines += [" & ".join(escape(v) for v in row) + r" \\" for row in frame.itertuples(index=False, name=None)]
    return "\n".join([*lines, r"\bottomrule", r"\end{longtable}", ""])
