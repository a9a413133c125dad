"""Batched algebra of CDVFT's factors: dense factors, one-factor normal equations, Jacobian.

A batch holds B sets of factors of the same shapes (restarts, target draws). The parameters of a set are
one flat vector in the order of the product read from the right: ``a_1, c_2, a_3, c_4, ..., a_{2m-1}``.
Everything works over the reals (float64) and over the complex numbers (complex128), for which the map
from parameters to ``dW`` is holomorphic, so that Jacobians mean complex derivatives.

Conventions are those of ``cdvft_reference``: first column, ``C[r, s] = c[(r - s) mod p]``.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cdvft_reference.cdvft import FactorShapes


@dataclass(frozen=True)
class Factor:
    """One factor of the product: a diagonal (``blocks`` is None) or a block-circulant one.

    Attributes:
        d_in, d_out: its widths as a matrix.
        blocks: (q_out, q_in, p) of a block-circulant factor.
        start: index of its first parameter in the flat vector.
    """

    d_in: int
    d_out: int
    blocks: tuple[int, int, int] | None
    start: int

    @property
    def size(self) -> int:
        """Number of parameters."""
        if self.blocks is None:
            return self.d_in
        q_out, q_in, p = self.blocks
        return q_out * q_in * p

    @property
    def slice(self) -> slice:
        """Where its parameters stand in the flat vector."""
        return slice(self.start, self.start + self.size)


class Product:
    """The map from flat parameters (B, P) to weight changes (B, d_out, d_in).

    Args:
        shapes: widths, m and block size.
    """

    def __init__(self, shapes: FactorShapes) -> None:
        self.shapes = shapes

    @cached_property
    def factors(self) -> list[Factor]:
        """Factors from the right (applied first) to the left; with m = 1 the one diagonal is rectangular."""
        s, result, start = self.shapes, [], 0
        for k, (width,) in enumerate(s.diagonals):
            if k > 0:
                blocks = s.circulants[k - 1]
                result.append(Factor(s.d_in if k == 1 else s.d_out, s.d_out, blocks, start))
                start += result[-1].size
            result.append(Factor(width, width, None, start))
            start += width
        return result

    @property
    def parameters(self) -> int:
        """P, the length of the flat vector."""
        return self.factors[-1].start + self.factors[-1].size

    def split(self, theta: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The diagonals and the circulant vectors of ONE set (P,), as ``cdvft_dense`` takes them."""
        diagonals: list[Tensor] = []
        circulants: list[Tensor] = []
        for factor in self.factors:
            part = theta[factor.slice]
            (diagonals if factor.blocks is None else circulants).append(
                part if factor.blocks is None else part.reshape(factor.blocks)
            )
        return diagonals, circulants

    def join(self, diagonals: list[Tensor], circulants: list[Tensor]) -> Tensor:
        """The inverse of :meth:`split`."""
        parts = [diagonals[0]]
        for c, a in zip(circulants, diagonals[1:], strict=True):
            parts += [c.reshape(-1), a]
        return torch.cat(parts)

    def identity(self, batch: int, dtype: torch.dtype) -> Tensor:
        """Parameters (B, P) of ones on diagonals and of circulant factors with ones on their main diagonal."""
        theta = torch.ones(batch, self.parameters, dtype=dtype)
        for factor in self.factors:
            if factor.blocks is not None:
                unit = torch.zeros(factor.blocks, dtype=dtype)
                for i in range(min(factor.blocks[:2])):
                    unit[i, i, 0] = 1
                theta[:, factor.slice] = unit.reshape(-1)
        return theta

    def random(self, batch: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
        """Parameters (B, P) of standard normal entries."""
        return torch.randn(batch, self.parameters, dtype=dtype, generator=generator)

    def apply(self, factor: Factor, theta: Tensor, x: Tensor) -> Tensor:
        """``F x`` for matrices x (B, d_in, k)."""
        if factor.blocks is None:
            return theta[:, factor.slice, None] * x
        return dense_blocks(theta[:, factor.slice], factor) @ x

    def right_parts(self, theta: Tensor) -> list[Tensor]:
        """For every factor the product (B, d_in of the factor, d_in) of what stands to its right."""
        parts = [torch.eye(self.shapes.d_in, dtype=theta.dtype).expand(theta.shape[0], -1, -1)]
        for factor in self.factors[:-1]:
            parts.append(self.apply(factor, theta, parts[-1]))
        return parts

    def left_parts(self, theta: Tensor) -> list[Tensor]:
        """For every factor the product (B, d_out, d_out of the factor) of what stands to its left."""
        last = self.factors[-1].d_out
        parts = [torch.eye(self.shapes.d_out, last, dtype=theta.dtype).expand(theta.shape[0], -1, -1)]
        for factor in reversed(self.factors[1:]):
            parts.append(self.absorb(factor, theta, parts[-1]))
        return parts[::-1]

    def absorb(self, factor: Factor, theta: Tensor, left: Tensor) -> Tensor:
        """``L F``."""
        if factor.blocks is None:
            return left * theta[:, None, factor.slice]
        return left @ dense_blocks(theta[:, factor.slice], factor)

    def matrix(self, factor: Factor, theta: Tensor) -> Tensor:
        """One circulant factor of every set as dense matrices (B, d_out, d_in)."""
        return dense_blocks(theta[:, factor.slice], factor)

    def dense(self, theta: Tensor) -> Tensor:
        """Weight changes (B, d_out, d_in)."""
        return self.left_parts(theta)[0] * theta[:, None, self.factors[0].slice]

    def jacobian(self, theta: Tensor) -> Tensor:
        """Derivatives (B, d_out * d_in, P) of the row-major entries of ``dW``."""
        parts = [
            columns(factor, left, right)
            for factor, left, right in zip(self.factors, self.left_parts(theta), self.right_parts(theta), strict=True)
        ]
        return torch.cat(parts, dim=-1)


def norms(x: Tensor) -> Tensor:
    """Frobenius (Euclidean) norms of a batch: (B, ...) to (B,), real."""
    result: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=-1)
    return result


