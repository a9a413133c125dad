"""What can be claimed: the quantities, their options, and the sources that can give them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cdvft_bench.analytic.conventions import CONVENTIONS
from cdvft_bench.claims.ledger.terms import Source, Value
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.reading import packaged, parse_toml

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


def _one_of(*choices: Value) -> Option:
    def allows(value: Value) -> bool:
        return any(value == c and isinstance(value, bool) == isinstance(c, bool) for c in choices)

    texts = [str(c).lower() if isinstance(c, bool) else str(c) for c in choices]
    return Option(allows, f"one of {', '.join(texts)}")


def _positive(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _path(value: Value) -> bool:
    return isinstance(value, str) and value.count(":") == 1 and all(value.split(":"))


_RULES = {
    "convention": _one_of(*CONVENTIONS, TALLIED),
    "fft": Option(lambda v: v == TALLIED or _positive(v), f"a factor of n log2 n, or {TALLIED!r}"),
    "function": Option(_path, '"package.module:function"'),
}


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


def _option(rule: str = "", choices: Sequence[Value] = (), default: Value | None = None) -> Option:
    return replace(_RULES[rule] if rule else _one_of(*choices), default=default)


def _quantity(
    sources: Sequence[Source] = ("formula", "count"), options: Mapping[str, Any] = {}, **given: Any
) -> Quantity:
    return Quantity(sources=tuple(sources), options={k: _option(**v) for k, v in options.items()}, **given)


QUANTITIES: dict[str, Quantity] = {
    name: _quantity(**given)
    for name, given in parse_toml(packaged("cdvft_bench.claims.ledger", "quantities.toml")).items()
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
