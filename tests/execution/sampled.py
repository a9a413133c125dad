"""Some programs of every launch of a Triton kernel against float64: wide layers in seconds under Triton's interpreter.

    TRITON_INTERPRET=1 python -m tests.execution.sampled SEED PATH "D_IN D_OUT P" ...

Of each launch the first, the last, those at ragged edges and some drawn ones run. What they write is compared with a
float64 oracle of what the kernel is said to write, all else must stay as it was: NaN, or the frozen product that the
kernel adds to. Then the launch's outputs are set to the oracle's, such that the next launch and the layer's output and
gradients, which are compared with the layer's definition, rest on whole operands.
"""

import itertools
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from cdvft_bench.execution import splits
from cdvft_bench.execution.splits import on_chip_fits
from cdvft_reference.circulant import Convention, dense_block_circulant

DRAWN = 3
ALPHA = 0.7
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 4e-3}
"""Largest relative error of what a program writes, by its dtype."""

Programs = tuple[int, ...]
Region = tuple[str, tuple[int | slice, ...]]
"""An output's name and the part of it that one program writes."""


def relative(found: Tensor, exact: Tensor) -> float:
    """Relative norm of the error; of zeros, the norm of what was found."""
    difference, size = (found.detach().double() - exact).norm(), exact.norm()
    return float(difference / size if size else difference)


def sums_by(labels: Tensor, values: Tensor, n: int) -> Tensor:
    """Of n labels the sum of the values that bear each."""
    return torch.bincount(labels.reshape(-1), values.reshape(-1), n)


