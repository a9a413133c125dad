"""Any network without its weights: from a transformers configuration, or from a factory of the user's."""

import contextlib
import copy
import importlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import is_file, is_folder
from cdvft_bench.core.text import shorten
from cdvft_bench.counting.network.examples import example_inputs
from cdvft_bench.counting.network.meta import without_data

TASKS: Mapping[str, str] = {
    "features": "AutoModel",
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "multiple-choice": "AutoModelForMultipleChoice",
    "image-classification": "AutoModelForImageClassification",
    "semantic-segmentation": "AutoModelForSemanticSegmentation",
    "object-detection": "AutoModelForObjectDetection",
    "audio-classification": "AutoModelForAudioClassification",
    "ctc": "AutoModelForCTC",
    "speech-seq2seq": "AutoModelForSpeechSeq2Seq",
    "image-text-to-text": "AutoModelForImageTextToText",
}
"""What ``--task`` takes, and the transformers class that it builds."""

Inputs = Mapping[str, Any] | tuple[Any, ...]


@dataclass(frozen=True)
class Network:
    """A network as it is counted.

    Attributes:
        name: where it came from.
        module: with parameters that have no data, in training mode, its own dropout off.
        make_inputs: example inputs for a batch and a sequence, without data where they have none to tell.
        head: names of modules that end it (a vocabulary's or a class head), which all-linear leaves out.
    """

    name: str
    module: nn.Module
    make_inputs: Callable[[int, int], Inputs]
    head: frozenset[str] = frozenset()


def open_network(
    model: str,
    *,
    task: str | None = None,
    dtype: str = "float32",
    config: Any = None,
    auto: str | None = None,
    inputs: str | None = None,
) -> Network:
    """Build a network on the meta device: it takes no memory.

    Args:
        model: a folder with a config.json, a config.json, a hub id, or "package.module:factory". The factory takes
            nothing and returns a module, or a module and its inputs; its parameters are made without data.
        task: a key of ``TASKS``; without it the class that the configuration names. dtype: of the weights.
        config, auto: a transformers config, and the class that builds it, instead of one that is read.
        inputs: "package.module:function" of batch and sequence, which returns the inputs: keywords or a tuple.

    Raises:
        UserError: it is none of these, or cannot be built.
    """
    if task is not None and task not in TASKS:
        raise UserError(f"task {task!r} is not known; use one of {', '.join(TASKS)}")
    made = _function(inputs) if inputs is not None else None
    if config is None and _names_function(model):
        if task is not None:
            raise UserError(f"--task {task} chooses among transformers' classes; {model} builds its own")
        module, given = _from_factory(model, getattr(torch, dtype))
    else:
        config = config if config is not None else read_configuration(model)
        module, given = _from_config(config, model, task, auto, getattr(torch, dtype)), None
    settle(module)

    def make_inputs(batch: int, sequence: int) -> Inputs:
        if made is not None:
            found = _called(made, str(inputs), batch, sequence)
            return _cast(found if isinstance(found, Mapping | tuple) else (found,), getattr(torch, dtype))
        if given is not None:
            return _cast(given, getattr(torch, dtype))
        return example_inputs(module, batch, sequence)

    return Network(model, module, make_inputs, _heads(module))


def _cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """Inputs of the dtype that the network was made in."""
    found: Inputs = pytree.tree_map_only(torch.Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, inputs)
    return found


def _names_function(text: str) -> bool:
    module, colon, function = text.partition(":")
    return bool(colon) and function.replace(".", "").isidentifier() and module.replace(".", "").isidentifier()


