"""Events out of JSON text: by msgspec where it is installed, else by the standard library, to the same result.

Only what the analysis reads of an event is kept. Shapes stay JSON text: of a million operators only a few thousand
differ in them. msgspec's typed decoder skips the rest without making objects of it and is eight times as fast.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

try:
    import msgspec as _installed
except ImportError:  # a bare node
    msgspec: Any = None
else:
    msgspec = _installed

NO_TEXT: Any = b"" if msgspec is None else msgspec.Raw()
"""Stands for JSON text that is not there; told by identity."""


class Event(Protocol):
    """What is read of an event.

    ``args`` has the attributes of ``_KEYS``, each as the file has it, ``NONE`` or ``NO_TEXT`` for what is not there; or
    it is whatever else the file held there.
    """

    ph: Any
    cat: Any
    name: Any
    pid: Any
    tid: Any
    ts: Any
    dur: Any
    id: Any
    args: Any


_KEYS = {
    "correlation": "correlation",
    "external": "External id",
    "external_old": "external id",
    "device": "device",
    "stream": "stream",
    "sequence": "Sequence number",
    "forward": "Fwd thread id",
    "graph": "graph id",
    "bytes": "bytes",
    "name": "name",
    "labels": "labels",
    "dims": "Input Dims",
    "dims_old": "Input dims",
    "types": "Input type",
    "strides": "Input Strides",
    "concrete": "Concrete Inputs",
}
"""Names in a trace by attribute of an event's arguments."""
_SHAPES = tuple(_KEYS.items())[-5:]
_IDENTIFIERS = tuple(_KEYS.items())[:-5]
NONE = -1
"""Stands for a number that is not there."""
READ = frozenset(_KEYS.values())
"""Arguments that the analysis reads."""


class Text(str):
    """A number as its file spells it: a float cannot hold nanoseconds of an absolute time."""

    __slots__ = ()


class PlainArgs:
    """Arguments of the standard library's reader; shapes are what their JSON text says."""

    __slots__ = tuple(_KEYS)
    types: Any
    strides: Any
    concrete: Any

    def __init__(self, raw: Mapping[str, Any]) -> None:
        get = raw.get
        for attribute, key in _IDENTIFIERS:
            setattr(self, attribute, get(key, NONE))
        for attribute, key in _SHAPES:
            setattr(self, attribute, get(key, NO_TEXT))


@dataclass(slots=True)
class PlainEvent:
    """``Event`` of the standard library's reader."""

    ph: Any = None
    cat: Any = None
    name: Any = None
    pid: Any = None
    tid: Any = None
    ts: Any = None
    dur: Any = None
    id: Any = None
    args: Any = None


_ENCODE = json.JSONEncoder(separators=(",", ":")).encode
_EVENT_KEYS = ("ph", "cat", "name", "pid", "tid", "ts", "dur", "id", "args")


def plain_event(raw: Mapping[str, Any]) -> PlainEvent:
    """An event of a decoded object."""
    event = PlainEvent(*map(raw.get, _EVENT_KEYS))
    if event.args.__class__ is dict or isinstance(event.args, Mapping):
        event.args = PlainArgs(event.args)
    return event


def plain_events(raws: Iterable[Any]) -> list[Event]:
    """Events of decoded objects; what is no object is passed over."""
    return [plain_event(raw) for raw in raws if isinstance(raw, Mapping)]


_DECODERS = {
    False: json.JSONDecoder(strict=False),  # kernel names may hold control characters
    True: json.JSONDecoder(strict=False, parse_float=Text),
}


def decode_plain(data: bytes, exact: bool) -> list[Event]:
    """Events of a JSON list.

    Args:
        data: the list.
        exact: leave numbers with a fraction as ``Text``.

    Raises:
        ValueError, RecursionError: it is not JSON.
    """
    # Kernel names may hold broken UTF-8, too.
    return plain_events(_DECODERS[exact].decode(data.decode("utf-8", "replace")))


def raw_decode(text: str, start: int, exact: bool) -> tuple[Any, int]:
    """The JSON value that begins at ``text[start]``, and where it ends.

    Raises:
        ValueError, RecursionError: it is not JSON.
    """
    return _DECODERS[exact].raw_decode(text, start)


if msgspec is not None:
    _struct_args: list[Any] = [
        (attribute, msgspec.Raw, msgspec.field(default=NO_TEXT, name=key)) for attribute, key in _SHAPES
    ]
    _struct_args += [(attribute, Any, msgspec.field(default=NONE, name=key)) for attribute, key in _IDENTIFIERS]
    _FastArgs = msgspec.defstruct("_FastArgs", _struct_args, gc=False)

    def _fast(time: Any, none: Any) -> Any:
        fields: list[Any] = [(key, Any, None) if key != "ts" else (key, time, none) for key in _EVENT_KEYS[:-1]]
        args = _FastArgs | str | int | float | bool | list[Any] | None
        struct = msgspec.defstruct("_FastEvent", [*fields, ("args", args, None)], gc=False)
        return msgspec.json.Decoder(list[struct])  # type: ignore[valid-type]

    _FAST = {False: _fast(Any, None), True: _fast(msgspec.Raw, NO_TEXT)}

    def decode(data: bytes, exact: bool) -> list[Event]:
        """As ``decode_plain``, to the same result."""
        try:
            events: list[Any] = _FAST[exact].decode(data)
        except (msgspec.DecodeError, RecursionError):
            return decode_plain(data, exact)  # it takes control characters, NaN and broken UTF-8
        if exact:
            for event in events:
                event.ts = None if event.ts is NO_TEXT else _spelled(bytes(event.ts))
        return events

else:
    decode = decode_plain


def _spelled(number: bytes) -> Any:
    try:
        return int(number)
    except ValueError:
        text = number.decode("utf-8", "replace")
        return text[1:-1] if text.startswith('"') else Text(text)


def shape_text(args: Any) -> bytes:
    """JSON text of dims, types, strides and concrete inputs, one list; "null" each for what is not there."""
    dims = args.dims if args.dims_old is NO_TEXT else args.dims_old
    if type(args) is PlainArgs:
        parts = [None if p is NO_TEXT else p for p in (dims, args.types, args.strides, args.concrete)]
        return _ENCODE(parts).encode()
    text: bytes = b"[%b,%b,%b,%b]" % (
        b"null" if dims is NO_TEXT else dims,
        b"null" if args.types is NO_TEXT else args.types,
        b"null" if args.strides is NO_TEXT else args.strides,
        b"null" if args.concrete is NO_TEXT else args.concrete,
    )
    return text


def shape(text: bytes) -> tuple[Any, Any, Any, Any]:
    """Dims, types, strides and concrete inputs of an operator from their JSON text; None each where there is none."""
    try:
        dims, types, strides, concrete = json.loads(text)
    except (ValueError, RecursionError):
        return None, None, None, None
    return dims, types, strides, concrete
