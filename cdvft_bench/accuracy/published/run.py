"""One run of a comparison that was made elsewhere, and the check of everything that is said of it."""

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.reading import parse_json
from cdvft_bench.core.text import clean

METRICS: Mapping[str, tuple[float, float]] = {
    "test_accuracy": (0.0, 1.0),
    "test_dino_similarity": (-1.0, 1.0),
    "score": (-math.inf, math.inf),
}
"""Names of the score of a run, higher is better, and its limits, both included."""

_WHOLE = (
    *("trainable_params", "total_params", "peak_memory_bytes", "adapter_file_bytes"),
    *("steps", "batch", "longest", "resolution"),
)
_REAL = ("train_time_s", "loop_time_s", "lr", "tokens", "drift")
NUMBERS = (*_WHOLE, *_REAL)
"""Columns of numbers, none below 0; an empty cell is not known."""
_TEXTS = ("experiment", "device", "torch", "date", "model", "dtype", "optimizer")
_TRUTHS = ("checkpointing", "clipping")
_OTHERS = ("method", "hyperparameters", "target_modules", *_TRUTHS)
COLUMNS = (*_OTHERS, *METRICS, *NUMBERS, *_TEXTS)
"""What may be said of a run."""

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}
_LONGEST = 100_000
"""Characters of a cell that holds hyperparameters."""
_BOOKKEEPING = {
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "target_modules", "exclude_modules", "modules_to_save", "layers_to_transform"),
    *("layers_pattern", "runtime_config"),
}
"""Keys of PEFT's configs that say where a method is applied, and by which version, not what it is."""


@dataclass(frozen=True)
class PublishedRun:
    """One run of a comparison; None and "" are not known.

    Attributes:
        experiment: its name. method: PEFT's type of it, or this suite's name.
        score: higher is better. metric: what the score is, of ``METRICS``.
        hyperparameters: by PEFT's names or this suite's. target_modules: endings of module names, or one pattern.
        trainable_params, total_params: numbers of parameters. train_time_s: seconds.
        loop_time_s: of these the training steps alone, without evaluations.
        peak_memory_bytes, adapter_file_bytes: bytes. lr: learning rate. steps: optimiser steps.
        drift: of pictures that should stay as they are. device, torch, date: where and when.
        model: its hub id or its name in the model table. batch: sequences a step. tokens: of a sequence, on average.
        longest: tokens of the longest one. resolution: of pictures, pixels. dtype: of the base.
        checkpointing: whether activations are computed again in the backward pass. optimizer: its name.
        clipping: whether the norm of all gradients is clipped.
    """

    experiment: str
    method: str
    score: float
    metric: str = "test_accuracy"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    target_modules: tuple[str, ...] | str = ()
    trainable_params: int | None = None
    total_params: int | None = None
    train_time_s: float | None = None
    loop_time_s: float | None = None
    peak_memory_bytes: int | None = None
    adapter_file_bytes: int | None = None
    lr: float | None = None
    steps: int | None = None
    drift: float | None = None
    device: str = ""
    torch: str = ""
    date: str = ""
    model: str = ""
    batch: int | None = None
    tokens: float | None = None
    longest: int | None = None
    resolution: int | None = None
    dtype: str = ""
    checkpointing: bool = False
    clipping: bool = False
    optimizer: str = ""


