"""FLOPs of what was counted, under the conventions that tables of costs use.

The counting side's own: nothing here is shared with ``analytic.conventions``, so that a wrong price in one of them
shows as a difference. The price of a butterfly is not written down but tallied, over numbers that count.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from cdvft_bench.core.counted import PassCount
from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.split_radix import count_fft
from cdvft_bench.counting.tallied import Complex, Real, Tally

CONVENTIONS = ("mac", "flop", "paper", "tallied")


@dataclass(frozen=True)
class Transform:
    """``batch`` transforms that one operator did.

    Attributes:
        dims: lengths, two for a plane. real: one side is real.
        of_input: they depend on a layer's input; else on its parameters alone.
    """

    dims: tuple[int, ...]
    batch: int
    real: bool
    of_input: bool = True

    @property
    def points(self) -> int:
        """Points of one of them."""
        return math.prod(self.dims)


@cache
def butterfly_flops() -> int:
    """Real additions and multiplications of a radix-2 butterfly with a general turn, tallied as it runs."""
    tally = Tally()
    a, b = (Complex(Real(0.3, tally), Real(-1.7, tally)) for _ in range(2))
    turned = b.turn(1, 7)
    _ = a + turned, a - turned
    return tally.count().flops


def exact_flops(transform: Transform, half: bool = True) -> int:
    """What split-radix transforms of these lengths take, tallied in a run; ``half``: real data save what they can."""
    n = transform.points
    real = transform.real and half
    one = sum(n // length * count_fft(length, real=real).flops for length in transform.dims)
    return transform.batch * one


def _fft_flops(transform: Transform, convention: str) -> float:
    if convention == "mac" or transform.points < 2:
        return 0.0
    if convention == "tallied":
        return float(exact_flops(transform))
    n = transform.points
    stages = math.log2(n)
    if convention == "paper":
        return transform.batch * n * stages
    butterflies = n / 2 * stages  # as if n were a power of two; of real data half of them
    return transform.batch * butterflies * butterfly_flops() / (2 if transform.real else 1)


def flops_of(counted: PassCount, transforms: Iterable[Transform], convention: str) -> float:
    """FLOPs of a pass.

    Args:
        counted: the pass. transforms: its FFTs.
        convention: "mac" (a multiply-add is one, nothing else is seen), "flop" (real additions and multiplications, an
            FFT as its radix-2 butterflies), "paper" (a multiply-add is one, an FFT n log2 n, element-wise work is not
            seen), "tallied" (as "flop", an FFT as split radix takes).

    Raises:
        UserError: the convention is not known.
    """
    if convention not in CONVENTIONS:
        raise UserError(f"counting convention {convention!r} is not known; use one of {', '.join(CONVENTIONS)}")
    whole = convention in ("flop", "tallied")
    work = (2 if whole else 1) * counted.macs + (counted.elementwise_flops if whole else 0)
    return work + sum(_fft_flops(t, convention) for t in transforms)
