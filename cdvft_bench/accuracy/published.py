"""Figures that others published: Hugging Face PEFT's own comparison of its methods.

Llama-3.2-3B trained on MetaMathQA and tested on GSM8K, one L40S, 63 runs: accuracy, trainable
parameters, training time and peak memory, as PEFT's repository records them.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from cdvft_bench.errors import UserError

SOURCE = (
    "Hugging Face PEFT, method_comparison/MetaMathQA: "
    "Llama-3.2-3B trained on MetaMathQA, tested on GSM8K, one NVIDIA L40S"
)
MODEL = "llama-3.2-3b"
"""Name of the compared model in ``analytic.models``."""

_FILE = "peft_metamathqa_llama-3.2-3b.csv"


@dataclass(frozen=True)
class PublishedRun:
    """One run.

    Attributes:
        experiment: folder name in PEFT's comparison. method: PEFT type.
        hyperparameters: of its config. target_modules: module endings, or a pattern.
        trainable_params: count. test_accuracy: exact match, 0 to 1. train_time_s: seconds.
        peak_memory_bytes, adapter_file_bytes: bytes. lr: learning rate. steps: optimiser steps.
        device, torch, date: where and when.
    """

    experiment: str
    method: str
    hyperparameters: dict[str, Any]
    target_modules: tuple[str, ...] | str
    trainable_params: int
    test_accuracy: float
    train_time_s: float
    peak_memory_bytes: int
    adapter_file_bytes: int
    lr: float
    steps: int
    device: str
    torch: str
    date: str


def _targets(text: str) -> tuple[str, ...] | str:
    value = json.loads(text) if text else ()
    return value if isinstance(value, str) else tuple(sorted(value or ()))


_PARSE: dict[str, Any] = {
    "hyperparameters": json.loads,
    "target_modules": _targets,
    **dict.fromkeys(("trainable_params", "peak_memory_bytes", "adapter_file_bytes", "steps"), int),
    **dict.fromkeys(("test_accuracy", "train_time_s", "lr"), float),
}


def published_runs(path: str | Path | None = None) -> list[PublishedRun]:
    """Read the published runs, in the file's order.

    Args:
        path: a CSV file of the same columns; None reads the one that comes with the suite.

    Raises:
        UserError: a column is missing or a cell is not of its kind; the message has line and column.
    """
    if path is None:
        text = (resources.files("cdvft_bench.accuracy") / "data" / _FILE).read_text()
    else:
        try:
            text = Path(path).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
    name = path or _FILE
    rows = csv.DictReader(text.splitlines())
    names = [f.name for f in fields(PublishedRun)]
    missing = [n for n in names if n not in (rows.fieldnames or [])]
    if missing:
        raise UserError(f"{name} lacks the column {missing[0]!r}; it needs {', '.join(names)}")
    runs = []
    for row in rows:
        values = {}
        for column in names:
            try:
                values[column] = _PARSE.get(column, str)(row[column])
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"{name}, line {rows.line_num}, column {column}: {row[column]!r} is not valid"
                ) from error
        if not 0 <= values["test_accuracy"] <= 1:
            raise UserError(
                f"{name}, line {rows.line_num}: test_accuracy = {values['test_accuracy']} is not between 0 and 1"
            )
        runs.append(PublishedRun(**values))
    return runs
