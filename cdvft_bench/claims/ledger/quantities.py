"""What can be claimed: the quantities, their options, and the sources that can give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cdvft_bench.analytic.conventions import CONVENTIONS
from cdvft_bench.claims.ledger.terms import Source, Value
from cdvft_bench.core.errors import UserError

TALLIED = "tallied"
"""FFTs at the additions and multiplications that a split-radix transform takes."""


@dataclass(frozen=True)
class Option:
    """An option of a quantity.

    Attributes:
        allows: whether a value will do. rule: what will do, in words.
        default: None where one must be given.
    """

    allows: Callable[[Value], bool]
    rule: str
    default: Value | None = None


def _one_of(*choices: Value, default: Value | None = None) -> Option:
    def allows(value: Value) -> bool:
        return any(value == c and isinstance(value, bool) == isinstance(c, bool) for c in choices)

    texts = [str(c).lower() if isinstance(c, bool) else str(c) for c in choices]
    return Option(allows, f"one of {', '.join(texts)}", default)


def _positive(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _path(value: Value) -> bool:
    return isinstance(value, str) and value.count(":") == 1 and all(value.split(":"))


_PASS = _one_of("forward", "backward", default="forward")
_SCOPE = _one_of("adapter", "whole", default="adapter")
_FUNCTION = Option(_path, '"package.module:function"')


@dataclass(frozen=True)
class Quantity:
    """Something to measure.

    Attributes:
        statement: what it is.
        sources: those that can give it.
        options: by name.
        free: whether further options are taken, as arguments.
        needs_subject: whether it is a property of a method or module.
        needs_place: whether it is measured on a layer or model.
        on_models: whether it adds up over the layers of a model.
        of_change: whether it is a share of a dense weight change's bytes.
    """

    statement: str
    sources: tuple[Source, ...] = ("formula", "count")
    options: Mapping[str, Option] = field(default_factory=dict)
    free: bool = False
    needs_subject: bool = True
    needs_place: bool = True
    on_models: bool = True
    of_change: bool = False


QUANTITIES: dict[str, Quantity] = {
    "parameters": Quantity("trainable parameters"),
    "flops": Quantity(
        "FLOPs of a pass under a counting convention",
        options={"pass": _PASS, "scope": _SCOPE, "convention": _one_of(*CONVENTIONS, TALLIED)},
    ),
    "priced_flops": Quantity(
        "FLOPs of the change's forward pass, every item at a price of its own, see claims.sources.priced",
        options={
            "mac": _one_of(1, 2, default=2),
            "fft": Option(lambda v: v == TALLIED or _positive(v), f"a factor of n log2 n, or {TALLIED!r}", 5.0),
            "plane": _one_of("n log2 n", "n log2 d", default="n log2 n"),
            "real_fft": _one_of("half", "as complex", default="half"),
            "spectrum_of_c": _one_of("per batch", "per token", "never", default="per batch"),
            "diagonals": _one_of(False, True, default=True),
            "products": _one_of("none", "per entry", "per bin", default="per bin"),
        },
    ),
    "transforms": Quantity(
        "FFT operators launched in a pass: (real forward, real inverse, complex)",
        options={"pass": _PASS, "per_factor": _one_of(False, True, default=False)},
    ),
    "launches": Quantity("operators that launch a kernel", options={"pass": _PASS, "scope": _SCOPE}),
    "saved_bytes": Quantity("bytes kept from forward for backward"),
    "largest_allocation": Quantity(
        "bytes of the largest storage allocated or written in forward and backward, over a dense weight change's",
        sources=("count",),
        on_models=False,
        of_change=True,
    ),
    "resident_growth": Quantity(
        "growth of the process's resident memory in forward and backward, over a dense weight change's bytes",
        sources=("count",),
        on_models=False,
        of_change=True,
    ),
    "gradient_ratio": Quantity(
        "root mean square of the trained entries' gradients, over that of a dense weight's; negative where the loss "
        "falls along them",
        sources=("count",),
        options={"gradient": _one_of("alike", "independent", default="independent")},
        on_models=False,
    ),
    "difference": Quantity(
        "relative norm of the difference of what two functions return; further options are their arguments",
        sources=("count", "profile"),
        free=True,
        needs_subject=False,
        needs_place=False,
        options={"left": _FUNCTION, "right": _FUNCTION},
    ),
    "figure": Quantity(
        "a number that a function returns; further options are its arguments",
        sources=("count", "profile"),
        free=True,
        needs_subject=False,
        needs_place=False,
        options={"function": _FUNCTION},
    ),
    "time": Quantity(
        "recorded time of a pass, as a ratio to the frozen subject's; in mode graph of replayed CUDA graphs",
        sources=("clock",),
        options={
            "pass": _one_of("forward", "step", default="step"),
            "device": _one_of("cpu", "cuda", default="cpu"),
            "mode": _one_of("eager", "graph", default="eager"),
        },
    ),
    "accuracy": Quantity("recorded test accuracy of fine-tuning", sources=("accuracy",), needs_place=False),
    "fit_error": Quantity(
        "recorded least relative error on the weight changes of real fine-tuning, at 4 d parameters a layer",
        sources=("profile",),
        needs_place=False,
    ),
}


def quantity(name: str) -> Quantity:
    """Look a quantity up.

    Raises:
        UserError: there is none of that name.
    """
    if name not in QUANTITIES:
        raise UserError(f"quantity {name!r} is not known; use one of {', '.join(QUANTITIES)}")
    return QUANTITIES[name]


def check_option(name: str, key: str, value: Value) -> None:
    """Raise UserError unless the quantity ``name`` takes this option."""
    spec = quantity(name)
    if key not in spec.options:
        if spec.free:
            return
        raise UserError(f"quantity {name!r} has no option {key!r}; it has {', '.join(spec.options) or 'none'}")
    if not spec.options[key].allows(value):
        raise UserError(f"quantity {name!r}: {key} = {value!r} must be {spec.options[key].rule}")
