"""The page of maps of accuracy, from a file of results alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cdvft_bench.accuracy.preset import Preset
from cdvft_bench.accuracy.results import read_results
from cdvft_bench.accuracy.search import planned
from cdvft_bench.accuracy.tasks import LICENCES
from cdvft_bench.accuracy.trial import TrialResult
from cdvft_bench.analysis.accuracy.maps import (
    NAMES,
    TITLES,
    Cell,
    best_by,
    cells,
    gradient_figure,
    rate_maps,
    rate_verdict,
    setting_map,
)
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.folders import replace_folder
from cdvft_bench.core.text import integer, markdown, plural
from cdvft_bench.core.ties import mean_share

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN = ("cpu", "cores", "threads", "gpus", "torch", "date", "revision")
"""Of an environment, on the page."""


def write_maps(results: Path, output: Path, command: str, preset: Preset | None = None) -> Path:
    """Write the page of a map's results into a folder; the page's path. With a preset, only runs that it plans count.

    Raises:
        UserError: the file cannot be read, it holds no run of CDVFT or BCA, or the folder holds something else.
    """
    runs, environments = read_results(results)
    runs = planned(preset, runs) if preset is not None else runs
    found = cells(runs)
    if not found:
        raise UserError(f"{results.name} holds no finished run of CDVFT or BCA; run more of its preset first")
    gradient = gradient_figure(found)
    maps = [*([one] if (one := setting_map(found)) else []), *rate_maps(found)]
    figures = [*maps, *([gradient[0]] if gradient else [])]
    trial = runs[0].trial
    seconds, cores = sum(r.seconds for r in runs), sum(r.cpu_seconds or 0.0 for r in runs)
    lines = [
        f"# Maps: {trial.model} on {trial.task}", "",
        f"{plural(len(runs), 'run')} ({sum(1 for r in runs if r.error)} failed, {sum(r.diverged for r in runs)} "
        f"diverged): {integer(trial.examples)} training examples, {plural(trial.epochs, 'epoch')}, batch "
        f"{trial.batch}, {plural(max(c.seeds for c in found), 'seed')}, {integer(max(r.scored for r in runs))} "
        f"examples of the validation split. They took {cores / 60:.0f} minutes of one processor core, "
        f"{seconds / 60:.0f} minutes of wall time added up. Gradients are clipped to a norm of 1 "
        "before every step.", "",
        f"Data: {LICENCES.get(trial.task, 'see the data set')}. Made by `{command}` from {results.name}.", "",
        "## What they say", "", *_said(found, gradient[1] if gradient else None), "",
    ]  # fmt: skip
    for figure in figures:
        lines += [f"## {figure.title}", "", f"![{figure.alt}](figures/{figure.name}.svg)", "", figure.caption, ""]
    lines += ["## Initialisations", "", *_inits(found), "", *_others(runs), "", "## Where it ran", ""]
    for key, values in sorted(environments.items()):
        said = ", ".join(f"{k} {values.get(k)}" for k in SHOWN)
        lines.append(f"- {markdown(key)}: {markdown(said)}")
    files: dict[str, bytes] = {"accuracy.md": ("\n".join(lines) + "\n").encode()}
    for figure in figures:
        files[f"figures/{figure.name}.svg"], files[f"figures/{figure.name}.png"] = figure.svg, figure.png
    files["tables/cells.csv"] = _frame(found).to_csv(index=False, lineterminator="\n").encode()
    replace_folder(output, files)
    return output / "accuracy.md"


def _frame(found: Sequence[Cell]) -> DataFrame:
    from pandas import DataFrame

    return DataFrame([asdict(c) for c in found], dtype=object)


def _said(found: Sequence[Cell], power: float | None) -> list[str]:
    """List items that follow from the cells by rule."""
    lines = []
    plain = best_by([c for c in found if c.method == "cdvft" and c.init == "zero_diagonal" and c.optimizer == "adamw"])
    if len(plain) > 1:
        best = max(plain.values(), key=lambda c: c.accuracy or 0.0)
        worst = min(plain.values(), key=lambda c: c.accuracy or 0.0)
        lines.append(
            f"- m and p: at each setting's best rate the accuracy runs from {100 * (worst.accuracy or 0):.1f} % "
            f"(m = {worst.m}, p = {worst.p}) to {100 * (best.accuracy or 0):.1f} % (m = {best.m}, p = {best.p})."
        )
    for optimizer, name in NAMES.items():
        some = [c for c in found if c.method == "block_circulant" and c.optimizer == optimizer]
        if some:
            lines.append(f"- BCA's learning rate with {name}: {rate_verdict(some)}.")
    if power is not None:
        near = "the factor p" if power > 0.75 else "the factor √p" if power > 0.25 else "no growth"
        lines.append(f"- The gradient's entries grow as p to the power {power:.2f}: nearest to {near}.")
    return lines or ["- Not measured: too few settings."]


def _inits(found: Sequence[Cell]) -> list[str]:
    best = best_by([c for c in found if c.method == "cdvft" and c.optimizer == "adamw"])
    settings = sorted({(m, p) for m, p, init in best if init != "zero_diagonal"})
    if not settings:
        return ["Not measured: every run began the same way."]
    lines = ["Accuracy [%] at the best learning rate, which stands in brackets.", "",
             "| m, p | zero_diagonal | zero_circulant | random |", "|:--|--:|--:|--:|"]  # fmt: skip
    for m, p in settings:
        values = []
        for init in ("zero_diagonal", "zero_circulant", "random"):
            cell = best.get((m, p, init))
            values.append("not measured" if cell is None else f"{100 * (cell.accuracy or 0):.1f} ({cell.lr:g})")
        lines.append(f"| m = {m}, p = {p} | {' | '.join(values)} |")
    return lines


def _others(runs: Sequence[TrialResult]) -> list[str]:
    """The best rate of methods that have no place on a map; of equals the smaller."""
    by_rate: dict[tuple[str, float], list[float]] = defaultdict(list)
    for run in runs:
        if run.trial.method not in TITLES and run.accuracy is not None:
            by_rate[run.label, run.trial.lr].append(run.accuracy)
    best: dict[str, tuple[float, float]] = {}
    for (label, lr), accuracies in by_rate.items():
        best[label] = max(best.get(label, (-1.0, 0.0)), (mean_share(accuracies), -lr))
    return [f"For comparison, {markdown(label)}: {100 * a:.1f} % at {-lr:g}." for label, (a, lr) in best.items()]
