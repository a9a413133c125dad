"""Runs that others published, joined to this suite's formulas: fronts of their own, CDVFT's cost beside them."""

from __future__ import annotations

from collections.abc import Sequence

from cdvft_bench.accuracy.published import MODEL, SOURCE, Joined, cdvft_cost, joined, published_runs
from cdvft_bench.analysis.accuracy.published import front_figure as published_front
from cdvft_bench.analysis.accuracy.published import published_figures
from cdvft_bench.core.text import integer, listed, markdown, plural, prefixed
from cdvft_bench.report.figures.panels import drawn
from cdvft_bench.report.figures.style import SETTINGS, Drawn, Styles

SETTINGS_OF_CDVFT = ({"m": 2}, {"m": 2, "block_size": 64})


def published_section() -> tuple[list[str], list[Drawn]]:
    """Lines of the page, and the figures that they show."""
    import matplotlib

    runs = published_runs()
    matches = [match for run in runs if (match := joined(run)) is not None]
    ours = [cdvft_cost(values) for values in SETTINGS_OF_CDVFT]
    styles = Styles(run.method.lower() for run in runs)
    made = [
        f for f in published_figures(runs, SOURCE, {label: n for label, n, _ in ours}, styles) if isinstance(f, Drawn)
    ]
    flops = {match.run.experiment: match.flops for match in matches}
    what = "FLOPs a token of a training step that the adapter adds, by this suite's formula"
    with matplotlib.rc_context(SETTINGS):
        plot = published_front(
            [match.run for match in matches], SOURCE, what, "FLOPs a token beside the frozen model",
            lambda run: flops[run.experiment], {label: round(f) for label, _, f in ours}, styles, "FLOPs a token",
        )  # fmt: skip
        made.append(drawn("published-flops", f"Accuracy against {what}", plot))
    return [*_lines(len(runs), matches, ours, made)], made


def _lines(
    total: int, matches: Sequence[Joined], ours: Sequence[tuple[str, int, float]], made: Sequence[Drawn]
) -> list[str]:
    lines = [
        "## Runs that others published", "",
        f"Source: {SOURCE}; {plural(total, 'run')}. They are a comparison of their own: another model, task and "
        f"tuning than above. {len(matches)} of them are of a method whose formula here gives exactly the published "
        "number of trained parameters; those are joined to its FLOPs. CDVFT is not among the published runs: its cost "
        f"on the same layers of {MODEL} is drawn by formula, its accuracy not measured.", "",
    ]  # fmt: skip
    for figure in made:
        lines += [f"### {figure.title}", "", f"![{figure.alt}](figures/{figure.name}.svg)", "", figure.caption, ""]
    lines += ["| run | method here | parameters, published = by formula | FLOPs a token, by formula | accuracy [%] |",
              "|:--|:--|--:|--:|--:|"]  # fmt: skip
    for match in sorted(matches, key=lambda match: -match.run.test_accuracy):
        lines.append(
            f"| {markdown(match.run.experiment)} | {markdown(match.label)} | {integer(match.run.trainable_params)} | "
            f"{prefixed(match.flops)} | {100 * match.run.test_accuracy:.1f} |"
        )
    lines += [f"| none | {markdown(label)} | {integer(n)} | {prefixed(f)} | not measured |" for label, n, f in ours]
    said = listed([f"{label}: {integer(n)}" for label, n, _ in ours])
    return [*lines, "", f"CDVFT's parameters by formula on the query and value projections: {markdown(said)}."]
