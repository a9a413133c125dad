"""Settings that CDVFT and the block-circulant adapter have in common: drawn for tests, and weighed for advice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, get_args

from cdvft_bench.analytic.circulant import CirculantPath
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.execution.costs import FAST_PATHS

BLOCK_SIZES = (None, 1024, 256, 64)
COMPILED_FOR = {"native": "cpu", "triton": ""}
"""Paths of compiled kernels and the device they are advised for: no count can check the closed form of Triton's."""


def draw(rng: Random) -> dict[str, Any]:
    """Values of the common fields; any path but Triton's, into which no dispatcher sees."""
    path = rng.choice([p for p in get_args(CirculantPath) if p != "triton"])
    compiled = rng.choice([16, 32, 48, 64, 80, 112])
    return {
        "block_size": compiled if path == "native" else rng.choice([None, rng.randint(1, 70)]),
        "alpha": rng.choice([1.0, 0.5]),
        "convention": rng.choice(["column", "row"]),
        "path": path,
    }


def advised_paths(device: str) -> tuple[str, ...]:
    """Paths to weigh on a kind of device."""
    return ("fft", "handwritten", *(p for p in FAST_PATHS if COMPILED_FOR.get(p, device) == device))


def advised(layers: Sequence[LinearShape], device: str) -> Iterator[dict[str, int | str]]:
    """Block sizes below the narrowest width and that width itself, each on every path of the device."""
    narrowest = min(min(int(x.d_in), int(x.d_out)) for x in layers)
    for size in BLOCK_SIZES:
        if size is None or size < narrowest:
            block: dict[str, int | str] = {} if size is None else {"block_size": size}
            for path in advised_paths(device):
                yield {**block, "path": path}


def reference_path(path: str) -> bool:
    """Whether a path adds to what the base layer returns, whatever holds its weight."""
    return path in ("fft", "handwritten")