def _function(text: str) -> Callable[..., Any]:
    name, _, attribute = text.partition(":")
    if not _names_function(text):
        raise UserError(f"{text!r} is not package.module:function, as in my_project.models:small")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as python -m has it
    try:
        found: Any = importlib.import_module(name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise UserError(f"{text}: {type(error).__name__}: {_line(error)}") from error
    if not callable(found):
        raise UserError(f"{text} is a {type(found).__name__}; it must be a function that returns a module")
    return found


def _called(function: Callable[..., Any], text: str, *args: Any) -> Any:
    try:
        with without_data():
            return function(*args)
    except Exception as error:
        raise UserError(f"{text} raised {type(error).__name__}: {_line(error)}") from error


def _from_factory(text: str, dtype: torch.dtype) -> tuple[nn.Module, Inputs | None]:
    made = _called(_function(text), text)
    module, given = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise UserError(
            f"{text} returned a {type(module).__name__}; it must return an nn.Module, or one and its inputs"
        )
    if given is not None and not isinstance(given, Mapping | tuple):
        given = (given,)
    return module.to(device="meta", dtype=dtype), given


def read_configuration(model: str) -> Any:
    """The transformers configuration of a folder, a config.json, or a hub id.

    Raises:
        UserError: it is none, or of a kind that this transformers does not know.
    """
    import transformers

    path = Path(model)
    path = path / "config.json" if is_folder(path) else path
    try:
        if is_file(path):
            values = json.loads(path.read_text())
            if not isinstance(values, dict):
                raise UserError(f"{path} is no transformers config.json: it holds a {type(values).__name__}")
            if "model_type" not in values:
                raise UserError(f"{path} is no transformers config.json: it names no model_type")
            return transformers.AutoConfig.for_model(**values)
        if model.count("/") > 1 or model.endswith(".json") or model.startswith((".", "/", "~")) or not model.strip():
            raise UserError(f"{model!r} is neither a folder with a config.json nor a config.json")
        return transformers.AutoConfig.from_pretrained(model)
    except UserError:
        raise
    except Exception as error:  # transformers raises whatever a wrong value leads to
        what = (
            f"{path} is no transformers config.json"
            if is_file(path)
            else f"{model!r} is not in the table of models, no config.json, and no configuration of it was found"
        )
        raise UserError(f"{what}: {_line(error)}") from error


def _from_config(config: Any, name: str, task: str | None, auto: str | None, dtype: torch.dtype) -> nn.Module:
    import transformers

    config = settled(config)
    if getattr(config, "architectures", None) is None:
        config.architectures = []  # transformers looks through them
    own = getattr(transformers, str(next(iter(config.architectures), "")), None)
    wanted = auto if auto is not None else TASKS[task] if task is not None else None
    try:
        with without_data():  # buffers of positions and the like keep their values
            if wanted is None and isinstance(own, type) and hasattr(own, "_from_config"):
                model = own._from_config(config, dtype=dtype)
            else:
                model = getattr(transformers, wanted or "AutoModel").from_config(config, dtype=dtype)
    except Exception as error:
        what = f"{wanted or own or 'AutoModel'} of a {config.model_type!r} configuration"
        raise UserError(f"{name}: transformers cannot build {what}: {_line(error)}") from error
    grouped = getattr(model, "set_experts_implementation", None)
    if grouped is not None:  # one product for all experts, whose rows are tokens times experts a token
        with contextlib.suppress(ValueError, AttributeError):
            grouped("grouped_mm")
    assert isinstance(model, nn.Module)
    return model.to(device="meta")


def settle(module: nn.Module) -> None:
    """In training mode, without what is drawn at random: dropout, dropped layers, masked spans."""
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
        for name, value in list(vars(part).items()):
            if isinstance(value, float) and _is_random(name):
                setattr(part, name, 0.0)


def _is_random(name: str) -> bool:
    return "drop" in name or (name.startswith("mask_") and name.endswith("_prob"))


def settled(config: Any) -> Any:
    """A copy of a configuration that draws nothing at random and keeps no cache of keys."""
    config = copy.deepcopy(config)
    for values in _configs(config):
        for name, value in list(vars(values).items()):
            if isinstance(value, float) and _is_random(name):
                setattr(values, name, 0.0)
        if hasattr(values, "use_cache"):
            values.use_cache = False
    return config


def _configs(config: Any) -> list[Any]:
    parts = [getattr(config, name, None) for name in getattr(config, "sub_configs", {})]
    return [config, *(inner for part in parts if hasattr(part, "to_dict") for inner in _configs(part))]


def _heads(module: nn.Module) -> frozenset[str]:
    """As PEFT leaves them out of all-linear: the output embedding, and the head of a classifier."""
    ask: Any = getattr(module, "get_output_embeddings", None)
    output = ask() if ask is not None else None
    ends = ("score", "classifier", "qa_outputs") if "For" in type(module).__name__ else ()
    names = module.named_modules()
    return frozenset(
        name for name, part in names if (output is not None and part is output) or name.split(".")[0] in ends
    )


def _line(error: BaseException) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return shorten(first, 200)  # transformers lists every architecture that it knows
