"""Adapted layers for a bare node: CDVFT, BCA, LoRA and the frozen layer, from torch and ``cdvft_reference`` alone.

They are cases of the suite, with the same keys, and launch what the suite's own launch (``sweep.evaluate``): both are
built by ``timing.built``.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from cdvft_bench.core.case import FROZEN, Case, CasePass, Value, parse_value, width_fraction
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.text import shorten, whole_number
from cdvft_bench.timing.built import Built, built_layer, prepared, random_linear

DTYPES = ("float32", "bfloat16", "float16", "float64")
PASSES: tuple[CasePass, ...] = ("forward", "step")


class PlainLora(nn.Module):
    """``h = W x + b + (alpha / r) B A x``, A and B in float32 where the base is narrower, as PEFT keeps them."""

    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16) -> None:
        super().__init__()
        dtype = base.weight.dtype
        wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.a = nn.Parameter(torch.empty(rank, base.in_features, dtype=wide, device=base.weight.device))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, dtype=wide, device=base.weight.device))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.base(x)
        change = nn.functional.linear(nn.functional.linear(x.to(self.a.dtype), self.a), self.b)
        return (h + change * self.scale).to(h.dtype)


REFERENCE_PATHS = ("fft", "handwritten")
AUTO = "auto"
SUITE = "cdvft_bench.sweep.evaluate:build"
"""What builds a case of any method or model of the suite, where the packages are installed that it needs."""


def _circulant(name: str) -> Callable[..., nn.Module]:
    """Maker of a layer of the reference, or of the same layer on a fast path of ``cdvft_bench.execution.paths``."""

    def make(base: nn.Linear, path: str = "fft", **values: Any) -> nn.Module:
        layer: nn.Module
        if path in REFERENCE_PATHS:
            layer = getattr(importlib.import_module("cdvft_reference"), name)(base, path=path, **values)
        elif path in (AUTO, *paths()):
            # Found by name: the clock does not depend on what it times.
            layer = getattr(importlib.import_module("cdvft_bench.execution.paths"), f"Fast{name}")(base, path, **values)
        else:
            raise UserError(f"path {path!r} is not known; use one of {', '.join((AUTO, *paths()))}")
        return layer

    return make


def paths() -> tuple[str, ...]:
    """Ways to execute CDVFT and BCA here."""
    try:
        return tuple(importlib.import_module("cdvft_bench.execution.paths").PATHS)
    except ImportError:
        return REFERENCE_PATHS


_BUILDERS: dict[str, tuple[Callable[..., nn.Module], frozenset[str]]] = {
    FROZEN: (lambda base: base.requires_grad_(False), frozenset()),
    "lora": (PlainLora, frozenset({"rank", "alpha"})),
    "cdvft": (
        _circulant("CDVFTLinear"),
        frozenset({"m", "block_size", "alpha", "convention", "init", "path"}),
    ),
    "block_circulant": (
        _circulant("BlockCirculantLinear"),
        frozenset({"block_size", "alpha", "convention", "path"}),
    ),
}


# --- what a user writes ----------------------------------------------------------------------


def widths(subject: str) -> tuple[int, int, bool]:
    """d_in, d_out and whether there is a bias, from "768x768" or "768x768-nobias".

    Raises:
        UserError: it is neither.
    """
    text, _, suffix = subject.partition("-")
    d_in, d_out = (whole_number(part) for part in (*text.split("x"), "")[:2])
    if not d_in or not d_out or text.count("x") != 1 or suffix not in ("", "nobias"):
        raise UserError(f"layer {shorten(repr(subject))} is not d_in x d_out; write 768x768 or 768x768-nobias")
    return d_in, d_out, not suffix


def parse_method(text: str) -> list[tuple[str, dict[str, Value]]]:
    """Methods from "cdvft:m=1+2:block_size=d+d/4": every "+" is an axis.

    Raises:
        UserError: the method or a hyperparameter is not known here.
    """
    name, *pairs = text.strip().split(":")
    known = _BUILDERS[name][1] if name in _BUILDERS else _peer(name)
    axes: dict[str, list[Value]] = {}
    for pair in pairs:
        key, equals, values = pair.partition("=")
        if key not in known or not equals or not values or key in axes:
            has = ", ".join(sorted(known)) or "no hyperparameter"
            raise UserError(f"{text!r}: {pair!r} is not NAME=VALUE, once each, of {name}, which has {has}")
        axes[key] = [_finite(text, parse_value(v)) for v in values.split("+")]
    return [(name, dict(zip(axes, chosen, strict=True))) for chosen in itertools.product(*axes.values())]


def _peer(name: str) -> frozenset[str]:
    """Hyperparameters of a method of PEFT's, where that is installed; found by name, as it is built."""
    if importlib.util.find_spec("peft") is None:
        raise UserError(f"method {name!r} needs the package peft, which is not here; use {', '.join(_BUILDERS)}")
    module: Any = importlib.import_module("cdvft_bench.methods")
    return frozenset(field.name for field in fields(module.method_class(name)))


