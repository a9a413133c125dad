"""Two campaigns on one page: what became slower or faster, what differs between them, every case."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdvft_bench import __version__
from cdvft_bench.analysis.compare import Comparison, Row
from cdvft_bench.core.io.files import write_file
from cdvft_bench.core.text import NOT_MEASURED, clean, listed, plural, significant
from cdvft_bench.report.page.cards import Table
from cdvft_bench.report.page.render import embedded, render
from cdvft_bench.report.page.views import looks, ratio_cell


@dataclass(frozen=True)
class ComparePage:
    """All that the template prints.

    Attributes:
        title, a, b: names. before, value, after: the answer in one sentence. basis: what was compared, and how.
        warnings, notes: what differs between the environments. drawn: whether there is a picture.
        cases: every case. command, version: what made the page.
    """

    title: str
    a: str
    b: str
    before: str
    value: str
    after: str
    basis: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    drawn: bool
    cases: Table
    command: str
    version: str = __version__


def compare_page(comparison: Comparison, command: str) -> str:
    """The page as HTML; the same comparison gives the same bytes."""
    counts = comparison.counts
    slower, others = counts.pop("slower"), {word: n for word, n in counts.items() if n}
    what = "Times of a call" if comparison.basis == "time" else "Ratios to the frozen subject timed in the same run"
    view = _view(comparison)
    a, b = (clean(Path(name).name) for name in (comparison.a, comparison.b))
    page = ComparePage(
        title="Two campaigns compared",
        a=a,
        b=b,
        before=f"Of {plural(len(comparison.rows), 'case')}, B is",
        value=f"slower than A on {slower:,}",
        after=f"({listed([f'{n:,} {word}' for word, n in others.items()])})." if others else "and on no other.",
        basis=f"{what}; slower and faster by more than {comparison.tolerance:.0%} with the whole 95 % interval.",
        warnings=tuple(map(clean, comparison.warnings)),
        notes=tuple(map(clean, comparison.notes)),
        drawn=bool(view["panels"]),
        cases=_cases(comparison),
        command=clean(command),
    )
    model = {"overview": view if view["panels"] else None, "looks": looks({row.case.method for row in comparison.rows})}
    return render("compare.html.j2", page, {"model": embedded(model)}, {})


def write_page(comparison: Comparison, path: Path, command: str) -> None:
    """Write the page, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    write_file(path, compare_page(comparison, command))


def _where(row: Row) -> tuple[str, str]:
    case = row.case
    dtype = "" if case.dtype == "float32" else f", {case.dtype}"
    return clean(case.subject), clean(f"{case.pass_}, {case.batch} × {case.sequence:,} tokens{dtype}, {case.device}")


def _view(comparison: Comparison) -> dict[str, Any]:
    """The picture: rows are settings, a panel a layer or model and workload; those with slower cases first."""
    panels: dict[tuple[str, str], dict[str, Any]] = {}
    methods: dict[str, str] = {}
    for row in comparison.rows:
        if row.ratio is None:
            continue
        label = clean(row.label)
        methods.setdefault(label, row.case.method)
        doubtful = {"trust": "doubtful"} if row.note else {}
        cell = ratio_cell(row.ratio) | {"label": label, "word": row.verdict, "costs": {}} | doubtful
        panels.setdefault(_where(row), {}).setdefault(label, cell | {"rank": ""})
    return {
        "title": "Time in B over time in A, case by case",
        "axis": "time in B ÷ time in A" if comparison.basis == "time" else "B ÷ A, each over its frozen subject",
        "baseline": "A",
        "focus": "",
        "rows": [{"name": label, "method": method} for label, method in methods.items()],
        "costs": [],
        "panels": [
            {"title": title, "subtitle": workload, "machine": "", "cells": cells}
            for (title, workload), cells in panels.items()
        ],
    }


def _cases(comparison: Comparison) -> Table:
    scale, unit = (1e3, "ms") if comparison.basis == "time" else (1.0, "× frozen")
    rows = []
    for row in comparison.rows:
        figures = [NOT_MEASURED if v is None else significant(v * scale) for v in (row.a, row.b)]
        ratio = row.ratio
        bounds = f" [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio and ratio.bounds else ""
        said = NOT_MEASURED if ratio is None else f"{ratio.value:.2f}{bounds}"
        rows.append((clean(row.label), *_where(row), row.verdict, said, *figures, clean(row.note)))
    columns = ("method", "layer or model", "workload", "verdict", "B ÷ A", f"A [{unit}]", f"B [{unit}]", "note")
    return Table("Cases, slower ones first", columns, tuple(rows), wide=(7,))
