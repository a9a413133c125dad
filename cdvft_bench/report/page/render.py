"""HTML of templates: one file that asks nothing of the network, in which no text of a record is markup or runs.

Everything that is printed is escaped, data stand in JSON without tags or in base 64, and a content security policy
lets no script run but the page's own, by its hash.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from cdvft_bench.analysis.frame import Column
from cdvft_bench.core.text import clean, plural

if TYPE_CHECKING:
    from jinja2 import Environment
    from pandas import DataFrame


SCRIPTS = ("base.js", "scatter.js", "panels.js", "accuracy.js", "table.js", "explore.js", "page.js")
STYLES = ("base.css", "parts.css")


def render(template: str, page: object, data: Mapping[str, str], blocks: Mapping[str, str]) -> str:
    """A self-contained page.

    Args:
        template: its name. page: what it prints.
        data: JSON by the id of its script element, see ``payload.embedded``.
        blocks: compressed JSON by the id of its element, see ``payload.packed``.
    """
    from markupsafe import Markup

    script = '"use strict";\n(() => {\n' + "\n".join(asset(name) for name in SCRIPTS) + "\n})();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    return (
        _environment()
        .get_template(template)
        .render(
            page=page,
            script=Markup(script),
            style=Markup("\n".join(asset(name) for name in STYLES)),
            policy=policy,
            plural=plural,
            data={name: Markup(text) for name, text in data.items()},
            blocks=blocks,
        )
        + "\n"
    )


@cache
def asset(name: str) -> str:
    """A script or a style sheet of the page."""
    return (resources.files("cdvft_bench.report.page") / "assets" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("cdvft_bench.report.page", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


# --- data inside a page ----------------------------------------------------------------------


DIGITS = 5
"""Significant digits of a figure in a page; the CSV files hold them in full."""

_TAGS = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def embedded(value: object) -> str:
    """A value as JSON for a script element of its own type; figures that are not finite are null."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_TAGS)


def packed(frame: DataFrame, columns: Sequence[Column]) -> str:
    """Columns of a frame as compressed JSON in base 64; the same frame gives the same text.

    Texts are numbered by a dictionary, ``words``, in each column; columns in which nothing was recorded are left out.
    """
    made = []
    for column in columns:
        values = [_plain(value) for value in frame[column.name]]
        head: dict[str, object] = {key: getattr(column, key) for key in ("name", "title", "unit", "kind", "doc")}
        if column.kind == "text":
            words = {text: i for i, text in enumerate(dict.fromkeys(map(clean, values)))}
            head |= {"words": list(words), "values": [words[clean(value)] for value in values]}
        elif any(value is not None for value in values):
            head["values"] = values
        if "values" in head:
            made.append(head)
    return compressed({"rows": len(frame), "columns": made})


def compressed(value: object) -> str:
    """A plain value as gzipped JSON (without a time) in base 64."""
    data = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return None if not math.isfinite(value) else int(value) if value.is_integer() else float(f"{value:.{DIGITS}g}")
    return clean(value)
