"""What the factorisation can and cannot express: run, changes, report."""

from pathlib import Path

import click

from cdvft_bench.commands.shared import COUNT, PATH, SEED, WORKERS, Positive
from cdvft_bench.core.errors import UserError


@click.group()
def expressivity() -> None:
    """What CDVFT's factorisation can and cannot express."""


@expressivity.command()
@click.option("--preset", default="small", show_default=True, help="tiny, small or full.")
@click.option("--output", required=True, type=PATH, help="Profile folder; goes on where it stopped.")
@click.option("--weights", multiple=True, type=PATH, help="An .npz of weight changes; may be repeated.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of all draws.")
@click.option("--workers", type=WORKERS, default=2, show_default=True, help="Processes, one thread each.")
def run(preset: str, output: Path, weights: tuple[Path, ...], seed: int, workers: int) -> None:
    """Measure, and write a profile."""
    from cdvft_bench.expressivity.findings.algebraic import write_findings
    from cdvft_bench.expressivity.presets import Job, change_jobs, jobs_of
    from cdvft_bench.expressivity.profile import environment, record

    def progress(done: int, total: int, job: Job) -> None:
        click.echo(f"{done}/{total} {job.kind}", err=True)

    jobs = jobs_of(preset, seed) + [job for path in weights for job in change_jobs(path, seed)]
    profile = record(jobs, output, environment(preset, seed), workers, progress)
    findings = write_findings(profile, output)
    click.echo(f"{len(jobs)} jobs and {len(findings)} findings in {output}")


@expressivity.command()
@click.option("--output", required=True, type=PATH, help="The .npz to write.")
@click.option("--model", default="minilm", show_default=True, help="Of the suite's table, with pretrained weights.")
@click.option("--task", default="tweets", show_default=True, help="Of the suite's tasks.")
@click.option("--layers", default=r"(query|value)$", show_default=True, help="Regular expression on layer names.")
@click.option("--lr", type=Positive(), default=1e-4, show_default=True, help="Learning rate of all weights.")
@click.option("--examples", type=COUNT, default=800, show_default=True, help="Training examples.")
@click.option("--epochs", type=COUNT, default=2, show_default=True, help="Passes over them.")
@click.option(
    "--seed", type=SEED, default=0, show_default=True, help="Seed of the classifier and the order of batches."
)
def changes(output: Path, model: str, task: str, layers: str, lr: float, examples: int, epochs: int, seed: int) -> None:
    """Fine-tune a model in full and save what that did to its weights, for run --weights."""
    from cdvft_bench.accuracy.training.trial import Trial
    from cdvft_bench.expressivity.fitting.finetune import changes_of, describe, save_changes

    if output.suffix != ".npz":
        raise UserError(f"output {output} does not end in .npz; give it that ending")
    trial = Trial(model, task, "full", lr=lr, head_lr=2e-3, seed=seed, examples=examples, epochs=epochs)
    found, result = changes_of(trial, layers)
    save_changes(output, found, describe(trial, result))
    click.echo(f"{len(found)} layers in {output}; {describe(trial, result)}")


@expressivity.command()
@click.argument("profile", type=PATH)
@click.option("--output", required=True, type=PATH, help="Folder of the page and its figures.")
def report(profile: Path, output: Path) -> None:
    """Write expressivity.md and its figures from a profile alone."""
    from cdvft_bench.expressivity.profile import load
    from cdvft_bench.report.expressivity.page import write_report

    for path in write_report(load(profile), output):
        click.echo(str(path))