class Layer:
    """A layer's operands, their float64 oracle, and that of every launch.

    Each oracle takes a launch's arguments by name and returns its outputs, whole, in float64; the regions of a
    program; and programs at edges that no corner of the grid is.
    """

    def __init__(self, d_in: int, d_out: int, p: int, dtype: torch.dtype, diagonals: bool) -> None:
        tokens, self.row, self.diagonals = random.randrange(17, 80), random.random() < 0.5, diagonals
        self.programs: list[Programs] = []
        self.launched: list[str] = []
        self.p, blocks = p, (-(-d_out // p), -(-d_in // p))
        self.c = torch.randn(*blocks, p)
        self.ends = [torch.randn(d_in), torch.randn(d_out)] if self.diagonals else []
        shapes = ((tokens, d_in), (d_out, d_in), (d_out,), (tokens, d_out))
        self.x, self.weight, self.bias, self.g = (torch.randn(*shape).to(dtype) for shape in shapes)
        self.first, self.last = self.ends if self.ends else (torch.ones(d_in), torch.ones(d_out))
        self.first, self.last = self.first.double(), self.last.double()
        convention: Convention = "row" if self.row else "column"
        self.circulant = dense_block_circulant(self.c.double(), d_in, d_out, convention)
        self.change = ALPHA * self.last[:, None] * self.circulant * self.first
        r, s = torch.arange(d_out)[:, None], torch.arange(d_in)
        lag = (s - r) % p if self.row else (r - s) % p
        self.lag = ((r // p) * blocks[1] + s // p) * p + lag  # of every entry of W its entry of c
        self.dense = torch.empty(0)

    def gradients(self, dense: Tensor) -> list[Tensor]:
        """Of a_1, a_3 and c, or of c alone, from ``dense = g^T x`` in float64."""
        both = dense * self.circulant
        ends = [ALPHA * (both.t() @ self.last), ALPHA * (both @ self.first)] if self.diagonals else []
        weighted = ALPHA * dense * self.last[:, None] * self.first
        return [*ends, sums_by(self.lag, weighted, self.c.numel())]

    def expected(self) -> list[Tensor]:
        """The layer's output and its gradients: of x, then those of the factors."""
        x, g, merged = self.x.double(), self.g.double(), self.weight.double() + self.change
        return [x @ merged.t() + self.bias.double(), g @ merged, *self.gradients(g.t() @ x)]

    def merged_weight_kernel(self, a: dict[str, Any]) -> tuple[dict[str, Tensor], Callable[..., Any], list[Programs]]:
        rows, columns = a["ROWS"], a["COLUMNS"]

        def regions(i: int, j: int) -> Iterator[Region]:
            yield "out", (slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns))

        return {"out": a["weight"].double() + self.change}, regions, []

    def fold_kernel(self, a: dict[str, Any]) -> tuple[dict[str, Tensor], Callable[..., Any], list[Programs]]:
        p, tile, tiles, pieces, q_in = self.p, a["TILE"], a["tiles"], a["pieces"], self.c.shape[1]
        d_out, d_in, bands, blocks = a["d_out"], a["d_in"], -(-p // tile), self.c.shape[0] * self.c.shape[1]
        self.dense = dense = a["dense"].double()
        r, s = torch.arange(d_out)[:, None], torch.arange(d_in)
        line, across = (r // p) * bands + r % p // tile, (s // p) * bands + s % p // tile
        near = r % p % tile - s % p % tile  # the diagonal in a tile
        diagonal = r % p // tile - s % p // tile + bands
        at = ((r // p) * q_in + s // p) * pieces + r % p // tile // tiles
        at = ((at * 2 * bands + diagonal) * 2 + (near < 0).long()) * tile + near % tile
        size = blocks * pieces * 4 * bands * tile
        found = {"part_c": sums_by(at, dense * self.last[:, None] * self.first, size)}
        if self.diagonals:
            both = dense * self.circulant
            firsts = both.new_zeros(self.c.shape[0] * bands, d_in).index_add_(0, line[:, 0], both * self.last[:, None])
            lasts = both.new_zeros(q_in * bands, d_out).index_add_(0, across, (both * self.first).t())
            found |= {"part_first": firsts, "part_last": lasts}
        found["part_c"] = found["part_c"].view(blocks, pieces, 2 * bands, 2 * tile)

        def regions(block: int, x: int) -> Iterator[Region]:
            (i, j), (piece, band) = divmod(block, q_in), divmod(x, bands)
            for down in range(piece * tiles, min(bands, (piece + 1) * tiles)) if self.diagonals else ():
                right = (down - band) % bands
                inside = [slice(b * p + t * tile, b * p + min(p, (t + 1) * tile)) for b, t in ((i, down), (j, right))]
                yield "part_first", (i * bands + down, inside[1])
                yield "part_last", (j * bands + right, inside[0])
            for side in (band, band + bands):
                yield "part_c", (block, piece, side)

        return found, regions, [(blocks - 1, min(1, bands - 1))]  # its first tile is a block's last column of tiles

    def fold_sums_kernel(self, a: dict[str, Any]) -> tuple[dict[str, Tensor], Callable[..., Any], list[Programs]]:
        names = ("grad_first", "grad_last", "grad_c")[-1 if not self.diagonals else 0 :]
        found = dict(zip(names, self.gradients(self.dense), strict=True))
        counts = {"grad_first": a["programs_first"], "grad_last": a["programs_last"]}
        ends = list(itertools.accumulate(counts.values()))

        def regions(x: int) -> Iterator[Region]:
            group = sum(x >= end for end in ends)
            at = (x - (0, *ends)[group]) * a["COLUMNS"]
            yield ("grad_first", "grad_last", "grad_c")[group], (slice(at, at + a["COLUMNS"]),)

        return found, regions, [(end + near,) for end in ends for near in (-1, 0) if end]

    def filter_kernel(self, a: dict[str, Any]) -> tuple[dict[str, Tensor], Callable[..., Any], list[Programs]]:
        step, found = a["tiles"] * a["B"], {}
        factor = self.circulant.t() if a["ADJOINT"] else self.circulant
        ends = (self.last, self.first) if a["ADJOINT"] else (self.first, self.last)
        y = ALPHA * (a["x"].double() * ends[0]) @ factor.t()
        if a["STORE"]:
            found["out"] = a["base"].double() * a["BASE"] + y * ends[1]
        if a["SUM"]:
            program, programs = torch.arange(y.shape[0]) // step, -(-y.shape[0] // step)
            sums = y.new_zeros(programs, self.p)
            sums[:, : a["d_y"]].index_add_(0, program, y * a["other"].double())
            found["sums"] = sums

        def regions(x: int) -> Iterator[Region]:
            yield from [("out", (slice(x * step, (x + 1) * step),))] * a["STORE"] + [("sums", (x,))] * a["SUM"]

        return found, regions, []

    def moment_kernel(self, a: dict[str, Any]) -> tuple[dict[str, Tensor], Callable[..., Any], list[Programs]]:
        u, v = (torch.fft.fft(t.double() * e, self.p) for t, e in ((a["x"], self.first), (a["g"], self.last)))
        program = torch.arange(u.shape[0]) // (a["tiles"] * a["B"])
        found = torch.zeros_like(a["moment"], dtype=torch.float64)
        by_row = torch.view_as_real(u.conj() * v).view(-1, a["p2"], a["p1"], 2).permute(0, 3, 2, 1)
        found[:, :, : a["p1"], : a["p2"]].index_add_(0, program, by_row)
        return {"moment": found}, lambda x: [("moment", (x,))], []


def check(layer: Layer, run: Callable[..., None], function: Any, args: Any, grid: Programs, **named: Any) -> None:
    """One launch: some of its programs against the oracle, then the oracle's outputs in place of its own."""
    a = dict(zip(function.arg_names, args, strict=False)) | named
    name = function.fn.__name__
    exact, regions, edges = getattr(layer, name)(a)
    outs = {out: a[out].view(value.shape) for out, value in exact.items()}
    for out in outs.values():
        if sum(isinstance(t, Tensor) and t.data_ptr() == out.data_ptr() for t in a.values()) == 1:
            out.fill_(float("nan"))
    before = {out: t.clone() for out, t in outs.items()}
    drawn = [tuple(random.randrange(n) for n in grid) for _ in range(DRAWN)]
    layer.launched.append(name)
    layer.programs = sorted({*itertools.product(*({0, n - 1} for n in grid)), *edges, *drawn})
    run(function, *args, grid=grid, **named)
    for program in layer.programs:
        for out, at in regions(*program):
            error, bound = relative(outs[out][at], exact[out][at]), BOUNDS[outs[out].dtype]
            assert error < bound, f"{name}, program {program} of {grid}, {out}{at}: error {error}"
            before[out][at] = outs[out][at]
    for out, t in outs.items():
        assert torch.equal(t.isnan(), before[out].isnan()), f"{name} wrote outside of its part of {out}"
        assert torch.equal(t.nan_to_num(), before[out].nan_to_num()), f"{name} changed what it does not own of {out}"
        t.copy_(exact[out])


def run_layer(path: str, layer: Layer) -> None:
    """Output and all gradients of a layer, and every launch on the way."""
    from triton.runtime.interpreter import InterpretedFunction

    from cdvft_bench.counting.interpreted import sampled
    from cdvft_bench.execution.paths import adapted_linear

    given = [t.clone().requires_grad_() for t in (layer.x, *layer.ends, layer.c)]
    how = {"path": path, "convention": "row" if layer.row else "column"}
    with sampled(lambda *_: layer.programs):
        run = InterpretedFunction.run
        InterpretedFunction.run = lambda self, *args, **named: check(layer, run, self, args, **named)
        h = adapted_linear(given[0], layer.weight, layer.bias, given[1:-1], given[-1:], alpha=ALPHA, **how)
        found = [h, *torch.autograd.grad(h, given, layer.g)]
    bound = 1e-2 if layer.x.dtype == torch.bfloat16 else 1e-5
    errors = [relative(a, b.view(a.shape)) for a, b in zip(found, layer.expected(), strict=True)]
    assert max(errors) < bound, (path, errors)
    folded = ["merged_weight_kernel"] * 2 + ["fold_kernel", "fold_sums_kernel"]
    on_chip = ["filter_kernel"] * (3 if layer.diagonals else 2) + ["moment_kernel"]
    assert layer.launched == (folded if path == "merged_dense" else on_chip)


def main(seed: str, path: str, *shapes: str) -> None:
    """Layers of every shape in every dtype that the path takes, and in one without diagonals; ragged tokens."""
    torch.manual_seed(int(seed))
    random.seed(int(seed))
    for shape in shapes:
        d_in, d_out, p = map(int, shape.split())
        fits = [t for t in BOUNDS if path == "merged_dense" or on_chip_fits(p, str(t).removeprefix("torch."))]
        for dtype, diagonals in (*((t, True) for t in fits), (random.choice(fits), False)):
            splits.ON_CHIP_PROGRAMS = random.choice((8, 512))  # several tiles of rows a program, or one
            run_layer(path, Layer(d_in, d_out, p, dtype, diagonals))


if __name__ == "__main__":
    from cdvft_bench.counting.interpreted import watch_launches

    with watch_launches():
        main(*sys.argv[1:])
