"""What the programs of Triton's kernels load and store, counted by Triton's interpreter and recorded in a log."""

import contextlib
import itertools
import os
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.helper import Helper, NoAnswerError, serve
from cdvft_bench.core.io.log import Log
from cdvft_bench.core.text import markdown_table
from cdvft_bench.execution.planner import Problem

LIMIT_S = 1800.0
"""Seconds that one layer may take."""

WHOLE, DRAWN = 150, 4
"""Up to so many programs all of a launch run; of more, those at the grid's corners and so many drawn ones."""


@dataclass(frozen=True)
class Layer:
    """A layer whose kernels are interpreted; ``diagonals`` is 2, or 0 for the block-circulant adapter."""

    d_in: int
    d_out: int
    p: int
    diagonals: int
    dtype: str
    tokens: int

    @property
    def problem(self) -> Problem:
        """The same for closed forms."""
        return Problem(self.d_in, self.d_out, self.p, self.diagonals, self.tokens, self.dtype, "cuda", bias=False)

    @property
    def key(self) -> str:
        """What tells it from the others."""
        return f"{self.d_in}x{self.d_out} p={self.p} m={self.diagonals} {self.dtype} {self.tokens} tokens"


LAYERS = tuple(
    Layer(d_in, d_out, p, diagonals, dtype, tokens)
    for d_in, d_out, p, tokens in (*((d, d, d, 8192) for d in (768, 1024, 4096)), (200, 300, 75, 96))
    for diagonals in (2, 0)
    for dtype in ("bfloat16", "float32")
)
"""The widths that layers have, and one of ragged blocks."""


def record(path: Path, layers: tuple[Layer, ...] = LAYERS) -> int:
    """Interpret what the log lacks and append it; the number of new rows.

    Raises:
        UserError: Triton is not installed, or its interpreter fails.
    """
    made = 0
    command = [sys.executable, "-m", "cdvft_bench.sweep.probes.static_traffic"]
    helper = Helper(command, {**os.environ, "TRITON_INTERPRET": "1"})
    with Log(path) as log, contextlib.closing(helper):
        done = {entry["key"] for entry in log.entries if "key" in entry}
        for layer in layers:
            if layer.key in done:
                continue
            try:
                found = helper.ask(asdict(layer), LIMIT_S)
            except NoAnswerError as error:
                raise UserError(f"the kernels of {layer.key} cannot be interpreted: {str(error)[:200]}") from None
            log.append({"key": layer.key, "layer": asdict(layer), **found})
            made += 1
    return made


def launches(layer: Layer) -> Iterator[dict[str, Any]]:
    """Each launch of a step on path "merged_dense" (one of two merged weights), then of path "triton" where it can.

    Of each its kernel and number of programs, the least and the most bytes that a program ``loads`` and ``stores``, its
    arguments' ``sizes`` in bytes, and the ``kinds`` of programs that ran, by what they move: how many ``ran``, and
    bytes by argument, ``read`` and ``written``.
    """
    from cdvft_bench.counting.interpreted import sampled, watch_launches

    ran: list[tuple[int, int]] = []
    drawn = random.Random(0)

    def choose(kernel: str, grid: tuple[int, ...]) -> list[tuple[int, ...]]:
        programs = [*itertools.product(*map(range, grid))]
        if len(programs) > WHOLE:
            corners = itertools.product(*({0, n - 1} for n in grid))
            chosen = sorted({*corners, *drawn.sample(programs, DRAWN)})
        else:
            chosen = programs
        ran.append((len(programs), len(chosen)))
        return chosen

    with watch_launches() as seen, sampled(choose):
        _run(layer)
    each = iter(seen)
    for programs, n in ran:
        kinds: dict[str, dict[str, Any]] = {}
        for launched in itertools.islice(each, n):
            moved = {
                way: {name: getattr(a, way) for name, a in launched.arguments.items() if getattr(a, way)}
                for way in ("read", "written")
            }
            kinds.setdefault(str(moved), {"ran": 0, **moved})["ran"] += 1
        sizes = {name: a.size * a.entries for name, a in launched.arguments.items() if a.entries}
        sums = {way: sorted(sum(kind[way].values()) for kind in kinds.values()) for way in ("read", "written")}
        loads, stores = ([found[0], found[-1]] for found in sums.values())
        launch = {"kernel": launched.kernel, "programs": programs, "loads": loads, "stores": stores}
        yield launch | {"sizes": sizes, "kinds": [*kinds.values()]}


def _run(layer: Layer) -> None:
    from cdvft_bench.execution.fused import Plan
    from cdvft_bench.execution.paths import adapted_linear
    from cdvft_bench.execution.triton import path as triton_path

    factor, dtype = layer.problem.factors[0], getattr(torch, layer.dtype)
    ends = [torch.randn(layer.d_in), torch.randn(layer.d_out)] if layer.diagonals else []
    c = torch.randn(int(factor.q_out), int(factor.q_in), layer.p)
    matrix = torch.randn(layer.d_out, layer.d_in).to(dtype)
    plan = Plan(layer.d_out, 0.5, False, layer.diagonals)
    triton_path.merged_weight(matrix, ends, c, plan, torch.empty_like(matrix))
    triton_path.fold_gradients(matrix, ends, c, plan)
    if "triton" in layer.problem.paths:
        x, g = (torch.zeros(layer.tokens, d, dtype=dtype) for d in (layer.d_in, layer.d_out))
        given = [t.requires_grad_() for t in (x, *ends, c)]
        torch.autograd.grad(adapted_linear(x, matrix, None, ends, [c], path="triton"), given, g)


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table."""
    cells = []
    for row in rows:
        for launch in row["launches"]:
            spans = (" to ".join(f"{n:,}" for n in sorted({*launch[way]})) for way in ("loads", "stores"))
            cells.append((f"`{launch['kernel']}`", row["key"], f"{launch['programs']:,}", *spans))
    columns = ("kernel", "layer", "programs", "loads [B a program]", "stores [B a program]")
    return "\n".join(markdown_table(columns, cells)) + "\n"


if __name__ == "__main__":
    torch.manual_seed(0)
    serve(lambda asked: {"launches": [*launches(Layer(**asked))]})
