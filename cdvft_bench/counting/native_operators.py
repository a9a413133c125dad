"""What this suite's own compiled operators do, told by the shapes of their arguments.

Two rows travel as one complex signal. The counts follow the steps of the kernels, factor by factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NAMESPACE = "cdvft"


@dataclass
class Work:
    """Arithmetic of one call.

    Attributes:
        points: complex points of a transform. transforms: their number. elementwise: real FLOPs beside them.
    """

    points: int
    transforms: int = 0
    elementwise: int = 0

    @property
    def fft_flops(self) -> float:
        """5 n log2 n a complex transform."""
        return 5.0 * self.points * math.log2(self.points) * self.transforms

    def spectrum(self, blocks: int, pairs: int = 1) -> None:
        """Transforms, there or back."""
        self.transforms += blocks * pairs

    def combine(self, results: int, terms: int, pairs: int) -> None:
        """Each of ``results`` spectra a sum of ``terms`` complex products: 6 FLOPs a product, 2 a sum."""
        self.elementwise += pairs * self.points * results * (8 * terms - 2)


def circulant_work(
    rows: int,
    d_in: int,
    d_out: int,
    diagonals: int,
    circulants: Sequence[Sequence[int]],
    bias: bool = False,
    backward: bool = False,
    input_gradient: bool = True,
) -> Work:
    """Work of ``circulant_forward``, or of ``circulant_backward``.

    Args:
        rows, d_in, d_out: of the input and output. diagonals: their number.
        circulants: shapes (q_out, q_in, p). bias: whether one is added.
        backward, input_gradient: which operator, and whether it computes the gradient of the input.
    """
    pairs = rows // 2 + rows % 2
    work = Work(circulants[0][2])
    for q_out, q_in, p in circulants:  # the factors' spectra, scaled
        work.spectrum(q_out * q_in)
        work.elementwise += q_out * q_in * p
    if diagonals:
        work.elementwise += d_out  # the last diagonal, scaled
        work.elementwise += rows * d_in  # the first one
    for i, (q_out, q_in, _) in enumerate(circulants):
        work.spectrum(q_in, pairs)
        if backward and not diagonals:
            continue
        work.combine(q_out, q_in, pairs)
        work.spectrum(q_out, pairs)
        if i + 1 < len(circulants):
            work.elementwise += 2 * pairs * d_out
    if not backward:
        work.elementwise += rows * d_out * (int(diagonals > 0) + int(bias))
        return work
    for q_out, q_in, p in reversed(circulants):
        if diagonals:
            work.elementwise += pairs * 2 * (2 * q_out * p)  # two rows times g, summed
            work.elementwise += pairs * 2 * d_out
        work.spectrum(q_out, pairs)
        work.elementwise += 8 * pairs * q_out * q_in * p  # the factor's gradient: a product and a sum
        if diagonals or input_gradient:
            work.combine(q_in, q_out, pairs)
            work.spectrum(q_in, pairs)
        work.spectrum(q_out * q_in)  # back from the frequency domain, scaled
        work.elementwise += q_out * q_in * p
    if diagonals:
        work.elementwise += pairs * 2 * (2 * circulants[0][1] * circulants[0][2])
        work.elementwise += d_in + (diagonals - 1) * d_out
        work.elementwise += rows * d_in if input_gradient else 0
    return work
