"""What the page's pictures are drawn from: plain dictionaries made of what ``analysis`` says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cdvft_bench.accuracy.analysis import Difference
from cdvft_bench.accuracy.pilot import REFERENCES
from cdvft_bench.analysis.accuracy.fronts import window_of
from cdvft_bench.analysis.accuracy.maps import HeatMap
from cdvft_bench.analysis.accuracy.pairs import BASELINE, told_apart
from cdvft_bench.analysis.accuracy.study import Study
from cdvft_bench.analysis.cases import PATHS, in_words, title_of
from cdvft_bench.analysis.frame import COMPARABLE, entries
from cdvft_bench.analysis.overview import COSTS, Overview
from cdvft_bench.analysis.sentences import picture_title, trimmed, word_of
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.text import clean
from cdvft_bench.report.palette import Palette

if TYPE_CHECKING:
    from pandas import DataFrame

    from cdvft_bench.predictor.results import Evaluation

View = dict[str, Any]

# matplotlib's markers by the names of the page's.
_SHAPES = {
    marker: shape
    for markers, shapes in (
        ("os^vDPXh", ("circle", "square", "up", "down", "diamond", "plus", "cross", "hexagon")),
        ("|*<>pd8x+", ("bar", "star", "left", "right", "pentagon", "thin", "octagon", "cross", "plus")),
    )
    for marker, shape in zip(markers, shapes, strict=True)
}
COST_TITLES = {
    "parameters": ("parameters", "params"),
    "saved_bytes": ("saved bytes", "saved"),
    "launches": ("launches", "launch."),
}


def looks(methods: Iterable[str]) -> View:
    """Title, colours and marker of every method."""
    names, palette = sorted({*methods, "frozen", "lora"}), Palette(methods)
    return {
        name: {
            "title": {"head": "Head alone", "base": "Untrained"}.get(name) or title_of(name),
            "color": palette[name].color,
            "dark": palette[name].dark,
            "shape": _SHAPES[palette[name].marker],
        }
        for name in names
    }


def overview_view(found: Overview, frame: DataFrame) -> View:
    """The first picture: rows, panels, cells."""
    methods: dict[str, str] = dict(zip(frame["setting"], frame["method"], strict=True))
    return {
        "title": picture_title(found),
        "axis": f"step time ÷ {found.baseline_title}",
        "baseline": found.baseline_title,
        "focus": found.focus,
        "rows": [{"name": row, "method": methods[row]} for row in found.rows],
        "costs": [{"name": name, "title": COST_TITLES[name][0], "short": COST_TITLES[name][1]} for name in COSTS],
        "panels": [
            {
                "title": panel.title,
                "subtitle": panel.workload,
                "machine": panel.machine,
                "cells": {
                    name: ratio_cell(cell.time)
                    | {"record": cell.record, "label": cell.label, "trust": cell.trust, "rank": cell.rank}
                    | {"costs": dict(cell.costs)}
                    for name, cell in panel.cells.items()
                },
            }
            for panel in found.panels
        ],
    }


def ways_view(found: DataFrame, title: str) -> View | None:
    """The ways of executing a setting beside each other, a panel a setting and workload; None where there are none."""
    if not len(found):
        return None
    rows = list(dict.fromkeys(found["way"]))
    order = {name: i for i, name in enumerate(["auto", *(PATHS[p] for p in PATHS if PATHS[p]), *rows])}
    panels = []
    for where, group in found.groupby([*COMPARABLE, "setting"], sort=False):
        first = dict(zip([*COMPARABLE, "setting"], where, strict=True))
        shape = f"{first['batch']:.0f} × {first['sequence']:,.0f}"
        cells = {}
        for row in entries(group):
            name = "lora" if row["lora"] == row["lora"] else "frozen"
            bounds = [
                None if row[f"{name}_{end}"] != row[f"{name}_{end}"] else row[f"{name}_{end}"]
                for end in ("low", "high")
            ]
            cells[row["way"]] = ratio_cell(Interval(row[name], *bounds)) | {"label": f"{row['setting']}, {row['way']}"}
        panels.append(
            {
                "title": f"{first['setting']}",
                "subtitle": f"{first['subject']}, {first['pass']}, {shape}",
                "machine": "",
                "cells": cells,
            }
        )
    return {
        "title": title,
        "axis": "time ÷ LoRA r=8",
        "baseline": "LoRA r=8",
        "focus": "auto",
        "rows": [{"name": name, "method": "cdvft"} for name in sorted(rows, key=lambda n: order[n])],
        "costs": [],
        "panels": panels,
    }


def ratio_cell(time: Interval) -> View:
    """A ratio of times in a panel."""
    shown = {"value": time.value, "low": time.low, "high": time.high}
    return shown | {"text": trimmed(time), "word": word_of(time)}


def study_view(study: Study) -> View:
    """One workload's accuracies, costs and differences."""
    costs = {front.kind.name: front for front in study.fronts if front.costs}
    return {
        "name": study.name,
        "file": study.file,
        "costs": [{"name": name, "title": front.kind.short, "what": front.kind.what} for name, front in costs.items()],
        "missing": [
            f"{front.kind.short.partition(' [')[0]}: {front.said}"
            for front in study.fronts
            if not front.costs and "same for every" not in front.said
        ],
        "points": [
            {
                "label": score.label,
                "method": score.method,
                "accuracy": score.mean,
                "low": score.low,
                "high": score.high,
                "seeds": len(score.accuracies),
                "examples": int(score.answers.shape[1]),
                "costs": {
                    name: {"value": cost.value, "low": cost.low, "high": cost.high, "share": front.shares[score.label]}
                    | {"state": front.states[score.label]}
                    for name, front in costs.items()
                    if (cost := front.costs.get(score.label)) is not None
                },
            }
            for score in study.scores
            if score.method not in REFERENCES
        ],
        "window": _window(study) if costs else None,
        "differences": [
            {"against": made[0].against, "rows": [_difference(one, study) for one in made]}
            for against in (BASELINE, study.paper.label if study.paper else "")
            if (made := study.differences(against))
        ],
    }


