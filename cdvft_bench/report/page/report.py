"""Write a report: one folder with the page, the same as Markdown, figures and tables. From records alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cdvft_bench.analysis import paths, tables
from cdvft_bench.analysis.accuracy.published import published_figures, published_table
from cdvft_bench.analysis.evidence import Given
from cdvft_bench.analysis.fronts import accuracy_columns
from cdvft_bench.analysis.groups import latest, sections
from cdvft_bench.analysis.questions import answers
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.folders import check_replaceable, write_folder
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import clean, plural
from cdvft_bench.report.figures.draw import section_figures
from cdvft_bench.report.figures.style import Drawn, Skipped, Styles
from cdvft_bench.report.page.claims import claims_section, claims_table
from cdvft_bench.report.page.dataset import command as command_of
from cdvft_bench.report.page.dataset import embed, machine, only_recorded, record_columns
from cdvft_bench.report.page.expressivity import expressivity_section, expressivity_table
from cdvft_bench.report.page.latex import latex_table, paper_caption, paper_tables
from cdvft_bench.report.page.model import SHOWN_SECTIONS, Origin, SectionView, build_page
from cdvft_bench.report.page.prediction import predicted_ms, prediction_frames, prediction_section
from cdvft_bench.report.page.render import render_html, render_markdown
from cdvft_bench.report.page.timeline import Timeline, kept_traces, timeline, timeline_columns
from cdvft_bench.report.page.views import figure_view, markdown_table, view

if TYPE_CHECKING:
    from pandas import DataFrame

    from cdvft_bench.accuracy.analysis import Score
    from cdvft_bench.accuracy.published import PublishedRun
    from cdvft_bench.accuracy.trial import TrialResult
    from cdvft_bench.analytic.roofline import Rates
    from cdvft_bench.claims.table import VerdictRow
    from cdvft_bench.expressivity.findings.finding import Finding
    from cdvft_bench.predictor.results import Evaluation, PublishedComparison


@dataclass(frozen=True)
class Source:
    """Records and the environments that they were made in.

    Attributes:
        name: the store's file name.
        records: its rows.
        environments: environment fields (a mapping or a dataclass) by key.
    """

    name: str
    records: Sequence[Record]
    environments: Mapping[str, object]


@dataclass(frozen=True)
class Published:
    """Others' figures.

    Attributes:
        runs: see ``accuracy.published``.
        source: who published them.
        cdvft_parameters: closed-form parameters of CDVFT on the same model, by setting.
    """

    runs: Sequence[PublishedRun]
    source: str
    cdvft_parameters: Mapping[str, int]


@dataclass(frozen=True)
class Beside:
    """What else may stand beside the records on the page.

    Attributes:
        findings: on expressivity.
        runs: fine-tuning runs by the name of their file of results.
        timelines: of traces that were kept.
        evaluation: predictions against the records. compared: predictions against others' training times.
        unpredicted: why there is no evaluation.
        rates: calibrated ones by the key of a record's environment.
    """

    findings: Sequence[Finding] = ()
    runs: Sequence[tuple[str, Sequence[TrialResult]]] = ()
    timelines: Sequence[Timeline] = ()
    evaluation: Evaluation | None = None
    compared: PublishedComparison | None = None
    unpredicted: str = ""
    rates: Mapping[str, Rates] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportPaths:
    """What was written."""

    directory: Path
    html: Path
    markdown: Path
    figures: tuple[Path, ...]
    tables: tuple[Path, ...]


MAX_PREDICTED = 1_000
"""Records up to which a report makes predictions: each takes a fit that leaves it out."""
_FORMULAS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula, the wide forms of East Asian writing among them."""
PAPER_ROWS = 400
"""A subject with more rows has no LaTeX table: nobody would print it."""


