"""How large the set of reachable weight changes is: dimension, redundancy, conditioning.

The set is the image of a polynomial map, so its dimension is the rank of the map's Jacobian at a generic
point. Redundancies bound it from above: directions in parameter space along which ``dW`` does not move.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cdvft_bench.expressivity.factors import Product, columns
from cdvft_bench.expressivity.fitting.solver import SolverOptions, fit_all
from cdvft_reference.cdvft import FactorShapes

PRIME = 67_108_859
"""The largest prime below 2^26: products of two residues, summed 2^11 times, fit in 64 bits."""


def parameter_count(shapes: FactorShapes) -> int:
    """Trained entries: (2m - 1) d for a square layer with p = d."""
    circulant = sum(q_out * q_in * p for q_out, q_in, p in shapes.circulants)
    return sum(width for (width,) in shapes.diagonals) + circulant


def continuous_redundancy(shapes: FactorShapes) -> int:
    """Independent scalings that leave ``dW`` as it is: at least this many directions are redundant.

    A diagonal that is constant on each block commutes with nothing but passes into a neighbouring
    circulant factor. The rightmost diagonal trades one scale a block with its one neighbour, the leftmost
    likewise, those between with both: ``q_in + q_out (2m - 3)`` for m >= 2 (``2m - 2`` where p = d). With
    m = 1 only the entries that the rectangular identity cuts off are redundant.
    """
    if shapes.m == 1:
        return max(0, shapes.d_in - shapes.d_out)
    q_out, q_in, _ = shapes.circulants[0]
    return q_in + q_out * (2 * shapes.m - 3)


def dimension_bound(shapes: FactorShapes) -> int:
    """Upper bound of the dimension of the reachable set, for every shape."""
    return min(shapes.d_in * shapes.d_out, parameter_count(shapes) - continuous_redundancy(shapes))


def generic_full_m(n: int) -> int:
    """Least m whose bound fills all n^2 dimensions of a square layer with p = n: ``ceil(n / 2) + 1`` (n >= 2).

    ``(2m - 1) n - (2m - 2) >= n^2`` is ``(2m - 2)(n - 1) >= n (n - 1)``.
    """
    return 1 if n == 1 else (n + 1) // 2 + 1


def rank_modulo_prime(matrix: Tensor, prime: int = PRIME) -> int:
    """Exact rank of an integer matrix over the field of residues modulo ``prime``, by elimination."""
    rows = (matrix % prime).clone()
    rank = 0
    for column in range(rows.shape[1]):
        pivots = rows[rank:, column].nonzero()
        if not len(pivots):
            continue
        pivot = rank + int(pivots[0, 0])
        if pivot != rank:
            rows[[rank, pivot]] = rows[[pivot, rank]]
        rows[rank] = rows[rank] * pow(int(rows[rank, column]), -1, prime) % prime
        rows[rank + 1 :] = (rows[rank + 1 :] - rows[rank + 1 :, column, None] * rows[rank]) % prime
        rank += 1
        if rank == rows.shape[0]:
            break
    return rank


def exact_dimension(shapes: FactorShapes, seed: int = 0) -> int:
    """Rank of the Jacobian at random integers modulo a prime: a certified lower bound of the dimension.

    A minor that is not zero modulo the prime is not the zero polynomial, so the generic rank, over the
    rationals, the reals and the complex numbers alike, is at least this. Together with
    :func:`dimension_bound` equality is a proof for the given shape.
    """
    product = Product(shapes)
    theta = torch.randint(1, PRIME, (1, product.parameters), generator=torch.Generator().manual_seed(seed))
    factors = product.factors
    rights = [torch.eye(shapes.d_in, dtype=torch.int64)[None]]
    for factor in factors[:-1]:
        rights.append(product.apply(factor, theta, rights[-1]) % PRIME)
    lefts = [torch.eye(shapes.d_out, factors[-1].d_out, dtype=torch.int64)[None]]
    for factor in reversed(factors[1:]):
        lefts.append(product.absorb(factor, theta, lefts[-1]) % PRIME)
    parts = zip(factors, reversed(lefts), rights, strict=True)
    return rank_modulo_prime(torch.cat([columns(f, left, right)[0] for f, left, right in parts], dim=-1))


@dataclass(frozen=True)
class Spectrum:
    """Singular values of the Jacobian at one point.

    Attributes:
        rank: numerical rank, relative to the largest singular value.
        condition: largest over smallest of those that count: how unevenly parameters move ``dW``.
    """

    rank: int
    condition: float


def jacobian_spectrum(shapes: FactorShapes, theta: Tensor, tolerance: float = 1e-10) -> Spectrum:
    """Numerical rank and conditioning of the Jacobian at ``theta`` (P,), float64 or complex128."""
    values = torch.linalg.svdvals(Product(shapes).jacobian(theta[None])[0])
    rank = int((values > tolerance * values[0]).sum())
    return Spectrum(rank, float(values[0] / values[rank - 1]) if rank else float("nan"))


# --- discrete redundancies -------------------------------------------------------------------
# Two sets of factors of one ``dW`` without zero entries differ by ``f(r) g(s) h(r - s) = 1``; so f is a constant
# times a character of the integers modulo n. There are n characters over the complex numbers (roots of unity), over
# the reals one for odd n and two for even n (all ones; alternating signs). Beside the two scalings nothing else is
# redundant.


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
