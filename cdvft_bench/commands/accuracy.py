"""Fine-tuning: runs, the time of their steps, and pages of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cdvft_bench.commands.shared import (
    COUNT,
    DEVICE,
    FILE,
    FOLDER,
    PATH,
    SEED,
    WORKERS,
    column_option,
    columns_of,
    emit,
    seconds,
)
from cdvft_bench.core.errors import UserError

if TYPE_CHECKING:
    from cdvft_bench.accuracy.preset import Preset
    from cdvft_bench.accuracy.rehearsal import Rehearsal


def _tell(presets: Sequence[Preset], output: Path, rehearsal: Rehearsal | None) -> None:
    """Print how far campaigns are, what is left of them and what difference they can see."""
    from cdvft_bench.accuracy.outlook import outlook
    from cdvft_bench.accuracy.results import read_results
    from cdvft_bench.core.io.files import is_file

    rows = read_results(output)[0] if is_file(output) else []
    for preset in presets:
        if not preset.map:
            fits = rehearsal if rehearsal and rehearsal.preset == preset.name else None
            for sentence in outlook(preset, rows, fits).sentences:
                click.echo(sentence)


def _named(context: click.Context, _: click.Parameter, preset: str | None) -> str | None:
    """The preset that was asked for: a campaign of hours does not start by itself."""
    if preset is None and not context.resilient_parsing:
        from cdvft_bench.accuracy.preset import preset_names

        raise UserError(f"give a PRESET: a TOML file, or one of {', '.join(preset_names())}")
    return preset


PRESET = click.argument("preset", required=False, is_eager=True, callback=_named)
"""Eager: what to run is asked for before where to write it."""


@click.command()
@PRESET
@click.option("--output", type=FILE, required=True, help="Results, .jsonl.")
@click.option("--budget", help="Begin no run that would end after so long, e.g. 540s or 2h, by the longest so far.")
@click.option("--device", type=DEVICE, default="cpu", show_default=True, help="Where it runs.")
@click.option("--threads", type=COUNT, help="CPU threads; torch's number if not given.")
@click.option("--workers", type=WORKERS, default=1, show_default=True, help="Runs at a time.")
@click.option("--plan", is_flag=True, help="Run nothing: say what is left, what it takes and what the design can see.")
@click.option("--rehearsal", type=FILE, help="Of 'cdvft-bench rehearse': what methods take that have no run yet.")
def train(
    preset: str,
    output: Path,
    budget: str | None,
    device: str,
    threads: int | None,
    workers: int,
    plan: bool,
    rehearsal: Path | None,
) -> None:
    """Fine-tune with every method of PRESET (a name or a TOML file), tuned alike; goes on where it stopped.

    gpu-full runs gpu-mpnet-tweets, gpu-vit-fashion and gpu-smollm2-arithmetic one after the other: 'train gpu-full
    --device cuda --budget 540s', again and again. All other presets suit two cores.

    Exits with 3 when the budget is spent and runs are left.
    """

    from cdvft_bench.accuracy.preset import read_presets
    from cdvft_bench.accuracy.rehearsal import read_rehearsal

    asked, limit = read_presets(preset), seconds(budget)  # mistakes are told before torch is loaded
    known = read_rehearsal(rehearsal) if rehearsal else None
    if plan:
        _tell(asked, output, known)
        return
    from transformers.utils import logging

    from cdvft_bench.accuracy.search import train_all
    from cdvft_bench.sweep.progress import progress
    from cdvft_bench.timing.clock import fixed_threads, require_device
    from cdvft_bench.timing.machine.environment import read_environment
    from cdvft_bench.timing.machine.memory import energy_while

    logging.disable_progress_bar()
    require_device(device)
    bar = progress(0)
    with fixed_threads(threads), bar:
        environment = read_environment()
        outcome = train_all(
            asked,
            output,
            asdict(environment),
            environment.key,
            device,
            limit,
            say=bar.tell,
            workers=workers,
            measure=energy_while,
        )
    _tell([one for one in asked if one.name not in outcome.refused], output, known)
    refused = "; ".join(f"{name}: {reason}" for name, reason in outcome.refused.items())
    if outcome.due:
        if refused:
            click.echo(f"Warning: {refused}", err=True)
        click.echo(f"{outcome.due} runs or more are left; run the same command again to go on")
        raise SystemExit(3)
    if refused:
        raise UserError(refused)


@click.command()
@PRESET
@click.option("--output", type=FILE, required=True, help="What its methods take, .json.")
@click.option("--device", type=DEVICE, default="cpu", show_default=True, help="Where it runs.")
@click.option("--threads", type=COUNT, help="CPU threads; torch's number if not given.")
def rehearse(preset: str, output: Path, device: str, threads: int | None) -> None:
    """Run every method of PRESET for a few steps, end to end, and say what the whole campaign will take.

    It shows in minutes that a campaign of hours can run here. 'cdvft-bench train --rehearsal' and reports read OUTPUT.
    """

    from cdvft_bench.accuracy.outlook import outlook
    from cdvft_bench.accuracy.preset import read_preset
    from cdvft_bench.accuracy.rehearsal import rehearsed
    from cdvft_bench.documents import write_document

    chosen = read_preset(preset)
    from transformers.utils import logging

    from cdvft_bench.accuracy.training.fit import run_trial
    from cdvft_bench.timing.clock import fixed_threads, require_device
    from cdvft_bench.timing.machine.environment import read_environment

    logging.disable_progress_bar()
    require_device(device)
    with fixed_threads(threads) as count:
        here = asdict(read_environment())
        found = rehearsed(chosen, lambda trial: run_trial(trial, device), here, device, count, say=click.echo)
    write_document(found, output)
    click.echo(outlook(chosen, [], found).sentences[0])
    click.echo(f"Rehearsal: {output}")


@click.command()
@PRESET
@click.option("--output", type=FILE, required=True, help="Step costs, .json.")
@click.option("--budget", default="240s", show_default=True, help="Seconds of timing; loading and memory come on top.")
@click.option("--device", type=DEVICE, default="cpu", show_default=True, help="Where it runs.")
@click.option("--threads", type=COUNT, help="CPU threads; torch's number if not given.")
def steps(preset: str, output: Path, budget: str, device: str, threads: int | None) -> None:
    """Time a training step of every method of PRESET side by side; peak memory and energy too.

    On a machine that does nothing else. 'cdvft-bench pareto --steps' puts the result on its fronts.
    """

    from cdvft_bench.accuracy.preset import read_preset

    asked, limit = read_preset(preset), seconds(budget)
    from transformers.utils import logging

    from cdvft_bench.documents import write_document
    from cdvft_bench.sweep.steps import time_steps
    from cdvft_bench.timing.machine.environment import read_environment

    logging.disable_progress_bar()
    found = time_steps(
        asked,
        asdict(read_environment()),
        budget_s=limit or 240.0,
        device=device,
        threads=threads,
        say=click.echo,
    )
    write_document(found, output)
    for warning in found.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(f"Steps: {output}")


@click.command()
@click.argument("results", type=PATH)
@click.option("--output", type=PATH, required=True, help="A new folder, or an older page's.")
@click.option("--steps", type=FILE, help="Of 'cdvft-bench steps', on a preset.")
@click.option("--preset", help="Count only runs that this preset (or group) plans; all of the file if not given.")
@column_option
def pareto(results: Path, output: Path, steps: Path | None, preset: str | None, columns: tuple[str, ...]) -> None:
    """Accuracy against cost from the RESULTS of train: fronts with uncertainty, differences, on one page.

    RESULTS made elsewhere are drawn too: a table of runs (.csv, .tsv), or a folder of PEFT's method_comparison.
    """
    given = (f" --steps {steps.name}" if steps else "") + (f" --preset {preset}" if preset else "")
    given += "".join(f" --column {one}" for one in columns)
    command = f"cdvft-bench pareto {results.name}{given} --output {output.name}"
    _write_page(results, output, steps, preset, command, "Accuracy against cost", columns_of(columns))


@click.command()
@click.argument("results", type=FILE)
@click.option("--output", type=PATH, required=True, help="A new folder, or an older page's.")
@click.option("--preset", help="Count only runs that this preset plans; all of the file if not given.")
def maps(results: Path, output: Path, preset: str | None) -> None:
    """Accuracy over m, p, learning rate and initialisation, from the RESULTS of train on a map preset."""
    command = f"cdvft-bench maps {results.name}{f' --preset {preset}' if preset else ''} --output {output.name}"
    _write_page(results, output, None, preset, command, "Maps of accuracy")


def _write_page(
    results: Path,
    output: Path,
    steps: Path | None,
    preset: str | None,
    command: str,
    title: str,
    columns: dict[str, str] | None = None,
) -> None:
    """Write the page of a file of results alone.

    Raises:
        UserError: a file cannot be read, or holds nothing that the page is about.
    """

    from cdvft_bench.accuracy.preset import read_presets
    from cdvft_bench.accuracy.search import planned
    from cdvft_bench.analysis.accuracy.maps import cells
    from cdvft_bench.analysis.inputs import read
    from cdvft_bench.report.write import write_report

    campaign = read(results, steps=steps, claims=False, columns=columns)
    if preset is not None:
        presets = read_presets(preset)
        kept = {name: [run for one in presets for run in planned(one, some)] for name, some in campaign.runs.items()}
        campaign = replace(campaign, runs=kept)
    if campaign.comparisons and (steps or preset):
        raise UserError(
            f"{results.name} holds runs that were made elsewhere: --steps and --preset go with 'train' alone"
        )
    if (
        title.startswith("Accuracy")
        and not campaign.comparisons
        and not any(study.scores for study in campaign.studies)
    ):
        raise UserError(f"{results.name} holds no finished run on a test split; run more of its preset first")
    if title.startswith("Maps") and not any(cells(study.runs) for study in campaign.studies):
        raise UserError(f"{results.name} holds no finished run of CDVFT or BCA; run more of its preset first")
    click.echo(f"Page: {write_report(campaign, output, command=command, title=title, claims=False).html}")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rank(paths: tuple[Path, ...], as_json: bool) -> None:
    """Rank the methods over the workloads of PATHS: results of train, or folders of them.

    Mean ranks, wins, ties and losses against LoRA, and what each front tells apart, with what was not measured. Only
    workloads whose pilot shows that they can rank count.
    """
    from cdvft_bench.analysis.accuracy.study import fronted
    from cdvft_bench.analysis.inputs import read
    from cdvft_bench.report.ranks import ranked
    from cdvft_bench.report.terminal.overview import show_ranking

    campaign = read(*paths, claims=False)
    if not any(study.scores for study in campaign.studies):
        raise UserError("no finished run on a test split in the files given; run a preset of 'cdvft-bench train' first")
    fronts = {
        study.name: tuple(front.told for front in study.fronts if front.told) for study in fronted(campaign.studies)
    }
    emit(ranked(campaign.ranking, fronts, campaign.plans), as_json, lambda: show_ranking(campaign))


@click.command()
@click.option("--model", help="vit-small-fashion (the default), or vit-small-odd: half of the classes.")
@click.option("--examples", type=COUNT, help="Training images; the preset's own number if not given.")
@click.option("--epochs", type=COUNT, help="Passes over them; the preset's own number if not given.")
@click.option("--seed", type=SEED, help="Of weights and order; the preset's own if not given.")
@click.option("--output", type=FOLDER, help="A folder; the cache's if not given.")
def pretrain(
    model: str | None, examples: int | None, epochs: int | None, seed: int | None, output: Path | None
) -> None:
    """Pretrain a small vision transformer of the model table on Fashion-MNIST, for transfer to other images."""
    from cdvft_bench.accuracy.training import pretrain as vision
    from cdvft_bench.accuracy.training.models import kept

    name = vision.MODEL if model is None else model
    folder = output or kept(name)
    accuracy = vision.pretrain(
        folder,
        vision.EXAMPLES if examples is None else examples,
        vision.EPOCHS if epochs is None else epochs,
        vision.SEED if seed is None else seed,
        say=click.echo,
        name=name,
    )
    click.echo(f"Validation accuracy {accuracy:.4f}: {folder}")