def write_report(
    sources: Iterable[Source],
    out_dir: Path,
    *,
    command: str,
    published: Published | None = None,
    verdicts: Sequence[VerdictRow] = (),
    beside: Beside | None = None,
) -> ReportPaths:
    """Write a report of all records of ``sources`` into ``out_dir``, as a whole or not at all.

    The same records give the same bytes: no time of writing, no path of this machine.

    Args:
        sources: stores of one or of several machines; of a case that was run again on the same
            machine the newest row counts.
        out_dir: a new or empty folder, or one that holds a report, which is replaced.
        command: how to make the report again; it is printed on the page.
        published: others' figures to show accuracy against cost; None leaves that section out.
        verdicts: on the claims of a ledger; none leaves that section out.
        beside: what else to show; what is not given is left out, or "not measured".

    Raises:
        UserError: there is no record, or ``out_dir`` holds files that are no part of a report.
    """
    given, beside = list(sources), beside or Beside()
    records, replaced = latest(record for source in given for record in source.records)
    if not records:
        names = ", ".join(clean(source.name) for source in given) or "no store"
        raise UserError(f"{names} holds no record: a report needs at least one; run a grid first (cdvft-bench run)")
    target = out_dir.resolve()
    check_replaceable(target)
    stores = {id(record): clean(Path(source.name).name) for source in given for record in source.records}
    environments = {key: fields for source in given for key, fields in source.environments.items()}
    used = {key: environments.get(key, {"environment": None}) for key in sorted({r.environment for r in records})}
    scored = [(name, _scores(runs)) for name, runs in beside.runs]
    methods = {r.case.method for r in records} | {s.method for _, found in scored for s in found}
    styles = Styles(methods)
    grouped = sections(records)
    figures = {section.anchor: section_figures(section, styles) for section in grouped[:SHOWN_SECTIONS]}
    extra = _published_section(published, styles) if published else ([], None)
    compared = paths.settings(records)
    leading = [claims_section(verdicts, styles)] if verdicts else []
    leading += [expressivity_section(beside.findings, styles)] if beside.findings else []
    leading += [paths.paths_section(compared, styles, beside.rates)] if compared else []
    predicted = prediction_section(beside.evaluation, beside.compared, styles, beside.unpredicted)
    leading += [predicted] if predicted else []
    runs = {run.trial.key: run for _, some in beside.runs for run in some}
    origins = {run.trial.key: name for name, some in beside.runs for run in some}
    page = build_page(
        grouped, records, used, figures, leading, extra[1],
        [Origin(clean(Path(s.name).name), len(s.records)) for s in given], replaced, command, styles,
        answers(Given(grouped, verdicts, beside.findings, [*runs.values()], origins)), _left_out(beside.timelines),
    )  # fmt: skip
    columns = only_recorded(record_columns(records, used, stores, predicted_ms(beside.evaluation)))
    blocks = {"data-records": embed(columns)}
    if beside.timelines:
        blocks["data-traces"] = embed(timeline_columns(beside.timelines))
    if published or scored:
        fronts = accuracy_columns(published.runs if published else (), published.source if published else "", scored)
        blocks["data-accuracy"] = embed(fronts)
        methods |= set(map(str, fronts[1].values))
    files: dict[str, bytes] = {
        "report.html": render_html("page.html.j2", page, styles, methods, blocks).encode(),
        "report.md": render_markdown("page.md.j2", page, markdown_table).encode(),
    }
    for made in (*figures.values(), extra[0]):
        for figure in made:
            files |= figure.files() if isinstance(figure, Drawn) else {}
    frames = tables.all_tables(records, used)
    frames["records"] = tables.records_table(records, used, stores, machine, command_of)
    if published:
        frames["published"] = published_table(published.runs)
    if compared:
        frames["paths"] = paths.paths_table(compared, beside.rates)
    if beside.findings:
        frames["expressivity"] = expressivity_table(beside.findings)
    frames |= prediction_frames(beside.evaluation, beside.compared)
    papers = paper_tables(grouped[:SHOWN_SECTIONS], PAPER_ROWS)
    captions = {name: paper_caption(grouped, name) for name in papers}
    if verdicts:
        papers["claims"] = claims_table(verdicts)
        captions["claims"] = "Claims and verdicts."
    for name, frame in (frames | papers).items():
        files[f"tables/{name}.csv"] = csv(frame)
    for name, frame in papers.items():
        files[f"tables/{name}.tex"] = latex_table(frame, captions[name], name).encode()
    write_folder(target, files)
    return ReportPaths(
        directory=target,
        html=target / "report.html",
        markdown=target / "report.md",
        figures=tuple(target / name for name in files if name.startswith("figures/")),
        tables=tuple(target / name for name in files if name.startswith("tables/")),
    )


