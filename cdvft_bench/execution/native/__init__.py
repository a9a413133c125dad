"""The path "native": C kernels, compiled for the CPU that runs them.

``numbers.h``, ``columns.h``, ``fft.h`` and ``layer.c`` are the kernels, from arithmetic to layers; ``build.py``
compiles and loads them, ``operands.py`` says what they take, ``kernels.py`` calls them, on the threads of ``pool.py``,
``path.py`` makes them operators of torch and a path. ``radices.py`` is told to them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdvft_bench.execution.native.kernels import (
        Counts,
        backward,
        countable,
        counting,
        described,
        forward,
        misfit,
        missing,
    )
    from cdvft_bench.execution.native.operands import check, takes

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
    "takes",
]


def __getattr__(name: str) -> Any:
    # The closed forms ask for radices, and do without torch, which takes seconds to import.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "operands" if name in ("check", "takes") else "kernels"
    return getattr(import_module(f"{__name__}.{home}"), name)
