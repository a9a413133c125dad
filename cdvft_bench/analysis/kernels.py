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

KERNELS, TRAFFIC = "kernels.jsonl", "traffic.jsonl"
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
        loads, stores: bytes of a program, the most of any whose traffic was recorded; None where none was.
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
    loads: int | None = None
    stores: int | None = None


def read_kernels(path: Path) -> list[Mapping[str, Any]]:
    """Rows of a recorded file, each with the most that a program of its kernel and dtype ``loads`` and ``stores``.

    Those bytes are of the file of traffic beside it, if there is one.

    Raises:
        UserError: a file cannot be read, or a line is no such row.
    """
    rows: list[Mapping[str, Any]] = [entry for _, entry in read_log(path)]
    for number, row in enumerate(rows, 1):
        texts = all(isinstance(row.get(key), str) for key in ("path", "kernel", "target"))
        figures = "error" in row or all(isinstance(row.get(key), int | float) for key in FACTS)
        if not (texts and figures and isinstance(row.get("picked"), bool)):
            raise UserError(
                f"{shown(path)}, row {number} is no compiled kernel; record the file with cdvft-bench dev kernels"
            )
    moved = _moved(path.with_name(TRAFFIC)) if path.with_name(TRAFFIC).is_file() else {}
    return [{**row, **moved.get((row["kernel"], row.get("dtype")), {})} for row in rows]


def _moved(path: Path) -> dict[tuple[str, Any], dict[str, int]]:
    """By kernel and dtype, the most that a program moves."""
    found: dict[tuple[str, Any], dict[str, int]] = {}
    for number, (_, row) in enumerate(read_log(path), 1):
        try:
            for launch in row["launches"]:
                most = found.setdefault((launch["kernel"], row["layer"]["dtype"]), {"loads": 0, "stores": 0})
                most |= {way: max(before, int(launch[way][1])) for way, before in most.items()}
        except (KeyError, TypeError, ValueError, IndexError):
            raise UserError(
                f"{shown(path)}, row {number} is no traffic of kernels; record the file with cdvft-bench dev kernels"
            ) from None
    return found


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
        loads=max((row["loads"] for row in rows if "loads" in row), default=None),
        stores=max((row["stores"] for row in rows if "stores" in row), default=None),
    )


def kernels_frame(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    """Every configuration, a column a fact."""
    import pandas as pd

    flat = [{k: str(v) if isinstance(v, dict | list) else v for k, v in row.items()} for row in rows]
    return pd.DataFrame(flat)
