"""How work is split: rows into pieces that stay in a CPU's cache, a transform into two small DFT matrices for Triton.

No torch: the closed forms of ``costs`` split as the execution does.
"""

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


ON_CHIP_LARGEST = {"float32": 2048}
"""Largest P1 * P2 that path "triton" takes, by dtype of the activations; 4,096 for those of 16 bits."""

NARROW = 64
"""The widest DFT matrix that fits every GPU beside its rows; of float32, whose products are three, the widest at all: a
program with one of 128 takes 284,672 bytes on sm_90, which has 232,448."""

ON_CHIP_HELD = {"float32": 1024}
"""Entries of an operand that a program of it holds, in one row or several; 2,048 of 16 bits. Of twice as many a GPU
keeps some off chip (profiles/gpu-static)."""

ON_CHIP_PROGRAMS = 512
"""Programs of its kernels that sum over rows, each with its own partial sums: several for every multiprocessor."""


def piece(rows: Count, d_in: Count, d_out: Count, device: str) -> Count:
    """Rows treated at once, as even as pieces of at most ``PIECE`` entries can be; all of them on a GPU."""
    if device != "cpu":
        return rows
    pieces = -(-rows * (d_in + d_out) // PIECE)
    return -(-rows // pieces)


def split(p: int) -> tuple[int, int] | None:
    """p = p1 * p2 with the least padded area, or None where no split fits on chip (a large prime).

    Of equal ones that with p2 padded to 16, else the most even: of those tried, p = 2,048 so keeps all registers on
    chip on sm_90, and p = 4,096 on sm_100 (profiles/gpu-static).
    """
    pairs = [(p1, p // p1) for p1 in range(1, LARGEST_FACTOR + 1) if p % p1 == 0 and p // p1 <= LARGEST_FACTOR]
    return min(pairs, key=_order, default=None)


def _order(pair: tuple[int, int]) -> tuple[int, bool, int]:
    rows, columns = padded(pair[0]), padded(pair[1])
    return rows * columns, columns > 16, abs(pair[0] - pair[1])


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


def on_chip_fits(p: int, dtype: str) -> bool:
    """Whether path "triton" takes blocks of p for activations of a dtype."""
    if split(p) is None or (dtype == "float32" and max(widths(p)) > NARROW):
        return False
    return widths(p)[0] * widths(p)[1] <= ON_CHIP_LARGEST.get(dtype, 4096)


def on_chip_rows(p: int, dtype: str) -> int:
    """Rows of x that a program of path "triton" holds."""
    return max(1, ON_CHIP_HELD.get(dtype, 2048) // (widths(p)[0] * widths(p)[1]))


def on_chip_tiles(rows: Count, lines: Count) -> tuple[Count, Count]:
    """Tiles of ``lines`` rows that a program goes through which sums over them, and programs."""
    tiles = larger(-(-rows // (lines * ON_CHIP_PROGRAMS)), 1)
    return tiles, -(-rows // (lines * tiles))


def fold_tile(p: Count) -> Count:
    """Rows and columns of the square tiles that the fold kernel reads: 16 for small blocks, else 32."""
    return 16 + 16 * flag(p > 16)


def fold_split(blocks: Count, p: Count) -> tuple[Count, Count, Count]:
    """Tiles along a block's side, tiles that a program walks along a diagonal, programs that share a diagonal."""
    bands = -(-p // fold_tile(p))
    wanted = larger(blocks * bands * bands // FOLD_PROGRAMS, 1)
    tiles = bands + wanted - larger(bands, wanted)  # the smaller one
    return bands, tiles, -(-bands // tiles)
