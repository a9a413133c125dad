"""Huhtanen and Peramaki's theorem at work: a matrix as alternating diagonal and circulant factors.

Source: M. Huhtanen, A. Peramaki, "Factoring matrices into the product of circulant and diagonal matrices",
J. Fourier Anal. Appl. 21 (2015) 1018-1033: a GENERIC complex n x n matrix is a product of at most 2n - 1
such factors. The route below is theirs in outline (a polynomial in the cyclic shift over the diagonal
matrices, split into linear factors, each a diagonal, a circulant and a diagonal matrix); how the linear
factors are found is our own: a polynomial eigenvalue problem a factor.

Write ``A = sum_k D_k P^k`` with the cyclic shift ``(P x)_r = x_{r-1}`` and diagonal ``D_k``. Since
``P D = D' P`` with ``d'_r = d_{r-1}``, dividing on the right by ``P - diag(d)`` leaves the remainder
``sum_k D_k[r] d_r d_{r-1} ... d_{r-k+1}``. With ``d_r = z v_{r-1} / v_r`` it vanishes exactly when
``sum_k z^k D_k P^k v = 0``.
"""

from itertools import pairwise

import torch
from torch import Tensor

from cdvft_bench.expressivity.factors import Product
from cdvft_reference.cdvft import FactorShapes


class NotGenericError(ValueError):
    """A matrix that the construction does not reach: it meets a zero where it has to divide."""


def diagonals_of(a: Tensor) -> Tensor:
    """``D_k[r] = A[r, (r - k) mod n]``: (n, n) to (n, n), row k the k-th wrapped diagonal."""
    n = a.shape[0]
    r = torch.arange(n)
    return a[r[None, :], (r[None, :] - r[:, None]) % n]


def right_divisor(d: Tensor) -> Tensor:
    """A diagonal (n,) such that ``P - diag`` divides ``sum_k diag(d[k]) P^k`` on the right.

    Of the eigenpairs of the polynomial eigenvalue problem the one whose divisor has the most even entries.

    Raises:
        NotGenericError: the leading coefficient has a zero, or every eigenvector has one.
    """
    degree, n = d.shape[0] - 1, d.shape[1]
    if float(d[-1].abs().min()) <= 1e-12 * float(d.abs().max()):
        raise NotGenericError("the leading wrapped diagonal has a zero entry")
    r = torch.arange(n)
    shift = [(r[:, None] - r[None, :]) % n == k % n for k in range(degree + 1)]
    # P^k leaves its argument's entry r - k; its coefficient matrix has one entry a row.
    leading = d[degree]
    lead_inverse = (shift[degree].to(d.dtype) / leading[:, None]).T
    companion = torch.zeros(n * degree, n * degree, dtype=d.dtype)
    companion[: n * (degree - 1), n:] = torch.eye(n * (degree - 1), dtype=d.dtype)
    for k in range(degree):
        companion[n * (degree - 1) :, n * k : n * (k + 1)] = -lead_inverse @ (shift[k].to(d.dtype) * d[k][:, None])
    values, vectors = torch.linalg.eig(companion)
    v = vectors[:n]
    divisors: Tensor = values[None, :] * torch.roll(v, 1, 0) / v
    size: Tensor = divisors.abs()
    usable = torch.isfinite(size).all(0) & (size.amin(0) > 1e-9 * size.amax(0)) & (size.amax(0) > 0)
    if not bool(usable.any()):
        raise NotGenericError("every eigenvector of the polynomial has a zero entry")
    spread = torch.where(usable, size.amax(0) / size.amin(0).clamp_min(1e-300), torch.inf)
    return divisors[:, int(spread.argmin())]


def divide_right(d: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
    """``sum_k diag(d[k]) P^k = (sum_k diag(q[k]) P^k)(P - diag(divisor)) + diag(rest)``: q and rest."""
    degree = d.shape[0] - 1
    q = torch.zeros(degree, d.shape[1], dtype=d.dtype)
    q[degree - 1] = d[degree]
    for k in range(degree - 1, 0, -1):
        q[k - 1] = d[k] + q[k] * torch.roll(divisor, k)
    return q, d[0] + q[0] * divisor


def split_linear(divisor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``P - diag(divisor) = diag(left) circ(c) diag(right)``, complex, all entries of ``divisor`` non-zero.

    The circulant's vector is ``(c_0, 1, 0, ...)`` with ``c_0^n = prod(-divisor)``: the n-th root that real
    numbers need not have.
    """
    n = divisor.shape[0]
    minus = -divisor.to(torch.complex128)
    root = torch.exp(minus.log().mean())
    left = torch.exp(torch.cat([torch.zeros(1, dtype=root.dtype), (root.log() - minus.log())[:-1].cumsum(0)]))
    right = torch.roll(1 / left, -1)
    c = torch.zeros(n, dtype=torch.complex128)
    c[0], c[1] = root, 1
    return left, c, right


def factorise(a: Tensor) -> Tensor:
    """A generic complex matrix (n, n) as a product of 2n - 1 factors, n diagonal and n - 1 circulant.

    Returns:
        flat parameters (P,) of ``Product(FactorShapes(n, n, n, n))``, complex128.

    Raises:
        ValueError: the matrix is not square with n >= 2.
        NotGenericError: the construction does not reach it.
    """
    n = a.shape[0]
    if a.ndim != 2 or a.shape[1] != n or n < 2:
        raise ValueError(f"shape {tuple(a.shape)}; give a square matrix with n >= 2")
    d = diagonals_of(a.to(torch.complex128))
    linear = []
    while d.shape[0] > 1:
        divisor = right_divisor(d)
        d, _ = divide_right(d, divisor)
        linear.append(split_linear(divisor))
    diagonals, circulants = [linear[0][2]], [linear[0][1]]
    for before, after in pairwise(linear):
        diagonals.append(after[2] * before[0])
        circulants.append(after[1])
    diagonals.append(d[0] * linear[-1][0])
    return Product(FactorShapes(n, n, n, n)).join(diagonals, circulants)


def factorisation_residual(a: Tensor, theta: Tensor) -> float:
    """``|A - product| / |A|`` of what :func:`factorise` returned."""
    n = a.shape[0]
    product = Product(FactorShapes(n, n, n, n)).dense(theta[None])[0]
    return float(torch.linalg.vector_norm(a - product) / torch.linalg.vector_norm(a))


def real_error_2x2(a: Tensor) -> float:
    """Exact least relative error of real m = 2 on a real 2 x 2 matrix.

    The product of all four entries of ``diag circ diag`` is a square, so it is never negative; every matrix
    whose product is positive is reached. What remains is the distance to a matrix with a zero entry.
    """
    if a.shape != (2, 2):
        raise ValueError(f"shape {tuple(a.shape)}; give a 2 x 2 matrix")
    if float(a.prod()) >= 0:
        return 0.0
    return float(a.abs().min() / torch.linalg.vector_norm(a))
