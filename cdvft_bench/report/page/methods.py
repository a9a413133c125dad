"""The methods as a page: ``cdvft-bench dev methods > docs/methods.md``."""

import dataclasses
import inspect
import re
from collections.abc import Sequence

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.text import integer, markdown
from cdvft_bench.methods import Method, make_method, own_method_names

LAYER = LinearShape(768, 768)
TOKENS = 128  # the launches do not depend on it

INTRODUCTION = """\
# Methods

One file a method, in `cdvft_bench/methods/`. This page is generated:
`cdvft-bench dev methods > docs/methods.md`.

For every method these are exact, and tested to equal what torch dispatches at the versions in
`constraints.txt`, over random widths, tokens (2 or more), dtypes, hyperparameters and with or
without a bias: trained parameters; launches of every operator; multiply-adds, element-wise FLOPs and
FFTs; bytes that operators read and write; bytes kept for the backward pass. They hold for one
linear layer with a frozen base (but in full fine-tuning and BitFit) that stands inside a network,
carries one adapter and has its dropout off, trained by fused AdamW. Methods that PEFT implements are
counted as PEFT's own layers run, options that are not listed at PEFT's defaults.

Parameters and launches below: the default hyperparameters on a 768x768 layer with a bias, in
float32; launches of forward, backward and update together."""


def methods_markdown(names: Sequence[str] = ()) -> str:
    """The page: a table of methods, then a section each. Ends with a line break.

    Args:
        names: of registered methods; none means this package's own.
    """
    methods = [make_method(name) for name in names or own_method_names()]
    lines = [
        INTRODUCTION,
        "",
        "| method | name | parameters | launches | hyperparameters and defaults |",
        "|:--|:--|--:|--:|:--|",
        *(_row(method) for method in methods),
    ]
    for method in methods:
        lines += ["", *_section(method)]
    return "\n".join(lines) + "\n"


def _row(method: Method) -> str:
    cost = method.cost(LAYER, TOKENS, device="cpu")
    cells = [
        markdown(method.title),
        f"`{method.name}`",
        integer(float(cost.parameters)),
        integer(float(cost.launches("step"))),
        hyperparameters(method),
    ]
    return f"| {' | '.join(cells)} |"


def _section(method: Method) -> list[str]:
    return [
        f"## {markdown(method.title)}",
        "",
        f"Source: {markdown(method.source)}. {_home(method)}. Hyperparameters: {hyperparameters(method)}.",
        "",
        *description(method),
        f"Not covered: {markdown(method.not_covered or 'nothing known')}.",
    ]


def _home(method: Method) -> str:
    if method.name in own_method_names():
        return f"File: [`{method.name}.py`](../cdvft_bench/methods/{method.name}.py)"
    return f"Module: `{type(method).__module__}`"


def hyperparameters(method: Method) -> str:
    """Names and defaults, e.g. `` `rank` = 8 ``; what an open default comes to on the layer in brackets."""
    resolved = method.resolved(LAYER)
    found = []
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        text = f"`{field.name}` = {_plain(value)}"
        if resolved[field.name] != value:
            text += f" (here {_plain(resolved[field.name])})"
        found.append(text)
    return ", ".join(found) or "none"


def description(method: Method) -> list[str]:
    """The paragraphs of the method's docstring before its attributes, each with an empty line behind it."""
    text = inspect.cleandoc(type(method).__doc__ or "").split("Attributes:")[0].strip()
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return [line for paragraph in paragraphs for line in (_prose(paragraph), "")]


def _plain(value: object) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return markdown(value)


def _prose(text: str) -> str:
    # Code as Markdown marks it; the rest as it stands.
    parts = re.split(r"``(.+?)``", text)
    return "".join(f"`{part}`" if i % 2 else markdown(part) for i, part in enumerate(parts))
