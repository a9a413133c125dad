"""Best approximation of a matrix by the weight changes that each peer of CDVFT can reach.

Every function takes targets (B, d_out, d_in), float64, and returns relative errors (B,) in the Frobenius
norm. LoRA, block-circulant and FourierFT are exact optima in closed form; VeRA is an alternating
least-squares bound.
"""

import torch
from torch import Tensor

from cdvft_bench.core.errors import UserError
from cdvft_bench.expressivity.factors import Factor, dense_blocks, norms, wrapped_sums
from cdvft_reference.circulant import block_circulant_shape


def relative_error(target: Tensor, approximation: Tensor) -> Tensor:
    """``|T - A| / |T|`` of each matrix of a batch, Frobenius norm: (B,)."""
    return norms(target - approximation) / norms(target)


def _from_kept(total: Tensor, kept: Tensor) -> Tensor:
    """Relative error of an orthogonal projection that keeps energy ``kept`` of ``total``."""
    return ((total - kept).clamp_min(0) / total).sqrt()


def lora_errors(targets: Tensor) -> Tensor:
    """Exact optima of every rank 0, 1, ..., min(d_out, d_in), what the values after the r-th leave: (B, ranks).

    Source: Eckart and Young, 1936.
    """
    values: Tensor = torch.linalg.svdvals(targets) ** 2
    left = values.flip(-1).cumsum(-1).flip(-1)
    return (torch.nn.functional.pad(left, (0, 1)) / values.sum(-1, keepdim=True)).sqrt()


def block_circulant_projection(targets: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Nearest block-circulant matrices: the mean along each wrapped diagonal of each block.

    Entries of padded blocks that fall outside the matrix do not count.

    Returns:
        (B, d_out, d_in) the projections, and (B, q_out, q_in, p) their vectors (zero where a vector's
        entry touches no entry of the matrix).
    """
    d_out, d_in = targets.shape[-2:]
    blocks = block_circulant_shape(d_in, d_out, block_size)
    factor = Factor(d_in, d_out, blocks, 0)
    counts = wrapped_sums(torch.ones_like(targets[:1]), factor).clamp_min(1)
    means = wrapped_sums(targets, factor) / counts
    return dense_blocks(means, factor), means.reshape(-1, *blocks)


def block_circulant_error(targets: Tensor, block_size: int) -> Tensor:
    """Exact optimum of a block-circulant weight change (BCA; C3A spans the same set)."""
    return relative_error(targets, block_circulant_projection(targets, block_size)[0])


def spectral_energies(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Energy of a matrix along every atom of FourierFT, and which atom each frequency belongs to.

    FourierFT (Gao et al., 2024) trains REAL coefficients and keeps the real part of the inverse 2-D FFT, so
    the atom of frequency (u, v) is ``cos(2 pi (u r / d_out + v s / d_in))``: frequencies (u, v) and (-u, -v)
    share one atom, and distinct atoms are orthogonal.

    Returns:
        (B, d_out * d_in) energies, one entry a frequency, and (d_out * d_in,) the atom's number: the
        smaller flat index of the two frequencies.
    """
    batch, d_out, d_in = targets.shape
    spectrum = torch.fft.fft2(targets)
    u, v = torch.arange(d_out)[:, None], torch.arange(d_in)[None, :]
    flat = u * d_in + v
    mirror = ((-u) % d_out) * d_in + (-v) % d_in
    atom = torch.minimum(flat, mirror).reshape(-1)
    # <T, atom> = Re FFT(T)[u, v]; |atom|^2 = d_out d_in, or half of it where the two frequencies differ.
    square = torch.where(flat == mirror, 1.0, 0.5) * d_out * d_in
    energy = spectrum.real**2 / square
    return energy.reshape(batch, -1), atom


def _check_count(n: int, targets: Tensor) -> None:
    size = targets.shape[1] * targets.shape[2]
    if not 1 <= n <= size:
        raise UserError(f"n = {n} frequencies do not fit a matrix of {size} entries; use 1 to {size}")


def fourierft_best_error(targets: Tensor, n: int) -> Tensor:
    """Exact optimum of FourierFT with n coefficients at the best positions for each target.

    Atoms are orthogonal, so the best are those of most energy. FourierFT draws its positions before it sees
    any data; this bound is what it could reach if it did not.
    """
    _check_count(n, targets)
    energies, atom = spectral_energies(targets)
    distinct = energies[:, atom == torch.arange(len(atom))]
    kept = distinct.topk(min(n, distinct.shape[1]), dim=-1).values.sum(-1)
    return _from_kept(targets.flatten(1).square().sum(-1), kept)


def fourierft_random_error(targets: Tensor, n: int, seed: int) -> Tensor:
    """Exact optimum of FourierFT at n random positions, as the method draws them (a fresh draw a target)."""
    _check_count(n, targets)
    energies, atom = spectral_energies(targets)
    generator = torch.Generator().manual_seed(seed)
    kept = torch.zeros(len(targets), dtype=targets.dtype)
    for b in range(len(targets)):
        positions = torch.randperm(energies.shape[1], generator=generator)[:n]
        kept[b] = energies[b, atom[positions].unique()].sum()
    return _from_kept(targets.flatten(1).square().sum(-1), kept)


def vera_error(targets: Tensor, rank: int, seed: int, restarts: int = 4, sweeps: int = 100) -> Tensor:
    """Least error found for VeRA: ``dW = diag(b) B diag(d) A`` with frozen random A (r, d_in) and B (d_out, r).

    Given d each entry of b is a quotient, given b the vector d solves r linear equations; they alternate from
    ``restarts`` random starts. One pair (A, B) serves all targets, as one pair serves all layers in the method.
    """
    if rank < 1:
        raise UserError(f"rank = {rank} is too small; it must be >= 1")
    batch, d_out, d_in = targets.shape
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, d_in, dtype=targets.dtype, generator=generator) / d_in**0.5
    b_frozen = torch.randn(d_out, rank, dtype=targets.dtype, generator=generator) / rank**0.5
    goal = targets.repeat_interleave(restarts, dim=0)
    d = torch.randn(batch * restarts, rank, dtype=targets.dtype, generator=generator)
    right = a @ a.T
    for _ in range(sweeps):
        middle = (b_frozen * d[:, None, :]) @ a
        b = (middle * goal).sum(-1) / middle.square().sum(-1).clamp_min(1e-300)
        left = b[:, :, None] * b_frozen
        gram = (left.mT @ left) * right
        gram = gram + 1e-13 * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(rank, dtype=a.dtype)
        moment = ((left.mT @ goal) * a).sum(-1)
        d = torch.linalg.solve(gram, moment)
    middle = (b_frozen * d[:, None, :]) @ a
    b = (middle * goal).sum(-1) / middle.square().sum(-1).clamp_min(1e-300)
    return relative_error(goal, b[:, :, None] * middle).reshape(batch, restarts).amin(1)
