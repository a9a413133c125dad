"""Write a report: one folder with the page, the same as Markdown, figures and tables. From records alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cdvft_bench.errors import UserError
from cdvft_bench.report import paths, tables
from cdvft_bench.report.claims import claims_section, claims_table
from cdvft_bench.report.figures import section_figures
from cdvft_bench.report.files import check_replaceable, write_folder
from cdvft_bench.report.groups import latest, sections
from cdvft_bench.report.page import Origin, SectionView, build_page, render_html, render_markdown
from cdvft_bench.report.published import published_figures, published_table
from cdvft_bench.report.style import Drawn, Skipped, Styles
from cdvft_bench.report.text import clean
from cdvft_bench.report.views import figure_view, view
from cdvft_bench.sweep.record import Record

if TYPE_CHECKING:
    from pandas import DataFrame

    from cdvft_bench.accuracy.published import PublishedRun
    from cdvft_bench.claims.table import VerdictRow


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
class ReportPaths:
    """What was written."""

    directory: Path
    html: Path
    markdown: Path
    figures: tuple[Path, ...]
    tables: tuple[Path, ...]


def write_report(
    sources: Iterable[Source],
    out_dir: Path,
    *,
    command: str,
    published: Published | None = None,
    verdicts: Sequence[VerdictRow] = (),
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

    Raises:
        UserError: there is no record, or ``out_dir`` holds files that are no part of a report.
    """
    given = list(sources)
    records, replaced = latest(record for source in given for record in source.records)
    if not records:
        names = ", ".join(clean(source.name) for source in given) or "no store"
        raise UserError(f"{names} holds no record: a report needs at least one; run a grid first (cdvft-bench run)")
    target = out_dir.resolve()
    check_replaceable(target)
    environments = {key: fields for source in given for key, fields in source.environments.items()}
    used = {key: environments.get(key, {"environment": None}) for key in sorted({r.environment for r in records})}
    styles = Styles(r.case.method for r in records)
    grouped = sections(records)
    figures = {section.anchor: section_figures(section, styles) for section in grouped}
    extra = _published_section(published, styles) if published else ([], None)
    origins = [Origin(clean(Path(s.name).name), len(s.records)) for s in given]
    compared = paths.settings(records)
    leading = [claims_section(verdicts, styles)] if verdicts else []
    leading += [paths.paths_section(compared, styles)] if compared else []
    page = build_page(grouped, records, used, figures, leading, extra[1], origins, replaced, command, styles)
    everything = [f for made in (*figures.values(), extra[0]) for f in made if isinstance(f, Drawn)]
    files: dict[str, bytes] = {
        "report.html": render_html(page).encode(),
        "report.md": render_markdown(page).encode(),
    }
    for figure in everything:
        files[f"figures/{figure.name}.svg"] = figure.svg
        files[f"figures/{figure.name}.png"] = figure.png
    for name, frame in tables.all_tables(records, used).items():
        files[f"tables/{name}.csv"] = csv(frame)
    if published:
        files["tables/published.csv"] = csv(published_table(published.runs))
    if compared:
        files["tables/paths.csv"] = csv(paths.paths_table(compared))
    if verdicts:
        files["tables/claims.csv"] = csv(claims_table(verdicts))
    write_folder(target, files)
    return ReportPaths(
        directory=target,
        html=target / "report.html",
        markdown=target / "report.md",
        figures=tuple(target / name for name in files if name.startswith("figures/")),
        tables=tuple(target / name for name in files if name.startswith("tables/")),
    )


def report_stores(stores: Sequence[Path], out_dir: Path, *, command: str) -> ReportPaths:
    """Write a report of whole stores, with the claims' verdicts and the published figures beside them.

    The verdicts are judged anew, with the stores as the clock's records.

    Args:
        stores: SQLite or text-form stores.
        out_dir, command: as for ``write_report``.

    Raises:
        UserError: a store cannot be read, or as for ``write_report``.
    """
    from cdvft_bench.accuracy.published import MODEL, SOURCE, published_runs
    from cdvft_bench.claims import rows, verify
    from cdvft_bench.sweep.store import Store

    sources = []
    for path in stores:
        with Store(path) as store:
            sources.append(Source(path.name, list(store.records()), store.environments()))
    published = Published(published_runs(), SOURCE, cdvft_on(MODEL))
    verdicts = rows(verify(records=stores))
    return write_report(sources, out_dir, command=command, published=published, verdicts=verdicts)


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
        return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value

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