def _window(study: Study) -> View:
    """What fronts show: the limits of accuracy, and the references."""
    window = window_of(study.scores)
    lines = [
        {"label": (s := line.score).label, "mean": s.mean, "low": s.low, "high": s.high}
        | {"at": line.at, "side": line.side}
        for line in window.lines
    ]
    return {"low": window.low, "high": window.high, "lines": lines}


def _difference(one: Difference, study: Study) -> View:
    method = next(score.method for score in study.scores if score.label == one.label)
    low, high = one.interval.low, one.interval.high
    shown = {"label": one.label, "method": method, "value": one.mean, "low": low, "high": high}
    return shown | {"p": one.p_holm, "sure": told_apart(one)}


def map_view(found: HeatMap) -> View:
    """One map of accuracies."""
    return {
        "title": found.title,
        "rows": found.rows,
        "columns": found.columns,
        "row_axis": found.row_axis,
        "column_axis": found.column_axis,
        "cells": [[i, j, 100 * value, (i, j) in found.starred] for (i, j), value in sorted(found.values.items())],
        "framed": found.framed,
        "lines": [{"name": name, "values": values} for name, values in found.lines.items()],
        "caption": found.caption,
    }


_PUBLISHED_COSTS = (
    ("parameters", "trained parameters"),
    ("seconds", "training time [s]"),
    ("peak_bytes", "peak memory [bytes]"),
    ("bytes", "adapter [bytes]"),
)
_SCORES: dict[str, View] = {
    "test_accuracy": {"title": "test accuracy [%]", "word": "accuracy", "unit": " %", "factor": 100, "digits": 1},
    "test_dino_similarity": {"title": "DINO similarity", "word": "similarity", "unit": "", "factor": 1, "digits": 3},
    "score": {"title": "score", "word": "score", "unit": "", "factor": 1, "digits": 3},
}


def published_view(frame: DataFrame, source: str, metric: str) -> View:
    """Runs that others published, as a study without intervals."""
    kinds = [(name, title) for name, title in _PUBLISHED_COSTS if frame[name].notna().any()]
    return {
        "name": "published",
        "file": source,
        "score": _SCORES[metric],
        "costs": [{"name": name, "title": title, "what": title} for name, title in kinds],
        "missing": [],
        "points": [
            {
                "label": row["experiment"],
                "method": row["method"],
                "accuracy": row["score"],
                "low": None,
                "high": None,
                "costs": {
                    name: {"value": row[name], "low": None, "high": None, "share": float(row[f"front_{name}"])}
                    for name, _ in kinds
                    if row[name] == row[name]
                },
            }
            for row in entries(frame)
        ],
        "differences": [],
    }


def prediction_view(found: Evaluation) -> View:
    """Predicted against measured times of cases that the fit left out."""
    kept = [one for one in found.predictions if one.split == "case"]
    return {
        "points": [
            {
                "label": in_words(one.label),
                "method": one.method,
                "where": clean(f"{one.subject}, {one.pass_}, {one.tokens:,} tokens, {one.dtype}"),
                "kind": one.kind,
                "measured": one.measured_s,
                "predicted": one.predicted_s.value,
                "low": one.predicted_s.low,
                "high": one.predicted_s.high,
            }
            for one in kept
        ]
    }