def make_run(values: Mapping[str, Any], metric: str, where: str, name: str = "") -> PublishedRun:
    """A run of what a table's row or a file of JSON says of it.

    Args:
        values: by ``COLUMNS``; texts, or values of JSON. metric: the column of the score.
        where: file and line, for messages. name: of a run that has none.

    Raises:
        UserError: a value is not of its kind, not finite, negative, or beyond its limits; or there is no method.
    """

    def refuse(column: str, reason: str) -> UserError:
        return UserError(clean(f"{where}, column {column}: {_short(values.get(column))} {reason}"))

    found: dict[str, Any] = {}
    for column in NUMBERS:
        if not _empty(values.get(column)):
            found[column] = _number(values[column], column in _WHOLE, lambda why, c=column: refuse(c, why))
            if found[column] < 0:
                raise refuse(column, "is negative")
    if _empty(values.get(metric)):
        raise refuse(metric, "is no score; leave the run out, or give its number")
    found["score"] = score = _number(values[metric], False, lambda why: refuse(metric, why))
    low, high = METRICS[metric]
    if not low <= score <= high:
        hint = "; divide percentages by 100" if high < score <= 100 else ""
        raise UserError(f"{where}: {metric} = {score:g} is not between {low:g} and {high:g}{hint}")
    for column in _TEXTS:
        if not _empty(values.get(column)):
            found[column] = str(values[column]).strip()
    given = values.get("hyperparameters")
    config = {} if _empty(given) else _mapping(given, lambda why: refuse("hyperparameters", why))
    for key, value in config.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(clean(f"{where}: the hyperparameter {key} = {value} is not finite"))
    method = str(config.get("peft_type") or "" if _empty(values.get("method")) else values["method"]).strip()
    if not method:
        raise refuse("method", "names no method; give PEFT's type of it, as LORA, or this suite's name")
    targets = values.get("target_modules")
    for column in _TRUTHS:
        try:
            found[column] = _TRUTH[str(values.get(column) or "").strip().lower()]
        except KeyError:
            raise refuse(column, "is no truth value; write true or false") from None
    return PublishedRun(
        experiment=found.pop("experiment", name),
        method="FULL" if re.fullmatch("full.?fine.?tuning", method.lower()) else method,
        metric=metric,
        hyperparameters={k: v for k, v in config.items() if k not in _BOOKKEEPING},
        target_modules=_targets(config.get("target_modules") if _empty(targets) else targets, refuse),
        **found,
    )


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(value: object, whole: bool, refuse: Any) -> float:
    """A number of JSON, or the text of one, finite; ``refuse`` makes the error."""
    if isinstance(value, str):
        text = value.strip()
        if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            raise refuse("is not finite")
        if len(text) > 400 or not _NUMBER.fullmatch(text):
            raise refuse("is not a number")
        number = float(text)
        exact = int(text) if whole and math.isfinite(number) and text.lstrip("+-").isdigit() else number
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse("is not a number")
    else:
        try:
            exact, number = value, float(value)
        except OverflowError:
            raise refuse("is not finite") from None
    if not math.isfinite(number):
        raise refuse("is not finite")
    if not whole:
        return number
    if isinstance(exact, float) and not exact.is_integer():
        raise refuse("is not an integer")
    return int(exact)


def _mapping(value: object, refuse: Any) -> dict[str, Any]:
    """Hyperparameters: an object of JSON, its text, or the text that Python prints of a dictionary."""
    if isinstance(value, str):
        value = _literal(value, refuse)
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise refuse('is no object of JSON, as {"r": 8}')
    return dict(value)


def _literal(text: str, refuse: Any) -> Any:
    if len(text) > _LONGEST:
        raise refuse(f"is longer than {_LONGEST:,} characters")
    try:
        return parse_json(text)
    except ValueError as error:
        reason = str(error)
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise refuse(f"is not valid: {reason}") from None


def _targets(value: object, refuse: Any) -> tuple[str, ...] | str:
    """Endings, sorted; or one pattern or name as it is."""
    if isinstance(value, str):
        text = value.strip()
        if text[:1] in ("[", '"', "{", "("):
            value = _literal(text, lambda why: refuse("target_modules", why))
        elif re.fullmatch(r"[\w.\-]+([\s,;]+[\w.\-]+)+", text):
            value = re.split(r"[\s,;]+", text)
        else:
            return text
    if value is None:
        return ()
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple | set) or not all(isinstance(one, str) and one for one in value):
        raise refuse("target_modules", "is no list of names and no pattern")
    return tuple(sorted(value))
