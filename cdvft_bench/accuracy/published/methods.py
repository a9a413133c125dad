"""Which method of this suite a published run is of, layer by layer, or why it is none.

PEFT files many a method as a switch of another: what tells DoRA or LoRA-FA from LoRA is a hyperparameter of the run,
its optimiser, or only its name. A run whose name or hyperparameters say something that is not known here is never taken
for the plain method.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from cdvft_bench.accuracy.published.run import PublishedRun
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.text import clean

if TYPE_CHECKING:
    from cdvft_bench.analytic.models import ModelLinear
    from cdvft_bench.methods import Method

_SWITCHES = {"use_dora": "dora", "use_rslora": "rslora"}
_VARIANTS = {"dora": "dora", "rslora": "rslora", "lorafa": "lora_fa", "fa": "lora_fa"}
_PLAIN_STARTS = (True, False, None, "default", "gaussian", "kaiming")
"""Values of ``init_lora_weights`` that leave the method what it is."""
_PLAIN_SWITCHES = {"use_cayley_neumann", "use_effective_conv2d", "use_idwt"}
"""Switches whose formula is the suite's, or that linear layers do not know."""
_PLAIN_OPTIMISERS = {"", "adam", "adamw", "sgd"}
_NEUTRAL = re.compile(
    "default|e|ex|exp|experiment|run|test|trial|seed|random|targets?|mlp|all|linear|attn|attention|llama|peft|lr|rank|"
    "r|finetuning|tuning|full"
)
"""Words of a run's name that say nothing of the method: other columns hold what they mean."""
_MEASURES = re.compile(
    "lr|rank|r|alpha|a|n|p|m|k|b|s|batch|block|size|blocksize|block_size|frequency|n_frequency|factor|seed|random_seed|"
    "epochs|steps|tokens|len|length|lora_alpha|run|e|exp|trial"
)
"""What a number in a run's name may be of."""
_OURS = {"n_frequency": "n", "rank": "r"}
"""How tables of runs may call a hyperparameter of this suite."""


def plain(name: str) -> str:
    """A method's name without what two spellings of it differ in."""
    return name.replace("_", "").replace("-", "").lower()


def method_of(run: PublishedRun) -> tuple[str, str]:
    """The suite's method that a run is of, and what of its name or hyperparameters is not known ("" for nothing)."""
    name = plain(run.method)
    optimizer = plain(run.optimizer)
    if name == "lora" and optimizer == "lorafa":
        name = "lora_fa"
    elif optimizer not in _PLAIN_OPTIMISERS:
        return name, f"optimizer {run.optimizer}"
    for key, value in run.hyperparameters.items():
        if name == "lora" and key in _SWITCHES:
            name = _SWITCHES[key] if value is True else name
        elif key.startswith("use_") and value and key not in _PLAIN_SWITCHES | _SWITCHES.keys():
            return name, key
        elif key == "init_lora_weights" and value not in _PLAIN_STARTS:
            return name, f"{key} = {value}"
    for word in _words(run):
        if word in _VARIANTS and name in ("lora", _VARIANTS[word]):
            name = _VARIANTS[word]
        elif word != name and word != plain(name) and not (_NEUTRAL.fullmatch(word) or _MEASURES.fullmatch(word)):
            return name, word
    return name, ""


