"""Figures that others published: Hugging Face PEFT's own comparison of its methods, joined to this suite's formulas.

Llama-3.2-3B trained on MetaMathQA and tested on GSM8K, one L40S, 63 runs: accuracy, trainable
parameters, training time and peak memory, as PEFT's repository records them. Its second comparison, of image
generation, is in ``imagegen``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import shown
from cdvft_bench.core.io.reading import packaged, parse_json, parse_rows, read_rows
from cdvft_bench.core.ties import steady

if TYPE_CHECKING:
    from cdvft_bench.analytic.linear import LinearShape
    from cdvft_bench.analytic.models import ModelLinear
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
class Run:
    """One run of a published comparison.

    Attributes:
        experiment: folder name in PEFT's comparison. method: PEFT type.
        hyperparameters: of its config. target_modules: module endings, or a pattern.
        trainable_params: count. train_time_s: seconds.
        peak_memory_bytes, adapter_file_bytes: bytes. lr: learning rate. steps: optimiser steps.
        device, torch, date: where and when.
    """

    experiment: str
    method: str
    hyperparameters: dict[str, Any]
    target_modules: tuple[str, ...] | str
    trainable_params: int
    train_time_s: float
    peak_memory_bytes: int
    adapter_file_bytes: int
    lr: float
    steps: int
    device: str
    torch: str
    date: str


@dataclass(frozen=True)
class PublishedRun(Run):
    """A run of the comparison on MetaMathQA. ``test_accuracy``: exact match on GSM8K, 0 to 1."""

    test_accuracy: float


def _targets(text: str) -> tuple[str, ...] | str:
    value = parse_json(text) if text else ()
    return value if isinstance(value, str) else tuple(sorted(value or ()))


_PARSE: dict[str, Any] = {
    "hyperparameters": parse_json,
    "target_modules": _targets,
    **dict.fromkeys(("trainable_params", "peak_memory_bytes", "adapter_file_bytes", "steps"), int),
    **dict.fromkeys(("test_accuracy", "test_dino_similarity", "train_time_s", "lr"), float),
    "drift": lambda text: float(text) if text else None,
}
R = TypeVar("R", bound=Run)


def published_runs(path: str | Path | None = None) -> list[PublishedRun]:
    """Read the runs on MetaMathQA, in the file's order.

    Args:
        path: a CSV file of the same columns; None reads the one that comes with the suite.

    Raises:
        UserError: a column is missing or a cell is not of its kind; the message has line and column.
    """
    return read_runs(PublishedRun, _FILE, path, {"test_accuracy": (0.0, 1.0)})


def read_runs(kind: type[R], file: str, path: str | Path | None, limits: Mapping[str, tuple[float, float]]) -> list[R]:
    """Read runs of a kind from a CSV file, or from the suite's own ``file``; ``limits`` of columns, both included.

    Raises:
        UserError: a column is missing or a cell is not of its kind; the message has line and column.
    """
    advice = "give a table with a row a run"
    if path is None:
        rows = parse_rows(packaged("cdvft_bench.accuracy", "data", file), file, "runs", advice)
    else:
        rows = read_rows(path, "runs", advice)
    name = shown(path or file)
    names = [f.name for f in fields(kind)]
    missing = [n for n in names if n not in rows.columns]
    if missing:
        raise UserError(f"{name} lacks the column {missing[0]!r}; it needs {', '.join(names)}")
    runs = []
    for number, row in rows.rows:
        values = {}
        for column in names:
            try:
                values[column] = _PARSE.get(column, str)(row[column])
            except (ValueError, TypeError) as error:
                raise UserError(f"{name}, line {number}, column {column}: {row[column]!r} is not valid") from error
        for column, (low, high) in limits.items():
            if not low <= values[column] <= high:
                raise UserError(
                    f"{name}, line {number}: {column} = {values[column]} is not between {low:g} and {high:g}"
                )
        runs.append(kind(**values))
    return runs


# --- joined to the formulas ----------------------------------------------------------------

_NAMES = {
    "lora": {"r": "rank"},
    "dora": {"r": "rank"},
    "rslora": {"r": "rank"},
    "lora_fa": {"r": "rank"},
    "c3a": {"block_size": "block_size"},
    "fourierft": {"n_frequency": "n_frequency"},
    "vera": {"r": "rank"},
    "boft": {"boft_block_size": "block_size"},
    "oft": {},
    "loha": {"r": "rank"},
    "delora": {"r": "rank"},
    "gralora": {"r": "rank"},
    "lokr": {"r": "rank", "decompose_factor": "decompose_factor"},
    "miss": {"r": "rank"},
    "randlora": {"r": "rank"},
    "road": {},
    "waveft": {"n_frequency": "n_frequency"},
    "hra": {"r": "rank"},
    "ia3": {},
}
"""By method of the suite: its hyperparameters by PEFT's names, as far as they decide its cost."""
_VARIANTS = {"bat", "mica", "bdlora", "mini"}
"""In a run's name: it is a variant of its method that the suite's formula does not cover."""


