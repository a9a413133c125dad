"""Block-circulant matrices: the dense oracle, the FFT product, the hand-derived backward.

Shapes used throughout: a block-circulant factor that maps ``d_in`` to ``d_out`` with block
size ``p`` is stored as one real tensor ``c`` of shape ``(q_out, q_in, p)``, where
``q_in = ceil(d_in / p)`` and ``q_out = ceil(d_out / p)``. Widths that ``p`` does not divide
are zero-padded up to a multiple of ``p`` and the result is cropped.

Conventions. ``"column"`` reads ``c[i, j]`` as the first column of block ``(i, j)``:
``C[r, s] = c[(r - s) mod p]``; this is the one for which ``C x = IFFT(FFT(c) * FFT(x))``.
``"row"`` reads it as the first row, ``C[r, s] = c[(s - r) mod p]``, as the CDVFT paper draws
it (arXiv 2505.00580); its product is ``IFFT(conj(FFT(c)) * FFT(x))``. The two differ by a
reversal of ``c`` and so span the same set of matrices.
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .operands import check_operands, check_positive, refuse_circulant

Convention = Literal["column", "row"]

_NO_FFT = (torch.float16, torch.bfloat16)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the real dtype in which FFTs of ``dtype`` data are taken.

    float16 and bfloat16 have no general FFT in torch, so they are computed in float32.

    Raises:
        TypeError: ``dtype`` is not a real floating-point dtype.
    """
    if not dtype.is_floating_point:
        raise TypeError(f"dtype {dtype} is not a real floating-point dtype; use float32, float64, bfloat16 or float16")
    return torch.float32 if dtype in _NO_FFT else dtype


def check_convention(convention: str) -> None:
    """Raise ValueError unless ``convention`` is "column" or "row"."""
    if convention not in get_args(Convention):
        raise ValueError(f"convention {convention!r} is not known; use 'column' (first column) or 'row' (first row)")


