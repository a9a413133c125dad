"""Which subject an answer is about: a model of the table by its closed forms, or any network by its count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdvft_bench.analytic.models import MODELS, known_model
from cdvft_bench.analytic.training import Training
from cdvft_bench.core.io.files import is_file, is_folder
from cdvft_bench.core.names import not_known
from cdvft_bench.predictor.answering.subject import Subject, TableModel
from cdvft_bench.predictor.transformer import find_model

if TYPE_CHECKING:
    from cdvft_bench.predictor.answering.counted import AnyNetwork

LONGEST = 2048
"""Tokens a sequence where none were asked for and the model takes as many."""
PATTERN = frozenset("\\[](){}^$*+?|")
"""Characters by which a target is a regular expression."""


def open_subject(
    model: str,
    batch: int,
    sequence: int | None,
    dtype: str,
    kind: str,
    *,
    targets: Sequence[str] = (),
    task: str | None = None,
    inputs: str | None = None,
    training: Training | None = None,
) -> Subject:
    """The network of a question.

    Args:
        sequence: None for 2048, or the model's longest. kind: of the device. The others as ``answer`` takes them.

    Raises:
        UserError: there is no such network, or it does not take this workload.
    """
    named, model = tuple(targets), known_model(model)
    plain = not any(set(text) & PATTERN or text == "all-linear" for text in named)
    if model in MODELS and plain and not (task or inputs) and training in (None, Training()):
        found = find_model(model)
        longest = found.shape.image_tokens or min(LONGEST, found.positions or LONGEST)
        return TableModel(found, batch, longest if sequence is None else sequence, dtype, kind, named)
    if model not in MODELS and not (":" in model or "/" in model or is_file(Path(model)) or is_folder(Path(model))):
        state = (
            "is neither in the table nor a folder with a config.json, a config.json, a hub id (owner/name) or "
            "package.module:factory"
        )
        raise not_known("model", model, MODELS, state, "the table has")
    return open_network_subject(
        model, batch, sequence, dtype, kind, targets=named, task=task, inputs=inputs, training=training
    )


def open_network_subject(
    model: str,
    batch: int,
    sequence: int | None,
    dtype: str,
    kind: str,
    *,
    targets: tuple[str, ...] = (),
    task: str | None = None,
    inputs: str | None = None,
    training: Training | None = None,
) -> AnyNetwork:
    """Any network by its count, one of the table too."""
    from cdvft_bench.predictor.answering.counted import AnyNetwork
    from cdvft_bench.sweep.networks import open_model

    network, usual = open_model(model, dtype, task, inputs)
    if sequence is None:
        sequence = _longest(network.module)
    return AnyNetwork(network, usual, batch, sequence, dtype, kind, targets, training or Training())


def _longest(module: Any) -> int:
    """Tokens a sequence where none were asked for: of an image its own, else the most that the network takes."""
    config: Any = getattr(module, "config", None)
    if config is None:
        return LONGEST
    if getattr(module, "main_input_name", "input_ids") == "pixel_values" and isinstance(
        size := getattr(config, "image_size", None), int
    ):
        patch = getattr(config, "patch_size", None)
        return (size // patch) ** 2 + 1 if isinstance(patch, int) and patch else LONGEST
    text = config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_source_positions", "max_target_positions")
    known = [value for name in names if isinstance(value := getattr(text, name, None), int) and value > 0]
    padded = 2 if getattr(text, "model_type", "") in ("roberta", "mpnet", "xlm-roberta", "camembert") else 0
    return min([LONGEST, *(n - padded for n in known)])
