"""JSON back into dataclasses, strictly, with the standard library alone."""

import dataclasses
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar

T = TypeVar("T")


def decode(kind: type[T], value: object, where: str = "") -> T:
    """``value``, as ``json`` reads it, as a ``kind``.

    Args:
        kind: a dataclass, ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[str, X]`` or a mapping, a union, a Literal of
            texts, or one of str, int, float, bool. A field with a default may be missing; a field that is not known is
            ignored, so that an older reader reads what a newer writer adds.
        value: what to decode.
        where: its place, for messages, as "verdicts[3]".

    Raises:
        ValueError: it is none; says where and what is expected.
    """
    found: T = _decoded(kind, value, where)
    return found


def _decoded(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _one_of(arguments, value, where)
    if origin is Literal:
        return _checked(value in arguments and isinstance(value, str), value, where, f"one of {', '.join(arguments)}")
    if origin is tuple:
        items = _checked(isinstance(value, list), value, where, "a list")
        if arguments[-1] is Ellipsis:
            return tuple(_decoded(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
        _checked(len(items) == len(arguments), value, where, f"a list of {len(arguments)}")
        return tuple(
            _decoded(one, item, f"{where}[{i}]") for i, (one, item) in enumerate(zip(arguments, items, strict=True))
        )
    if origin in (dict, Mapping):
        table = _checked(isinstance(value, dict), value, where, "an object")
        return {key: _decoded(arguments[1], item, f"{where}.{key}") for key, item in table.items()}
    if dataclasses.is_dataclass(kind):
        return _record(kind, _checked(isinstance(value, dict), value, where, "an object"), where)
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(_checked(number and abs(value) <= sys.float_info.max, value, where, "a finite number"))
    return _checked(type(value) is kind, value, where, kind.__name__)


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:
        return _decoded(kinds[0], value, where)
    for kind in sorted(kinds, key=lambda kind: kind is float):  # a whole number stays one where both are allowed
        try:
            return _decoded(kind, value, where)
        except ValueError:
            continue
    return _checked(False, value, where, " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds))


def _record(kind: Any, value: Mapping[str, Any], where: str) -> Any:
    given = {}
    for field in dataclasses.fields(kind):
        at = f"{where}.{field.name}" if where else field.name
        if field.name in value:
            given[field.name] = _decoded(_hints(kind)[field.name], value[field.name], at)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{at} is missing")
    return kind(**given)


def unknown_field(kind: Any, value: Any, where: str = "") -> str | None:
    """The place of the first field of ``value`` that a ``kind`` does not know, which :func:`decode` would ignore.

    None where there is none. Whether ``value`` is a ``kind`` at all is not asked.
    """
    parts: Iterable[tuple[Any, Any, str]] = ()
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        parts = ((one, value, where) for one in arguments)
    elif dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints: dict[str, Any] = _hints(kind)  # type: ignore[arg-type]
        ours = {f"{where}.{name}" if where else name: name for name in value}
        unknown = next((at for at, name in ours.items() if name not in hints), None)
        if unknown is not None:
            return unknown
        parts = ((hints[name], value[name], at) for at, name in ours.items())
    elif origin is tuple and isinstance(value, list) and not _is_plain(arguments[0]):
        parts = ((arguments[0], part, f"{where}[{i}]") for i, part in enumerate(value))
    elif origin in (dict, Mapping) and isinstance(value, dict) and not _is_plain(arguments[1]):
        parts = ((arguments[1], part, f"{where}.{name}") for name, part in value.items())
    return next((found for hint, part, at in parts if (found := unknown_field(hint, part, at))), None)


def _is_plain(kind: Any) -> bool:
    return kind in (str, int, float, bool)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _checked(right: bool, value: Any, where: str, expected: str) -> Any:
    if not right:
        text = repr(value)
        shown = text if len(text) <= 40 else text[:39] + "…"
        raise ValueError(f"{where or 'the value'} = {shown} is not {expected}")
    return value
