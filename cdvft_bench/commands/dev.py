"""What only maintainers need: tables of the documentation, READMEs of profiles, floors of kernels."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def dev() -> None:
    """For maintainers: tables of the documentation, READMEs of profiles, floors of kernels."""


@dev.command("profile-readme")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Else README.md beside the store.")
def profile_readme(store: Path, output: Path | None) -> None:
    """Write the README of a recorded profile: machine, counts, warnings, and where CDVFT costs less time."""
    from cdvft_bench.report.page.profile_readme import write_profile_readme

    click.echo(write_profile_readme(store, output=output))


@dev.command()
def methods() -> None:
    """Print docs/methods.md: every method, what is exact for it, what is not covered."""
    from cdvft_bench.report.page.methods import methods_markdown

    click.echo(methods_markdown(), nl=False)


@dev.command()
def floors() -> None:
    """Print the time that no execution of each Triton kernel can go below, beside the predicted time."""
    from cdvft_bench.execution.floors import floors_markdown

    click.echo(floors_markdown(), nl=False)
