"""Best CDVFT approximation of a matrix: alternating least squares, then Levenberg-Marquardt.

``min |T - dW(theta)|_F`` is not convex, but each factor is linear given the others, so a sweep solves one
linear least-squares problem a factor and the error never grows (alternating least squares). Its late
convergence is slow; a damped Gauss-Newton method (Levenberg-Marquardt) on all factors finishes the work
where the Jacobian fits in memory. Both run on a batch of restarts at once, in float64 or complex128.

What comes back is an upper bound of the least error: restarts make it trustworthy (planted products are
recovered, see the tests), not certain.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cdvft_bench.expressivity.factors import Factor, Product, normal_equations, norms, wrapped_sums
from cdvft_reference.cdvft import FactorShapes

_JACOBIAN_ENTRIES = 30_000_000
"""Largest Jacobian of one restart (entries) that Levenberg-Marquardt is given."""


@dataclass(frozen=True)
class SolverOptions:
    """How long to look.

    Attributes:
        restarts: random starts for every target, >= 1; structured starts come on top.
        relaxed: starts for a real target that come from as many complex solutions, see ``to_real``.
        sweeps: sweeps of alternating least squares.
        steps: Levenberg-Marquardt steps, at most, half of them with a falling ridge; 0 leaves them out.
        ridge: first and last weight of the ridge, see :func:`levenberg_marquardt`.
        tolerance: relative error at which a target counts as reached.
        seed: of the random starts.
    """

    restarts: int = 4
    relaxed: int = 4
    sweeps: int = 10
    steps: int = 200
    ridge: tuple[float, float] = (1e-2, 1e-9)
    tolerance: float = 1e-10
    seed: int = 0


@dataclass(frozen=True)
class Approximation:
    """Best approximations of a batch of targets.

    Attributes:
        error: (B,) least relative errors ``|T - dW| / |T|``, Frobenius norm.
        theta: (B, P) the parameters that reach them.
        all_errors: (B, restarts) relative error of every restart.
    """

    error: Tensor
    theta: Tensor
    all_errors: Tensor


def balance(product: Product, theta: Tensor) -> Tensor:
    """Scale the factors of each set to equal norms; ``dW`` stays as it is."""
    sizes = torch.stack([norms(theta[:, f.slice]) for f in product.factors], dim=-1)
    safe = torch.where(sizes > 0, sizes, torch.ones_like(sizes))
    mean = safe.log().mean(dim=-1, keepdim=True).exp()
    scale = torch.where((sizes > 0).all(dim=-1, keepdim=True), mean / safe, torch.ones_like(sizes))
    return torch.cat([theta[:, f.slice] * scale[:, k, None] for k, f in enumerate(product.factors)], dim=-1)


def _relative(product: Product, theta: Tensor, target: Tensor) -> Tensor:
    return norms(target - product.dense(theta)) / norms(target)


def _solve_psd(gram: Tensor, rhs: Tensor) -> Tensor:
    """Minimum-norm solution of singular or regular positive semidefinite systems (B, k, k), (B, k)."""
    values, vectors = torch.linalg.eigh(gram)
    cut = values[:, -1:].clamp_min(0) * 1e-13
    inverse = torch.where(values > cut, 1 / torch.where(values > cut, values, torch.ones_like(values)), 0)
    solution: Tensor = vectors @ (inverse[..., None] * (vectors.mH @ rhs[..., None]))
    return solution[..., 0]


def als_sweep(product: Product, theta: Tensor, target: Tensor) -> Tensor:
    """One sweep over all factors, right to left in the product; the error of no set grows.

    Args:
        product: the factorisation.
        theta: (B, P).
        target: (B, d_out, d_in).
    """
    theta = theta.clone()
    lefts = product.left_parts(theta)
    right = product.right_parts(theta)[0]
    for factor, left in zip(product.factors, lefts, strict=True):
        gram, rhs = normal_equations(factor, left, right, target)
        theta[:, factor.slice] = _solve_psd(gram, rhs)
        right = product.apply(factor, theta, right)
    return balance(product, theta)


def als_sweep_m2(product: Product, theta: Tensor, target: Tensor) -> Tensor:
    """The same sweep for m = 2, in O(d_out d_in) time: ``dW[r, s] = a_3[r] C[r, s] a_1[s]`` entry by entry.

    Every Gram matrix is then diagonal.
    """
    if product.shapes.m != 2:
        raise ValueError(f"m = {product.shapes.m}; this sweep is for m = 2")
    first, circulant, last = product.factors
    a1, a3 = theta[:, first.slice], theta[:, last.slice]
    c = product.matrix(circulant, theta)

    def quotient(numerator: Tensor, denominator: Tensor, old: Tensor) -> Tensor:
        known = denominator > 0
        return torch.where(known, numerator / torch.where(known, denominator, torch.ones_like(denominator)), old)

    m = a3[:, :, None] * c
    a1 = quotient((m.conj() * target).sum(1), (m.conj() * m).real.sum(1), a1)
    weight = a3[:, :, None] * a1[:, None, :]
    numerator = wrapped_sums(weight.conj() * target, circulant)
    denominator = wrapped_sums((weight.conj() * weight).real, circulant)
    vector = quotient(numerator, denominator, theta[:, circulant.slice])
    theta = torch.cat([a1, vector, a3], dim=-1)
    m = product.matrix(circulant, theta) * a1[:, None, :]
    a3 = quotient((m.conj() * target).sum(2), (m.conj() * m).real.sum(2), a3)
    return balance(product, torch.cat([a1, vector, a3], dim=-1))


def levenberg_marquardt(
    product: Product,
    theta: Tensor,
    target: Tensor,
    steps: int,
    tolerance: float,
    ridge: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Damped Gauss-Newton steps on all factors of every set, for ``|T - dW|^2 / |T|^2 + mu |theta|^2``.

    Without a ridge no set gets worse; it stops when every set is below ``tolerance`` or has stalled.

    Args:
        product: the factorisation.
        theta: (B, P).
        target: (B, d_out, d_in).
        steps: at most.
        tolerance: relative error that is good enough.
        ridge: first and last weight mu, falling geometrically over the steps. Products of many factors have
            valleys that lead to infinity, where two factors cancel each other; a ridge keeps starts out of them.
    """
    norm = norms(target)
    flat = target.flatten(1) / norm[:, None]
    # The product of 2m - 1 factors carries the target's norm; solve for a target of norm one.
    share = norm[:, None] ** (1 / len(product.factors))
    theta = theta / share
    damping = torch.full_like(norm, 1e-2)
    eye = torch.eye(product.parameters, dtype=theta.dtype)
    residual = flat - product.dense(theta).flatten(1)
    error = norms(residual)
    checkpoint, active = error.clone(), torch.ones_like(error, dtype=torch.bool)
    for step in range(1, steps + 1):
        mu = ridge[0] * (ridge[1] / ridge[0]) ** (step / steps) if ridge[0] else 0.0
        active = active & (error > tolerance)
        index = active.nonzero()[:, 0]
        if not len(index):
            break
        now, before = theta[index], residual[index]
        jacobian = product.jacobian(now)
        gram = jacobian.mH @ jacobian
        shift = mu + damping[index] * gram.diagonal(dim1=-2, dim2=-1).real.mean(-1)
        rhs = (jacobian.mH @ before[..., None])[..., 0] - mu * now
        factor, info = torch.linalg.cholesky_ex(gram + shift[:, None, None] * eye)
        move = torch.cholesky_solve(rhs[..., None], factor)[..., 0]
        trial = now + torch.where((info == 0)[:, None], move, torch.zeros_like(move))
        after = flat[index] - product.dense(trial).flatten(1)
        gain = _objective(before, now, mu) - _objective(after, trial, mu)
        better = gain > 0
        chosen = index[better]
        theta[chosen], residual[chosen] = trial[better], after[better]
        error[chosen] = norms(after[better])
        damping[index] = torch.where(better, damping[index] / 3, damping[index] * 4).clamp(1e-15, 1e6)
        if step % 10 == 0 and not mu:  # a set that has not moved for ten steps is done
            active = active & (error < checkpoint * (1 - 1e-7))
            checkpoint = error.clone()
    return theta * share


