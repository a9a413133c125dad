"""Load a saved adapter, checked against the model before the model is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from cdvft_bench.errors import UserError
from cdvft_bench.tuner.config import CdvftConfig
from cdvft_bench.tuner.layer import settings_of, widths
from cdvft_bench.tuner.registration import NAME

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."


def check_adapter(model: nn.Module, folder: str | Path) -> CdvftConfig:
    """Read a saved adapter's configuration, and see that its tensors fit ``model``.

    Args:
        model: the base model, not adapted.
        folder: what ``save_pretrained`` wrote.

    Returns:
        The configuration.

    Raises:
        UserError: files are missing or damaged, are of another method, or do not fit the model's layers.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{str(folder)!r} has no {name}; give a folder that save_pretrained wrote")
    try:
        document = json.loads((folder / CONFIG).read_text())
        kind = document.get("peft_type")
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise UserError(f"{CONFIG} in {str(folder)!r} is damaged: {error}") from error
    if kind != NAME.upper():
        raise UserError(f"{str(folder)!r} holds a {kind} adapter, not a {NAME.upper()} one; load it with PEFT alone")
    config = CdvftConfig.from_pretrained(str(folder))
    try:
        with safe_open(str(folder / WEIGHTS), framework="pt") as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{WEIGHTS} in {str(folder)!r} is damaged: {error}") from error
    modules = dict(model.named_modules())
    layers = sorted({key.rpartition(".cdvft_")[0] for key in found if ".cdvft_" in key})
    if not layers:
        raise UserError(f"{WEIGHTS} in {str(folder)!r} holds no CDVFT tensor")
    for layer in layers:
        name = layer.removeprefix(_PREFIX)
        if name not in modules:
            raise UserError(f"the adapter has a layer {name!r} that the model lacks; is it of another model?")
        expected = _shapes(config, name, modules[name])
        given = {
            key.removeprefix(f"{layer}."): shape for key, shape in found.items() if key.startswith(f"{layer}.cdvft_")
        }
        if given != expected:
            raise UserError(f"{name}: the adapter's tensors {_said(given)} do not fit the layer's, {_said(expected)}")
    return config


def _shapes(config: CdvftConfig, key: str, module: nn.Module) -> dict[str, tuple[int, ...]]:
    from cdvft_bench.tuner.model import _matching

    m = _matching(config.m_pattern, key, config.m) or config.m
    settings = settings_of(config, m, _matching(config.block_size_pattern, key, config.block_size), *widths(module))
    shapes = settings.shapes
    expected: dict[str, tuple[int, ...]] = {}
    if settings.diagonals:
        expected["cdvft_first"] = (shapes.d_in,)
        if shapes.m > 1:
            expected["cdvft_last"] = (shapes.m - 1, shapes.d_out)
    if shapes.m > 1:
        expected["cdvft_circulant"] = shapes.circulants[0]
    if shapes.m > 2:
        expected["cdvft_circulants"] = (shapes.m - 2, *shapes.circulants[1])
    return expected


def _said(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items())) or "none"


def load_adapter(model: nn.Module, folder: str | Path, **options: Any) -> nn.Module:
    """``PeftModel.from_pretrained`` behind :func:`check_adapter`: a bad file leaves the model as it was.

    Args:
        model: the base model. folder: what ``save_pretrained`` wrote. options: of ``PeftModel.from_pretrained``.

    Raises:
        UserError: as :func:`check_adapter`.
    """
    from peft import PeftModel

    check_adapter(model, folder)
    return PeftModel.from_pretrained(model, str(folder), **options)
