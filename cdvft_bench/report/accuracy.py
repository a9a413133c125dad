"""Accuracy against cost, from fine-tuning runs: a page, fronts, tables. From the file of results alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cdvft_bench.accuracy.analysis import Score, differences, front_shares, scores
from cdvft_bench.accuracy.search import read_results, tuning_runs
from cdvft_bench.accuracy.tasks import LICENCES
from cdvft_bench.accuracy.trial import TrialResult
from cdvft_bench.errors import UserError
from cdvft_bench.report.files import replace_folder
from cdvft_bench.report.labels import Label, place_labels
from cdvft_bench.report.panels import Plot, drawn
from cdvft_bench.report.style import FAINT, INK, SETTINGS, Drawn, Styles, blank, log_axis
from cdvft_bench.report.text import NOT_MEASURED, clean, integer, markdown, plural, prefixed, significant

if TYPE_CHECKING:
    from pandas import DataFrame

BASELINE = "LoRA r=8"
OFTEN = 0.5  # share of draws that puts a method on the front's line

COSTS: tuple[tuple[str, str, str, Callable[[Score], float | None]], ...] = (
    ("parameters", "trained parameters beside the classifier", "trained parameters [count]",
     lambda s: float(s.parameters) if s.parameters else None),
    ("flops", "FLOPs of a training step by formula, convention flop", "FLOPs a step",
     lambda s: s.step_flops),
    ("time", "median time of a training step", "time a step [s]", lambda s: s.step_seconds),
)  # fmt: skip


def write_accuracy(results: Path, output: Path, command: str) -> Path:
    """Write the page of a file of results into a folder; the page's path.

    Raises:
        UserError: the file cannot be read or holds no run on a test split, or the folder holds something else.
    """
    runs, environments = read_results(results)
    found = scores(runs)
    if not found:
        raise UserError(f"{results.name} holds no finished run on a test split; run more of its preset first")
    figures = fronts(found, runs)
    text = page(runs, found, figures, environments, results.name, command)
    files: dict[str, bytes] = {"accuracy.md": text.encode()}
    for figure in figures:
        files[f"figures/{figure.name}.svg"], files[f"figures/{figure.name}.png"] = figure.svg, figure.png
    for name, frame in (("scores", scores_table(found, runs)), ("runs", runs_table(runs))):
        files[f"tables/{name}.csv"] = frame.to_csv(index=False, lineterminator="\n").encode()
    replace_folder(output, files)
    return output / "accuracy.md"


def _scored(runs: Sequence[TrialResult]) -> int:
    from cdvft_bench.accuracy.tasks import load_task

    trial = runs[0].trial
    try:
        return min(trial.scored, len(load_task(trial.task).test))
    except UserError:  # a report needs no data; the trial says how many were asked for
        return trial.scored


def _shares(found: Sequence[Score], cost: Callable[[Score], float | None], scored: int) -> dict[str, float]:
    costs = {s.label: value for s in found if (value := cost(s)) is not None}
    return front_shares(found, costs, scored)


def fronts(found: Sequence[Score], runs: Sequence[TrialResult]) -> list[Drawn]:
    """One figure a cost."""
    import matplotlib

    styles = Styles(s.method for s in found)
    made = []
    for name, what, axis, cost in COSTS:
        points = [(s, value) for s in found if (value := cost(s)) is not None]
        if len(points) < 2:
            continue
        shares = _shares(found, cost, _scored(runs))
        with matplotlib.rc_context(SETTINGS):
            made.append(drawn(f"front-{name}", f"Accuracy against {what}", _front(points, shares, what, axis, styles)))
    return made


def _front(
    points: Sequence[tuple[Score, float]], shares: dict[str, float], what: str, axis: str, styles: Styles
) -> Plot:
    figure, (axes,) = blank(1, 1, 4.8)
    labels = []
    for s, cost in points:
        often = shares[s.label] >= OFTEN
        color = styles[s.method].color if s.method != "head" else INK
        marker = styles[s.method].marker if s.method != "head" else "x"
        if s.low is not None and s.high is not None:
            axes.plot(
                [cost, cost], [100 * s.low, 100 * s.high], color=color, linewidth=1.1, alpha=0.9 if often else 0.35
            )
        axes.plot([cost], [100 * s.mean], marker, color=color, markersize=8 if often else 6, alpha=1 if often else 0.5)
        labels.append(Label(cost, 100 * s.mean, clean(s.label), color if often else FAINT, bold=often))
    costs = [cost for _, cost in points]
    if max(costs) > 3 * min(costs):
        log_axis(axes, "x")
    axes.set_xlabel(axis)
    axes.set_ylabel("test accuracy [%]")
    axes.margins(x=0.12, y=0.12)
    labels.sort(key=lambda label: not label.bold)
    place_labels(axes, labels, [(c, 100 * s.mean) for s, c in points], [])
    caption = (
        f"Mean test accuracy over seeds with its 95 % interval (Student's t), against {what}. Bold: on the front in at "
        "least half of the draws that resample seeds and the test split; the rest is faded."
    )
    names = ", ".join(clean(s.label) for s, _ in points if shares[s.label] >= OFTEN)
    return Plot(figure, caption, f"Scatter of test accuracy against {what}. Mostly on the front: {names}.")


def scores_table(found: Sequence[Score], runs: Sequence[TrialResult]) -> DataFrame:
    """One row a method."""
    from pandas import DataFrame

    n = _scored(runs)
    shares = {name: _shares(found, cost, n) for name, _, _, cost in COSTS}
    rows = [
        {
            "method": s.label,
            "test accuracy [%]": round(100 * s.mean, 3),
            "low [%]": None if s.low is None else round(100 * s.low, 3),
            "high [%]": None if s.high is None else round(100 * s.high, 3),
            "seeds": len(s.accuracies),
            "diverged": s.diverged,
            "learning rate": s.lr,
            "rate at the edge of the search": s.at_edge,
            "trained parameters": s.parameters,
            "FLOPs a step (flop)": s.step_flops,
            "time a step [s]": s.step_seconds,
            **{f"share of draws on the front: {name}": shares[name].get(s.label) for name, *_ in COSTS},
        }
        for s in found
    ]
    return DataFrame(rows, dtype=object)


def runs_table(runs: Sequence[TrialResult]) -> DataFrame:
    """One row a run."""
    from dataclasses import asdict

    from pandas import DataFrame

    rows = []
    for r in sorted(runs, key=lambda r: (r.label, r.trial.evaluate, r.trial.lr, r.trial.seed)):
        values = asdict(r)
        trial = values.pop("trial")
        trial["hyperparameters"] = "; ".join(f"{k}={v}" for k, v in trial["hyperparameters"])
        values["losses"] = "; ".join("not finite" if v is None else f"{v:.4f}" for v in values["losses"])
        rows.append({**trial, **values})
    return DataFrame(rows, dtype=object)


def page(
    runs: Sequence[TrialResult],
    found: Sequence[Score],
    figures: Sequence[Drawn],
    environments: dict[str, dict[str, object]],
    name: str,
    command: str,
) -> str:
    """The page, in Markdown."""
    trial = runs[0].trial
    failed = [r for r in runs if r.error]
    n = _scored(runs)
    lines = [
        f"# Accuracy: {trial.model} on {trial.task}",
        "",
        f"{plural(len(runs), 'run')} ({plural(len(failed), 'failed run')}), {plural(len(found), 'method')}. "
        f"{integer(trial.examples)} training examples, {plural(trial.epochs, 'epoch')}, batch {trial.batch}, at most "
        f"{trial.length} tokens; scored on at most {integer(n)} examples of the test split. Every method tried as many "
        "learning rates on the validation split; its best ran with each seed on the test split. Step times were taken "
        "within the runs, not side by side: differences of tens of per cent mean nothing.",
        "",
        f"Data: {LICENCES.get(trial.task, 'see the data set')}. Made by `{command}` from {name}.",
        "",
        *_table(found, runs),
        "",
    ]
    for figure in figures:
        lines += [f"## {figure.title}", "", f"![{figure.alt}](figures/{figure.name}.svg)", "", figure.caption, ""]
    lines += ["## Differences", "", *_differences(runs, found), "", "## Learning rates", "", *_rates(runs), ""]
    lines += ["## What the reviewers asked", "", *answers(runs, found), "", "## Where it ran", ""]
    for key, fields in sorted(environments.items()):
        said = ", ".join(
            f"{k} {fields.get(k)}" for k in ("cpu", "cores", "threads", "gpus", "torch", "date", "revision")
        )
        lines.append(f"- {markdown(key)}: {markdown(said)}")
    return "\n".join(lines) + "\n"


def _table(found: Sequence[Score], runs: Sequence[TrialResult]) -> list[str]:
    n = _scored(runs)
    shares = {name: _shares(found, cost, n) for name, _, _, cost in COSTS}
    heads = ["method", "test accuracy [%]", "seeds", "learning rate", "parameters", "FLOPs a step", "time a step [s]",
             "on the front: parameters", "FLOPs", "time"]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|:--|{'--:|' * (len(heads) - 1)}"]
    for s in found:
        accuracy = f"{100 * s.mean:.1f}" + ("" if s.low is None or s.high is None else
                                            f" [{100 * s.low:.1f}, {100 * s.high:.1f}]")  # fmt: skip
        seeds = f"{len(s.accuracies)}" + (f", {s.diverged} diverged" if s.diverged else "")
        rate = f"{s.lr:g}" + (" (edge)" if s.at_edge else "") if s.method != "head" else "-"
        cells = [
            markdown(s.label), accuracy, seeds, rate, integer(s.parameters),
            NOT_MEASURED if s.step_flops is None else prefixed(s.step_flops),
            NOT_MEASURED if s.step_seconds is None else significant(s.step_seconds, 3),
            *(f"{100 * shares[k][s.label]:.0f} %" if s.label in shares[k] else "-" for k, *_ in COSTS),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _differences(runs: Sequence[TrialResult], found: Sequence[Score]) -> list[str]:
    labels = [s.label for s in found]
    against = BASELINE if BASELINE in labels else labels[0]
    try:
        made = differences(runs, against)
    except UserError as error:
        return [f"Not measured: {markdown(error)}."]
    lines = [
        f"Accuracy less that of {markdown(against)}, paired by seed, with 95 % intervals (Student's t); p corrected "
        f"for {len(made)} comparisons (Holm).",
        "",
        "| method | difference [points] | p, corrected |",
        "|:--|--:|--:|",
    ]
    for d in made:
        lines.append(
            f"| {markdown(d.label)} | {100 * d.mean:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}] | {d.p_holm:.3f} |"
        )
    return lines


def _rates(runs: Sequence[TrialResult]) -> list[str]:
    lines = ["Validation accuracy [%] by learning rate.", "", "| method | rate: accuracy |", "|:--|:--|"]
    for label, tried in tuning_runs(runs).items():
        cells = [f"{r.trial.lr:g}: {'diverged' if r.accuracy is None else f'{100 * r.accuracy:.1f}'}" for r in tried]
        lines.append(f"| {markdown(label)} | {'; '.join(cells)} |")
    return lines


def answers(runs: Sequence[TrialResult], found: Sequence[Score]) -> list[str]:
    """A sentence for each of the reviewers' questions that such runs bear on."""
    by_label = {s.label: s for s in found}
    circulant = [s for s in found if s.method in ("cdvft", "block_circulant")]
    tuned = {label: rows for label, rows in tuning_runs(runs).items() if label in {s.label for s in circulant}}
    lines = []
    if len(circulant) > 1 and tuned:
        best, worst = circulant[0], circulant[-1]
        spreads = {
            label: max(a) - min(a)
            for label, rows in tuned.items()
            if len(a := [r.accuracy for r in rows if r.accuracy is not None]) > 1
        }
        label, spread = max(spreads.items(), key=lambda item: item[1])
        lines.append(
            f"- R3, other settings: over {plural(len(circulant), 'setting')} of m and p the mean accuracy runs from "
            f"{100 * worst.mean:.1f} % ({markdown(worst.label)}) to {100 * best.mean:.1f} % ({markdown(best.label)}); "
            f"the learning rate moves {markdown(label)} by {100 * spread:.1f} points on validation."
        )
    else:
        lines.append("- R3, other settings: not measured here.")
    lines.append("- R4, recent models and generation: not measured here; this preset classifies text with an encoder.")
    lora = by_label.get(BASELINE)
    if lora is not None and circulant:
        best = circulant[0]
        ratio = lora.parameters / best.parameters
        gap = 100 * (best.mean - lora.mean)
        overlap = best.low is not None and lora.high is not None and best.low <= lora.high
        lines.append(
            f"- R6, is it worth it: the best circulant setting, {markdown(best.label)}, trains {ratio:.1f} times fewer "
            f"parameters than {BASELINE} at {gap:+.1f} points of accuracy; "
            + ("their intervals overlap." if overlap else "their intervals do not overlap.")
        )
    else:
        lines.append("- R6, is it worth it: not measured here.")
    return lines
