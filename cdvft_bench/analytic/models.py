"""Real models by their published configurations, and the shapes of their layers.

The shapes are data (``shapes.json``), made from the configurations by ``configs.py``: no model is built to ask for one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import is_file, is_folder
from cdvft_bench.core.io.reading import packaged, parse_toml
from cdvft_bench.core.names import not_known
from cdvft_bench.core.text import shorten, whole_number

Rows = Literal["tokens", "sequences"]


@dataclass(frozen=True)
class ModelSpec:
    """A model by its published configuration.

    Attributes:
        name: how this suite calls it.
        hub_id: where its weights are published.
        config: transformers config class and the values that differ from its defaults.
        auto: transformers auto class that builds it.
        targets: endings of the modules that adapters usually take: query and value projections.
    """

    name: str
    hub_id: str
    config: str
    values: Mapping[str, Any]
    auto: str = "AutoModel"
    targets: tuple[str, ...] = ("query", "value")


@dataclass(frozen=True)
class ModelLinear:
    """One linear layer of a model.

    Attributes:
        name: module name.
        shape: widths and bias.
        rows: what passes through it: every token, or one vector a sequence (a pooler).
        kind: "Linear", or "Conv1D" (GPT-2's transposed layer).
    """

    name: str
    shape: LinearShape
    rows: Rows = "tokens"
    kind: str = "Linear"


@dataclass(frozen=True)
class Attention:
    """Self-attention of a model: layers, query heads, key/value heads, width of a head; whether it runs fused.

    Attention whose scores get a learned bias by distance does not: its backward pass keeps the probabilities.
    """

    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    fused: bool = True


@dataclass(frozen=True)
class ModelShape:
    """What the closed forms need to know of a model.

    Attributes:
        name: table name, or where the config came from.
        linears: every linear layer, in module order.
        total_parameters: entries of all parameters, shared ones once.
        tensors: parameter tensors, shared ones once.
        attention: self-attention shape.
        patches: macs of a patch embedding an image, and tokens an image (vision models only).
        targets: default target endings.
    """

    name: str
    linears: tuple[ModelLinear, ...]
    total_parameters: int
    tensors: int
    attention: Attention
    targets: tuple[str, ...] = ()
    patch_macs: int = 0
    image_tokens: int | None = None
    hidden: int = 0
    vocabulary: int | None = None


MODELS: dict[str, ModelSpec] = {
    name: ModelSpec(name, **{**given, "targets": tuple(given.get("targets", ModelSpec.targets))})
    for name, given in parse_toml(packaged("cdvft_bench.analytic", "models.toml")).items()
}


def known_model(text: str) -> str:
    """The table's name of a model that is written otherwise: in upper case, with "_" or a space for "-", or by its hub
    id. Any other text, and the path of a file or folder that is there, is returned as it is.
    """
    plain = text.strip().lower().replace("_", "-").replace(" ", "-")
    found = next((name for name, spec in MODELS.items() if name == plain or spec.hub_id.lower() == text.lower()), text)
    return text if is_file(Path(text)) or is_folder(Path(text)) else found


def model_spec(name: str) -> ModelSpec:
    """Look a model up.

    Raises:
        UserError: it is not in the table.
    """
    if name not in MODELS:
        raise not_known("model", name, MODELS, "is not in the table")
    return MODELS[name]


@cache
def _shapes() -> Mapping[str, Any]:
    shapes: Mapping[str, Any] = json.loads(packaged("cdvft_bench.analytic", "shapes.json"))
    return shapes


@cache
def model_shape(name: str) -> ModelShape:
    """Shape of a model of the table.

    Raises:
        UserError: it is not in the table.
    """
    spec = model_spec(name)
    kept = {key: value for key, value in _shapes()[name].items() if key != "config"}
    blocks = [(str(i), row) for n, rows in kept.pop("linears") for i in range(n) for row in rows]
    linears = tuple(
        ModelLinear(path.replace("*", i), LinearShape(d_in, d_out, bias), rows, kind)
        for i, (path, d_in, d_out, bias, rows, kind) in blocks
    )
    attention = Attention(**kept.pop("attention"))
    return ModelShape(name=name, linears=linears, attention=attention, targets=spec.targets, **kept)


def model_config(name: str) -> Mapping[str, Any]:
    """Values of the config of a model of the table, those that predictions ask for.

    Raises:
        UserError: it is not in the table.
    """
    model_spec(name)
    config: Mapping[str, Any] = _shapes()[name]["config"]
    return config


def target_linears(shape: ModelShape, targets: Sequence[str] = ()) -> list[ModelLinear]:
    """The linear layers that ``targets`` select by PEFT's rule: the name is a target, or ends with "." and one.

    Args:
        shape: the model.
        targets: endings; none means the model's default ones.

    Raises:
        UserError: none is selected.
    """
    wanted = tuple(targets) or shape.targets
    chosen = [x for x in shape.linears if any(x.name == t or x.name.endswith("." + t) for t in wanted)]
    if not chosen:
        endings = sorted({x.name.rsplit(".", 1)[-1] for x in shape.linears})
        raise not_known(
            "targets", ", ".join(wanted), endings, f"match no linear layer of {shape.name}", "its layers end in"
        )
    return chosen


def layer_shape(subject: str) -> LinearShape:
    """A layer's shape from "768x768" (d_in x d_out), "768x768-nobias", "768x768-int8", or "roberta-base:query".

    "int8" is a weight of int8 with a scale a row, without a bias.

    Raises:
        UserError: the text is neither, or the model or the ending is not known.
    """
    if ":" in subject:
        name, _, ending = subject.partition(":")
        return target_linears(model_shape(known_model(name)), (ending,))[0].shape
    widths, _, suffix = subject.partition("-")
    d_in, d_out = (whole_number(text) for text in (*widths.split("x"), "")[:2])
    if d_in is None or d_out is None or widths.count("x") != 1 or suffix not in ("", "nobias", "int8"):
        raise UserError(
            f"layer {shorten(repr(subject))} is neither d_in x d_out (768x768, 768x768-nobias, 768x768-int8) nor "
            "model:ending (roberta-base:query)"
        )
    return LinearShape(d_in, d_out, suffix == "", suffix == "int8")


def rows_of(linear: ModelLinear, batch: int, sequence: int) -> int:
    """Rows that pass through a linear layer for ``batch`` sequences of ``sequence`` tokens."""
    return batch * sequence if linear.rows == "tokens" else batch


def attention_macs(shape: ModelShape, batch: int, sequence: int) -> int:
    """Multiply-adds of the attention products of a forward pass: scores and values, every head, no causal saving."""
    a = shape.attention
    return 2 * a.layers * batch * a.heads * sequence * sequence * a.head_dim


def frozen_model_macs(shape: ModelShape, batch: int, sequence: int) -> int:
    """Multiply-adds of a forward pass: linear layers, attention products, patch embedding.

    For a vision model ``sequence`` is its tokens an image, ``image_tokens``.
    """
    linear = sum(rows_of(x, batch, sequence) * x.shape.d_in * x.shape.d_out for x in shape.linears)
    return int(linear) + attention_macs(shape, batch, sequence) + batch * shape.patch_macs
