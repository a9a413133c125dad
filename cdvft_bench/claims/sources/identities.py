"""Equations of the papers, each side a function of the same arguments, for the quantity "difference".

``p`` is the length, ``seed`` draws c, x and g from the normal distribution in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cdvft_reference import Convention, dense_circulant


def _draw(p: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    c, x, g = torch.randn(3, p, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return c, x, g


def fft_product(p: int = 12, seed: int = 0, convention: Convention = "column") -> Tensor:
    """``IFFT(FFT(c) * FFT(x))``, whatever the convention (CDVFT, FFT-based circulant product): (p,)."""
    c, x, _ = _draw(p, seed)
    product: Tensor = torch.fft.ifft(torch.fft.fft(c) * torch.fft.fft(x)).real
    return product


def matrix_product(p: int = 12, seed: int = 0, convention: Convention = "column") -> Tensor:
    """``circ(c) x`` with c as the matrix's first column or its first row: (p,)."""
    c, x, _ = _draw(p, seed)
    return dense_circulant(c, convention) @ x


def reversed_product(p: int = 12, seed: int = 0) -> Tensor:
    """``circ(c') x`` with c' as the first row, c' being c read backwards from its first entry: (p,)."""
    c, x, _ = _draw(p, seed)
    return dense_circulant(torch.roll(c.flip(0), 1), "row") @ x


def paper_gradients(p: int = 12, seed: int = 0) -> Tensor:
    """The paper's ``dL/dx`` and ``dL/dc``, one after the other: (2 p,)."""
    c, x, g = (torch.fft.fft(v) for v in _draw(p, seed))
    return torch.cat([torch.fft.ifft(c.conj() * g).real, torch.fft.ifft(x.conj() * g).real])


def matrix_gradients(p: int = 12, seed: int = 0) -> Tensor:
    """The same by differentiating ``circ(c) x``, c the first column, as a dense product: (2 p,)."""
    c, x, g = _draw(p, seed)
    c.requires_grad_()
    x.requires_grad_()
    grads = torch.autograd.grad(dense_circulant(c, "column") @ x, (x, c), g)
    return torch.cat(grads)
