"""Pictures beside the page: labels that keep clear, few ticks, the same colours, the same bytes."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from cdvft_bench.accuracy.results import read_results
from cdvft_bench.accuracy.training.trial import TrialResult, packed
from cdvft_bench.analysis.accuracy.study import studies
from cdvft_bench.core.errors import UserError
from cdvft_bench.report.figures.labels import Label, place_labels
from cdvft_bench.report.figures.pictures import front_picture, overview_picture, pictures
from cdvft_bench.report.figures.style import DARK, LIGHT, blank, check_formats, log_ticks
from cdvft_bench.report.page.views import looks, study_view
from cdvft_bench.report.palette import KNOWN, Palette
from tests.made_records import HOSTILE, campaign_of, make_records


def test_looks_are_stable_and_distinct_and_the_pages_too() -> None:
    palette = Palette(["zeta", "cdvft", "alpha", "lora"])
    assert palette["cdvft"] == KNOWN["cdvft"] == Palette()["cdvft"]
    for ground in ("color", "dark"):
        shown = [(getattr(palette[m], ground), palette[m].marker) for m in (*KNOWN, "alpha", "zeta")]
        assert len(set(shown)) == len(shown)
    assert Palette(["alpha", "zeta"])["zeta"] == palette["zeta"]
    for name, look in looks(["cdvft", "zeta", "alpha"]).items():
        assert (look["color"], look["dark"]) == (palette[name].color, palette[name].dark)


def test_log_ticks_are_few_and_inside() -> None:
    rng = random.Random(0)
    for _ in range(200):
        low = 10 ** rng.uniform(-6, 12)
        high = low * 10 ** rng.uniform(0.1, 9)
        ticks = log_ticks(low, high)
        assert 1 <= len(ticks) <= 5
        assert all(low <= t <= high for t in ticks)
        assert all(a < b for a, b in pairwise(ticks))
        narrow = log_ticks(low, low * (1 + 10 ** rng.uniform(-4, -0.4)))
        assert 2 <= len(narrow) <= 5
        assert all(a < b for a, b in pairwise(narrow))


@pytest.mark.parametrize("seed", range(3))
def test_labels_do_not_overlap_and_stay_inside(seed: int) -> None:
    rng = random.Random(seed)
    with matplotlib.rc_context(LIGHT.settings()):
        figure, (axes,) = blank(1, 5.0)
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


def test_every_method_of_the_overview_is_in_the_picture() -> None:
    campaign = campaign_of(make_records(workloads=((8, 128, "step"),)) + make_records("64x64", 64))
    assert campaign.overview is not None
    methods = dict(zip(campaign.frame["setting"], campaign.frame["method"], strict=True))
    with matplotlib.rc_context(DARK.settings()):
        picture = overview_picture(campaign.overview, methods, DARK)
    axes = picture.figure.axes
    assert [one.get_title(loc="left").strip() for one in axes] == [panel.title for panel in campaign.overview.panels]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == list(campaign.overview.rows)
    assert all(len(one.get_xticks()) <= 6 for one in axes)


def test_hostile_labels_are_drawn_as_text() -> None:
    records = make_records(HOSTILE, 32)
    campaign = campaign_of(records)
    methods = dict(zip(campaign.frame["setting"], campaign.frame["method"], strict=True))
    (light, _) = pictures(campaign.overview, methods, [])
    assert b"<script" not in light.files(("svg",))["figures/overview.svg"]


def test_formats_are_checked_and_a_pdf_comes_with_its_svg() -> None:
    assert check_formats(("PDF", " png")) == ("png", "svg", "pdf")
    assert check_formats(("",)) == ()
    with pytest.raises(UserError, match="'jpg' is no format"):
        check_formats(("jpg",))


CLOTHES = Path(__file__).parents[2] / "profiles" / "accuracy-clothes-vit"


def with_model(model: str, runs: Sequence[TrialResult]) -> list[TrialResult]:
    return [replace(run, trial=replace(run.trial, model=model)) for run in runs]


@pytest.mark.parametrize("panels", [2, 3, 4])
def test_panels_of_the_front_stand_apart(panels: int) -> None:
    runs, _ = read_results(CLOTHES / "results.jsonl")
    given = {str(i): with_model(f"model-{i}-of-some-name", runs) for i in range(panels)}
    with matplotlib.rc_context(LIGHT.settings()):
        (drawn,) = front_picture(studies(given), LIGHT)
        drawn.figure.draw_without_rendering()
    assert len(drawn.figure.axes) == panels
    titles = [axes._left_title.get_window_extent() for axes in drawn.figure.axes]  # type: ignore[attr-defined]
    boxes = [*titles, *(text.get_window_extent() for axes in drawn.figure.axes for text in axes.texts)]
    assert not [1 for a, b in combinations(boxes, 2) if a.overlaps(b)]
    assert all(b.x0 >= 0 and b.x1 <= drawn.figure.bbox.x1 and b.y1 <= drawn.figure.bbox.y1 for b in boxes)


def test_references_are_lines_and_one_far_off_is_named_at_the_edge() -> None:
    runs, _ = read_results(CLOTHES / "results.jsonl")
    ends = [run.trial.method == "head" and run.trial.evaluate == "test" for run in runs]
    none = [
        replace(r, accuracy=0.0, right=packed([False] * r.scored)) if end else r
        for r, end in zip(runs, ends, strict=True)
    ]
    near, far = (studies({"a": given})[0] for given in (runs, none))
    with matplotlib.rc_context(LIGHT.settings()):
        (axes,), (edge,) = (front_picture([study], LIGHT)[0].figure.axes for study in (near, far))
    means = {s.label: 100 * s.mean for s in near.scores}
    for one, lines in ((axes, {"Head alone", "Full fine-tuning"}), (edge, {"Full fine-tuning"})):
        across = [np.asarray(line.get_ydata()) for line in one.lines if line.get_linestyle() == "--"]
        assert {float(y[0]) for y in across} == {means[name] for name in lines}
        low, high = one.get_ylim()
        assert all(low < mean < high for name, mean in means.items() if name != "Head alone")
    said = [text.get_text() for text in edge.texts]
    assert "Head alone 0.0 % (below)" in said
    assert len(said) == len(means)
    for study, one, away in ((near, axes, []), (far, edge, ["Head alone"])):  # the page shows the same
        view = study_view(study)
        assert one.get_ylim() == (100 * view["window"]["low"], 100 * view["window"]["high"])
        assert [line["label"] for line in view["window"]["lines"] if line["side"]] == away
        assert {p["label"] for p in view["points"]} == set(means) - {"Head alone", "Full fine-tuning"}


def test_a_workload_whose_methods_have_not_ended_stands_back() -> None:
    runs, _ = read_results(CLOTHES / "results.jsonl")
    pilot = with_model("pilot", [run for run in runs if run.trial.method in ("head", "full")])
    (alone,) = studies({"a": pilot})
    assert not any(front.costs for front in alone.fronts)
    assert {front.said for front in alone.fronts} == {"not measured: no method but the references has ended"}
    assert not front_picture([alone], LIGHT)
    every = studies({"a": runs, "b": pilot})
    with matplotlib.rc_context(LIGHT.settings()):
        (drawn,) = front_picture(every, LIGHT)
    assert [one.get_title(loc="left").partition(":")[0] for one in drawn.figure.axes] == [
        "vit-small-odd on fashion-mnist-even"
    ]
