"""Methods as users write them: ``lora``, ``LoRA:16``, ``"lora rank=16"``, ``cdvft:m=2:p=64``, several with commas."""

import dataclasses
import re
from collections.abc import Iterable, Mapping

from cdvft_bench.core.case import FROZEN, Value, parse_value
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.names import not_known
from cdvft_bench.methods._values import choices_of, hints
from cdvft_bench.methods.base import Method, method_class, method_names

Spelled = tuple[str, dict[str, Value]]
"""A method's registry name and the hyperparameters that were given."""

USUAL = {"r": "rank", "p": "block_size", "b": "block_size", "n": "n_frequency"}
"""What papers call hyperparameters, beside PEFT's names of them."""

NOT_PAIR = "is not NAME=VALUE, as in m=2 or block_size=768"
HOW = "write lora, lora:16, lora:rank=16 or 'lora rank=16'"


def parse_methods(texts: Iterable[str]) -> list[Spelled]:
    """The methods that texts name, in order; NAME=VALUE by itself belongs to the method before it.

    Upper and lower case are the same, and titles do as names. A value without a name is that of the first
    hyperparameter, or of one that takes such a word (a path).

    Raises:
        UserError: a method or hyperparameter is not known, or given twice; a NAME=VALUE stands first.
    """
    found: list[Spelled] = []
    for part in (part.strip() for text in texts for part in text.split(",")):
        if not part:
            raise UserError(f"a method is missing between commas; {HOW}")
        name, items = _head(part, method_class(found[-1][0]) if found and found[-1][0] != FROZEN else None)
        if name is not None:
            found.append((name, {}))
        elif not found:
            raise UserError(f"{part!r:.60} names no method; {HOW}")
        for item in items:
            _add(item, *found[-1])
    return found


def parse_method(texts: Iterable[str]) -> Spelled:
    """The one method that texts name, see :func:`parse_methods`.

    Raises:
        UserError: it is none, or several.
    """
    found = parse_methods(texts)
    if len(found) != 1:
        said = f"{', '.join(name for name, _ in found)} are {len(found)} methods" if found else "no METHOD is named"
        raise UserError(f"{said}; give one, as lora:16 or cdvft")
    return found[0]


def _head(part: str, before: type[Method] | None) -> tuple[str | None, list[str]]:
    """The registry name that a part begins with, None where it is NAME=VALUE alone, and the rest of it."""
    whole = _named(part)
    if whole is not None:
        return whole, []
    head, *items = re.split(r"[:\s]+", part)
    if "=" in head:
        return None, [head, *items]
    name = _named(head)
    if name is None and before is not None and head in hints(before):
        raise UserError(f"hyperparameter {head!r} {NOT_PAIR}")
    if name is None:
        raise not_known("method", head, method_names())
    return name, [item for item in items if item]


def _named(text: str) -> str | None:
    names = method_names()
    known = {FROZEN: FROZEN} | {_plain(method_class(n).title): n for n in names} | {_plain(n): n for n in names}
    return known.get(_plain(text))


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def _add(item: str, method: str, given: dict[str, Value]) -> None:
    key, equals, text = item.partition("=")
    if not equals:
        key, text = "", item
    if (equals and not key) or not text:
        raise UserError(f"hyperparameter {item!r:.60} {NOT_PAIR}")
    if method == FROZEN:
        raise UserError(f"the frozen subject has no hyperparameter {item!r:.60}")
    value = parse_value(text)
    name = _field(method_class(method), key) if equals else _taker(method_class(method), value, given)
    if name in given:
        raise UserError(f"{method}: {name} is given twice, as {given[name]} and {text:.60}")
    given[name] = value


def _field(cls: type[Method], key: str) -> str:
    """The field that a hyperparameter's name stands for: its own, the paper's letter, or PEFT's name."""
    fields = [f.name for f in dataclasses.fields(cls)]
    peft: Mapping[str, str] = getattr(getattr(cls, "peft", None), "names", {})
    known = {letter: name for letter, name in USUAL.items() if name in fields}
    known |= {other: name for names in (peft, cls.short) for name, other in names.items()} | {f: f for f in fields}
    name = known.get(key.lower().replace("-", "_"))
    if name is None:
        raise not_known(f"{cls.name} has no hyperparameter", key, fields, "", "it has")
    return name


def _taker(cls: type[Method], value: Value, given: dict[str, Value]) -> str:
    """The field that takes a value without a name."""
    for name, hint in hints(cls).items():
        if isinstance(value, str) and value in choices_of(hint):
            return name
    first = next(iter(hints(cls)), None)
    text = isinstance(value, str) and not str(first).endswith("block_size")  # which may be written "d/4"
    if first is None or text or given:
        raise UserError(f"{cls.name}: {str(value)!r:.60} is the value of no hyperparameter; write NAME=VALUE")
    return first
