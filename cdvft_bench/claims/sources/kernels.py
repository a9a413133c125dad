"""What was recorded of the Triton kernels without a GPU (profiles/gpu-static), for claims of the kind "figure"."""

from collections.abc import Iterator
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any

from cdvft_bench.claims.sources.source import NotAvailable
from cdvft_bench.core.io.log import read_log
from cdvft_bench.execution.triton.costs import (
    fold_kernels,
    merged_weight_kernel,
    on_chip_backward,
    on_chip_forward,
)

_REMEDY = "record it with cdvft-bench dev kernels"
_VECTORS, _ACTIVATIONS = ("first", "last", "c"), ("x", "g", "base", "other", "out")


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


def bytes_beside_closed_form(kernel: str, d: int = 0) -> float:
    """Bytes by which what a kernel reads and writes differs from its closed form, over all recorded layers.

    Vectors, which a kernel reads again from cache, count once and whole; of matrices and partial sums all that is moved
    counts, so that one that is read twice shows. On path "triton" activations alone count, as in its closed forms.
    Where not all programs of a launch ran, those that did must move the same.

    Args:
        kernel: name of the function. d: the layers' d_in; 0 for all.
    """
    rows = [row for row in _rows("traffic.jsonl") if d in (0, row["layer"]["d_in"])]
    found = [miss for row in rows for name, miss in _misses(row) if name == kernel]
    if not found:
        raise NotAvailable(f"no traffic of {kernel} was recorded", _REMEDY)
    return float(sum(found))


def _misses(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    from cdvft_bench.sweep.probes.static_traffic import Layer

    layer = Layer(**row["layer"])
    problem, dtype, diagonals = layer.problem, layer.dtype, bool(layer.diagonals)
    factor, shape = problem.factors[0], problem.layer
    forms = [merged_weight_kernel(shape, factor, dtype, diagonals), *fold_kernels(shape, factor, dtype, diagonals)]
    if len(row["launches"]) > len(forms):
        forms.append(on_chip_forward(shape, layer.tokens, factor, dtype))
        forms += on_chip_backward(shape, layer.tokens, factor, dtype, diagonals)
    for launch, form in zip(row["launches"], forms, strict=True):
        if launch["kernel"] != form.op:
            raise NotAvailable(f"{launch['kernel']} was recorded where a step launches {form.op}", _REMEDY)
        yield form.op, sum(abs(_moved(launch, way) - int(getattr(form, way))) for way in ("read", "written"))


def _moved(launch: dict[str, Any], way: str) -> float:
    """Bytes of all its programs; infinite where only some ran, and those moved different amounts."""
    on_chip, kinds = launch["kernel"] in ("filter_kernel", "moment_kernel"), launch["kinds"]
    counts = [
        sum(n for name, n in kind[way].items() if (name in _ACTIVATIONS if on_chip else name not in _VECTORS))
        for kind in kinds
    ]
    vectors = 0 if on_chip else sum(launch["sizes"][name] for name in _VECTORS if name in kinds[0][way])
    if sum(kind["ran"] for kind in kinds) == launch["programs"]:
        return float(vectors + sum(kind["ran"] * n for kind, n in zip(kinds, counts, strict=True)))
    return vectors + launch["programs"] * counts[0] if len({*counts}) == 1 else inf


def _rows(name: str) -> list[dict[str, Any]]:
    package = Path(__file__).parents[2]
    # In a checkout profiles stand beside the package, in a wheel inside of it.
    found = [f / "gpu-static" / name for f in (package / "profiles", package.parent / "profiles")]
    path = next((f for f in found if f.is_file()), None)
    return [] if path is None else _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> list[dict[str, Any]]:
    return [entry for _, entry in read_log(path)]