def block_count(width: int, block_size: int) -> int:
    """Number of blocks of size ``block_size`` that cover ``width`` (the last one padded)."""
    return -(-width // block_size)


def block_circulant_shape(d_in: int, d_out: int, block_size: int) -> tuple[int, int, int]:
    """Shape ``(q_out, q_in, p)`` of the vector tensor of one block-circulant factor.

    Raises:
        ValueError, TypeError: a width or the block size is not an integer >= 1.
    """
    for name, value in (("d_in", d_in), ("d_out", d_out), ("block_size", block_size)):
        check_positive(name, value)
    return block_count(d_out, block_size), block_count(d_in, block_size), block_size


# --- dense materialisation: the oracle -------------------------------------------------


def dense_circulant(c: Tensor, convention: Convention = "column") -> Tensor:
    """Circulant matrices of vectors ``c``: shape (..., p) to (..., p, p)."""
    check_convention(convention)
    p = c.shape[-1]
    r = torch.arange(p, device=c.device)
    shift = r[:, None] - r[None, :]
    return c[..., (shift if convention == "column" else -shift) % p]


def dense_block_circulant(c: Tensor, d_in: int, d_out: int, convention: Convention = "column") -> Tensor:
    """The (d_out, d_in) matrix of a block-circulant factor ``c`` of shape (q_out, q_in, p)."""
    p = int(c.shape[-1]) if c.ndim == 3 else 0
    if not p or tuple(c.shape) != block_circulant_shape(d_in, d_out, p):
        refuse_circulant("c", c, d_in, d_out, p)
    q_out, q_in, _ = c.shape
    blocks = dense_circulant(c, convention)  # (q_out, q_in, p, p)
    return blocks.permute(0, 2, 1, 3).reshape(q_out * p, q_in * p)[:d_out, :d_in]


# --- FFT forward, as the paper writes it -----------------------------------------------


def _to_blocks(x: Tensor, blocks: int, block_size: int) -> Tensor:
    """(T, d) to (T, blocks, p), zero-padding the last block."""
    padding = blocks * block_size - x.shape[-1]
    if padding:
        x = torch.nn.functional.pad(x, (0, padding))
    return x.reshape(x.shape[0], blocks, block_size)


def _from_blocks(x: Tensor, width: int) -> Tensor:
    """(T, blocks, p) to (T, width), cropping the padding."""
    return x.reshape(x.shape[0], -1)[:, :width]


def _multiply_spectra(c_hat: Tensor, x_hat: Tensor) -> Tensor:
    """Block product in the frequency domain: (q_out, q_in, f), (T, q_in, f) to (T, q_out, f).

    One block is an element-wise product; several are one small matrix product a frequency.
    """
    if c_hat.shape[:2] == (1, 1):
        return c_hat * x_hat
    return torch.bmm(x_hat.permute(2, 0, 1), c_hat.permute(2, 1, 0)).permute(1, 2, 0)


def _no_rows(x: Tensor, c: Tensor, d_out: int) -> Tensor:
    """The product of an empty batch, which torch's FFT refuses: nothing, and gradients that are zero."""
    return torch.nn.functional.pad(x, (0, d_out - x.shape[-1])) * c.sum()


def _spectrum(c: Tensor, convention: Convention) -> Tensor:
    c_hat = torch.fft.rfft(c)
    return c_hat if convention == "column" else c_hat.conj_physical()


def block_circulant_fft(x: Tensor, c: Tensor, d_out: int, convention: Convention = "column") -> Tensor:
    """``C x`` by real FFTs, differentiated by autograd: ``h_i = sum_j IFFT(FFT(c_ij) * FFT(x_j))``.

    Two forward transforms and one inverse a factor (paper, FFT-based circulant product).

    Args:
        x: (..., d_in).
        c: (q_out, q_in, p), float32 or float64.
        d_out: output width.
        convention: "column" or "row", see the module's docstring.

    Returns:
        (..., d_out) in the dtype of ``c``.

    Raises:
        ValueError, TypeError: see :func:`cdvft_reference.operands.check_operands`.
    """
    check_convention(convention)
    check_operands(x, (), (c,), d_out)
    if x.numel() == 0:
        return _no_rows(x.to(c.dtype), c, d_out)
    _, q_in, p = (int(n) for n in c.shape)
    flat = x.to(c.dtype).reshape(-1, x.shape[-1])
    x_hat = torch.fft.rfft(_to_blocks(flat, q_in, p))
    y = torch.fft.irfft(_multiply_spectra(_spectrum(c, convention), x_hat), n=p)
    return _from_blocks(y, d_out).reshape(*x.shape[:-1], d_out)


# --- the paper's hand-derived backward -------------------------------------------------


class BlockCirculantFunction(torch.autograd.Function):
    """``C x`` with the paper's backward: one FFT and two inverse FFTs a factor.

    ``dL/dx = IFFT(conj(FFT(c)) * FFT(g))`` and ``dL/dc = IFFT(conj(FFT(x)) * FFT(g))``, the
    latter summed over tokens in the frequency domain. FFT(c) and FFT(x) are kept from the
    forward pass, which is what makes the count 1 + 2 and what costs saved complex activations.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, c: Tensor, d_out: int, convention: Convention) -> Tensor:
        _, q_in, p = c.shape
        x_hat = torch.fft.rfft(_to_blocks(x, q_in, p))
        c_hat = _spectrum(c, convention)
        ctx.save_for_backward(x_hat, c_hat)
        ctx.d_in, ctx.block_size, ctx.convention = x.shape[-1], p, convention
        return _from_blocks(torch.fft.irfft(_multiply_spectra(c_hat, x_hat), n=p), d_out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x_hat, c_hat = ctx.saved_tensors
        p = ctx.block_size
        g_hat = torch.fft.rfft(_to_blocks(g, c_hat.shape[0], p))
        grad_x = grad_c = None
        if ctx.needs_input_grad[0]:
            adjoint = c_hat.conj_physical().transpose(0, 1)
            grad_x = _from_blocks(torch.fft.irfft(_multiply_spectra(adjoint, g_hat), n=p), ctx.d_in)
        if ctx.needs_input_grad[1]:
            # (f, q_out, T) @ (f, T, q_in): the sum over tokens comes before the inverse FFT.
            moment = torch.bmm(g_hat.permute(2, 1, 0), x_hat.conj_physical().permute(2, 0, 1)).permute(1, 2, 0)
            if ctx.convention == "row":
                moment = moment.conj_physical()
            grad_c = torch.fft.irfft(moment, n=p)
        return grad_x, grad_c, None, None


def under_transforms() -> bool:
    """Whether a transform of torch.func (grad, vmap, jvp, ...) runs: our autograd Functions are opaque to it."""
    return torch._C._are_functorch_transforms_active()


def block_circulant_handwritten(x: Tensor, c: Tensor, d_out: int, convention: Convention = "column") -> Tensor:
    """``C x`` as :func:`block_circulant_fft`, with the paper's backward instead of autograd's.

    Raises:
        RuntimeError: a transform of torch.func runs.
    """
    check_convention(convention)
    check_operands(x, (), (c,), d_out)
    if under_transforms():
        raise RuntimeError(
            "a backward written by hand is opaque to torch.func's transforms (grad, vmap, jvp, ...); use path 'fft' "
            "there"
        )
    if not torch.is_grad_enabled() or x.numel() == 0:
        # The same values; tracers (fvcore) then see the operators instead of an opaque Function.
        return block_circulant_fft(x, c, d_out, convention)
    y = BlockCirculantFunction.apply(x.to(c.dtype).reshape(-1, x.shape[-1]), c, d_out, convention)
    return y.reshape(*x.shape[:-1], d_out)