def _words(run: PublishedRun) -> list[str]:
    """Words of a run's name that may say which method it is; those of the model's name do not."""
    text = run.experiment.lower()
    for own in (run.method.lower(), run.method.lower().replace("_", "-"), run.method.lower().replace("_", "")):
        text = text.removeprefix(own)
    model = {_letters(part) for part in re.split(r"[-/\s]+", run.model.lower())}
    found = []
    for part in re.split(r"[-+/\s]+", re.sub(r"(\d)e-(\d)", r"\1e~\2", text)):
        if _letters(part) in model:
            continue
        of, number = re.fullmatch(r"(.*?)_?(\d[\d.e~]*(?:[a-z]{1,2})?)?", part).groups()  # type: ignore[union-attr]
        if number is not None and (not of or _MEASURES.fullmatch(of)):
            continue
        found += [word for word in (part if number is not None else of).split("_") if word]
    return [word for word in found if not _NEUTRAL.fullmatch(word) and not _MEASURES.fullmatch(word)]


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def adapted(run: PublishedRun, linears: Sequence[ModelLinear]) -> list[tuple[ModelLinear, Method]]:
    """The layers that a run adapts, of all linear layers of its model, each with the method as it is there.

    Raises:
        UserError: the suite has no such method, a hyperparameter that decides its cost is missing, null or refused, or
            the targets select no layer.
    """
    from cdvft_bench.methods import method_names

    name, unknown = method_of(run)
    said = clean(run.method)
    known = {plain(one): one for one in method_names()}
    if plain(name) not in known:
        raise UserError(f"method {said} is not in the suite")
    if unknown:
        hint = "" if unknown in (*run.hyperparameters,) or " " in unknown else "; rename the run where that is none"
        raise UserError(f"variant {clean(unknown)} of {said} is not in the suite{hint}")
    name = known[plain(name)]
    chosen = [linear for linear in linears if _selected(linear.name, run.target_modules)]
    if name == "full":
        chosen = list(linears)
    elif not chosen:
        raise UserError("its target_modules select no linear layer of the model")
    return [(linear, _method(name, run, linear)) for linear in chosen]


def _selected(name: str, targets: tuple[str, ...] | str) -> bool:
    """PEFT's rule: an ending of a list, or a pattern of the whole name."""
    if isinstance(targets, str):
        try:
            return re.fullmatch(targets, name) is not None
        except re.error:
            return False
    return any(name == t or name.endswith(f".{t}") for t in targets)


def _method(name: str, run: PublishedRun, linear: ModelLinear) -> Method:
    """The suite's method on one layer."""
    from cdvft_bench.methods import make_method, method_class
    from cdvft_bench.methods._peft import PeftMethod

    cls, values = method_class(name), run.hyperparameters
    found: dict[str, Any] = {}
    for i, one in enumerate(fields(cls)):
        key = next((spelling for spelling in spellings(name, one.name) if spelling in values), None)
        if key is not None and (values[key] is not None or i):
            found[one.name] = values[key]
        elif key is not None:
            raise UserError(f"its hyperparameter {key} is null")
    if name == "oft" and values.get("r"):  # the number of blocks
        found["block_size"] = _blocks(linear, values["r"])
    elif name == "boft":
        # https://github.com/huggingface/peft: without its CUDA extension, BOFT sets the factor to 1.
        found.pop("n_butterfly_factor", None)
    elif name == "ia3":
        inputs = values.get("feedforward_modules") or ()
        found = {"feedforward": _selected(linear.name, inputs if isinstance(inputs, str) else tuple(inputs))}
    size = next((f.name for f in fields(cls) if f.name in ("rank", "block_size", "n_frequency")), None)
    if issubclass(cls, PeftMethod) and size is not None and found.get(size) is None:
        raise UserError(f"its hyperparameter {spellings(name, size)[0]} is not given")
    return make_method(name, {key: value for key, value in found.items() if value is not None})


def spellings(method: str, name: str) -> tuple[str, ...]:
    """How runs may call a hyperparameter of a method of this suite: PEFT's name of it, this suite's, a short one."""
    from cdvft_bench.methods import method_class, method_names
    from cdvft_bench.methods._peft import PeftMethod

    cls = method_class(method) if method in method_names() else None
    theirs = cls.peft.names.get(name, name) if cls is not None and issubclass(cls, PeftMethod) else name
    return tuple(dict.fromkeys((theirs, name, _OURS.get(name, name))))


def _blocks(linear: ModelLinear, number: object) -> int:
    width = int(linear.shape.d_in)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1 or width % number:
        raise UserError(f"its hyperparameter r = {number!r} is no number of blocks of {width} inputs")
    return width // number
