"""Data inside a page: JSON in which no text of a record can end a tag or begin a script; large tables compressed."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdvft_bench.analysis.frame import Column
from cdvft_bench.core.text import clean

if TYPE_CHECKING:
    from pandas import DataFrame

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
