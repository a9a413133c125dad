"""The one reader of runs that were made elsewhere: a table, or the results of PEFT's own comparisons.

A table is a text with a row a run and a head: columns parted by commas, semicolons or tabs, as spreadsheets write them.
Its columns have the names of ``run.COLUMNS``, or those that PEFT gives them; other names come with a column map. A
folder of PEFT's ``method_comparison/*/results`` is read file by file, see ``peft_results``.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from cdvft_bench.accuracy.published.peft_results import is_result, peft_run, result_files
from cdvft_bench.accuracy.published.run import COLUMNS, METRICS, NUMBERS, PublishedRun, make_run
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import is_file, is_folder, shown
from cdvft_bench.core.io.reading import packaged, parse_rows, read_json, read_text
from cdvft_bench.core.text import clean, shorten

TABLES = (".csv", ".tsv")
HYPERPARAMETER = "hyperparameters."
"""Begins the name of a column that holds one hyperparameter, as ``hyperparameters.r``."""

_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?", re.ASCII)
_ADVICE = "give a table with a row a run"
_PEFT_NAMES = {
    "experiment_name": "experiment",
    "peft_type": "method",
    "peft_config": "hyperparameters",
    "num_trainable_params": "trainable_params",
    "num_total_params": "total_params",
    "train_time": "train_time_s",
    "accelerator_memory_max": "peak_memory_bytes",
    "cuda_memory_max": "peak_memory_bytes",
    "file_size": "adapter_file_bytes",
    "torch_version": "torch",
    "created_at": "date",
    "model_id": "model",
    "batch_size": "batch",
    "max_seq_length": "longest",
    "accuracy": "test_accuracy",
}
"""What PEFT's tables call a column, and what ``tables/`` of a report do."""


@dataclass(frozen=True)
class Published:
    """A comparison that was read.

    Attributes:
        name: of its file or folder. source: as a page names it. metric: what its scores are.
        runs: in the order of the file, or of the names of the files.
        left_out: what was not read, with the reason.
    """

    name: str
    source: str
    metric: str
    runs: tuple[PublishedRun, ...]
    left_out: tuple[str, ...] = ()


def is_published(path: str | Path) -> bool:
    """Whether a path is a table of runs, a result of PEFT's comparisons, or a folder of those."""
    if is_folder(path):
        return any(is_result(file) for file in result_files(Path(path)))
    return is_file(path) and (Path(path).name.endswith(TABLES) or (Path(path).suffix == ".json" and is_result(path)))


def read_published(path: str | Path, columns: Mapping[str, str] | None = None) -> Published:
    """Read a comparison.

    Args:
        path: a table, a result of PEFT's, or a folder of those.
        columns: of a table, by the names of ``COLUMNS``, or ``hyperparameters.NAME``.

    Raises:
        UserError: it cannot be read, a column is missing, or a value is not of its kind; the message has file, line
            and column.
    """
    if Path(path).name.endswith(TABLES) and not is_folder(path):
        return parse_table(read_text(path, "runs", _ADVICE), path, columns or {})
    if columns:
        raise UserError(f"{shown(path)} is no table: a column map goes with .csv and .tsv alone")
    return _read_results(Path(path))


def parse_table(text: str, path: str | Path, columns: Mapping[str, str] = {}, source: str = "") -> Published:
    """The same of a table's text; ``path`` is for messages, ``source`` for a page."""
    for name in columns:
        if name not in COLUMNS and not name.startswith(HYPERPARAMETER):
            raise UserError(clean(f"{name!r} is no column of runs; use {HYPERPARAMETER}NAME or one of {_names()}"))
    head = text[: text.find("\n")]
    delimiter = max(",;\t", key=head.count)
    table = parse_rows(text, path, "runs", _ADVICE, delimiter)
    at = _columns(table.columns, columns, shown(path))
    metrics = [name for name in METRICS if name in at]
    if not metrics or ("method" not in at and "hyperparameters" not in at):
        lacking = "'method'" if metrics else f"of scores, {' or '.join(METRICS)}"
        has = shorten(", ".join(table.columns), 400)
        way = "name yours by a column map, as --column test_accuracy=accuracy"
        raise UserError(clean(f"{shown(path)} lacks the column {lacking}; it has {has}: {way}"))
    if len(metrics) > 1:
        raise UserError(f"{shown(path)} has several columns of scores: {', '.join(metrics)}; keep one")
    runs = []
    for number, row in table.rows:
        if not any(cell.strip() for cell in row.values()):
            continue  # what a spreadsheet writes below its table
        values: dict[str, Any] = {name: row[column] for name, column in at.items() if "." not in name}
        if delimiter == ";":  # where a comma is the decimal sign, spreadsheets part columns by semicolons
            for name in (*NUMBERS, *METRICS):
                if _COMMA.fullmatch(values.get(name, "").strip()):
                    values[name] = values[name].replace(",", ".")
        runs.append(_with_own(values, at, row, metrics[0], f"{shown(path)}, line {number}", f"run-{number}"))
    return _comparison(Path(path).name, source, runs, shown(path))


