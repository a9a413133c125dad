"""Tables and figures as a page shows them: plain values, ready to print."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdvft_bench.analysis import tables
from cdvft_bench.core.text import (
    NOT_CONVERTIBLE,
    NOT_IN_PASS,
    NOT_MEASURED,
    integer,
    markdown,
    plural,
    prefixed,
    significant,
)
from cdvft_bench.report.figures.style import Drawn, Styles

if TYPE_CHECKING:
    from markupsafe import Markup
    from pandas import DataFrame

MAX_ROWS_HTML, MAX_ROWS_MARKDOWN = 500, 60
_ABSENT = {NOT_MEASURED, NOT_IN_PASS, NOT_CONVERTIBLE, "not recorded", "no device"}
_PREFIXED = ("[FLOP", "[MAC", "[bytes]")


@dataclass(frozen=True)
class CellView:
    """A cell as shown: text, the value it sorts by, its CSS class, the exact value for a tooltip, a colour swatch."""

    text: str
    sort: str
    css: str = ""
    exact: str = ""
    swatch: str = ""


@dataclass(frozen=True)
class TableView:
    """A table as shown.

    Attributes:
        title: heading.
        caption: what its rows share, and how to read it.
        columns: (name, unit) pairs.
        rows: cells.
        file: the CSV that holds it all.
        keys: of every row, "case key/environment" of the record it is from; "" for none.
        left_out: rows that only the CSV holds.
        folded: whether the page shows it closed.
    """

    title: str
    caption: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[CellView, ...], ...]
    keys: tuple[str, ...]
    file: str
    left_out: int = 0
    folded: bool = False


@dataclass(frozen=True)
class FigureView:
    """A figure as shown; ``ratio`` is its height over its width."""

    title: str
    caption: str
    alt: str
    svg: Markup
    file: str
    ratio: float


_BOX = re.compile(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"')


def figure_view(figure: Drawn) -> FigureView:
    """A figure with its SVG made fit to stand inside the page."""
    svg = inline_svg(figure)
    box = _BOX.search(svg)
    ratio = float(box[2]) / float(box[1]) if box else 0.6
    return FigureView(figure.title, figure.caption, figure.alt, svg, f"figures/{figure.name}", round(ratio, 3))


ORIGIN = ("case key", "recorded")
"""Columns that a page shows on demand: they are in the CSV, and behind every row's name."""
IN_HEADING = ("kind", "subject", "device", "dtype", "environment")
"""Columns that a section's heading already says."""


def view(
    frame: DataFrame,
    title: str,
    name: str,
    caption: str,
    styles: Styles,
    folded: bool = False,
    said: Collection[str] = (),
    limit: int | None = None,
) -> TableView:
    """A frame as the page shows it: columns that all rows share move to the caption, intervals join their value.

    Args:
        frame: a table of ``tables``.
        title, name, caption: heading, CSV file's name, how to read it.
        styles: colours of the methods.
        folded: whether it is shown closed.
        said: columns that need no mention where all rows share their value.
        limit: rows to show at most; MAX_ROWS_HTML if not given.
    """
    limit = MAX_ROWS_HTML if limit is None else limit
    shared, names = [], []
    for column in frame.columns:
        if column in ORIGIN:
            continue
        values = {str(v) for v in frame[column]}
        if column in tables.IDENTITY and column != "setting" and len(values) == 1:
            if column not in said and column != "method":
                shared.append(f"{column.split(' [')[0]} {values.pop()}")
        elif column == "method" or column.endswith((", low [×]", ", high [×]")):
            continue
        else:
            names.append(column)
    if shared:
        caption = f"{caption.rstrip('.')}. All rows: {', '.join(shared)}."
    columns, head = list(frame.columns), frame.head(limit)
    rows = [dict(zip(columns, values, strict=True)) for values in head.itertuples(index=False, name=None)]
    return TableView(
        title=title,
        caption=caption,
        columns=tuple(_split_unit(column) for column in names),
        rows=tuple(tuple(_cell(column, row, styles) for column in names) for row in rows),
        keys=tuple(f"{row['case key']}/{row['environment']}" if "case key" in row else "" for row in rows),
        file=f"tables/{name}.csv",
        left_out=max(0, len(frame) - limit),
        folded=folded,
    )


def _split_unit(column: str) -> tuple[str, str]:
    matched = re.fullmatch(r"(.*) (\[.*\])", column)
    return (matched[1], matched[2]) if matched else (column, "")


def _cell(column: str, row: Mapping[str, object], styles: Styles) -> CellView:
    value = row[column]
    if column == "setting":
        method = str(row.get("method", ""))
        return CellView(str(value), str(value), "setting", swatch=styles[method].color if method else "")
    if not isinstance(value, int | float):
        text = str(value)
        css = "absent" if text in _ABSENT else {"exact": "agree", "differs": "differ"}.get(text, "text")
        return CellView(text, "" if css == "absent" else text, css)
    base = column.removesuffix(" [×]")
    low, high = row.get(f"{base}, low [×]"), row.get(f"{base}, high [×]")
    css = "number"
    if "−" in column and column.endswith("]"):
        css += " agree" if value == 0 else " differ"
    if column.endswith("[×]"):
        text = f"{value:.2f}"
        if isinstance(low, int | float) and isinstance(high, int | float):
            text += f" [{low:.2f}, {high:.2f}]"
    elif any(unit in column for unit in _PREFIXED):
        text = prefixed(value)
    elif column.endswith("[%]"):
        text = f"{value:.1f}"
    else:
        text = integer(value) if float(value).is_integer() and "[ms]" not in column else significant(value)
    exact = repr(value)
    return CellView(text, exact, css, exact if exact != text else "")


_ID = re.compile(r'(\bid="|url\(#|href="#)')


def inline_svg(figure: Drawn) -> Markup:
    """The figure's SVG for use inside HTML: no prologue, no style sheet, ids of its own, a name for screen readers."""
    from markupsafe import Markup, escape

    text = figure.svg.decode()
    text = text[text.index("<svg") :]
    for unwanted in (r"<!--.*?-->", r"<metadata>.*?</metadata>", r"<style.*?</style>"):
        text = re.sub(unwanted, "", text, flags=re.DOTALL)
    prefix = hashlib.sha256(figure.name.encode()).hexdigest()[:8]
    text = _ID.sub(rf"\g<1>f{prefix}-", text)
    head, body = text.split(">", 1)
    head = re.sub(r'\s(width|height|version|xmlns(:xlink)?)="[^"]*"', "", head)
    body = re.sub(r"\n\s*", "\n", body).strip()
    label = escape(f"{figure.title}. {figure.alt}")
    return Markup(f'{head} role="img" aria-label="{label}">{body}')


def markdown_table(table: TableView, limit: int = MAX_ROWS_MARKDOWN) -> str:
    """A table with its caption, at most ``limit`` rows, in Markdown."""
    heads = [markdown(f"{name} {unit}".strip()) for name, unit in table.columns]
    lines = [f"| {' | '.join(heads)} |", f"|{' :-- |' + ' --: |' * (len(heads) - 1)}"]
    lines += [f"| {' | '.join(markdown(cell.text) for cell in row)} |" for row in table.rows[:limit]]
    rest = table.left_out + max(0, len(table.rows) - limit)
    if rest:
        lines += ["", f"{plural(rest, 'more row is', 'more rows are')} in [{table.file}]({table.file})."]
    return "\n".join([markdown(table.caption), "", *lines])
