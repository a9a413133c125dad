"""Load a saved adapter, checked against the model before the model is touched."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import is_file
from cdvft_bench.core.io.reading import read_json
from cdvft_bench.tuner.config import CdvftConfig
from cdvft_bench.tuner.layer import CdvftLayer, Settings
from cdvft_bench.tuner.offload import offload_hook
from cdvft_bench.tuner.registration import NAME

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
Shape = tuple[int, ...]


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
        if not is_file(folder / name):
            raise UserError(f"{str(folder)!r} has no {name}; give a folder that save_pretrained wrote")
    document = read_json(folder / CONFIG, "adapter", "give a folder that save_pretrained wrote")
    kind = document.get("peft_type") if isinstance(document, dict) else None
    if kind != NAME.upper():
        raise UserError(f"{str(folder)!r} holds a {kind} adapter, not a {NAME.upper()} one; load it with PEFT alone")
    config = CdvftConfig.from_pretrained(str(folder))
    try:
        with safe_open(str(folder / WEIGHTS), framework="pt") as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{WEIGHTS} in {str(folder)!r} is damaged: {error}") from error
    _check_layers(model, config, found)
    _check_others(model, found)
    return config


def _is_factor(key: str) -> bool:
    """Whether a saved tensor is a factor; a module to save may be called ``cdvft_head``."""
    return key.rpartition(".")[2] in CdvftLayer.adapter_layer_names


def _check_layers(model: nn.Module, config: CdvftConfig, found: dict[str, Shape]) -> None:
    """See that every adapted layer has its factors, all of them, in the right shapes."""
    from cdvft_bench.tuner.fitness import resolve_settings
    from cdvft_bench.tuner.model import CdvftModel

    given: dict[str, dict[str, Shape]] = {}
    for key, shape in found.items():
        if _is_factor(key):
            layer, _, factor = key.rpartition(".")
            given.setdefault(layer.removeprefix(_PREFIX), {})[factor] = shape
    if not given:
        raise UserError(f"{WEIGHTS} holds no CDVFT tensor")
    modules = dict(model.named_modules())
    for name, factors in sorted(given.items()):
        if name not in modules:
            raise UserError(f"the adapter has a layer {name!r} that the model lacks; is it of another model?")
        expected = _shapes(resolve_settings(config, name, modules[name]))
        if factors != expected:
            raise UserError(f"{name}: the adapter's tensors {_said(factors)} do not fit the layer's, {_said(expected)}")
    if config.target_modules is not None:
        targets = [k for k in modules if k and CdvftModel._check_target_module_exists(config, k)]
        missing = sorted(set(targets) - set(given))
        if missing:
            raise UserError(
                f"{WEIGHTS} lacks the factors of {', '.join(missing)}; it is not whole, or is of another model"
            )


def _check_others(model: nn.Module, found: dict[str, Shape]) -> None:
    """See that saved heads and biases fit the model's."""
    held = {name: tuple(value.shape) for name, value in model.state_dict().items() if hasattr(value, "shape")}
    for key, shape in found.items():
        name = key.removeprefix(_PREFIX).replace(".base_layer.", ".")
        if _is_factor(key) or held.get(name) == shape:
            continue
        if name not in held:
            raise UserError(f"the adapter has a tensor {name!r} that the model lacks; is it of another model?")
        raise UserError(f"{name}: the adapter's {list(shape)} does not fit the model's {list(held[name])}")


def _shapes(settings: Settings) -> dict[str, Shape]:
    shapes = settings.shapes
    expected: dict[str, Shape] = {}
    if settings.diagonals:
        expected["cdvft_first"] = (shapes.d_in,)
        if shapes.m > 1:
            expected["cdvft_last"] = (shapes.m - 1, shapes.d_out)
    if shapes.m > 1:
        expected["cdvft_circulant"] = shapes.circulants[0]
    if shapes.m > 2:
        expected["cdvft_circulants"] = (shapes.m - 2, *shapes.circulants[1])
    return expected


def _said(shapes: dict[str, Shape]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items())) or "none"


def load_adapter(model: nn.Module, folder: str | Path, *, path: str | None = None, **options: Any) -> nn.Module:
    """``PeftModel.from_pretrained`` behind :func:`check_adapter`: a bad file leaves the model as it was.

    A model that accelerate offloads stays offloaded as it is, while PEFT would dispatch it anew; the factors are then
    on the devices that compute.

    Args:
        model: the base model. folder: what ``save_pretrained`` wrote.
        path: how to execute the layers, where it is not to be the path that was saved.
        options: of ``PeftModel.from_pretrained``.

    Raises:
        UserError: as :func:`check_adapter`.
    """
    from peft import PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict

    config = check_adapter(model, folder)
    if path is not None:
        config = options["config"] = replace(config, path=path)
    if not any(offload_hook(module) for module in model.modules()):
        return PeftModel.from_pretrained(model, str(folder), **options)
    name, trainable = options.pop("adapter_name", "default"), options.pop("is_trainable", False)
    config.inference_mode = not trainable
    given = {key: options[key] for key in ("autocast_adapter_dtype", "low_cpu_mem_usage") if key in options}
    adapted = get_peft_model(model, config, adapter_name=name, **given)
    low = given.get("low_cpu_mem_usage", False)
    set_peft_model_state_dict(adapted, load_peft_weights(str(folder), "cpu"), name, low_cpu_mem_usage=low)
    return adapted if trainable else adapted.eval()
