"""What the kernels of the merged paths move, counted by Triton's interpreter and recorded in a log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.log import Log, encode_line, parse_line
from cdvft_bench.execution.planner import Problem


@dataclass(frozen=True)
class Layer:
    """A layer whose kernels are interpreted; ``diagonals`` is 2, or 0 for the block-circulant adapter."""

    d_in: int
    d_out: int
    p: int
    diagonals: int
    dtype: str

    @property
    def problem(self) -> Problem:
        """The same for closed forms."""
        return Problem(self.d_in, self.d_out, self.p, self.diagonals, 1, self.dtype, "cuda")

    @property
    def key(self) -> str:
        """What tells it from the others."""
        return f"{self.d_in}x{self.d_out} p={self.p} m={self.diagonals} {self.dtype}"


LAYERS = tuple(
    Layer(*shape, diagonals, dtype)
    for shape in ((384, 384, 384), (192, 384, 192), (200, 300, 75))
    for diagonals in (2, 0)
    for dtype in ("bfloat16", "float32")
)


def record(path: Path, layers: tuple[Layer, ...] = LAYERS) -> int:
    """Interpret what the log lacks and append it; the number of new rows.

    Raises:
        UserError: Triton is not installed, or its interpreter fails.
    """
    made = 0
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "cdvft_bench.sweep.probes.static_traffic"]
    with Log(path) as log:
        done = {entry["key"] for entry in log.entries if "key" in entry}
        for layer in layers:
            if layer.key in done:
                continue
            found = subprocess.run(command, input=encode_line(asdict(layer)), env=environment, capture_output=True)
            if found.returncode:
                said = found.stderr.decode(errors="replace").strip().splitlines() or ["it was killed"]
                raise UserError(f"the kernels of {layer.key} cannot be interpreted: {said[-1][:200]}")
            log.append({"key": layer.key, "layer": asdict(layer), **parse_line(found.stdout)})
            made += 1
    return made


def interpret(layer: Layer) -> Iterator[tuple[str, dict[str, dict[str, int]]]]:
    """Each launch of the merged weight and of the fold, with the bytes of each of its arguments."""
    from cdvft_bench.counting.interpreted import watch_launches
    from cdvft_bench.execution.fused import Plan
    from cdvft_bench.execution.triton import path as triton_path

    factor, dtype = layer.problem.factors[0], getattr(torch, layer.dtype)
    ends = [torch.randn(layer.d_in), torch.randn(layer.d_out)] if layer.diagonals else []
    c = torch.randn(int(factor.q_out), int(factor.q_in), layer.p)
    matrix = torch.randn(layer.d_out, layer.d_in).to(dtype)
    plan = Plan(layer.d_out, 0.5, False, layer.diagonals)
    with watch_launches() as launches:
        triton_path.merged_weight(matrix, ends, c, plan, torch.empty_like(matrix))
        triton_path.fold_gradients(matrix, ends, c, plan)
    for launch in launches:
        yield launch.kernel, {name: asdict(moved) for name, moved in launch.moved().items()}


def _serve(line: bytes) -> dict[str, Any]:
    return {"kernels": dict(interpret(Layer(**parse_line(line))))}


if __name__ == "__main__":
    sys.stdout.buffer.write(encode_line(_serve(sys.stdin.buffer.read())))
