"""The report's page: a model of plain values, rendered by the templates (see ``render``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cdvft_bench.analysis import tables
from cdvft_bench.analysis.evidence import Answer, Evidence
from cdvft_bench.analysis.findings import Finding, headlines, section_findings
from cdvft_bench.analysis.groups import Section
from cdvft_bench.analytic.conventions import CONVENTIONS
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import NOT_MEASURED, clean, integer, plural
from cdvft_bench.report.figures.style import Drawn, Skipped, Styles
from cdvft_bench.report.page.views import IN_HEADING, MAX_ROWS_HTML, FigureView, TableView, figure_view, view

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class SectionView:
    """One subject; ``packed`` where figures and tables are in the page packed, until they come near."""

    anchor: str
    title: str
    facts: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    figures: tuple[FigureView, ...]
    skipped: tuple[Skipped, ...]
    tables: tuple[TableView, ...]
    packed: bool = False

    @property
    def height(self) -> float:
        """What figures and tables take, in rem, roughly: room is kept for them until they are unpacked."""
        return sum(8 + 60 * f.ratio for f in self.figures) + sum(
            3 if t.folded else 10 + min(36.0, 4.2 + 2 * len(t.rows)) for t in self.tables
        )


@dataclass(frozen=True)
class Origin:
    """Where records came from: a store's file name and its rows."""

    name: str
    rows: int


@dataclass(frozen=True)
class Page:
    """All that the templates print."""

    title: str
    summary: tuple[tuple[str, str], ...]
    headlines: tuple[Finding, ...]
    answers: tuple[Answer, ...]
    conventions: tuple[tuple[str, str], ...]
    sections: tuple[SectionView, ...]
    unshown: int
    leading: tuple[SectionView, ...]
    published: SectionView | None
    appendix: tuple[TableView, ...]
    environments: TableView
    origins: tuple[Origin, ...]
    traces: str
    replaced: int
    command: str
    first: str
    last: str
    version: str


SHOWN_SECTIONS = 16
"""Subjects with a section of their own; the others are in the explorer and in the CSV files."""
ROWS_IN_ALL = 6_000
"""Rows of all static tables together; the explorer holds every record."""
MANY = 5_000
"""Records from which on the figures and tables of subjects are packed: the page would take long to open."""
SHOWN_EVIDENCE = 60
"""Sentences of evidence that an answer lists."""


