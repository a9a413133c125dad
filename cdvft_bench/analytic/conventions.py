"""Counting conventions: what one multiply-add and one FFT are worth. Never print "FLOPs" without one."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.analytic.kernels import Count
from cdvft_bench.core.errors import UserError

Flops = float | NDArray[np.float64]


@dataclass(frozen=True)
class Convention:
    """Prices of the countable things.

    Attributes:
        name: how tables name it.
        statement: what it counts, in one line.
        mac: price of a real multiply-add.
        elementwise: price of a real element-wise addition or multiplication.
        fft_complex: factor f of f * n * log2(n) for a complex transform of n points.
        fft_real: the same for a transform with a real side.
    """

    name: str
    statement: str
    mac: int
    elementwise: int
    fft_complex: float
    fft_real: float

    def fft(self, length: Count, batch: Count, real: bool) -> Flops:
        """FLOPs of ``batch`` transforms of ``length`` points; a length of 1 (or 0, no FFT) costs nothing."""
        factor = self.fft_real if real else self.fft_complex
        points, times = np.asarray(length, dtype=np.float64), np.asarray(batch, dtype=np.float64)
        cost = factor * points * _log2(length) * times
        return cost if np.ndim(cost) else float(cost)


def _log2(length: Count) -> Flops:
    """As the standard library has it: numpy's own ends in other last bits where the processor has wider vectors."""
    if np.ndim(length) == 0:
        return math.log2(max(int(length), 1))
    lengths, index = np.unique(np.maximum(length, 1), return_inverse=True)
    return np.array([math.log2(n) for n in lengths.tolist()])[index].reshape(np.shape(length))


CONVENTIONS: dict[str, Convention] = {
    c.name: c
    for c in (
        Convention(
            "mac",
            "as fvcore counts: one per multiply-add of a matrix product; FFTs and element-wise work are not seen",
            mac=1,
            elementwise=0,
            fft_complex=0.0,
            fft_real=0.0,
        ),
        Convention(
            "flop",
            "real additions and multiplications: 2 per multiply-add, 5 n log2 n a complex FFT, 2.5 n log2 n a real one",
            mac=2,
            elementwise=1,
            fft_complex=5.0,
            fft_real=2.5,
        ),
        Convention(
            "paper",
            "as complexity tables write it: one per multiply-add, n log2 n an FFT, element-wise work dropped",
            mac=1,
            elementwise=0,
            fft_complex=1.0,
            fft_real=1.0,
        ),
    )
}


def convention(name: str) -> Convention:
    """Look a convention up by name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in CONVENTIONS:
        raise UserError(f"counting convention {name!r} is not known; use one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
