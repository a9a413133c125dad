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
from typing import TYPE_CHECKING, Any

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.ties import steady

if TYPE_CHECKING:
    from cdvft_bench.analytic.linear import LinearShape
    from cdvft_bench.methods import Method

SOURCE = (
    "Hugging Face PEFT, method_comparison/MetaMathQA: "
    "Llama-3.2-3B trained on MetaMathQA, tested on GSM8K, one NVIDIA L40S"
)
MODEL = "llama-3.2-3b"
"""Name of the compared model in ``analytic.models``."""
TOKENS = 2048
"""Tokens of a step that the formulas are asked for."""

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


# --- joined to the formulas ----------------------------------------------------------------

_NAMES = {"lora": {"r": "rank"}, "dora": {"r": "rank"}, "rslora": {"r": "rank"}, "lora_fa": {"r": "rank"},
          "c3a": {"block_size": "block_size"}, "fourierft": {"n_frequency": "n_frequency"}, "vera": {"r": "rank"},
          "boft": {"boft_block_size": "block_size", "boft_n_butterfly_factor": "n_butterfly_factor"},
          "oft": {"r": "block_size"}, "loha": {"r": "rank"}, "delora": {"r": "rank"}, "gralora": {"r": "rank"},
          "lokr": {"r": "rank", "decompose_factor": "decompose_factor"}, "miss": {"r": "rank"},
          "randlora": {"r": "rank"}, "road": {}, "waveft": {"n_frequency": "n_frequency"}}  # fmt: skip
"""By method of the suite: its hyperparameters by PEFT's names, as far as they decide its cost."""
_VARIANTS = {"bat", "mica", "bdlora", "mini"}
"""In a run's name: it is a variant of its method that the suite's formula does not cover."""


@dataclass(frozen=True)
class Joined:
    """A published run with a method of the suite whose formula gives its number of trained parameters.

    Attributes:
        run: as published. label: the method here. flops: of a training step that the adapter adds beside the frozen
            model, a token, convention "flop".
    """

    run: PublishedRun
    label: str
    flops: float


def joined(run: PublishedRun) -> Joined | None:
    """Join a run to its formula; None where the suite has no such method, or its formula gives another number."""
    from cdvft_bench.analytic.models import model_shape, target_linears
    from cdvft_bench.methods import make_method

    values = run.hyperparameters
    name = run.method.lower()
    if name == "lora":
        variants = (("use_dora", "dora"), ("use_rslora", "rslora"))
        name = next((variant for key, variant in variants if values.get(key)), name)
        name = "lora_fa" if "lorafa" in run.experiment else name
    if not _VARIANTS.isdisjoint(run.experiment.split("-")) or name not in _NAMES:
        return None
    if not run.target_modules or isinstance(run.target_modules, str):
        return None
    method = make_method(name, {ours: values[theirs] for theirs, ours in _NAMES[name].items() if theirs in values})
    layers = [linear.shape for linear in target_linears(model_shape(MODEL), run.target_modules)]
    if sum(int(method.parameters(layer)) for layer in layers) != run.trainable_params:
        return None
    return Joined(run, method.label, _flops_a_token(method, layers))


def cdvft_cost(values: dict[str, Any]) -> tuple[str, int, float]:
    """Label, trained parameters and FLOPs a token of a CDVFT setting on the compared model's query and value layers."""
    from cdvft_bench.analytic.models import model_shape, target_linears
    from cdvft_bench.methods import make_method

    method = make_method("cdvft", values)
    layers = [linear.shape for linear in target_linears(model_shape(MODEL))]
    return method.label, sum(int(method.parameters(layer)) for layer in layers), _flops_a_token(method, layers)


def _flops_a_token(method: Method, layers: list[LinearShape]) -> float:
    """Over many tokens, so that what a step does once for all of them is spread as it is in training."""
    return steady(sum(float(method.cost(x, TOKENS).flops("step", "flop", scope="adapter")) for x in layers) / TOKENS)
