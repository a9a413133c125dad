"""FLOPs of a change's forward pass at open prices, by closed form: the analytic side of "priced_flops".

The counted side is in ``watch``. The two share no code: each writes down for itself what an option means.

Options of the quantity: mac, of a multiply-add. fft, f in f n log2 n, or "tallied": what a split-radix transform takes.
plane: a two-dimensional FFT of n = rows x columns points at f n log2 n, or at f n log2 d with d = sqrt(n). real_fft: a
real transform takes "half" of that, or as much ("as complex"). spectrum_of_c: one-dimensional transforms of parameters
are counted once "per batch", once "per token" or "never". diagonals: whether they are counted. products: of spectra,
"none", 1 "per entry", or 6 "per bin".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.claims.ledger.quantities import TALLIED
from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.claims.sources.source import NotAvailable
from cdvft_bench.methods import Method
from cdvft_bench.methods.block_circulant import BlockCirculant
from cdvft_bench.methods.cdvft import CDVFT
from cdvft_bench.methods.fourierft import FourierFT
from cdvft_bench.methods.lora import LoRA


@dataclass(frozen=True)
class Work:
    """What the forward pass of a weight change consists of, by closed form.

    Attributes:
        macs: multiply-adds of real matrix products. plane: (rows, columns) of a complex FFT of parameters, 0 for none.
        p: points of the real transforms. of_input, of_parameters: their numbers.
        diagonals: products of activations with the entries of a vector. blocks: products of two spectra of p points.
    """

    macs: int = 0
    plane: tuple[int, int] = (0, 0)
    p: int = 1
    of_input: int = 0
    of_parameters: int = 0
    diagonals: int = 0
    blocks: int = 0


@cache
def work_of(method: Method | None, layer: LinearShape, tokens: int) -> Work:
    """The work of a method on a layer.

    Raises:
        NotAvailable: it is not written down for this method.
    """
    d_in, d_out = int(layer.d_in), int(layer.d_out)
    if type(method) is LoRA:
        return Work(tokens * method.rank * (d_in + d_out))
    if type(method) is FourierFT:
        return Work(tokens * d_in * d_out, plane=(d_out, d_in))
    if type(method) is CDVFT:
        factors = method.factors(layer, tokens)
        diagonals = tokens * (d_in + (method.m - 1) * d_out)
    elif type(method) is BlockCirculant:
        factors, diagonals = [method.factor(layer, tokens)], 0
    else:
        raise NotAvailable(
            "no closed form of this subject's work is written down", "add it to claims/sources/priced.py"
        )
    blocks = sum(int(f.q_out) * int(f.q_in) for f in factors)
    sides = sum(int(f.q_out) + int(f.q_in) for f in factors)
    p = int(factors[0].p) if factors else 1
    return Work(0, (0, 0), p, tokens * sides, blocks, diagonals, tokens * blocks)


def price(work: Work, options: Mapping[str, Value], tokens: int) -> float:
    """FLOPs of the work at the options' prices, see the module's docstring."""
    total = work.macs * float(str(options["mac"])) + work.diagonals * bool(options["diagonals"])
    repeats = {"per batch": 1, "per token": tokens, "never": 0}[str(options["spectrum_of_c"])]
    transforms = work.of_input + repeats * work.of_parameters
    half = options["real_fft"] == "half"
    rows, columns = work.plane
    if options["fft"] == TALLIED:
        total += transforms * (real_split_radix(work.p) if half else split_radix(work.p)) if transforms else 0
        total += columns * split_radix(rows) + rows * split_radix(columns) if rows else 0
    else:
        factor = float(str(options["fft"]))
        total += transforms * factor * work.p * math.log2(work.p) * (0.5 if half else 1.0)
        points = rows * columns
        # log2 d of a square plane is half of log2 n.
        total += factor * points * math.log2(points) * (0.5 if options["plane"] == "n log2 d" else 1.0) if rows else 0
    each = {"none": 0, "per entry": work.p, "per bin": 6 * (work.p // 2 + 1)}[str(options["products"])]
    return total + work.blocks * each


# --- split radix, by recurrences ---------------------------------------------------------------


def _turns(n: int, step: int, count: int) -> int:
    """FLOPs of the products with ``exp(-2 pi i step k / n)`` for k below ``count``.

    A turn by a multiple of a quarter is free, one by an odd multiple of an eighth takes 4, any other 6.
    """
    free = -(-count * math.gcd(4 * step, n) // n)
    eighths = -(-count * math.gcd(8 * step, n) // n)
    return 6 * (count - eighths) + 4 * (eighths - free)


def _length(n: int) -> None:
    if n < 1 or (n & (n - 1) and n % 3) or (n % 3 == 0 and (n // 3) & (n // 3 - 1)):
        raise NotAvailable(
            f"no closed form says what a split-radix FFT of {n} points takes", "choose lengths of 2^k or 3 x 2^k"
        )


@cache
def split_radix(n: int) -> int:
    """Real additions and multiplications of a complex transform of n = 2^k or 3 x 2^k points.

    ``T(n) = T(n / 2) + 2 T(n / 4)`` and n / 4 butterflies of 12, with their turns (Duhamel and Hollmann, 1984); for
    n = 2^k this is ``4 n log2 n - 6 n + 8``.

    Raises:
        NotAvailable: n is another length.
    """
    _length(n)
    if n in (1, 2, 3):
        return (0, 4, 16)[n - 1]
    if n % 4:  # n = 6: two transforms of 3 points, and butterflies of 2
        return 2 * split_radix(n // 2) + n // 2 * 4 + _turns(n, 1, n // 2)
    q = n // 4
    return split_radix(n // 2) + 2 * split_radix(q) + 12 * q + _turns(n, 1, q) + _turns(n, 3, q)


@cache
def real_split_radix(n: int) -> int:
    """The same for n real points to a half spectrum (Sorensen et al., 1987): ``2 n log2 n - 4 n + 6`` for n = 2^k > 1.

    Raises:
        NotAvailable: n is another length.
    """
    _length(n)
    if n in (1, 2, 3):
        return (0, 2, 6)[n - 1]
    if n % 4:
        return 2 * real_split_radix(n // 2) + 12
    q = n // 4
    inner = (q + 1) // 2  # frequencies whose mirror image is left out
    turned = _turns(n, 1, inner) + _turns(n, 3, inner)
    return real_split_radix(n // 2) + 2 * real_split_radix(q) + 4 + 12 * (inner - 1) + turned + (8 if q % 2 == 0 else 0)