def _pad(x: Tensor, rows: int, columns: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, columns - x.shape[-1], 0, rows - x.shape[-2]))


def dense_blocks(c: Tensor, factor: Factor) -> Tensor:
    """Dense factors (B, d_out, d_in) of flat circulant vectors (B, q_out q_in p)."""
    assert factor.blocks is not None
    q_out, q_in, p = factor.blocks
    r = torch.arange(p)
    blocks = c.reshape(-1, q_out, q_in, p)[..., (r[:, None] - r[None, :]) % p]
    dense = blocks.permute(0, 1, 3, 2, 4).reshape(-1, q_out * p, q_in * p)
    return dense[:, : factor.d_out, : factor.d_in]


def wrapped_sums(x: Tensor, factor: Factor) -> Tensor:
    """Sums of x (B, d_out, d_in) along the wrapped diagonals of each block: flat (B, q_out q_in p).

    This is the adjoint of :func:`dense_blocks`.
    """
    assert factor.blocks is not None
    q_out, q_in, p = factor.blocks
    u = torch.arange(p)
    rows = (u[:, None] + u[None, :]) % p  # (s, t): the row that c[t] puts column s on
    blocks = _pad(x, q_out * p, q_in * p).reshape(-1, q_out, p, q_in, p).transpose(2, 3)
    return blocks[..., rows, u[:, None].expand(p, p)].sum(-2).reshape(x.shape[0], -1)


def columns(factor: Factor, left: Tensor, right: Tensor) -> Tensor:
    """``d(L F R) / d(parameters of F)``: (B, rows of L times columns of R, size)."""
    batch, rows, columns = left.shape[0], left.shape[1], right.shape[2]
    if factor.blocks is None:
        return torch.einsum("brk,bks->brsk", left, right).reshape(batch, rows * columns, -1)
    q_out, q_in, p = factor.blocks
    u = torch.arange(p)
    shifted = (u[:, None] + u[None, :]) % p  # (u, t): the row inside a block that c[t] puts column u on
    left = _pad(left, rows, q_out * p).reshape(batch, rows, q_out, p)[..., shifted]
    right = _pad(right, q_in * p, columns).reshape(batch, q_in, p, columns)
    return torch.einsum("briut,bjus->brsijt", left, right).reshape(batch, rows * columns, -1)


def normal_equations(factor: Factor, left: Tensor, right: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Gram matrix (B, size, size) and right-hand side (B, size) of ``min |T - L F R|`` over one factor F.

    ``<L E_ij R, L E_kl R> = (L* L)_ik (R R*)_lj`` for unit matrices E, so a diagonal's Gram matrix is an
    entry-wise product and a circulant's one a two-dimensional circular correlation, taken by FFT: no matrix
    of d_out d_in rows is built.
    """
    a = left.mH @ left
    b = (right @ right.mH).mT  # b[j, l] = sum_s conj(R[j, s]) R[l, s]
    moment = left.mH @ target @ right.mH  # moment[i, j] = <L E_ij R, T>
    if factor.blocks is None:
        return a * b, torch.diagonal(moment, dim1=-2, dim2=-1)
    q_out, q_in, p = factor.blocks
    batch, n_out, n_in = a.shape[0], q_out * p, q_in * p
    a = _pad(a, n_out, n_out).reshape(batch, q_out, p, q_out, p).transpose(2, 3)
    b = _pad(b, n_in, n_in).reshape(batch, q_in, p, q_in, p).transpose(2, 3)
    # G[s, t] = sum_{u, v} a[s + u, t + v] b[u, v] for each pair of blocks.
    spectrum = torch.einsum("bikuv,bjluv->bikjluv", torch.fft.fft2(a), torch.fft.ifft2(b, norm="forward"))
    gram = torch.fft.ifft2(spectrum)
    gram = gram if a.is_complex() else gram.real
    gram = gram.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, factor.size, factor.size)
    return gram, wrapped_sums(moment, factor)
