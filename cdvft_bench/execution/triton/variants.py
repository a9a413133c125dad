"""Every launch of a Triton kernel that a path makes on a layer: what a compiler needs, without a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cdvft_bench.analytic.circulant import Factor
from cdvft_bench.execution.splits import (
    fold_split,
    fold_tile,
    on_chip_fits,
    on_chip_rows,
    on_chip_tiles,
    padded,
    split,
)
from cdvft_bench.execution.triton.costs import SUM_COLUMNS

POINTEES = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16"}


@dataclass(frozen=True)
class Launch:
    """One launch.

    Attributes:
        kernel: name of the function in ``kernels``. path: of execution that makes it.
        arguments, constants: by name; a pointer is the type that it points to. warps: of a program.
        programs: of the launch.
    """

    kernel: str
    path: str
    arguments: dict[str, int | float | str] = field(hash=False)
    constants: dict[str, int | bool | str] = field(hash=False)
    warps: int
    programs: int


def launches(d_in: int, d_out: int, p: int, tokens: int, dtype: str, diagonals: bool, row: bool) -> Iterator[Launch]:
    """What a training step of a layer launches on the paths "merged_dense" and, where it can, "triton".

    Args:
        d_in, d_out, p, tokens: sizes. dtype: of the activations. diagonals: whether there are some (m = 2), or none.
        row: the first-row convention.
    """
    yield merged_weight(d_in, d_out, p, dtype, diagonals, row)
    yield from fold(d_in, d_out, p, dtype, diagonals, row)
    if p >= max(d_in, d_out) and on_chip_fits(p, dtype):
        yield from on_chip(d_in, d_out, p, tokens, dtype, diagonals)


def merged_weight(d_in: int, d_out: int, p: int, dtype: str, diagonals: bool, row: bool) -> Launch:
    """``path.merged_weight`` of a contiguous weight."""
    from cdvft_bench.execution.triton.path import MERGED_COLUMNS, MERGED_ROWS, MERGED_WARPS

    arguments: dict[str, int | float | str] = dict.fromkeys(("first", "last", "c"), "*fp32")
    arguments |= {"weight": POINTEES[dtype], "out": POINTEES[dtype], "d_out": d_out, "d_in": d_in, "p": p}
    arguments |= {"q_in": -(-d_in // p), "alpha": 1.0, "weight_row": d_in, "weight_column": 1}
    constants: dict[str, int | bool | str] = {"DIAGONALS": diagonals, "ROW": row, "ROWS": MERGED_ROWS}
    programs = -(-d_out // MERGED_ROWS) * -(-d_in // MERGED_COLUMNS)
    constants["COLUMNS"] = MERGED_COLUMNS
    return Launch("merged_weight_kernel", "merged", arguments, constants, MERGED_WARPS, programs)


def fold(d_in: int, d_out: int, p: int, dtype: str, diagonals: bool, row: bool) -> Iterator[Launch]:
    """``path.fold_gradients``: its two launches."""
    from cdvft_bench.execution.triton.path import FOLD_WARPS, SUM_WARPS

    factor = Factor(d_in, d_out, p, 1, "float32")
    q_in, blocks, n = int(factor.q_in), int(factor.q_in * factor.q_out), int(factor.parameters)
    tile = int(fold_tile(p))
    bands, tiles, pieces = (int(v) for v in fold_split(blocks, p))
    parts: dict[str, int | float | str] = dict.fromkeys(("part_first", "part_last", "part_c"), "*fp32")
    sizes = {"d_out": d_out, "d_in": d_in, "p": p, "pieces": pieces}
    first = parts | sizes | dict.fromkeys(("first", "last", "c"), "*fp32")
    first |= {"dense": POINTEES[dtype], "q_in": q_in, "tiles": tiles}
    constants: dict[str, int | bool | str] = {"DIAGONALS": diagonals, "ROW": row, "TILE": tile}
    yield Launch("fold_kernel", "merged_dense", first, constants, FOLD_WARPS, bands * pieces * blocks)
    lines = (int(factor.q_out) * bands, q_in * bands) if diagonals else (0, 0)
    programs = [-(-d // SUM_COLUMNS) if diagonals else 0 for d in (d_in, d_out)]
    second = parts | sizes | dict.fromkeys(("grad_first", "grad_last", "grad_c"), "*fp32") | {"size_c": n, "alpha": 1.0}
    second |= {"lines_first": lines[0], "lines_last": lines[1]}
    second |= {"programs_first": programs[0], "programs_last": programs[1]}
    constants = {"ROW": row, "TILE": tile, "COLUMNS": SUM_COLUMNS}
    yield Launch("fold_sums_kernel", "merged_dense", second, constants, SUM_WARPS, sum(programs) - -(-n // SUM_COLUMNS))


def on_chip(
    d_in: int,
    d_out: int,
    p: int,
    tokens: int,
    dtype: str,
    diagonals: bool,
    *,
    rows: int = 0,
    warps: int = 0,
    pair: tuple[int, int] | None = None,
) -> Iterator[Launch]:
    """``on_chip.TritonFunction``: its launches, with a base: forward, then those of backward.

    Args:
        rows, warps: of a program; pair: p1 and p2; each in place of the path's own where it is given.
    """
    from cdvft_bench.execution.triton.on_chip import WARPS, products

    p1, p2 = pair or split(p) or (1, 1)
    P1, P2 = padded(p1), padded(p2)
    B, warps = rows or on_chip_rows(p, dtype), warps or WARPS
    tiles, _ = (int(n) for n in on_chip_tiles(tokens, B))
    vectors = ("before", "after", "first", "last", "spectrum", "f1", "f2", "twiddle", "sums", "moment")
    shared: dict[str, int | float | str] = dict.fromkeys(vectors, "*fp32")
    shared |= dict.fromkeys(("x", "g", "base", "other", "out"), POINTEES[dtype])
    shared |= {"rows": tokens, "p1": p1, "p2": p2, "scale": 1.0 / p}
    shapes: dict[str, int | bool | str] = {"DIAGONALS": diagonals, "P1": P1, "P2": P2, "B": B}
    shapes["PRECISION"] = products(dtype == "float32")

    def run(d_x: int, d_y: int, adjoint: bool, store: bool, sums: bool) -> Launch:
        steps = tiles if sums else 1
        arguments = {**shared, "d_x": d_x, "d_y": d_y, "tiles": steps}
        constants = {**shapes, "ADJOINT": adjoint, "BASE": store, "STORE": store, "SUM": sums}
        return Launch("filter_kernel", "triton", arguments, constants, warps, -(-tokens // (B * steps)))

    yield run(d_in, d_out, False, True, False)
    yield run(d_out, d_in, True, True, diagonals)
    if diagonals:
        yield run(d_in, d_out, False, False, True)
    arguments = {**shared, "d_in": d_in, "d_out": d_out, "tiles": tiles}
    yield Launch("moment_kernel", "triton", arguments, shapes, warps, -(-tokens // (B * tiles)))
