"""Predictions for devices that were not measured, and how far they miss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cdvft_bench.commands.shared import COUNT, column_option, columns_of, emit
from cdvft_bench.core.io.files import write_file


@click.command()
@click.option("--model", required=True, help="A model of the table, e.g. llama-3-8b, or a transformers config.json.")
@click.option("--gpu", required=True, help="A GPU of the table, e.g. h200, or a file of calibrated rates.")
@click.option("--batch", type=COUNT, default=8, show_default=True, help="Sequences a GPU.")
@click.option("--seq", "sequence", type=COUNT, default=2048, show_default=True, help="Tokens a sequence.")
@click.option("--dtype", default="bfloat16", show_default=True, help="dtype of weights and activations.")
@click.option("--gpus", type=COUNT, default=1, show_default=True, help="Number of GPUs, 1 to 4096.")
@click.option("--strategy", default="ddp", show_default=True, help="ddp (everything on each GPU) or fsdp (sharded).")
@click.option("--method", "methods", multiple=True, help="Consider this method alone; repeatable.")
@click.option("--target", "targets", multiple=True, help="Ending of the layers to adapt; repeatable.")
@click.option("--profile", "profiles", multiple=True, type=click.Path(path_type=Path), help="Records that calibrate.")
@click.option("--all", "everything", is_flag=True, help="Print every path of every choice.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def advise(profiles: tuple[Path, ...], everything: bool, as_json: bool, **question: Any) -> None:
    """Predict which adapter to train: ranked choices for a model on a GPU, with time, memory and the reasons."""
    from cdvft_bench.predictor import advise as rank_choices
    from cdvft_bench.predictor import read_profiles
    from cdvft_bench.report.terminal.advice import show_advice

    found = read_profiles(profiles)
    advice = rank_choices(**question, records=found.records, environments=found.environments)
    emit(advice, as_json, lambda: show_advice(advice, everything))


@click.command()
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--rates",
    type=click.Path(path_type=Path, dir_okay=False),
    help="From calibrate; else the rates.json beside a store, or built-in ones.",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Also write all of it as JSON.")
@column_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    stores: tuple[Path, ...], rates: Path | None, output: Path | None, columns: tuple[str, ...], as_json: bool
) -> None:
    """Predict the recorded times of STORES by fits that left them out: errors, their causes, published times.

    STORES may also be runs made elsewhere: a table (.csv, .tsv), or a folder of the results of PEFT's
    method_comparison. Their order and ratios are predicted by datasheet rates; without any, PEFT's own are.
    """
    import msgspec

    from cdvft_bench.predictor import compare_all, evaluate_stores
    from cdvft_bench.report.terminal.advice import show_evaluation

    published, recorded = compare_all(stores, columns_of(columns))
    evaluation = evaluate_stores(recorded, rates) if recorded else None
    both = {"evaluation": evaluation, "published": published}
    if output is not None:
        write_file(output, msgspec.json.format(msgspec.json.encode(both), indent=1).decode() + "\n")
    emit(both, as_json, lambda: show_evaluation(evaluation, published))