@dataclass(frozen=True)
class Formula:
    """What this suite's closed forms say of a published run.

    Attributes:
        label: of the method here; empty where there is none.
        parameters: trained, by closed form; None where there is no form.
        flops: of a training step that the adapter adds beside the frozen model, a token, convention "flop"; None
            where there is no form, or none that a token has a share in.
        reason: why there is no form, or what it takes for granted; else empty.
    """

    label: str
    parameters: int | None
    flops: float | None
    reason: str = ""


def formula_of(run: Run, linears: Sequence[ModelLinear]) -> Formula:
    """The closed forms of a run on the layers that its targets select.

    Args:
        run: as published. linears: all linear layers of its model.
    """
    values, name = run.hyperparameters, run.method.lower()
    if name == "lora":
        variants = (("use_dora", "dora"), ("use_rslora", "rslora"))
        name = next((variant for key, variant in variants if values.get(key)), name)
        name = "lora_fa" if "lorafa" in run.experiment else name
    variant = _VARIANTS.intersection(run.experiment.split("-"))
    if variant:
        return Formula("", None, None, f"variant {variant.pop()} of {run.method} is not in the suite")
    if name not in _NAMES:
        return Formula("", None, None, f"method {run.method} is not in the suite")
    targets = () if isinstance(run.target_modules, str) else run.target_modules
    adapted = [x for x in linears if any(x.name == t or x.name.endswith(f".{t}") for t in targets)]
    if not adapted:
        return Formula("", None, None, "the run names no linear layer by its ending")
    reason = ""
    if name == "boft" and values.get("boft_n_butterfly_factor", 1) != 1:
        # https://github.com/huggingface/peft: without its CUDA extension, BOFT sets the factor to 1.
        reason = "as PEFT runs it without its CUDA extension: with one butterfly factor"
    methods = [_method(name, values, linear) for linear in adapted]
    shapes = [linear.shape for linear in adapted]
    parameters = sum(int(m.parameters(shape)) for m, shape in zip(methods, shapes, strict=True))
    flops = sum(_flops_a_token(m, [shape]) for m, shape in zip(methods, shapes, strict=True))
    return Formula(methods[0].label, parameters, flops, reason)


def _method(name: str, values: Mapping[str, Any], linear: ModelLinear) -> Method:
    """The suite's method on one layer."""
    from cdvft_bench.methods import make_method

    given = {ours: values[theirs] for theirs, ours in _NAMES[name].items() if theirs in values}
    if name == "oft":  # r is the number of blocks
        blocks = values.get("r", 0)
        given = {"block_size": int(linear.shape.d_in) // blocks if blocks else values["oft_block_size"]}
    if name == "ia3":
        inputs = values.get("feedforward_modules") or ()
        given = {"feedforward": any(linear.name == m or linear.name.endswith(f".{m}") for m in inputs)}
    return make_method(name, given)


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
    from cdvft_bench.analytic.models import model_shape

    found = formula_of(run, model_shape(MODEL).linears)
    if found.flops is None or found.parameters != run.trainable_params:
        return None
    return Joined(run, found.label, found.flops)


def cdvft_cost(values: dict[str, Any]) -> tuple[str, int, float]:
    """Label, trained parameters and FLOPs a token of a CDVFT setting on the compared model's query and value layers."""
    from cdvft_bench.analytic.models import model_shape, target_linears
    from cdvft_bench.methods import make_method

    method = make_method("cdvft", values)
    layers = [linear.shape for linear in target_linears(model_shape(MODEL))]
    return method.label, sum(int(method.parameters(layer)) for layer in layers), _flops_a_token(method, layers)


def _flops_a_token(method: Method, layers: list[LinearShape]) -> float:
    """Over many tokens, so that what a step does once for all of them is spread as it is in training."""
    costs = [method.cost(x, TOKENS, device="cuda") for x in layers]
    return steady(sum(float(cost.flops("step", "flop", scope="adapter")) for cost in costs) / TOKENS)