def report_stores(
    stores: Sequence[Path],
    out_dir: Path,
    *,
    command: str,
    expressivity: Path | None = None,
    accuracy: Sequence[Path] = (),
) -> ReportPaths:
    """Write a report of whole stores, with the claims' verdicts, predictions and published figures beside them.

    The verdicts are judged anew, with the stores as the clock's records and the fine-tuning runs as those of accuracy.

    Args:
        stores: SQLite or text-form stores. Traces in a folder ``traces`` beside one are shown as timelines.
        out_dir, command: as for ``write_report``.
        expressivity: the folder of an expressivity profile, whose findings answer a reviewer's question.
        accuracy: files of results of ``cdvft-bench train``.

    Raises:
        UserError: a file cannot be read, or as for ``write_report``.
    """
    from cdvft_bench.accuracy.published import MODEL, SOURCE, published_runs
    from cdvft_bench.claims import rows, verify
    from cdvft_bench.expressivity.findings.finding import read_findings
    from cdvft_bench.predictor.stores import rates_by_environment
    from cdvft_bench.sweep.store import Store

    sources = []
    for path in stores:
        with Store(path) as store:
            sources.append(Source(path.name, list(store.records()), store.environments()))
    by_key = {r.case.key: r for source in sources for r in source.records}
    evaluation, compared, unpredicted = _predictions(stores, sum(len(source.records) for source in sources))
    beside = Beside(
        findings=read_findings(expressivity) if expressivity else (),
        runs=[named for path in accuracy for named in _workloads(path, _file_name(path, accuracy))],
        timelines=[timeline(trace, by_key) for path in stores for trace in kept_traces(path)],
        evaluation=evaluation,
        compared=compared,
        unpredicted=unpredicted,
        rates=rates_by_environment(stores),
    )
    published = Published(published_runs(), SOURCE, cdvft_on(MODEL))
    verdicts = rows(verify(records=[*stores, *accuracy]))
    return write_report(
        sources, out_dir, command=command, published=published, verdicts=verdicts, beside=beside
    )  # fmt: skip


def _predictions(stores: Sequence[Path], records: int) -> tuple[Evaluation | None, PublishedComparison, str]:
    """Predictions against the records and against others' training times, and why there are none of the former."""
    from cdvft_bench.predictor import compare_published, evaluate_stores

    if records > MAX_PREDICTED:
        said = f"{records:,} records are more than are predicted here; cdvft-bench evaluate does it"
        return None, compare_published(), said
    try:
        return evaluate_stores(stores), compare_published(), ""
    except UserError as error:
        return None, compare_published(), str(error)


def _file_name(path: Path, given: Sequence[Path]) -> str:
    """A file's name; with its folder's where several that are given have the same name."""
    alike = sum(other.name == path.name for other in given) > 1
    return "/".join(path.parts[-2:]) if alike else path.name


def _workloads(path: Path, name: str) -> list[tuple[str, Sequence[TrialResult]]]:
    """The runs of a file of results by its name; with their workload where the file holds several."""
    from cdvft_bench.accuracy.results import by_workload, read_results

    found = by_workload(read_results(path)[0])
    return [(name if len(found) == 1 else f"{name}, {workload}", runs) for workload, runs in found.items()]


def _scores(runs: Sequence[TrialResult]) -> Sequence[Score]:
    from cdvft_bench.accuracy.analysis import scores

    return scores(runs)


def _left_out(timelines: Sequence[Timeline]) -> str:
    more = {one.title: one.left_out for one in timelines if one.left_out}
    return "; ".join(f"{plural(n, 'later launch', 'later launches')} of {title} left out" for title, n in more.items())


def cdvft_on(model: str) -> dict[str, int]:
    """Trainable parameters of CDVFT with m = 2 on a model's default target layers, at p = d and at p = 64."""
    from cdvft_bench.analytic.models import model_shape, target_linears
    from cdvft_bench.methods import make_method

    layers = [linear.shape for linear in target_linears(model_shape(model))]
    methods = [make_method("cdvft", {"m": 2, "block_size": size}) for size in (None, 64)]
    return {method.label: sum(int(method.parameters(layer)) for layer in layers) for method in methods}


def csv(frame: DataFrame) -> bytes:
    """A frame as CSV; a text that a spreadsheet would run as a formula gets an apostrophe in front."""

    def harmless(value: object) -> object:
        return f"'{value}" if isinstance(value, str) and value.lstrip()[:1] in _FORMULAS else value

    return frame.map(harmless).to_csv(index=False, lineterminator="\n").encode()


def _published_section(published: Published, styles: Styles) -> tuple[list[Drawn | Skipped], SectionView]:
    figures = published_figures(published.runs, published.source, published.cdvft_parameters, styles)
    caption = f"As published by {clean(published.source)}; nothing of it was measured here."
    table = view(published_table(published.runs), "Published runs", "published", caption, styles)
    section = SectionView(
        anchor="published",
        title="Accuracy against cost, as published",
        facts=(("source", clean(published.source)), ("runs", f"{len(published.runs):,}")),
        findings=(),
        figures=tuple(figure_view(f) for f in figures if isinstance(f, Drawn)),
        skipped=tuple(f for f in figures if isinstance(f, Skipped)),
        tables=(table,) if table.rows else (),
    )
    return figures, section
