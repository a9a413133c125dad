"""What was recorded of the Triton kernels without a GPU (profiles/gpu-static), for claims of the kind "figure"."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from cdvft_bench.claims.sources.source import NotAvailable
from cdvft_bench.core.io.log import read_log
from cdvft_bench.execution.triton.costs import fold_kernels, merged_weight_kernel

_REMEDY = "record it with cdvft-bench dev kernels"


def kernels_that_spill(dtype: str = "", target: str = "") -> float:
    """Kernels that path "auto" may launch and that keep registers off chip, or that could not be compiled.

    Args:
        dtype: of the activations; "" for all. target: key of ``counting.occupancy.TARGETS``; "" for all.
    """
    rows = [
        row
        for row in _rows("kernels.jsonl")
        if row["picked"] and dtype in ("", row["dtype"]) and target in ("", row["target"])
    ]
    if not rows:
        raise NotAvailable(f"no kernel was compiled for {target or 'a target'} and {dtype or 'a dtype'}", _REMEDY)
    return float(sum("error" in row or row["spills"] for row in rows))


def bytes_beside_closed_form(kernel: str) -> float:
    """Bytes by which what a kernel read and wrote differs from its closed form, over all recorded layers.

    Vectors, which a kernel reads again from cache, count once and whole; of matrices and partial sums all that is moved
    counts, so that one that is read twice shows.

    Args:
        kernel: name of the function.
    """
    rows = _rows("traffic.jsonl")
    if not rows:
        raise NotAvailable("no traffic was recorded", _REMEDY)
    return float(sum(_miss(row, kernel) for row in rows))


def _miss(row: dict[str, Any], kernel: str) -> int:
    from cdvft_bench.sweep.probes.static_traffic import Layer

    layer = Layer(**row["layer"])
    problem = layer.problem
    factor, diagonals = problem.factors[0], bool(layer.diagonals)
    forms = (
        merged_weight_kernel(problem.layer, factor, layer.dtype, diagonals),
        *fold_kernels(problem.layer, factor, layer.dtype, diagonals),
    )
    form = next(f for f in forms if f.op == kernel)
    moved = row["kernels"][kernel]
    read: int = sum(a["size" if name in ("first", "last", "c") else "read"] for name, a in moved.items())
    written: int = sum(a["written"] for a in moved.values())
    return abs(read - int(form.read)) + abs(written - int(form.written))


def _rows(name: str) -> list[dict[str, Any]]:
    package = Path(__file__).parents[2]
    # In a checkout profiles stand beside the package, in a wheel inside of it.
    found = [f / "gpu-static" / name for f in (package / "profiles", package.parent / "profiles")]
    path = next((f for f in found if f.is_file()), None)
    return [] if path is None else _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> list[dict[str, Any]]:
    return [entry for _, entry in read_log(path)]
