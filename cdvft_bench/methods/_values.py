"""Values of hyperparameters, checked by the annotation of their field, and written in labels."""

import dataclasses
import math
from collections.abc import Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.names import not_known


@cache
def hints(cls: type) -> dict[str, Any]:
    """Annotations of a dataclass's fields, as types.

    Raises:
        TypeError: one cannot be evaluated, since what it names is imported for type checkers alone.
    """
    try:
        found = get_type_hints(cls)
    except NameError as error:
        raise TypeError(f"{cls.__qualname__}: {error}; import what its annotations name") from error
    return {field.name: found[field.name] for field in dataclasses.fields(cls)}


def check_value(name: str, value: object, hint: Any) -> None:
    """Raise UserError unless ``value`` is what the annotation ``hint`` takes, see ``Method``."""
    if get_origin(hint) in (Union, UnionType):
        others = [kind for kind in get_args(hint) if kind is not NoneType]
        alone = [v for kind in others if get_origin(kind) is Literal for v in get_args(kind)]
        if _among(value, alone) or (value is None and NoneType in get_args(hint)):
            return
        try:
            check_value(name, value, next(kind for kind in others if get_origin(kind) is not Literal))
        except UserError as error:
            raise UserError(", or ".join([str(error), *map(str, alone)])) from None
    elif get_origin(hint) is Literal:
        if not _among(value, get_args(hint)):
            raise not_known(name, str(value), map(str, get_args(hint)))
    elif hint is bool:
        if not isinstance(value, bool):
            raise UserError(f"{name} = {value!r} is not a truth value; use true or false")
    elif hint is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise UserError(f"{name} = {value!r} is not an integer; it must be an integer >= 1")
        if value < 1:
            raise UserError(f"{name} = {value} is too small; it must be >= 1")
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{name} = {value!r} is not a number")
        if not math.isfinite(value):
            raise UserError(f"{name} = {value} is not finite; give a finite number")


def choices_of(hint: Any) -> tuple[object, ...]:
    """The words that an annotation takes: values of ``Literal``, of a union's members too."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else ()
    return tuple(word for member in members for word in choices_of(member))


def _among(value: object, known: Sequence[object]) -> bool:
    return any(type(value) is type(one) and value == one for one in known)


def short(value: object) -> str:
    """A value as labels write it: floats without trailing zeros."""
    return f"{value:g}" if isinstance(value, float) else str(value)