def _objective(residual: Tensor, theta: Tensor, mu: float) -> Tensor:
    return norms(residual) ** 2 + mu * norms(theta) ** 2


def _contained(product: Product, targets: Tensor) -> Tensor:
    """(B, 2, P): the best matrix of rank one and the nearest block-circulant one, both inside m >= 2's set.

    They make sure that CDVFT never comes out worse than LoRA of rank 1 or block-circulant at the same p.
    """
    first, circulant, last = product.factors[:3]
    rank_one = product.identity(len(targets), targets.dtype)
    u, size, vh = torch.linalg.svd(targets, full_matrices=False)
    rank_one[:, first.slice] = vh[:, 0]
    rank_one[:, circulant.slice] = 1
    rank_one[:, last.slice] = u[:, :, 0] * size[:, :1]
    mean = product.identity(len(targets), targets.dtype)
    counts = wrapped_sums(torch.ones_like(targets[:1].real), circulant).clamp_min(1)
    mean[:, circulant.slice] = wrapped_sums(targets, circulant) / counts
    return torch.stack([rank_one, mean], dim=1)


def _starts(product: Product, targets: Tensor, options: SolverOptions, previous: Approximation | None) -> Tensor:
    """(B, restarts, P): random starts, the identity nearby, contained sets, one factor pair fewer."""
    batch, dtype = targets.shape[0], targets.dtype
    generator = torch.Generator().manual_seed(options.seed)
    random = product.random(batch * options.restarts, dtype, generator).reshape(
        batch, options.restarts, product.parameters
    )
    near = product.identity(batch, dtype) + 0.1 * product.random(batch, dtype, generator)
    starts = [random, near[:, None]]
    if product.shapes.m >= 2:
        starts.append(_contained(product, targets))
    if previous is not None:
        start = product.identity(batch, dtype)
        start[:, : previous.theta.shape[1]] = previous.theta.to(dtype)
        noise = product.random(batch, dtype, generator) * start.abs().mean(-1, keepdim=True)
        starts += [start[:, None], (start + 0.05 * noise)[:, None]]
    return torch.cat(starts, dim=1)


