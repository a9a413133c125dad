"""CDVFT: interleaved diagonal and circulant factors (Ding et al., arXiv 2505.00580).

``dW = diag(a_{2m-1}) C_{2m-2} diag(a_{2m-3}) ... C_2 diag(a_1)``: ``m`` diagonals and
``m - 1`` (block-)circulant factors. The first circulant maps ``d_in`` to ``d_out``, later ones
``d_out`` to ``d_out``; ``a_1`` has ``d_in`` entries, the other diagonals ``d_out``. With
``m = 1`` there is no circulant: ``dW`` is the rectangular diagonal of ``a_1``, zero-padded or
cropped to ``d_out`` rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .circulant import (
    Convention,
    block_circulant_fft,
    block_circulant_handwritten,
    block_circulant_shape,
    dense_block_circulant,
)
from .operands import check_number, check_operands, check_positive


@dataclass(frozen=True)
class FactorShapes:
    """Shapes of the factors of one CDVFT weight change.

    Attributes:
        d_in, d_out: layer widths.
        m: number of diagonal factors, >= 1.
        block_size: circulant block size p, >= 1.

    Raises:
        ValueError, TypeError: an attribute is not an integer >= 1.
    """

    d_in: int
    d_out: int
    m: int
    block_size: int

    def __post_init__(self) -> None:
        for name in ("d_in", "d_out", "m", "block_size"):
            check_positive(name, getattr(self, name))

    @property
    def diagonals(self) -> list[tuple[int]]:
        """Shapes of a_1, a_3, ..., a_{2m-1}."""
        return [(self.d_in,)] + [(self.d_out,)] * (self.m - 1)

    @property
    def circulants(self) -> list[tuple[int, int, int]]:
        """Shapes (q_out, q_in, p) of C_2, C_4, ..., C_{2m-2}."""
        widths = [self.d_in] + [self.d_out] * (self.m - 1)
        return [block_circulant_shape(w, self.d_out, self.block_size) for w in widths[: self.m - 1]]


def _fit(x: Tensor, width: int) -> Tensor:
    """Zero-pad or crop the last dimension to ``width`` (the rectangular identity of m = 1)."""
    return torch.nn.functional.pad(x, (0, width - x.shape[-1])) if x.shape[-1] != width else x


def _split(diagonals: Sequence[Tensor], circulants: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The first diagonal and the others."""
    if not len(diagonals):
        raise ValueError(
            f"0 diagonals and {len(circulants)} circulants; CDVFT has m >= 1 diagonals and m - 1 circulants"
        )
    check_number(len(diagonals), len(circulants))
    first, *rest = diagonals
    return first, rest


def cdvft_dense(
    diagonals: Sequence[Tensor], circulants: Sequence[Tensor], d_out: int, convention: Convention = "column"
) -> Tensor:
    """The oracle: ``dW`` of shape (d_out, d_in), built by plain matrix products.

    Args:
        diagonals: m vectors, the first (d_in,), the others (d_out,).
        circulants: m - 1 tensors (q_out, q_in, p).
        d_out: output width.
        convention: "column" or "row".
    """
    first, rest = _split(diagonals, circulants)
    delta = torch.diag(first)
    for c, a in zip(circulants, rest, strict=True):
        delta = torch.diag(a) @ dense_block_circulant(c, delta.shape[0], d_out, convention) @ delta
    return _fit(delta.T, d_out).T


def _interleave(
    product: Callable[[Tensor, Tensor, int, Convention], Tensor],
    x: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    convention: Convention,
) -> Tensor:
    first, rest = _split(diagonals, circulants)
    check_operands(x, diagonals, circulants, d_out)
    h = x * first
    for c, a in zip(circulants, rest, strict=True):
        h = product(h, c, d_out, convention) * a
    return _fit(h, d_out)


def cdvft_fft(
    x: Tensor, diagonals: Sequence[Tensor], circulants: Sequence[Tensor], d_out: int, convention: Convention = "column"
) -> Tensor:
    """``dW x`` by FFTs, (..., d_in) to (..., d_out), without building ``dW``; autograd's backward."""
    return _interleave(block_circulant_fft, x, diagonals, circulants, d_out, convention)


def cdvft_handwritten(
    x: Tensor, diagonals: Sequence[Tensor], circulants: Sequence[Tensor], d_out: int, convention: Convention = "column"
) -> Tensor:
    """``dW x`` as :func:`cdvft_fft`, each circulant factor with the paper's hand-derived backward.

    A diagonal's backward is ``dL/da = sum g * input`` either way, so it is left to autograd.
    """
    return _interleave(block_circulant_handwritten, x, diagonals, circulants, d_out, convention)
