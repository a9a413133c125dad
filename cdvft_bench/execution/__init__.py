"""Fast ways to execute CDVFT and the block-circulant adapter, and the planner that picks one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdvft_bench.execution.merged import merged_weight
    from cdvft_bench.execution.mixed import mixed_change
    from cdvft_bench.execution.paths import (
        PATHS,
        FastBlockCirculantLinear,
        FastCDVFTLinear,
        Path,
        adapted_linear,
        change,
        check_path,
    )
    from cdvft_bench.execution.planner import Problem, rank
    from cdvft_bench.execution.scratch import release_buffers

__all__ = [
    "PATHS",
    "FastBlockCirculantLinear",
    "FastCDVFTLinear",
    "Path",
    "Problem",
    "adapted_linear",
    "change",
    "check_path",
    "merged_weight",
    "mixed_change",
    "rank",
    "release_buffers",
]

_HOMES = {
    "merged": ("merged_weight",),
    "mixed": ("mixed_change",),
    "paths": (
        "PATHS",
        "FastBlockCirculantLinear",
        "FastCDVFTLinear",
        "Path",
        "adapted_linear",
        "change",
        "check_path",
    ),
    "planner": ("Problem", "rank"),
    "scratch": ("release_buffers",),
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and the closed forms in this room do without it.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
