"""Figures: drawn where the data is, skipped with a reason where it is not; labels do not overlap."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from xml.etree import ElementTree

import matplotlib
import pytest

from cdvft_bench.accuracy.published import PublishedRun
from cdvft_bench.analysis.accuracy.published import published_figures, published_table, style_key
from cdvft_bench.analysis.groups import sections
from cdvft_bench.core.record import Record
from cdvft_bench.report.figures.draw import parameters_figure, section_figures
from cdvft_bench.report.figures.labels import Label, place_labels
from cdvft_bench.report.figures.lines import resolved
from cdvft_bench.report.figures.style import KNOWN, SETTINGS, Drawn, Skipped, Styles, blank, log_ticks
from tests.report.report_records import HOSTILE, make_records

NAMES = ["ratios", "block-size", "factors", "predicted-measured", "parameters-time"]


@pytest.fixture(autouse=True)
def _agg() -> Iterator[None]:
    with matplotlib.rc_context({"backend": "Agg"}):
        yield


def figures(records: list[Record]) -> dict[str, Drawn | Skipped]:
    (section,) = sections(records)
    made = section_figures(section, Styles(r.case.method for r in records))
    return {f.name.removeprefix(f"{section.anchor}-"): f for f in made}


def texts(figure: Drawn) -> str:
    return " ".join(ElementTree.fromstring(figure.svg).itertext())


def test_all_are_drawn_from_complete_records() -> None:
    found = figures(make_records(workloads=((8, 16, "step"), (8, 16, "forward"))))
    assert list(found) == NAMES
    for figure in found.values():
        assert isinstance(figure, Drawn)
        assert figure.png.startswith(b"\x89PNG")
        assert b"http" not in figure.svg.replace(b"http://www.w3.org/", b"")
        assert figure.caption.endswith(".")
        assert figure.alt.endswith(".")
    assert "CDVFT m=2 p=384 handwritten" in texts(found["ratios"])  # type: ignore[arg-type]
    assert "forward, 8 × 16 tokens" in texts(found["ratios"])  # type: ignore[arg-type]


def test_same_records_same_bytes() -> None:
    records = make_records("64x64", 64)[:8]
    assert figures(records) == figures(records)


def test_without_times_only_what_needs_none_is_drawn() -> None:
    found = figures([replace(r, timed=None) for r in make_records("64x64", 64)])
    skipped = {name for name, f in found.items() if isinstance(f, Skipped)}
    assert skipped == {"ratios", "parameters-time"}
    assert "time: not measured" in texts(found["block-size"])  # type: ignore[arg-type]
    assert "time: not measured" in texts(found["predicted-measured"])  # type: ignore[arg-type]


def test_without_predictions_and_counts() -> None:
    bare = [replace(r, predicted=None, counted=None) for r in make_records("64x64", 64)]
    found = figures(bare)
    assert {n for n, f in found.items() if isinstance(f, Skipped)} == {"predicted-measured", "parameters-time"}
    nothing = figures([replace(r, predicted=None, counted=None, timed=None) for r in bare])
    reasons = [f.reason for f in nothing.values() if isinstance(f, Skipped)]
    assert len(reasons) == 3
    assert all(reasons)


def test_methods_without_time_are_marked_in_the_chart() -> None:
    records = make_records("64x64", 64)
    one = next(i for i, r in enumerate(records) if r.label == "C3A")
    records[one] = replace(records[one], timed=None)
    found = figures(records)["ratios"]
    assert isinstance(found, Drawn)
    assert "C3A" in texts(found)
    assert "not measured" in texts(found)


def test_single_values_are_no_line() -> None:
    records = [r for r in make_records("64x64", 64) if r.label in ("frozen", "LoRA r=8", "CDVFT m=2 p=d")]
    found = figures(records)
    assert isinstance(found["block-size"], Skipped)
    assert "two values of p" in found["block-size"].reason
    assert isinstance(found["factors"], Skipped)


def test_many_workloads_are_limited_and_counted() -> None:
    workloads = tuple((b, 4, "step") for b in (1, 2, 3, 4, 5, 6))
    records = make_records("16x16", 16, workloads)  # type: ignore[arg-type]
    made = parameters_figure(sections(records)[0], Styles([]))
    assert not isinstance(made, str)
    assert len(made.figure.axes) == 4
    assert "2 more workloads are in the tables alone." in made.caption


def test_hostile_labels_stay_text() -> None:
    records = [replace(r, label=f"{HOSTILE} {r.label}") for r in make_records("64x64", 64)[:10]]
    for figure in figures(records).values():
        assert isinstance(figure, Drawn)
        tree = ElementTree.fromstring(figure.svg)
        assert not [e for e in tree.iter() if e.tag.rpartition("}")[2] in ("script", "img", "foreignObject", "a")]
        assert not [a for e in tree.iter() for a in e.attrib if a.lower().startswith("on")]


def test_default_block_size_is_filled_in() -> None:
    record = next(r for r in make_records("768x512", 768) if r.label == "CDVFT m=2 p=d")
    assert resolved(record.case)["block_size"] == 512


def test_styles_are_stable_and_distinct() -> None:
    styles = Styles(["zeta", "cdvft", "alpha", "lora"])
    assert styles["cdvft"] == KNOWN["cdvft"] == Styles([])["cdvft"]
    looks = [styles[m] for m in (*KNOWN, "alpha", "zeta")]
    assert len(set(looks)) == len(looks)
    assert Styles(["alpha", "zeta"])["zeta"] == styles["zeta"]


def test_log_ticks_are_few_and_inside() -> None:
    rng = random.Random(0)
    for _ in range(200):
        low = 10 ** rng.uniform(-6, 12)
        high = low * 10 ** rng.uniform(0.1, 9)
        ticks = log_ticks(low, high)
        assert 1 <= len(ticks) <= 9
        assert all(low <= t <= high for t in ticks)
        assert all(a < b for a, b in pairwise(ticks))
        narrow = log_ticks(low, low * (1 + 10 ** rng.uniform(-4, -0.4)))
        assert 2 <= len(narrow) <= 5
        assert all(a < b for a, b in pairwise(narrow))


@pytest.mark.parametrize("seed", range(3))
def test_labels_do_not_overlap_and_stay_inside(seed: int) -> None:
    rng = random.Random(seed)
    with matplotlib.rc_context(SETTINGS):
        figure, (axes,) = blank(1, 1, 5.0)
        points = [(rng.gauss(5, 1), rng.gauss(50, 9)) for _ in range(40)]
        axes.plot([x for x, _ in points], [y for _, y in points], "o")
        labels = [Label(x, y, f"method-{i}-rank{i}", "black", bold=i % 3 == 0) for i, (x, y) in enumerate(points[:18])]
        boxes = place_labels(axes, labels, points)
        frame = axes.get_window_extent()
    assert len(boxes) == len(labels)
    assert not [1 for a, b in combinations(boxes, 2) if a.overlaps(b)]
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 and b.y1 <= frame.y1 for b in boxes)
    assert [t.get_text() for t in axes.texts] == [label.text for label in labels]
    assert figure.axes == [axes]


def run(experiment: str, method: str, parameters: int, accuracy: float, seconds: float, memory: float) -> PublishedRun:
    hyperparameters = {"use_dora": experiment.endswith("-dora")}
    return PublishedRun(
        experiment, method, hyperparameters, ("q_proj", "v_proj"), parameters, accuracy, seconds, int(memory * 1e9), 1,
        1e-4, 5000, "GPU", "2.13", "2026-01-01",
    )  # fmt: skip


RUNS = [
    run("lora-rank32", "LORA", 9_000_000, 0.48, 940.0, 22.0),
    run("lora-rank32-dora", "LORA", 9_200_000, 0.47, 1190.0, 24.5),
    run("c3a-default", "C3A", 5_500_000, 0.49, 1170.0, 22.06),
    run("tiny", "TINY", 64, 0.01, 1037.0, 20.1),
    run("full", "FULL", 3_200_000_000, 0.50, 2147.0, 38.8),
    run("dominated", "OTHER", 20_000_000, 0.30, 3000.0, 39.0),
]


def test_published_figures_name_the_front_and_mark_cdvft() -> None:
    made = published_figures(RUNS, "a comparison", {"CDVFT m=2 p=d": 401_408}, Styles([]))
    assert [f.name for f in made] == ["published-parameters", "published-time", "published-memory"]
    parameters, time, memory = made
    assert isinstance(parameters, Drawn)
    assert isinstance(time, Drawn)
    assert isinstance(memory, Drawn)
    assert "401,408 parameters by formula, accuracy not measured" in texts(parameters)
    assert "accuracy not measured" not in texts(time) + texts(memory)
    assert "On the front: tiny, c3a-default and full." in parameters.alt
    assert "dominated" not in texts(parameters)
    assert "lora-rank32-dora" in texts(parameters)
    assert "a comparison" in parameters.caption


def test_nothing_published_is_said() -> None:
    made = published_figures([], "nobody", {}, Styles([]))
    assert all(isinstance(f, Skipped) for f in made)


def test_dora_is_told_from_lora() -> None:
    assert [style_key(r) for r in RUNS[:3]] == ["lora", "dora", "c3a"]


def test_published_table_says_who_is_on_which_front() -> None:
    frame = published_table(RUNS)
    assert list(frame["test accuracy [%]"]) == sorted(frame["test accuracy [%]"], reverse=True)
    fronts = dict(zip(frame["experiment"], frame["on the Pareto front in"], strict=True))
    assert fronts["full"] == "trainable parameters, training time and peak memory"
    assert fronts["lora-rank32"] == "training time and peak memory"
    assert fronts["dominated"] == "none"
    assert not len(published_table([]))
