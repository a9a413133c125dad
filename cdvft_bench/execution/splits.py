"""How a transform of p points is split into two small DFT matrices for the Triton kernels."""

from __future__ import annotations

LARGEST_FACTOR = 128
"""Largest p1 and p2: a DFT matrix of 128 x 128 still fits beside the rows."""


def split(p: int) -> tuple[int, int] | None:
    """p = p1 * p2 with the least padded area, or None where no split fits on chip (a large prime)."""
    pairs = [(p1, p // p1) for p1 in range(1, LARGEST_FACTOR + 1) if p % p1 == 0 and p // p1 <= LARGEST_FACTOR]
    return min(pairs, key=lambda pair: (padded(pair[0]) * padded(pair[1]), abs(pair[0] - pair[1])), default=None)


def padded(n: int) -> int:
    """The power of two >= n that a matrix unit takes, at least 16."""
    return max(16, 1 << (n - 1).bit_length())


def widths(p: int) -> tuple[int, int]:
    """The padded factors P1 and P2 of a p that has a split.

    Raises:
        ValueError: p has none.
    """
    pair = split(p)
    if pair is None:
        raise ValueError(f"p = {p} is no product of two factors of at most {LARGEST_FACTOR}")
    return padded(pair[0]), padded(pair[1])