def grid_cases(name: str, device: str | None, kept: bool = False) -> list[Case | str]:
    """The cases of a preset or grid file, on another device if given, and in their places why one does not fit.

    Args:
        name, device: of the grid. kept: only those whose trace the grid keeps.

    Raises:
        UserError: there is no such grid.
    """
    grid: Any = importlib.import_module("cdvft_bench.sweep.grid").read_grid(name)
    entries = list(grid.traced() if kept else grid.expand())
    found = [e if isinstance(e, Case) else f"{e.method} on {e.subject}: {e.reason}" for e in entries]
    return [e if isinstance(e, str) or device is None else replace(e, device=device) for e in found]


def builder(cases: Sequence[Case], of_grid: bool, say: Callable[[str], None] = print) -> str:
    """What builds the cases: the suite where its packages are installed and needed, else this module.

    Args:
        cases: to build. of_grid: whether they are a grid's. say: takes the reason why an installed peft is of no use.
    """
    own = f"{__name__}:build"
    needed = of_grid or any(case.method not in _BUILDERS for case in cases)
    if not needed or importlib.util.find_spec("peft") is None:
        return own
    try:
        importlib.import_module("peft")
    except Exception as error:  # of other versions than its own needs: everything but its methods does without
        say(f"peft cannot be imported, so its methods fail and LoRA is plain torch: {shorten(str(error), 300)}")
        return own
    return SUITE


def _finite(text: str, value: Value) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{text!r}: {value} is no finite number")
    return value


def expand(
    layers: Sequence[str],
    tokens: Sequence[int],
    methods: Sequence[str],
    *,
    dtypes: Sequence[str] = ("float32",),
    passes: Sequence[CasePass] = PASSES,
    device: str = "cpu",
    seed: int = 0,
) -> Iterator[Case | str]:
    """Each case once, and in their places the reasons why a combination does not fit its layer.

    Raises:
        UserError: a value is unknown or out of range, or no method or layer is given.
    """
    chosen = [one for text in methods for one in parse_method(text)]
    for name, values, known in (("dtype", dtypes, DTYPES), ("pass", passes, PASSES)):
        for value in values:
            if value not in known:
                raise UserError(f"{name} {value!r} is not known; use {', '.join(known)}")
    if not (chosen and layers and tokens and dtypes and passes):
        raise UserError("give at least one layer, one number of tokens, one method, one dtype and one pass")
    if min(tokens) < 1:
        raise UserError(f"tokens = {min(tokens)} is too few; they must be >= 1")
    seen: set[str] = set()
    for subject, count, dtype, pass_ in itertools.product(layers, tokens, dtypes, passes):
        d_in, d_out, _ = widths(subject)
        for method, given in chosen:
            try:
                width = min(d_in, d_out)
                resolved = {k: width_fraction(k, v, width) if k == "block_size" else v for k, v in given.items()}
            except UserError as error:
                yield f"{method} on {subject}: {error}"
                continue
            pairs = tuple(sorted(resolved.items()))
            case = Case(method, pairs, "layer", subject, 1, count, dtype, pass_, device, seed)
            if case.key not in seen:
                seen.add(case.key)
                _check(case)
                yield case


def _check(case: Case) -> None:
    """Build the adapter on a layer without memory: a value that cannot be is found before the first measurement."""
    if case.method not in _BUILDERS:
        module: Any = importlib.import_module("cdvft_bench.sweep.grid")
        module.make_case(case.method, dict(case.hyperparameters), "layer", case.subject)
        return
    with torch.device("meta"):
        adapt(case, nn.Linear(*widths(case.subject)[:2]))


# --- the thing itself ------------------------------------------------------------------------


def adapt(case: Case, base: nn.Linear) -> nn.Module:
    """The case's method on a layer.

    Raises:
        UserError: a hyperparameter is refused.
    """
    values: Mapping[str, Any] = dict(case.hyperparameters)
    if case.method not in _BUILDERS or case.kind != "layer":
        raise UserError(f"{case.plain_label} on {case.subject} needs the packages peft and transformers")
    if case.method == "lora" and not (isinstance(values.get("rank", 8), int) and values.get("rank", 8) >= 1):
        raise UserError(f"lora: rank = {values['rank']!r} must be an integer >= 1")
    try:
        return _BUILDERS[case.method][0](base, **values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{case.plain_label}: {error}") from error


def build(case: Case) -> Built:
    """Build a case on its device."""
    d_in, d_out, bias = widths(case.subject)
    dtype = getattr(torch, case.dtype)
    base = random_linear(d_in, d_out, bias=bias, dtype=dtype, device=case.device, seed=case.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        module = prepared(adapt(case, base), case.seed)
    generator = torch.Generator(case.device).manual_seed(case.seed)
    x = torch.randn(case.batch, case.sequence, d_in, dtype=dtype, device=case.device, generator=generator)
    return built_layer(module, x, case.seed)
