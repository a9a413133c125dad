"""What methods of PEFT have in common: sparse coefficients, lengths of vectors, and products of small matrices."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Self

from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernel, Kernels, elementwise
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods._peft import PeftMethod, first_misfit

# --- FourierFT and WaveFT: a dense dW, transformed anew from n trained coefficients at every pass ---


@dataclass(frozen=True)
class SparseTransform(PeftMethod):
    """A method of n coefficients of dW's transform.

    Class attributes:
        coefficients: what they are called.
    """

    coefficients: ClassVar[str]
    short: ClassVar = {"n_frequency": "n"}

    n_frequency: int
    scaling: float

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        yield cls(n_frequency=rng.randint(1, min(int(layer.weights), 300)), scaling=rng.choice([25, 150, 0.5]))

    def check(self, layer: LinearShape) -> None:
        widths = first_misfit(layer, layer.weights < self.n_frequency)
        if widths:
            d_in, d_out = widths
            raise UserError(
                f"n_frequency = {self.n_frequency} is more than the {d_in * d_out} {self.coefficients} of a "
                f"{d_in}x{d_out} layer; use at most d_in * d_out = {d_in * d_out}"
            )

    def parameters(self, layer: LinearShape) -> Count:
        """``n``, whatever the widths."""
        self.check(layer)
        ones = layer.weights * 0 + 1  # an array where the widths are arrays
        return self.n_frequency * ones


# --- vector lengths under autograd -----------------------------------------------------------


def compare(op: str, n: Count, dtype: str) -> Kernel:
    """``n`` values compared with a number; the truth values take a byte each."""
    return Kernel(op, "copy", read=n * ITEMSIZE[dtype], written=n)


def length_backward(n: Count, vectors: Count, dtype: str) -> Kernels:
    """Gradient of the lengths of ``vectors`` vectors with ``n`` entries in all: x / |x|, zero where |x| is."""
    size = ITEMSIZE[dtype]
    return (
        elementwise("div", n, dtype, reads=n + vectors),
        compare("eq", vectors, dtype),
        Kernel("masked_fill_", "copy", read=n * size + vectors, written=n * size),
        elementwise("mul", n, dtype, reads=n + vectors),
    )


# --- LoHa and LoKr ---------------------------------------------------------------------------


# PEFT compares a random number with the probability of module dropout at every pass, even if it is
# zero. Both operators run on the CPU, on one number.
DROPOUT_DRAW: Kernels = (
    Kernel("rand", "copy", written=ITEMSIZE["float32"]),
    Kernel("gt", "copy", read=ITEMSIZE["float32"], written=1),
)
