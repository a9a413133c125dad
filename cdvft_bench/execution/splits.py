"""How work is split: rows into pieces that stay in a CPU's cache, a transform into two small DFT matrices for Triton.

No torch: the closed forms of ``costs`` split as the execution does.
"""

from __future__ import annotations

from cdvft_bench.analytic.circulant import flag
from cdvft_bench.analytic.kernels import Count, larger
from cdvft_bench.core.errors import UserError

PIECE = 2**20
"""Entries of an input and an output row by row, together, that a CPU treats at once: larger temporaries are
fetched from the operating system anew at every call and pushed out of the cache between two operators."""

FEW_BLOCKS = 9
"""Largest q_out * q_in multiplied element by element: at 3 by 3 blocks that was still the faster way
(CPU, 768 and 4096 wide), at 4 by 4 no longer."""

ROWS_AT_ONCE = 256
"""Rows of dW that one batch of transforms makes where m > 2."""

LARGEST_FACTOR = 128
"""Largest p1 and p2: a DFT matrix of 128 x 128 still fits beside the rows."""

BY_PRODUCT = 2
"""Up to so many tokens an output the merged path takes the change's part of the input's gradient from the factors'
gradients, of which it is a by-product: cheaper than building the merged weight a second time."""

FOLD_PROGRAMS = 512
"""Programs of the fold kernel that are wanted: several for every multiprocessor of a GPU."""


def piece(rows: Count, d_in: Count, d_out: Count, device: str) -> Count:
    """Rows treated at once, as even as pieces of at most ``PIECE`` entries can be; all of them on a GPU."""
    if device != "cpu":
        return rows
    pieces = -(-rows * (d_in + d_out) // PIECE)
    return -(-rows // pieces)


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
        UserError: p has none.
    """
    pair = split(p)
    if pair is None:
        raise UserError(f"p = {p} is no product of two factors of at most {LARGEST_FACTOR}, as path 'triton' needs")
    return padded(pair[0]), padded(pair[1])


def fold_tile(p: Count) -> Count:
    """Rows and columns of the square tiles that the fold kernel reads: 16 for small blocks, else 32."""
    return 16 + 16 * flag(p > 16)


def fold_split(blocks: Count, p: Count) -> tuple[Count, Count, Count]:
    """Tiles along a block's side, tiles that a program walks along a diagonal, programs that share a diagonal."""
    bands = -(-p // fold_tile(p))
    wanted = larger(blocks * bands * bands // FOLD_PROGRAMS, 1)
    tiles = bands + wanted - larger(bands, wanted)  # the smaller one
    return bands, tiles, -(-bands // tiles)
