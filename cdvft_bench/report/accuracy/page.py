"""Accuracy against cost, from fine-tuning runs: a page, fronts, tables. From files of results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cdvft_bench.accuracy.analysis import Difference, Estimate, Score, compared, estimate, holm, paired, scores
from cdvft_bench.accuracy.preset import Preset
from cdvft_bench.accuracy.results import by_workload, read_results, tuning_runs
from cdvft_bench.accuracy.search import planned
from cdvft_bench.accuracy.tasks import LICENCES
from cdvft_bench.accuracy.trial import BASE, TrialResult
from cdvft_bench.analysis.accuracy.answers import BASELINE, answers, matched, names, nearest
from cdvft_bench.analysis.accuracy.costs import Front, fronts_of
from cdvft_bench.analysis.accuracy.starts import DEFAULT, starts_section
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.folders import replace_folder
from cdvft_bench.core.text import (
    NOT_MEASURED,
    integer,
    interval,
    markdown,
    percent_bounds,
    plural,
    prefixed,
    significant,
)
from cdvft_bench.report.accuracy.figures import difference_figure, front_figures
from cdvft_bench.report.accuracy.published_section import published_section
from cdvft_bench.report.figures.style import Drawn
from cdvft_bench.sweep.steps import StepTimes, read_steps

if TYPE_CHECKING:
    from pandas import DataFrame

PAPER = "CDVFT m=2 p=d"


def write_accuracy(
    results: Path, output: Path, command: str, steps: Path | None = None, preset: Preset | None = None
) -> Path:
    """Write the page of a file of results into a folder.

    Args:
        results: of ``cdvft-bench train``. output: the folder. command: that makes the page, as the page says.
        steps: of ``cdvft-bench steps`` on the same preset, for fronts of measured time and memory.
        preset: only runs that it plans count; all of the file if None.

    Returns:
        The page's path.

    Raises:
        UserError: a file cannot be read, the results hold no run on a test split, the steps are of another model or
            task, or the folder holds something else; without a preset, the results are of several workloads.
    """
    runs, environments = read_results(results)
    runs = planned(preset, runs) if preset is not None else runs
    workloads = by_workload(runs)
    if len(workloads) > 1:
        raise UserError(f"{results.name} holds runs of {', '.join(workloads)}; name the preset to make a page of")
    environments = {key: fields for key, fields in environments.items() if any(r.environment == key for r in runs)}
    found = scores(runs)
    if not found:
        raise UserError(f"{results.name} holds no finished run on a test split; run more of its preset first")
    timed = read_steps(steps) if steps is not None else None
    trial = runs[0].trial
    if timed is not None and (timed.model, timed.task) != (trial.model, trial.task):
        raise UserError(
            f"{results.name} is of {trial.model} on {trial.task}, but the steps are of {timed.model} on {timed.task}; "
            "time the steps of the same preset"
        )
    fronts = fronts_of(found, timed)
    drawn = front_figures(fronts, found)
    compared_to = [d for label in (BASELINE, PAPER, f"{PAPER} {DEFAULT}") if (d := _differences(found, label))]
    more = [difference_figure(made, found) for made in compared_to]
    published, others = published_section()
    starts, by_start = starts_section(found)
    text = page(
        runs, found, fronts, drawn, list(zip(compared_to, more, strict=True)), timed, environments, results.name,
        command, [*starts, *published],
    )  # fmt: skip
    files: dict[str, bytes] = {"accuracy.md": text.encode()}
    for figure in (*drawn, *more, *by_start, *others):
        files[f"figures/{figure.name}.svg"], files[f"figures/{figure.name}.png"] = figure.svg, figure.png
    for name, frame in (("scores", scores_table(found, fronts, timed)), ("runs", runs_table(runs))):
        files[f"tables/{name}.csv"] = frame.to_csv(index=False, lineterminator="\n").encode()
    replace_folder(output, files)
    return output / "accuracy.md"


def write_pages(
    results: Path, output: Path, command: str, presets: Sequence[Preset], steps: Path | None = None
) -> list[str]:
    """Write a page, see ``write_accuracy``, for each preset that has results; a line of each to print.

    Raises:
        UserError: no preset has any, steps were given, which are of one preset alone, or as there.
    """
    if steps is not None:
        raise UserError(f"{steps.name} is of one preset; name that one instead of a group")
    runs = read_results(results)[0]
    ready = [p for p in presets if any(r.trial.evaluate == "test" and r.accuracy is not None for r in planned(p, runs))]
    if not ready:
        raise UserError(f"{results.name} holds no finished run on a test split of {', '.join(p.name for p in presets)}")
    made = [f"Page: {write_accuracy(results, output / p.name, command, None, p)}" for p in ready]
    return [*made, *(f"{p.name}: {NOT_MEASURED}" for p in presets if p not in ready)]


def _differences(found: Sequence[Score], against: str) -> list[Difference]:
    try:
        return compared(found, against)
    except UserError:
        return []


# --- tables as files -----------------------------------------------------------------------


def scores_table(found: Sequence[Score], fronts: Sequence[Front], timed: StepTimes | None) -> DataFrame:
    """One row a method."""
    from pandas import DataFrame

    steps = {c.label: c for c in timed.costs} if timed else {}
    rows = []
    for s in found:
        step = steps.get(s.label)
        rows.append(
            {
                "method": s.label,
                "test accuracy [%]": round(100 * s.mean, 3),
                "low [%]": None if s.low is None else round(100 * s.low, 3),
                "high [%]": None if s.high is None else round(100 * s.high, 3),
                "seeds": len(s.accuracies),
                "test examples": s.answers.shape[1],
                "diverged": s.diverged,
                "learning rate": s.lr,
                "rate at the edge of the search": s.at_edge,
                "scale": s.scale,
                "trained parameters": s.parameters,
                "FLOPs a step (flop)": s.step_flops,
                "held by training beside the weights [bytes]": s.training_bytes,
                "step, side by side [s]": step.seconds.value if step else None,
                "low [s]": step.seconds.low if step else None,
                "high [s]": step.seconds.high if step else None,
                "peak memory beside the weights [bytes]": step.peak_bytes if step else s.peak_bytes,
                "energy a step [J]": step.joules if step else s.joules,
                **{f"share of draws on the front: {f.kind.short}": f.shares.get(s.label) for f in fronts if f.costs},
            }
        )
    return DataFrame(rows, dtype=object)


def runs_table(runs: Sequence[TrialResult]) -> DataFrame:
    """One row a run."""
    from pandas import DataFrame

    rows = []
    for r in sorted(runs, key=lambda r: (r.label, r.trial.evaluate, r.trial.lr, r.trial.seed)):
        values = asdict(r)
        trial = values.pop("trial")
        trial["hyperparameters"] = "; ".join(f"{k}={v}" for k, v in trial["hyperparameters"])
        for curve in ("losses", "curve"):
            values[curve] = "; ".join("not finite" if v is None else f"{v:.4f}" for v in values[curve])
        rows.append({**trial, **values})
    return DataFrame(rows, dtype=object)


# --- the page ------------------------------------------------------------------------------


def page(
    runs: Sequence[TrialResult],
    found: Sequence[Score],
    fronts: Sequence[Front],
    figures: Sequence[Drawn],
    differences: Sequence[tuple[Sequence[Difference], Drawn]],
    timed: StepTimes | None,
    environments: Mapping[str, Mapping[str, object]],
    name: str,
    command: str,
    sections: Sequence[str],
) -> str:
    """The page, in Markdown; ``sections`` are lines of those that stand by themselves."""
    trial = runs[0].trial
    lines = [f"# Accuracy: {trial.model} on {trial.task}", "", *_opening(runs, found, name, command), "",
             "## What the reviewers asked", "", *answers(runs, found, fronts), "",
             "## Methods", "", *_table(found, fronts, timed), *_energy(runs, timed), "", "## Fronts", ""]  # fmt: skip
    for figure in figures:
        lines += [f"### {figure.title}", "", f"![{figure.alt}](figures/{figure.name}.svg)", "", figure.caption, ""]
    lines += [f"- {front.kind.short}: {front.said}." for front in fronts if not front.costs]
    lines += ["", "## Differences", ""]
    for made, figure in differences:
        lines += [f"### {figure.title}", "", f"![{figure.alt}](figures/{figure.name}.svg)", "", figure.caption, "",
                  *_difference_table(made), ""]  # fmt: skip
    if not differences:
        lines += [f"Not measured: it takes two seeds of {BASELINE} or {PAPER} and of another method.", ""]
    lines += ["## As many parameters", "", *_matched(found), "", "## Tuning", "", *_tuning(runs, found), ""]
    lines += [*sections, "", "## Where it ran", ""]
    for key, fields in sorted(environments.items()):
        said = ", ".join(
            f"{k} {fields.get(k)}" for k in ("cpu", "cores", "threads", "gpus", "torch", "date", "revision")
        )
        lines.append(f"- {markdown(key)}: {markdown(said)}")
    return "\n".join(lines) + "\n"


def _opening(runs: Sequence[TrialResult], found: Sequence[Score], name: str, command: str) -> list[str]:
    trial = runs[0].trial
    failed, diverged = sum(1 for r in runs if r.error), sum(r.diverged for r in runs)
    tests = found[0].answers.shape[1]
    seconds, cores = sum(r.seconds for r in runs), sum(r.cpu_seconds or 0.0 for r in runs)
    budgets = sorted({len(tried) for tried in tuning_runs(runs).values()})
    budget = plural(budgets[0], "run") if len(budgets) == 1 else f"{budgets[0]} to {budgets[-1]} runs (unfinished)" \
        if budgets else "no run"  # fmt: skip
    scales = any(len({r.trial.hyperparameters for r in tried}) > 1 for tried in tuning_runs(runs).values())
    over = "the learning rate" + (" and then its scale" if scales else "")
    untrained = " The untrained model ran once: no seed enters its answers." if any(s.method == BASE for s in found) \
        else ""  # fmt: skip
    return [
        f"{plural(len(runs), 'run')} ({failed} failed, {diverged} diverged), {plural(len(found), 'method')}. "
        f"{integer(trial.examples)} training examples, {plural(trial.epochs, 'epoch')}, batch {trial.batch}, at most "
        f"{trial.length} tokens; {integer(tests)} examples of the test split. Every method was tuned with {budget} on "
        f"the validation split, over {over}; its best setting ran with each seed on the test split.{untrained}",
        "",
        f"All runs took {cores / 60:.0f} minutes of one processor core, {seconds / 60:.0f} minutes of wall time added "
        "up (several ran at a time, beside other work). Step times within the runs are not compared; see 'time' below.",
        "",
        f"Data: {LICENCES.get(trial.task, 'see the data set')}. Made by `{command}` from {name}.",
    ]


def _table(found: Sequence[Score], fronts: Sequence[Front], timed: StepTimes | None) -> list[str]:
    steps = {c.label: c for c in timed.costs} if timed else {}
    known = [f for f in fronts if f.costs]
    heads = ["method", "test accuracy [%]", "seeds", "learning rate", "scale", "parameters", "FLOPs a step",
             "time a step [ms]", f"over {timed.against if timed else BASELINE}", "peak memory [MB]", "held [MB]",
             "energy [J]", *(f"on the front: {f.kind.short}" for f in known)]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|:--|{'--:|' * (len(heads) - 1)}"]
    for s in found:
        step = steps.get(s.label)
        bounds = "" if s.low is None or s.high is None else f" [{100 * s.low:.1f}, {100 * s.high:.1f}]"
        ratio, joules = (step.ratio, step.joules) if step else (None, s.joules)
        cells = [
            markdown(s.label), f"{100 * s.mean:.1f}{bounds}",
            f"{len(s.accuracies)}" + (f", {s.diverged} diverged" if s.diverged else ""),
            "-" if s.method == BASE else f"{s.lr:g}" + (" (edge)" if s.at_edge else ""),
            "-" if s.method == BASE else "own" if s.scale is None else f"{s.scale:g}",
            integer(s.parameters), NOT_MEASURED if s.step_flops is None else prefixed(s.step_flops),
            NOT_MEASURED if step is None else _milliseconds(step.seconds.value, step.seconds.low, step.seconds.high),
            "1" if step and not ratio else interval(ratio.value, ratio.low, ratio.high) if ratio else NOT_MEASURED,
            NOT_MEASURED if step is None else significant(step.peak_bytes / 1e6, 3),
            NOT_MEASURED if s.training_bytes is None else significant(s.training_bytes / 1e6, 3),
            NOT_MEASURED if joules is None else significant(joules, 3),
            *(f"{100 * f.shares[s.label]:.0f} %" if s.label in f.shares else "-" for f in known),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Accuracy: mean over seeds with its 95 % interval over seeds and test examples. Parameters: trained, beside "
        "the classifier. FLOPs: by formula. Held: bytes that training holds beside the model's weights, counted in a "
        "first step: tensors that autograd saved, gradients, AdamW's two moments; no peak of an allocator. 'own' is "
        "the method's own scale, where that scored best while tuning or it has none; 'edge' a learning rate at the "
        "end of those tried.",
    ]
    if timed is not None:
        lines += [
            "",
            f"Time and peak memory: {plural(timed.rounds, 'round')} of one step a method, side by side in random order "
            f"(batch {timed.batch}, {timed.device}, {plural(timed.threads, 'thread')}, clock {timed.method}); medians "
            f"with 95 % bootstrap intervals. Memory by the {timed.memory}. Energy: {timed.energy}.",
            *(f"\nThe clock warns: {markdown(w)}." for w in timed.warnings),
        ]
    return lines


def _energy(runs: Sequence[TrialResult], timed: StepTimes | None) -> list[str]:
    """How the energy of the runs' steps was read, or why not; of steps side by side, the table's own words say so."""
    if timed is not None:
        return []
    ways = sorted({r.energy or "not recorded" for r in runs if r.trial.method != BASE})
    return ["", f"Energy: of a step, the mean over a run's training; {'; '.join(ways)}."]


def _milliseconds(value: float, low: float | None, high: float | None) -> str:
    bounds = "" if low is None or high is None else f" [{significant(1e3 * low, 3)}, {significant(1e3 * high, 3)}]"
    return f"{significant(1e3 * value, 3)}{bounds}"


def _difference_table(made: Sequence[Difference]) -> list[str]:
    lines = ["| method | difference [points] | p | p, corrected |", "|:--|--:|--:|--:|"]
    for d in made:
        bounds = f"{100 * d.mean:+.1f}{percent_bounds(d.interval)}"
        lines.append(f"| {markdown(d.label)} | {bounds} | {d.p:.3f} | {d.p_holm:.3f} |")
    return lines


def _matched(found: Sequence[Score]) -> list[str]:
    rows: list[tuple[Score, Score, str, Estimate]] = []
    groups = matched(found)
    for group in groups:
        rows += _pairs([s for s in group if s.method == "cdvft"], [s for s in group if s.method != "cdvft"], "as many")
    for ours in (s for s in found if s.method == "cdvft"):
        below, above = nearest(found, ours, "lora")
        for other, how in ((below, "the next fewer"), (above, "the next more")):
            if other is not None and other.parameters != ours.parameters:
                rows += _pairs([ours], [other], how)
    if not rows:
        return [f"{NOT_MEASURED.capitalize()}: no setting of CDVFT shares two seeds with a method to match."]
    corrected = holm([value.p for *_, value in rows])
    lines = [f"- {integer(group[0].parameters)} parameters each: {names(group)}." for group in groups]
    lines += [
        "", "| CDVFT | parameters | against | parameters | which has | difference [points] | p, corrected |",
        "|:--|--:|:--|--:|:--|--:|--:|",
    ]  # fmt: skip
    for (ours, other, how, value), p in zip(rows, corrected, strict=True):
        bounds = f"{100 * value.mean:+.1f}{percent_bounds(value.interval)}"
        lines.append(f"| {markdown(ours.label)} | {integer(ours.parameters)} | {markdown(other.label)} | "
                     f"{integer(other.parameters)} | {how} | {bounds} | {p:.3f} |")  # fmt: skip
    return [*lines, "", f"CDVFT's accuracy less the other's, paired; p corrected for {len(rows)} comparisons (Holm)."]


def _pairs(ours: Sequence[Score], others: Sequence[Score], how: str) -> list[tuple[Score, Score, str, Estimate]]:
    return [(a, b, how, estimate(t)) for a in ours for b in others if (t := paired(a, b)) is not None]


def _tuning(runs: Sequence[TrialResult], found: Sequence[Score]) -> list[str]:
    own = {s.label: s for s in found}
    lines = ["Validation accuracy [%] by learning rate, and by scale at the best of them (as 'rate x scale').", "",
             "| method | tried: accuracy | chosen |", "|:--|:--|:--|"]  # fmt: skip
    for label, tried in tuning_runs(runs).items():
        cells, first = [], tried[0].trial.hyperparameters
        for r in tried:
            scale = "" if r.trial.hyperparameters == first else f" x {_scale_of(r)}"
            score = "diverged" if r.diverged else "failed" if r.accuracy is None else f"{100 * r.accuracy:.1f}"
            cells.append(f"{r.trial.lr:g}{scale}: {score}")
        chosen = own.get(label)
        setting = "-" if chosen is None else f"{chosen.lr:g}" + (f" x {chosen.scale:g}" if chosen.scale else "")
        lines.append(f"| {markdown(label)} | {'; '.join(cells)} | {setting} |")
    return lines


def _scale_of(run: TrialResult) -> str:
    from cdvft_bench.accuracy.trial import scale_name

    return f"{dict(run.trial.hyperparameters).get(scale_name(run.trial.method) or '', 'own')}"
