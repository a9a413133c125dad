"""How many factors give one weight change: the redundancies of m = 2, p = n counted, discrete ones too.

Two sets of factors of one ``dW`` without zero entries differ by ``f(r) g(s) h(r - s) = 1``; so f is a constant times a
character of the integers modulo n. There are n characters over the complex numbers (roots of unity), over the reals
one for odd n and two for even n (all ones; alternating signs). Beside the two scalings nothing else is redundant.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cdvft_bench.expressivity.factors import Product
from cdvft_bench.expressivity.fitting.solver import SolverOptions, fit_all
from cdvft_reference.cdvft import FactorShapes

_SAME = 1e-5
"""Relative distance of normalised factors that makes them one class."""


def class_count(n: int, field: str) -> int:
    """Classes of factors, scalings apart, of one generic weight change with m = 2, p = n."""
    return n if field == "complex" else 2 - n % 2


def normalised(product: Product, theta: Tensor) -> Tensor:
    """Factors (B, P) of m = 2 scaled so that both diagonals start with one; ``dW`` stays as it is."""
    first, circulant, last = (theta[:, f.slice] for f in product.factors)
    return torch.cat([first / first[:, :1], circulant * first[:, :1] * last[:, :1], last / last[:, :1]], dim=-1)


def classes_found(n: int, field: str, starts: int, seed: int) -> int:
    """Look for one planted product from many starts; how many classes do the solutions make?"""
    product = Product(FactorShapes(n, n, 2, n))
    dtype = torch.complex128 if field == "complex" else torch.float64
    generator = torch.Generator().manual_seed(1_000_003 + seed)
    target = product.dense(product.random(1, dtype, generator))
    theta, errors = fit_all(target, 2, n, SolverOptions(restarts=starts, relaxed=0, seed=seed))
    known: list[Tensor] = []
    for one in normalised(product, theta[0][errors[0] < 1e-9]):
        if all(float((one - other).abs().max()) > _SAME * float(other.abs().max()) for other in known):
            known.append(one)
    return len(known)
