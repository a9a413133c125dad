"""Settings that CDVFT and the block-circulant adapter have in common: drawn for tests, and weighed for advice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from random import Random
from typing import Any, get_args

from cdvft_bench.analytic.circulant import CirculantPath, resolve_block_size
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.execution.costs import FAST_PATHS
from cdvft_bench.methods.base import Method

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


class Circulant(Method):
    """A method of circulant factors, executed on a path."""

    block_size: int | None
    path: CirculantPath

    @property
    def told(self) -> str:
        """What labels say of blocks and path; nothing of ``auto``, which is what users get."""
        return f"p={self.block_size or 'd'}" + (f" {self.path}" if self.path != "auto" else "")

    @classmethod
    def paths(cls, device: str) -> tuple[str, ...]:
        return advised_paths(device)

    @property
    def covers_quantised(self) -> bool:
        return self.path in ("fft", "handwritten")  # which add to what the base returns, whatever holds its weight

    def resolved(self, layer: LinearShape) -> Mapping[str, object]:
        return {**asdict(self), "block_size": resolve_block_size(self.block_size, layer)}
