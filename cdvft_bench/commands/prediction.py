"""Predictions for devices that were not measured, and how far they miss."""

from pathlib import Path
from typing import Any

import click

from cdvft_bench.commands.networks import network_options, training_of, training_options
from cdvft_bench.commands.shared import COUNT, DTYPE, FILE, PATH, column_option, columns_of, devices_option, emit


@click.command()
@click.option(
    "--model",
    required=True,
    help="Of the table, e.g. llama-3-8b; or a folder, config.json, hub id (owner/name), or package.module:factory.",
)
@click.option("--gpu", required=True, help="A GPU of the table, e.g. h200, or a file of calibrated rates.")
@click.option(
    "--methods",
    "--method",
    "methods",
    multiple=True,
    metavar="METHODS",
    help="With commas between, as lora:8,lora:16,dora,cdvft:m=3,p=64; all by their defaults if not given; repeatable.",
)
@click.option("--batch", type=COUNT, default=8, show_default=True, help="Sequences a GPU.")
@click.option("--seq", "sequence", type=COUNT, help="Tokens a sequence; 2048, or the model's longest, if not given.")
@click.option("--dtype", type=DTYPE, help="dtype of weights and activations; bfloat16 if not given and the GPU has it.")
@click.option("--gpus", type=COUNT, default=1, show_default=True, help="Number of GPUs, 1 to 4096.")
@click.option("--strategy", default="ddp", show_default=True, help="ddp (everything on each GPU) or fsdp (sharded).")
@network_options
@training_options
@click.option("--profile", "profiles", multiple=True, type=PATH, help="Records that calibrate.")
@devices_option
@click.option("--all", "everything", is_flag=True, help="All usual settings, and every path that no other beats.")
@click.option("--details", is_flag=True, help="Also why, and memory, scaling and serving of the first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def answer(profiles: tuple[Path, ...], targets: tuple[str, ...], details: bool, as_json: bool, **question: Any) -> None:
    """Say which adapter to train on a model and GPU: one table of time, memory and size, and one sentence.

    Figures are predicted; a record of --profile of the same model, workload and device is shown in its place. A model
    that is not in the table, or whose layers, head or training are given, is counted; the adapter alone is by formula.
    """
    training = training_of(question)
    from cdvft_bench.predictor.answering.answer import answer as ask
    from cdvft_bench.predictor.evaluation import read_profiles
    from cdvft_bench.report.terminal.predictions import show_answer
    from cdvft_bench.sweep.networks import split_targets

    found = read_profiles(profiles)
    told = ask(
        **question,
        targets=split_targets(targets),
        training=training,
        records=found.records,
        environments=found.environments,
    )
    emit(told, as_json, lambda: show_answer(told, details))


@click.command()
@click.argument("stores", nargs=-1, required=True, type=PATH)
@click.option("--rates", type=FILE, help="From calibrate; else the rates.json beside a store, or built-in ones.")
@click.option("--output", type=FILE, help="Also write all of it as JSON.")
@column_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    stores: tuple[Path, ...], rates: Path | None, output: Path | None, columns: tuple[str, ...], as_json: bool
) -> None:
    """Predict the recorded times of STORES by fits that left them out: errors, their causes, published times.

    STORES may also be runs made elsewhere: a table (.csv, .tsv), or a folder of the results of PEFT's
    method_comparison. Their order and ratios are predicted by datasheet rates; without any, PEFT's own are.
    """
    from cdvft_bench.documents import write_document
    from cdvft_bench.predictor.evaluation import evaluate_stores
    from cdvft_bench.predictor.published_times import compare_all
    from cdvft_bench.report.terminal.predictions import show_evaluation

    published, recorded = compare_all(stores, columns_of(columns))
    evaluation = evaluate_stores(recorded, rates) if recorded else None
    both = {"evaluation": evaluation, "published": published}
    if output is not None:
        write_document(both, output, digits=6)  # what fits end in is alike on every machine to some nine
    emit(both, as_json, lambda: show_evaluation(evaluation, published))