def build_page(
    sections: Sequence[Section],
    records: Sequence[Record],
    environments: Mapping[str, object],
    figures: Mapping[str, Sequence[Drawn | Skipped]],
    leading: Sequence[SectionView],
    published: SectionView | None,
    origins: Sequence[Origin],
    replaced: int,
    command: str,
    styles: Styles,
    answers: Sequence[Answer] = (),
    traces: str = "",
) -> Page:
    """Gather what the templates print.

    Args:
        sections: from ``groups.sections``.
        records: the records in them.
        environments: environment rows by key.
        figures: the figures of every section by its anchor.
        leading: sections that stand before those of the subjects: verdicts, paths.
        published: the section of published figures, where there is one.
        origins: the stores.
        replaced: rows left out because a newer one of the same case on the same machine is there.
        command: what regenerates the report.
        styles: colours of the methods.
        answers: to the reviewers' questions.
        traces: what the timelines leave out, in words.
    """
    from cdvft_bench import __version__

    shown = sections[:SHOWN_SECTIONS]
    limit = max(20, min(MAX_ROWS_HTML, ROWS_IN_ALL // (8 * max(1, len(shown)))))

    created = sorted(clean(r.created) for r in records)
    failed = sum(r.status == "failed" for r in records)
    subjects = len({(s.kind, s.subject) for s in sections})
    methods = len({r.case.method for r in records} - {"frozen"})
    machines = len({s.environment for s in sections})
    appendix = (
        view(tables.failures_table(records), "Failures", "failures", "Cases that ended in an error.", styles),
        view(
            tables.notes_table(records),
            "Notes of the witnesses",
            "notes",
            "What they could not do, or warn of.",
            styles,
        ),
    )
    return Page(
        title="CDVFT bench report",
        summary=(
            ("case" if len(records) == 1 else "cases", integer(len(records))),
            ("failed", integer(failed)),
            ("subject" if subjects == 1 else "subjects", integer(subjects)),
            ("method" if methods == 1 else "methods", integer(methods)),
            ("machine" if machines == 1 else "machines", integer(machines)),
        ),
        headlines=tuple(headlines(sections, records)),
        answers=tuple(_shortened(a) for a in answers),
        conventions=tuple((c.name, c.statement) for c in CONVENTIONS.values()),
        sections=tuple(
            replace(section_view(s, figures.get(s.anchor, ()), styles, limit), packed=len(records) >= MANY)
            for s in shown
        ),
        unshown=len(sections) - len(shown),
        leading=tuple(leading),
        published=published,
        appendix=appendix,
        environments=view(
            tables.environment_table(environments),
            "Environments",
            "environments",
            "As recorded on each machine.",
            styles,
        ),
        origins=tuple(origins),
        traces=traces,
        replaced=replaced,
        command=clean(command),
        first=created[0] if created else "no record",
        last=created[-1] if created else "no record",
        version=__version__,
    )


def _shortened(answer: Answer) -> Answer:
    more = len(answer.evidence) - SHOWN_EVIDENCE
    if more <= 0:
        return answer
    rest = Evidence(f"{plural(more, 'further sentence')} of this kind left out.", "tables/records.csv")
    return replace(answer, evidence=(*answer.evidence[:SHOWN_EVIDENCE], rest))


def section_view(
    section: Section, figures: Sequence[Drawn | Skipped], styles: Styles, limit: int = MAX_ROWS_HTML
) -> SectionView:
    """One section with its tables and figures."""
    records = section.records

    def show(frame: DataFrame, title: str, name: str, caption: str, folded: bool = False) -> TableView:
        return view(frame, title, name, caption, styles, folded, IN_HEADING, limit)

    arithmetic = [
        show(
            tables.flops_table(records, name),
            f'Arithmetic, convention "{name}"',
            f"flops-{name}",
            f"{c.statement[:1].upper()}{c.statement[1:]}. fvcore traces the forward pass alone.",
            folded=name != "flop",
        )
        for name, c in CONVENTIONS.items()
    ]
    shown = [
        show(tables.time_table(records), "Time", "time",
             "Ratios are paired by round, with 95 % bootstrap intervals in brackets; times are of one call."),
        show(tables.launches_table(records), "Kernel launches", "launches",
             "By formula, as the operator dispatcher saw them, and as the profiler did."),
        *sorted(arithmetic, key=lambda t: t.folded),
        show(tables.parameters_table(records), "Trainable parameters", "parameters", "By formula and by count."),
        show(tables.memory_table(records), "Memory", "memory",
             "Activations kept for backward, optimiser state and traffic by formula; the measured peak is what one "
             "call allocates above what was live before."),
        show(_differing_first(tables.witness_table(records)), "Do formula and count agree?", "witnesses",
             "Disagreements first. Exact is exact: the same operators as often, the same arithmetic (FLOPs to one part "
             "in a billion)."),
    ]  # fmt: skip
    failed = sum(r.status == "failed" for r in records)
    facts = (
        ("kind", section.kind),
        ("cases", f"{len(records):,}" + (f", {failed:,} failed" if failed else "")),
        ("workloads", "; ".join(w.title for w in section.workloads()) or "none succeeded"),
        ("environment", clean(section.environment)),
    )
    return SectionView(
        anchor=section.anchor,
        title=section.title,
        facts=facts,
        findings=tuple(section_findings(section)),
        figures=tuple(figure_view(f) for f in figures if isinstance(f, Drawn)),
        skipped=tuple(f for f in figures if isinstance(f, Skipped)),
        tables=tuple(t for t in shown if t.rows),
    )


def _differing_first(frame: DataFrame) -> DataFrame:
    order = {"differs": 0, NOT_MEASURED: 1}
    return frame.sort_values("agreement", key=lambda column: column.map(lambda v: order.get(v, 2)), kind="stable")
