"""What ATen operators do, by name: launch nothing, stand for others, or run a kernel. Needs no torch.

A composite (linear, matmul, reshape) is only a name for the operators inside it, which are the ones that a dispatch
mode sees; views and bare allocations launch nothing. ``operators.txt`` lists them; a test compares it with the registry
of the installed torch. A name that it lacks is taken for an operator that runs a kernel.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from cdvft_bench.timing.traces.names.families import operator_family

Kind = Literal["none", "composite", "kernel", "either"]
NAMESPACES = ("aten::", "cdvft::")
"""Of the operators that a dispatch mode sees."""


@cache
def _table() -> dict[str, Kind]:
    found: dict[str, Kind] = {}
    sections: dict[str, Kind] = {"[composite]": "composite", "[either]": "either", "[none]": "none"}
    kind: Kind = "kernel"
    for line in Path(__file__).with_name("operators.txt").read_text(encoding="utf-8").splitlines():
        first, *_ = words = line.split()
        if first in sections:
            kind = sections[first]
        elif first != "#":
            found.update(dict.fromkeys(words, kind))
    return found


def is_operator(name: str) -> bool:
    """Whether an event's name is that of an operator that a dispatch mode sees."""
    return name.startswith(NAMESPACES)


def bare(name: str) -> str:
    """An operator's name without its namespace."""
    for namespace in NAMESPACES:
        name = name.removeprefix(namespace)
    return name


def kind(name: str) -> Kind:
    """What an operator (by its bare name) does."""
    return _table().get(name, "kernel")


def known(name: str) -> bool:
    """Whether a bare name is surely an operator's: the legacy profiler writes none of their namespaces."""
    return kind(name) != "kernel" or operator_family(name) != "other"
