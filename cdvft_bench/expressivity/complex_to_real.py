"""From complex factors to real ones: starts for the real solver that come from the complex one.

Over the complex numbers the search for factors is far easier: signs, which split the real search into
pieces, become phases, which vary continuously. A complex solution of a real target is real up to
redundancies: with ``w = exp(2 pi i / p)``,

    circ(c) = diag(w^(-k r)) circ(c_t w^(k t)) diag(w^(k s))        for every integer k,

and a phase for each block row and column moves freely between a circulant and its neighbours. Here each
circulant is turned by the k and the phases that make it most nearly real, its neighbours take up the
rest, and what is left of the imaginary parts is dropped.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cdvft_bench.expressivity.factors import Factor, Product


def _unit(x: Tensor) -> Tensor:
    """Phases of x, one where x is zero."""
    size = x.abs()
    return torch.where(size > 0, x / torch.where(size > 0, size, torch.ones_like(size)), torch.ones_like(x))


def _turn(factor: Factor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn circulant vectors c (B, size) towards the reals.

    Returns:
        the turned vectors, and the diagonals (B, d_out), (B, d_in) that now stand to their left and right.
    """
    assert factor.blocks is not None
    q_out, q_in, p = factor.blocks
    c = c.reshape(-1, q_out, q_in, p)
    t = torch.arange(p, dtype=torch.float64)
    turns = torch.exp(2j * math.pi / p * t[:, None] * t[None, :])  # (k, t)
    # A vector is real up to a phase when |sum of squares| = sum of |squares|.
    squares = torch.einsum("bijt,kt->bkij", c * c, turns * turns)
    k = squares.abs().sum((-2, -1)).argmax(dim=1)
    chosen = turns[k]  # (B, p)
    u, _, vh = torch.linalg.svd(squares[torch.arange(len(c)), k], full_matrices=False)
    row, column = _unit(u[:, :, 0]).sqrt(), _unit(vh[:, 0, :]).sqrt()
    turned = c * chosen[:, None, None, :] * row.conj()[:, :, None, None] * column.conj()[:, None, :, None]
    left = (row[:, :, None] * chosen.conj()[:, None, :]).reshape(len(c), -1)[:, : factor.d_out]
    right = (column[:, :, None] * chosen[:, None, :]).reshape(len(c), -1)[:, : factor.d_in]
    return turned.reshape(len(c), -1), left, right


def to_real(product: Product, theta: Tensor) -> Tensor:
    """Real parameters (B, P) near complex ones; exact where a real representative of ``dW`` is at hand."""
    theta = theta.clone()
    for before, factor, after in zip(product.factors, product.factors[1:], product.factors[2:], strict=False):
        if factor.blocks is None:
            continue
        turned, left, right = _turn(factor, theta[:, factor.slice])
        theta[:, factor.slice] = turned
        theta[:, after.slice] *= left
        theta[:, before.slice] *= right
    for factor in product.factors:
        if factor.blocks is None:
            phase = _unit((theta[:, factor.slice] ** 2).sum(-1, keepdim=True)).sqrt()
            theta[:, factor.slice] *= phase.conj()
    return theta.real.contiguous()