def _descend(product: Product, theta: Tensor, target: Tensor, options: SolverOptions) -> Tensor:
    """Both methods from every start: (B, P) to (B, P)."""
    theta = balance(product, theta)
    sweep = als_sweep_m2 if product.shapes.m == 2 else als_sweep
    for _ in range(options.sweeps):
        after = sweep(product, theta, target)
        finite = torch.isfinite(torch.view_as_real(after).flatten(1) if after.is_complex() else after).all(-1)
        theta = torch.where(finite[:, None], after, theta)  # a set on its way to infinity stays where it was
    if not options.steps or product.shapes.m == 1 or target[0].numel() * product.parameters > _JACOBIAN_ENTRIES:
        return theta
    half, tolerance = options.steps // 2, options.tolerance
    ridged = levenberg_marquardt(product, theta, target, half, tolerance, options.ridge)
    for start in (ridged, theta):  # the second keeps what alternating least squares has reached
        end = levenberg_marquardt(product, start, target, half, tolerance)
        better = _relative(product, end, target) < _relative(product, theta, target)
        theta = torch.where(better[:, None], end, theta)
    return theta


def fit_cdvft(
    targets: Tensor,
    m: int,
    block_size: int,
    options: SolverOptions = SolverOptions(),
    previous: Approximation | None = None,
) -> Approximation:
    """Least relative error of CDVFT on each target: the best of all starts, see :func:`fit_all`."""
    theta, errors = fit_all(targets, m, block_size, options, previous)
    best = errors.argmin(dim=1)
    each = torch.arange(len(targets))
    return Approximation(errors[each, best], theta[each, best], errors)


def fit_all(
    targets: Tensor,
    m: int,
    block_size: int,
    options: SolverOptions = SolverOptions(),
    previous: Approximation | None = None,
) -> tuple[Tensor, Tensor]:
    """Where every start ends.

    Args:
        targets: (B, d_out, d_in), float64 or complex128; factors are drawn over the same field.
        m: diagonal factors.
        block_size: p.
        options: effort.
        previous: the result for m - 1 on the same targets, a further start: errors then never grow with m
            (for square layers).

    Returns:
        parameters (B, starts, P) and relative errors (B, starts).

    Raises:
        ValueError: a target is zero or not finite, so a relative error means nothing.
    """
    if targets.ndim != 3 or targets.dtype not in (torch.float64, torch.complex128):
        raise ValueError(
            f"targets {tuple(targets.shape)} of {targets.dtype}; give (B, d_out, d_in), float64 or complex128"
        )
    size = norms(targets)
    if not bool(torch.isfinite(size).all()) or bool((size == 0).any()):
        raise ValueError("a target is zero or not finite")
    batch, d_out, d_in = targets.shape
    product = Product(FactorShapes(d_in, d_out, m, block_size))
    scaled = targets / size[:, None, None]
    if previous is not None:  # parameters of the target as given: bring them to the scaled one
        last = previous.theta.clone()
        last[:, :d_in] /= size[:, None]
        previous = Approximation(previous.error, last, previous.all_errors)
    starts = _starts(product, scaled, options, previous)
    if not scaled.is_complex() and options.relaxed and m > 1:
        complex_starts = product.random(
            batch * options.relaxed, torch.complex128, torch.Generator().manual_seed(options.seed + 1)
        )
        relaxed = scaled.to(torch.complex128).repeat_interleave(options.relaxed, dim=0)
        found = to_real(product, _descend(product, complex_starts, relaxed, options))
        starts = torch.cat([starts, found.reshape(batch, options.relaxed, -1)], dim=1)
    restarts = starts.shape[1]
    repeated = scaled.repeat_interleave(restarts, dim=0)
    theta = _descend(product, starts.reshape(batch * restarts, -1), repeated, options)
    errors = _relative(product, theta, repeated).reshape(batch, restarts)
    errors = torch.where(torch.isfinite(errors), errors, torch.full_like(errors, torch.inf))
    theta = theta.reshape(batch, restarts, -1).clone()
    theta[..., :d_in] *= size[:, None, None]
    return theta, errors


# --- from complex factors to real ones -------------------------------------------------------
# Over the complex numbers the search for factors is far easier: signs, which split the real search into
# pieces, become phases, which vary continuously. A complex solution of a real target is real up to
# redundancies: with ``w = exp(2 pi i / p)``,
#
# circ(c) = diag(w^(-k r)) circ(c_t w^(k t)) diag(w^(k s))        for every integer k,
#
# and a phase for each block row and column moves freely between a circulant and its neighbours. Here each
# circulant is turned by the k and the phases that make it most nearly real, its neighbours take up the
# rest, and what is left of the imaginary parts is dropped.


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
