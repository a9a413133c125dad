"""Block-circulant products in the frequency domain: the primitives of every FFT path.

A row of ``width`` entries is ``q`` blocks of ``p`` (zero-padded at the end); its spectrum is one real
transform a block, ``f = p // 2 + 1`` frequencies. Few blocks are multiplied element by element, many as
one small matrix product a frequency, for which the frequencies come first in memory:

- at most ``FEW_BLOCKS`` blocks in the factor: (T, q, f)
- more: (f, T, q)

Nothing here is differentiated by autograd; see ``fused`` for the passes built from it.
"""

import torch
from torch import Tensor

from cdvft_bench.execution import scratch
from cdvft_bench.execution.splits import FEW_BLOCKS


def few(q_out: int, q_in: int) -> bool:
    """Whether a factor of q_out by q_in blocks is multiplied element by element."""
    return q_out * q_in <= FEW_BLOCKS


def _copied(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


def factor_spectrum(c: Tensor, row: bool, scale: float = 1.0) -> Tensor:
    """The spectrum of a factor ``c`` (q_out, q_in, p): (q_out, q_in, f), or (f, q_in, q_out) for many blocks.

    ``row`` is the first-row convention (a conjugation); ``scale`` is multiplied in.
    """
    c_hat = torch.fft.rfft(c)
    if row:
        c_hat = c_hat.conj_physical()
    if scale != 1.0:
        c_hat *= scale
    return c_hat if few(*c.shape[:2]) else _copied(c_hat.permute(2, 1, 0))


def product(x: Tensor, y: Tensor) -> Tensor:
    """``x * y`` for y that broadcasts to the shape of x, in scratch memory where there is some: use it up at once."""
    return torch.mul(x, y, out=scratch.rows(x.shape, torch.promote_types(x.dtype, y.dtype), x))


def spectra(x: Tensor, blocks: int, p: int, by_block: bool) -> Tensor:
    """Spectra of the rows of ``x`` (T, width): (T, blocks, f), or (f, T, blocks) without ``by_block``."""
    padding = blocks * p - x.shape[1]
    if padding:
        x = torch.nn.functional.pad(x, (0, padding))
    x_hat = torch.fft.rfft(x.view(-1, blocks, p))
    return x_hat if by_block else _copied(x_hat.permute(2, 0, 1))


def signals(x_hat: Tensor, p: int, width: int, by_block: bool) -> Tensor:
    """Back to rows (T, width), contiguous; the inverse of :func:`spectra`."""
    if not by_block:
        x_hat = _copied(x_hat.permute(1, 2, 0))
    x = torch.fft.irfft(x_hat, n=p).view(x_hat.shape[0], -1)
    return x if x.shape[1] == width else _copied(x[:, :width])


def multiply(x_hat: Tensor, c_hat: Tensor, by_block: bool, in_place: bool = False) -> Tensor:
    """``y_i = sum_j c_ij x_j`` at every frequency, in scratch memory where there is some: use it up at once.

    ``in_place`` lets a single block overwrite ``x_hat`` instead.
    """
    if not by_block:
        shape = (*x_hat.shape[:2], c_hat.shape[2])
        return torch.bmm(x_hat, c_hat, out=scratch.rows(shape, x_hat.dtype, x_hat))
    q_out, q_in, f = c_hat.shape
    if (q_out, q_in) == (1, 1):
        return x_hat.mul_(c_hat[0]) if in_place else product(x_hat, c_hat[0])
    if torch.compiler.is_compiling():  # which traces no writing into a part of a tensor
        terms = [[x_hat[:, j] * c_hat[i, j] for j in range(q_in)] for i in range(q_out)]
        return torch.stack([sum(rest, first) for first, *rest in terms], 1)
    shape = (x_hat.shape[0], q_out, f)
    y_hat = scratch.rows(shape, x_hat.dtype, x_hat)
    if y_hat is None:
        y_hat = x_hat.new_empty(shape)
    for i in range(q_out):
        torch.mul(x_hat[:, 0], c_hat[i, 0], out=y_hat[:, i])
        for j in range(1, q_in):
            y_hat[:, i].addcmul_(x_hat[:, j], c_hat[i, j])
    return y_hat


def adjoint(c_hat: Tensor, by_block: bool) -> Tensor:
    """The spectrum of the transposed factor."""
    conjugate = c_hat.conj_physical()
    return conjugate.transpose(0, 1) if by_block else conjugate.transpose(1, 2)


def moment(g_hat: Tensor, conjugate_x_hat: Tensor, by_block: bool, in_place: bool = False) -> Tensor:
    """``sum_t conj(x_t) g_t`` at every frequency, (q_out, q_in, f), or (f, q_out, q_in) without ``by_block``.

    Args:
        g_hat, conjugate_x_hat: spectra of the output's gradient and, conjugated, of the input.
        by_block: layout of both spectra.
        in_place: let a single block overwrite the input's spectrum.
    """
    if not by_block:
        return torch.bmm(g_hat.transpose(1, 2), conjugate_x_hat)
    q_out, q_in, f = g_hat.shape[1], conjugate_x_hat.shape[1], g_hat.shape[2]
    if (q_out, q_in) == (1, 1):
        both = conjugate_x_hat.mul_(g_hat) if in_place else product(g_hat, conjugate_x_hat)
        return both.sum(0, keepdim=True)
    if torch.compiler.is_compiling():
        return torch.stack([(conjugate_x_hat * g_hat[:, i : i + 1]).sum(0) for i in range(q_out)])
    summed = g_hat.new_empty(q_out, q_in, f)
    for i in range(q_out):
        torch.sum(product(conjugate_x_hat, g_hat[:, i : i + 1]), 0, out=summed[i])
    return summed


def factor_gradient(summed: Tensor, p: int, row: bool, by_block: bool) -> Tensor:
    """The gradient of a factor, (q_out, q_in, p), from the sum of :func:`moment` over all rows.

    ``p`` is the block size, ``row`` the first-row convention.
    """
    if not by_block:
        summed = summed.permute(1, 2, 0)
    return torch.fft.irfft(summed.conj_physical() if row else summed, n=p)


def column_dot(a: Tensor, b: Tensor) -> Tensor:
    """``sum_t a[t] * b[t]`` for a, b (T, n): the gradient of a diagonal, (n,)."""
    return product(a, b).sum(0)
