"""The structure by which the compiled kernels are called, and what an instrumented build reports in it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

MOST = 16
"""Diagonals, circulants or radices that fit the structure."""

Ints, Pointers = ctypes.c_int64 * MOST, ctypes.c_void_p * MOST
INTEGERS = (
    "rows",
    "d_in",
    "d_out",
    "p",
    "q_in",
    "q_out",
    "diagonals",
    "circulants",
    "threads",
    "stages",
    "row_convention",
    "input_gradient",
    "format",
)
POINTERS = ("tables", "workspace", "parallel", "x", "g", "bias", "adapters", "order", "out")


SUMS = ("additions", "multiplications", "fft_additions", "fft_multiplications")
COUNTED = (*SUMS, "transforms", "read", "written", "stray")


class CountsStructure(ctypes.Structure):
    """The structure of the same name in the C source."""

    _fields_ = tuple((name, ctypes.c_int64) for name in COUNTED)


class LayerStructure(ctypes.Structure):
    """The structure of the same name in the C source."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in INTEGERS),
        ("radices", Ints),
        ("alpha", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in POINTERS),
        *((name, Pointers) for name in ("diagonal", "circulant", "grad_diagonal", "grad_circulant")),
        ("counts", CountsStructure),
    )


@dataclass(frozen=True)
class Counts:
    """What calls of the instrumented kernels were seen to do.

    Attributes:
        additions, multiplications: real ones, of all data; a multiply-add is one of each.
        fft_additions, fft_multiplications: those of them within transforms.
        transforms: of p complex points.
        read, written: bytes of the operands, each byte once.
        stray: accesses to memory that is no operand's; 0, or the kernels are wrong.
        points: p.
    """

    additions: int
    multiplications: int
    fft_additions: int
    fft_multiplications: int
    transforms: int
    read: int
    written: int
    stray: int
    points: int

    @property
    def elementwise(self) -> int:
        """Additions and multiplications outside of transforms."""
        return self.additions + self.multiplications - self.fft_additions - self.fft_multiplications
