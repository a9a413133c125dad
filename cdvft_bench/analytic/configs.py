"""Shapes of models as transformers builds them from a config, on the meta device: no weights, no memory.

What the table's models are is kept as data beside it, ``shapes.json``, since building them takes seconds;
``cdvft-bench dev shapes`` makes the file anew, and a test compares it with what transformers builds.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.models import MODELS, Attention, ModelLinear, ModelShape, ModelSpec, Rows
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import shown
from cdvft_bench.core.io.reading import read_json
from cdvft_bench.core.text import shorten

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

CONFIG_KEYS = (
    *("model_type", "num_local_experts", "num_experts", "n_routed_experts", "state_size", "rms_norm_eps"),
    *("intermediate_size", "n_inner", "activation_function", "hidden_act", "max_position_embeddings", "n_positions"),
)
"""Values of a config that predictions ask for beside the shape."""


def make_config(spec: ModelSpec) -> PretrainedConfig:
    """The transformers config of a table entry."""
    import transformers

    config: PretrainedConfig = getattr(transformers, spec.config)(**spec.values)
    return config


def shape_from_config(
    config: PretrainedConfig | str | Path, name: str = "", auto: str = "AutoModel", targets: Sequence[str] = ()
) -> ModelShape:
    """Shape of any transformers model, from its config or from the path of a config.json.

    Raises:
        UserError: the file is no transformers config, or the architecture cannot be built from it.
    """
    import torch
    import transformers

    if isinstance(config, str | Path):
        name, config = name or str(config), read_config(Path(config))
    try:
        with torch.device("meta"):
            model = getattr(transformers, auto).from_config(config)
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"transformers cannot build {auto} from {name or type(config).__name__}: {error}") from error
    return _read_shape(model, config, name or config.model_type, tuple(targets))


def read_config(path: Path) -> PretrainedConfig:
    """The transformers config of a config.json.

    Raises:
        UserError: the file is none.
    """
    import transformers

    values = read_json(path, "config", "give a transformers config.json")
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise UserError(f"config {shown(path)} names no model_type; give a transformers config.json")
    try:
        return transformers.AutoConfig.for_model(**values)
    except Exception as error:  # each architecture's config checks its values in its own way
        raise UserError(f"config {shown(path)} is none of transformers: {shorten(error, 200)}") from error


def _read_shape(model: nn.Module, config: PretrainedConfig, name: str, targets: tuple[str, ...]) -> ModelShape:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    linears = []
    for module_name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            shape = LinearShape(module.in_features, module.out_features, module.bias is not None)
            kind = "Linear"
        elif isinstance(module, Conv1D):
            d_in, d_out = module.weight.shape
            shape, kind = LinearShape(int(d_in), int(d_out)), "Conv1D"
        else:
            continue
        rows: Rows = "sequences" if "pooler" in module_name.split(".") else "tokens"
        linears.append(ModelLinear(module_name, shape, rows, kind))
    parameters = list(model.parameters())
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    attention = Attention(
        config.num_hidden_layers,
        heads,
        getattr(config, "num_key_value_heads", None) or heads,
        head_dim,
        fused=not any(name.endswith("relative_attention_bias") for name, _ in model.named_modules()),
    )
    patch_macs, image_tokens = 0, None
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            patches = (config.image_size // config.patch_size) ** 2
            patch_macs, image_tokens = patches * module.weight.numel(), patches + 1
    return ModelShape(
        name,
        tuple(linears),
        sum(p.numel() for p in parameters),
        len(parameters),
        attention,
        targets,
        patch_macs,
        image_tokens,
        config.hidden_size,
        getattr(config, "vocab_size", None),
    )


def config_values(config: PretrainedConfig) -> dict[str, Any]:
    """Of a config what ``CONFIG_KEYS`` names and it holds."""
    values = config.to_dict()
    return {key: values[key] for key in CONFIG_KEYS if values.get(key) is not None}


def table_entry(name: str) -> dict[str, Any]:
    """What ``shapes.json`` keeps of a model of the table, as transformers builds it now."""
    spec = MODELS[name]
    config = make_config(spec)
    shape = shape_from_config(config, name, spec.auto, spec.targets)
    kept = {key: value for key, value in asdict(shape).items() if key not in ("name", "targets")}
    return {**kept, "linears": list(_folded(shape.linears)), "config": config_values(config)}


def _folded(linears: Sequence[ModelLinear]) -> Iterator[list[Any]]:
    """Layers in module order, each run of equal blocks once: [blocks, [[name, d_in, d_out, bias, rows, kind], ...]]."""
    numbered = [(re.search(r"(?<=\.)\d+(?=\.)", x.name), x) for x in linears]
    blocks = itertools.groupby(numbered, key=lambda pair: pair[0] and pair[0].group())
    listed = [[_row(x) for _, x in block] for _, block in blocks]
    for rows, run in itertools.groupby(listed):
        yield [len(list(run)), rows]


def _row(linear: ModelLinear) -> list[Any]:
    x = linear.shape
    name = re.sub(r"(?<=\.)\d+(?=\.)", "*", linear.name, count=1)
    return [name, int(x.d_in), int(x.d_out), x.bias, linear.rows, linear.kind]
