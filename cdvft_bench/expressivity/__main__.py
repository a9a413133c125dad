"""``python -m cdvft_bench.expressivity run`` and ``... report``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cdvft_bench.errors import UserError


@click.group()
def main() -> None:
    """What CDVFT's factorisation can and cannot express."""


@main.command()
@click.option("--preset", default="small", show_default=True, help="tiny, small or full.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Profile folder; goes on where it stopped."
)
@click.option("--weights", type=click.Path(path_type=Path), help="An .npz of weight changes, one 2-D array a layer.")
@click.option("--seed", default=0, show_default=True, help="Seed of all draws.")
@click.option("--workers", default=2, show_default=True, help="Processes, one thread each.")
def run(preset: str, output: Path, weights: Path | None, seed: int, workers: int) -> None:
    """Measure, and write a profile."""
    from cdvft_bench.expressivity.changes import change_jobs
    from cdvft_bench.expressivity.findings import write_findings
    from cdvft_bench.expressivity.presets import Job, jobs_of
    from cdvft_bench.expressivity.profile import environment, record

    def progress(done: int, total: int, job: Job) -> None:
        click.echo(f"{done}/{total} {job.kind}", err=True)

    jobs = jobs_of(preset, seed) + (change_jobs(weights, seed) if weights is not None else [])
    profile = record(jobs, output, environment(preset, seed), workers, progress)
    findings = write_findings(profile, output)
    click.echo(f"{len(jobs)} jobs and {len(findings)} findings in {output}")


@main.command()
@click.option("--model", required=True, help="Folder or hub id of an encoder.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="CSV file of texts and labels.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The .npz to write.")
@click.option("--source", required=True, help="In words: model, data, licences; kept with the figures.")
@click.option("--label", default="label", show_default=True, help="Column of the class.")
@click.option("--text", default="text", show_default=True, help="Column of the text.")
@click.option("--layers", default=r"(query|value)$", show_default=True, help="Regular expression on layer names.")
@click.option("--steps", default=200, show_default=True, help="Training steps, 16 texts each.")
@click.option("--seed", default=0, show_default=True, help="Seed of head and batches.")
def changes(
    model: str, data: Path, output: Path, source: str, label: str, text: str, layers: str, steps: int, seed: int
) -> None:
    """Fine-tune an encoder and save what it did to its weights, for run --weights."""
    from cdvft_bench.expressivity.finetune import Recipe, changes_of, save_changes

    if output.suffix != ".npz":
        raise UserError(f"output {output} does not end in .npz; give it that ending")
    recipe = Recipe(model, data, label, text, layers, steps, seed=seed)
    found, losses = changes_of(recipe)
    described = f"{source}; full fine-tuning, {steps} steps of {recipe.batch} texts, AdamW {recipe.learning_rate:g}"
    save_changes(output, found, described)
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    click.echo(f"{len(found)} layers in {output}; loss {first:.3f} to {last:.3f}")


@main.command()
@click.argument("profile", type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder of the page and its figures.")
def report(profile: Path, output: Path) -> None:
    """Write expressivity.md and its figures from a profile alone."""
    from cdvft_bench.expressivity.page import write_report
    from cdvft_bench.expressivity.profile import load

    for path in write_report(load(profile), output):
        click.echo(str(path))


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