def _with_own(
    values: Mapping[str, Any], at: Mapping[str, str], row: Mapping[str, str], metric: str, where: str, name: str
) -> PublishedRun:
    """A row's run, with the hyperparameters that have columns of their own."""
    from dataclasses import replace

    from cdvft_bench.core.case import parse_value

    run = make_run(values, metric, where, name)
    own = {
        n.removeprefix(HYPERPARAMETER): parse_value(row[column].strip())
        for n, column in at.items()
        if n.startswith(HYPERPARAMETER) and row[column].strip()
    }
    return replace(run, hyperparameters={**run.hyperparameters, **own}) if own else run


def _columns(head: Iterable[str], given: Mapping[str, str], file: str) -> dict[str, str]:
    """The column of a table for each name that is known."""
    heads = list(head)
    plain = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in heads}
    found = {_PEFT_NAMES.get(name, name): column for name, column in plain.items() if name in {*COLUMNS, *_PEFT_NAMES}}
    found |= {name: plain[name] for name in plain if name.startswith(HYPERPARAMETER)}
    for name, column in given.items():
        if column not in heads:
            has = shorten(", ".join(heads), 400)
            raise UserError(clean(f"{file} has no column {column!r} for {name}; it has {has}"))
        if name in METRICS:  # the score that is named is the one
            found = {n: c for n, c in found.items() if n not in METRICS}
        found[name] = column
    return found


def _names() -> str:
    return ", ".join(COLUMNS)


def _read_results(path: Path) -> Published:
    """PEFT's results: one file, or a folder of them."""
    files = result_files(path) if is_folder(path) else [path]
    runs, left_out = [], []
    for file in files:
        if len(files) > 1 and not is_result(file):
            left_out.append(f"{file.name} (no result of PEFT's comparisons)")
            continue
        found = peft_run(read_json(file, "runs", "give a result of PEFT's method_comparison"), shown(file))
        if isinstance(found, str):
            left_out.append(f"{file.name} ({found})")
        else:
            runs.append(found)
    if not files:
        raise UserError(f"{shown(path)} holds no result of PEFT's comparisons (.json); give its folder of results")
    newest: dict[tuple[str, str], PublishedRun] = {}
    for run in sorted(runs, key=lambda run: run.date):
        newest[run.experiment, run.metric] = run
    left_out += [f"{run.experiment} of {run.date} (there is a newer one)" for run in runs if run not in newest.values()]
    kept = [run for run in runs if run in newest.values()]
    return _comparison(path.name, "", kept, shown(path), left_out)


def _comparison(
    name: str, source: str, runs: list[PublishedRun], where: str, left_out: Iterable[str] = ()
) -> Published:
    skipped = tuple(map(clean, left_out))
    if not runs:
        raise UserError(f"{where} holds no run" + (f"; left out: {', '.join(skipped)}" if skipped else ""))
    metrics = Counter(run.metric for run in runs)
    if len(metrics) > 1:
        raise UserError(f"{where} holds runs of several comparisons, with {' and '.join(metrics)}; give one at a time")
    models = sorted({run.model for run in runs if run.model})
    devices = sorted({run.device for run in runs if run.device})
    said = source or clean(", ".join((name, *models[:2], *devices[:2])))
    return Published(name, said, next(iter(metrics)), tuple(runs), skipped)


# --- the comparisons that come with the suite ------------------------------------------------
# Training on MetaMathQA, tested on GSM8K (63 runs), and an image generator adapted to one subject (31 runs), each on
# one L40S. What every run of a comparison shares stands in its ``default_training_params.json`` and is added here.


@dataclass(frozen=True)
class Campaign:
    """A comparison that comes with the suite.

    Attributes:
        file: of its runs. source: who made it, and how. shared: by all runs.
    """

    file: str
    source: str
    shared: tuple[tuple[str, Any], ...]


MATHS = Campaign(
    "peft_metamathqa_llama-3.2-3b.csv",
    "Hugging Face PEFT, method_comparison/MetaMathQA: "
    "Llama-3.2-3B trained on MetaMathQA, tested on GSM8K, one NVIDIA L40S",
    # 4,197,579 training tokens in 20,000 samples, as one of its result files says.
    (
        ("model", "meta-llama/Llama-3.2-3B"),
        ("dtype", "bfloat16"),
        ("batch", 4),
        ("tokens", 4_197_579 / 20_000),
        ("longest", 768),
        ("clipping", True),
    ),
)
IMAGES = Campaign(
    "peft_imagegen_flux2-klein-4b.csv",
    "Hugging Face PEFT, method_comparison/image-gen: FLUX.2 klein base 4B, 512 pixels, batch 2, 750 steps (one run "
    "300), one NVIDIA L40S",
    (
        ("model", "black-forest-labs/FLUX.2-klein-base-4B"),
        ("dtype", "bfloat16"),
        ("batch", 2),
        ("resolution", 512),
        ("checkpointing", True),
        ("clipping", True),
    ),
)


@cache
def campaign(one: Campaign = MATHS) -> Published:
    """The runs of a comparison, in the file's order."""
    text = packaged("cdvft_bench.accuracy", "data", one.file)
    found = parse_table(text, one.file, source=one.source)
    return replace(found, runs=tuple(replace(run, **dict(one.shared)) for run in found.runs))
