"""The path "native": C kernels, compiled for the CPU that runs them.

``numbers.h``, ``columns.h``, ``fft.h``, ``layer.h``, ``rows.h``, ``layer.c`` and ``mixed.h`` are the kernels, from
arithmetic to layers and batches of many adapters; ``build.py`` compiles and loads them, ``operands.py`` says what they
take, ``kernels.py`` calls them by ``structure.py``, on the threads of ``pool.py``, ``path.py`` makes them operators of
torch and a path. ``radices.py`` is told to them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdvft_bench.execution.native.kernels import (
        backward,
        countable,
        counting,
        described,
        forward,
        misfit,
        missing,
        mixed,
    )
    from cdvft_bench.execution.native.operands import check, takes
    from cdvft_bench.execution.native.structure import Counts

__all__ = [
    "Counts",
    "backward",
    "check",
    "countable",
    "counting",
    "described",
    "forward",
    "misfit",
    "missing",
    "mixed",
    "takes",
]


def __getattr__(name: str) -> Any:
    # The closed forms ask for radices, and do without torch, which takes seconds to import.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = {"check": "operands", "takes": "operands", "Counts": "structure"}.get(name, "kernels")
    return getattr(import_module(f"{__name__}.{home}"), name)
