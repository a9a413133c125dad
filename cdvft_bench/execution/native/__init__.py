"""The path "native": C kernels, compiled for the CPU that runs them.

``numbers.h``, ``columns.h``, ``fft.h`` and ``layer.c`` are the kernels, from arithmetic to layers; ``build.py``
compiles and loads them, ``kernels.py`` calls them, ``path.py`` makes them operators of torch and a path.
"""

from __future__ import annotations

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

__all__ = ["Counts", "backward", "check", "countable", "counting", "described", "forward", "misfit", "missing", "takes"]
