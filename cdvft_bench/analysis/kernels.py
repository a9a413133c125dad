"""What compilers for GPUs made of the Triton kernels (``cdvft-bench dev kernels``), by path and target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import shown
from cdvft_bench.core.io.log import read_log

if TYPE_CHECKING:
    from pandas import DataFrame

KERNELS = "kernels.jsonl"
FACTS = ("registers", "shared_bytes", "local_bytes", "occupancy")
"""Figures that every row has whose kernel was compiled."""


@dataclass(frozen=True)
class Compiled:
    """All configurations of a kernel for one target.

    Attributes:
        path: of execution that launches it once a training step. kernel, target: of it.
        picked: whether path "auto" may take that path.
        configurations: that compile differently. failed: of them, those that were not compiled.
        spilling: those that keep registers off chip.
        registers, shared_bytes, local_bytes: the most of any: of a thread, of a program, off chip of a thread.
        occupancy: the least of any, 0 to 1; None where none was compiled.
    """

    path: str
    kernel: str
    target: str
    picked: bool
    configurations: int
    failed: int
    spilling: int
    registers: int
    shared_bytes: int
    local_bytes: int
    occupancy: float | None


def read_kernels(path: Path) -> list[Mapping[str, Any]]:
    """Rows of a recorded file.

    Raises:
        UserError: it cannot be read, or a line is no such row.
    """
    rows: list[Mapping[str, Any]] = [entry for _, entry in read_log(path)]
    for number, row in enumerate(rows, 1):
        texts = all(isinstance(row.get(key), str) for key in ("path", "kernel", "target"))
        figures = "error" in row or all(isinstance(row.get(key), int | float) for key in FACTS)
        if not (texts and figures and isinstance(row.get("picked"), bool)):
            raise UserError(
                f"{shown(path)}, row {number} is no compiled kernel; record the file with cdvft-bench dev kernels"
            )
    return rows


def by_path(rows: Sequence[Mapping[str, Any]]) -> list[Compiled]:
    """A line a path, kernel and target, in the order recorded; those that "auto" may take first."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: not row["picked"]):
        groups.setdefault((row["path"], row["kernel"], row["target"]), []).append(row)
    return [_summed(key, some) for key, some in groups.items()]


def _summed(key: tuple[str, str, str], rows: Sequence[Mapping[str, Any]]) -> Compiled:
    done = [row for row in rows if "error" not in row]
    registers, shared, local = (max((row[fact] for row in done), default=0) for fact in FACTS[:3])
    return Compiled(
        *key,
        picked=rows[0]["picked"],
        configurations=len(rows),
        failed=len(rows) - len(done),
        spilling=sum(row["local_bytes"] > 0 for row in done),
        registers=registers,
        shared_bytes=shared,
        local_bytes=local,
        occupancy=min((row["occupancy"] for row in done), default=None),
    )


def kernels_frame(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    """Every configuration, a column a fact."""
    import pandas as pd

    flat = [{k: str(v) if isinstance(v, dict | list) else v for k, v in row.items()} for row in rows]
    return pd.DataFrame(flat)
