"""Adapted layers for a bare node: CDVFT, BCA, LoRA and the frozen layer, from torch and ``cdvft_reference`` alone.

They launch what the suite's own cases launch (``sweep.witness``): the same random base, the same
start (a trainable tensor that would start at zero is drawn from N(0, 0.02)), the same step.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cdvft_bench.core.errors import UserError
from cdvft_bench.timing.inputs import rotated

Value = int | float | str | bool
FROZEN, LORA = "frozen", "lora r=8"
DTYPES = ("float32", "bfloat16", "float16", "float64")
PASSES = ("forward", "step")


@dataclass(frozen=True)
class BareCase:
    """One method on one layer; the fields, and so the key, are those of ``sweep.case.Case``.

    Attributes:
        method: "frozen", "lora", "cdvft" or "block_circulant".
        hyperparameters: sorted (name, value) pairs.
        subject: "768x768" (d_in x d_out) or "768x768-nobias".
        batch, sequence: tokens = batch * sequence.
        dtype, pass_, device, seed: as there.
    """

    method: str
    hyperparameters: tuple[tuple[str, Value], ...]
    subject: str
    batch: int
    sequence: int
    dtype: str = "float32"
    pass_: str = "step"
    device: str = "cpu"
    seed: int = 0
    kind: str = "layer"

    @property
    def key(self) -> str:
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """The method with its hyperparameters."""
        return " ".join([self.method, *(f"{name}={value}" for name, value in self.hyperparameters)])


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


def _circulant(name: str) -> Callable[..., nn.Module]:
    """Maker of a layer of the reference, or of the same layer on a fast path of ``cdvft_bench.execution``."""

    def make(base: nn.Linear, path: str = "fft", **values: Any) -> nn.Module:
        layer: nn.Module
        if path in REFERENCE_PATHS:
            layer = getattr(importlib.import_module("cdvft_reference"), name)(base, path=path, **values)
        elif path in paths():
            # Found by name: the clock does not depend on what it times.
            layer = getattr(importlib.import_module("cdvft_bench.execution"), f"Fast{name}")(base, path, **values)
        else:
            raise UserError(f"path {path!r} is not known; use one of {', '.join(paths())}")
        return layer

    return make


def paths() -> tuple[str, ...]:
    """Ways to execute CDVFT and BCA here."""
    try:
        return tuple(importlib.import_module("cdvft_bench.execution").PATHS)
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
    d_in, x, d_out = text.partition("x")
    right = all(d.isascii() and d.isdigit() and int(d) for d in (d_in, d_out))
    if not (x and right and suffix in ("", "nobias")):
        raise UserError(f"layer {subject!r} is not d_in x d_out; write 768x768 or 768x768-nobias")
    return int(d_in), int(d_out), not suffix


def parse_method(text: str) -> list[tuple[str, dict[str, Value]]]:
    """Methods from "cdvft:m=1+2:block_size=d+d/4": every "+" is an axis.

    Raises:
        UserError: the method or a hyperparameter is not known here.
    """
    name, *pairs = text.strip().split(":")
    if name not in _BUILDERS:
        raise UserError(f"method {name!r} does not run on a bare node; use {', '.join(_BUILDERS)}")
    known = _BUILDERS[name][1]
    axes: dict[str, list[Value]] = {}
    for pair in pairs:
        key, equals, values = pair.partition("=")
        if key not in known or not equals or not values or key in axes:
            has = ", ".join(sorted(known)) or "no hyperparameter"
            raise UserError(f"{text!r}: {pair!r} is not NAME=VALUE, once each, of {name}, which has {has}")
        axes[key] = [_value(v) for v in values.split("+")]
    return [(name, dict(zip(axes, chosen, strict=True))) for chosen in itertools.product(*axes.values())]


def _value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def unfold(
    layers: Sequence[str],
    tokens: Sequence[int],
    methods: Sequence[str],
    *,
    dtypes: Sequence[str] = ("float32",),
    passes: Sequence[str] = PASSES,
    device: str = "cpu",
    seed: int = 0,
) -> Iterator[BareCase | str]:
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
                resolved = {k: _resolve(v, min(d_in, d_out)) if k == "block_size" else v for k, v in given.items()}
            except UserError as error:
                yield f"{method} on {subject}: {error}"
                continue
            pairs = tuple(sorted(resolved.items()))
            case = BareCase(method, pairs, subject, 1, count, dtype, pass_, device, seed)
            if case.key not in seen:
                seen.add(case.key)
                _check(case)
                yield case


def _resolve(value: Value, width: int) -> Value:
    if not isinstance(value, str):
        return value
    head, slash, divisor = value.partition("/")
    if head != "d" or (slash and not (divisor.isascii() and divisor.isdigit() and int(divisor))):
        raise UserError(f"block_size = {value!r} is neither an integer nor a fraction of the width such as d or d/4")
    if width % int(divisor or 1):
        raise UserError(f"block_size = {value!r}: {divisor} does not divide the width {width}")
    return width // int(divisor or 1)


def _check(case: BareCase) -> None:
    """Build the adapter on a layer without memory: a value that cannot be is found before the first measurement."""
    with torch.device("meta"):
        adapt(case, nn.Linear(*widths(case.subject)[:2]))


# --- the thing itself ------------------------------------------------------------------------


def adapt(case: BareCase, base: nn.Linear) -> nn.Module:
    """The case's method on a layer.

    Raises:
        UserError: a hyperparameter is refused.
    """
    values: Mapping[str, Any] = dict(case.hyperparameters)
    if case.method == "lora" and not (isinstance(values.get("rank", 8), int) and values.get("rank", 8) >= 1):
        raise UserError(f"lora: rank = {values['rank']!r} must be an integer >= 1")
    try:
        return _BUILDERS[case.method][0](base, **values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{case.label}: {error}") from error


@dataclass(frozen=True)
class Built:
    """A built case.

    Attributes:
        module: the layer.
        call: one pass, on a GPU on another input each time.
        fixed: the same on one input, as a graph needs it.
        optimizer: of what is trained; None where nothing is.
    """

    module: nn.Module
    call: Callable[[], object]
    fixed: Callable[[], object]
    optimizer: torch.optim.Optimizer | None


def build(case: BareCase) -> Built:
    """Build a case on its device; its call is one forward pass (autograd recording) or one whole step."""
    d_in, d_out, bias = widths(case.subject)
    dtype = getattr(torch, case.dtype)
    generator = torch.Generator(case.device).manual_seed(case.seed)
    base = nn.utils.skip_init(nn.Linear, d_in, d_out, bias=bias, dtype=dtype, device=case.device)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.normal_(std=d_in**-0.5, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        module = adapt(case, base).train()
    trained = [p for p in module.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            if not parameter.any():
                parameter.normal_(std=0.02, generator=generator)
    x = torch.randn(case.batch, case.sequence, d_in, dtype=dtype, device=case.device, generator=generator)
    inputs = rotated(x.requires_grad_())
    gradient = torch.randn(case.batch, case.sequence, d_out, dtype=dtype, device=case.device, generator=generator)
    # Capturable: a CUDA graph may hold the update; the fused kernel is the same either way.
    cuda = torch.device(case.device).type == "cuda"
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True, capturable=cuda) if trained else None

    def forward(x: Tensor) -> object:
        return module(x)

    def step(x: Tensor) -> None:
        x.grad = None
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
        module(x).backward(gradient)
        if optimizer is not None:
            optimizer.step()

    run = forward if case.pass_ == "forward" else step

    def call() -> object:
        inputs.current.grad = None
        inputs.advance()
        return run(inputs.current)

    return Built(module, call if len(inputs) > 1 else lambda: run(x), lambda: run(x), optimizer)
