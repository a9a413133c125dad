"""Kernels of the circulant layers in ``cdvft_reference``, shared by CDVFT and the block-circulant adapter.

The operators are the ones that torch dispatches for ``cdvft_reference`` at the versions in
constraints.txt. Two paths: "fft" (autograd's backward) and "handwritten" (the paper's).

Autograd's backward does more work than the paper says. The gradient of an rfft is a full COMPLEX
transform of a zero-filled buffer (``new_zeros``, ``copy_``, ``_fft_c2c``), and the gradient of an
irfft doubles the inner half of the spectrum in place (``mul_``).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cdvft_bench.analytic.kernels import (
    ITEMSIZE,
    Count,
    Kernel,
    Kernels,
    adapter_dtype,
    bmm,
    copy,
    countable,
    elementwise,
    fft,
    reduction,
    smaller,
)
from cdvft_bench.analytic.linear import LinearShape, check_count, frozen_backward, frozen_forward
from cdvft_bench.core.errors import UserError

CirculantConvention = Literal["column", "row"]
"""Whether c is the first column or the first row of a circulant block, see ``cdvft_reference.circulant``."""

CirculantPath = Literal["fft", "handwritten", "fused", "stored", "merged", "merged_dense", "native", "triton", "auto"]
"""Ways to execute the method: the reference's two, then those of ``cdvft_bench.execution``; "auto" lets it pick."""

PATH_WORDS: dict[CirculantPath, str] = {
    "fft": "the reference: torch.fft, autograd's backward",
    "handwritten": "the reference: torch.fft, the paper's backward, one circulant factor at a time",
    "fused": "real transforms, all gradients in one function, nothing of the activations' size kept",
    "stored": "as fused, with the transforms kept for backward instead of computed again",
    "merged": "W + dW in a scratch buffer and one product; the factors' gradients by FFT",
    "merged_dense": "as merged; the factors' gradients folded from one dense product (m = 2)",
    "native": "one compiled CPU kernel a pass, no temporary of the activations' size",
    "triton": "one GPU kernel a pass, the FFT on chip",
    "auto": "the one that is predicted to be fastest on this machine",
}
"""Each path in a line, see docs/execution.md."""


def flag(condition: object) -> Count:
    """1 where the condition holds, else 0: the launches of an operator that only some shapes need."""
    value = np.asarray(condition).astype(np.int64)
    return value if value.ndim else int(value)


LARGEST_M = 256
"""Most diagonals of a closed form, which writes out every factor's operators."""


def check_diagonals(m: int) -> None:
    """Raise UserError unless m is an integer from 1 to ``LARGEST_M``."""
    check_count("m", m)
    if m > LARGEST_M:
        raise UserError(
            f"m = {m} is too large: a closed form writes out every factor, of at most {LARGEST_M} diagonals"
        )


def resolve_block_size(block_size: int | None, layer: LinearShape) -> Count:
    """The block size on a layer: as given, or ``min(d_in, d_out)``."""
    if block_size is not None:
        return block_size
    return smaller(layer.d_in, layer.d_out)


def entries(width: Count, d_out: Count, p: Count) -> Count:
    """Entries of a factor's vector tensor: q_out * q_in * p."""
    q_out: Count = -(-d_out // p)
    q_in: Count = -(-width // p)
    return q_out * q_in * p


@dataclass(frozen=True)
class Factor:
    """One block-circulant factor that maps ``width`` to ``d_out`` in blocks of ``p``.

    Attributes:
        width, d_out, p: widths and block size.
        tokens: rows.
        dtype: real dtype of the factors.
        row: whether the convention is "row", which costs a conjugation.
    """

    width: Count
    d_out: Count
    p: Count
    tokens: Count
    dtype: str
    row: bool = False

    def __post_init__(self) -> None:
        sizes = countable(self.width, self.d_out, self.p, self.tokens)
        for name, size in zip(("width", "d_out", "p", "tokens"), sizes, strict=True):
            object.__setattr__(self, name, size)

    @property
    def q_in(self) -> Count:
        """Blocks across."""
        return -(-self.width // self.p)

    @property
    def q_out(self) -> Count:
        """Blocks down."""
        return -(-self.d_out // self.p)

    @property
    def bins(self) -> Count:
        """Frequencies of a real transform of p points."""
        return self.p // 2 + 1

    @property
    def parameters(self) -> Count:
        """Entries of c."""
        return entries(self.width, self.d_out, self.p)

    def saved_bytes(self, path: str) -> Count:
        """Kept for backward: the spectra of c and x (complex); autograd's rfft keeps its padded real input too."""
        spectra = self.q_out * self.q_in * self.bins + self.tokens * self.q_in * self.bins
        real = self.tokens * self.q_in * self.p if path == "fft" else 0
        return (2 * spectra + real) * ITEMSIZE[self.dtype]

    def backward(self, path: str) -> Kernels:
        """The kernels of the backward pass on a path, "fft" or "handwritten"."""
        return self.backward_autograd() if path == "fft" else self.backward_handwritten()

    @property
    def output_bytes(self) -> Count:
        """The padded result of the inverse transform, which the diagonal behind it keeps."""
        return self.tokens * self.q_out * self.p * ITEMSIZE[self.dtype]

    @property
    def _single(self) -> Count:
        # One block: the spectra multiply element by element; several: one matrix product a frequency.
        return flag((self.q_in == 1) & (self.q_out == 1))

    def _pad(self, op: str, width: Count, blocks: Count) -> Kernel:
        padded = blocks * self.p
        return copy(op, self.tokens * padded, self.dtype, reads=self.tokens * width, launches=flag(width != padded))

    def _crop(self, width: Count, blocks: Count) -> Kernel:
        return copy("constant_pad_nd", self.tokens * width, self.dtype, launches=flag(width != blocks * self.p))

    def _fft(self, op: str, batch: Count) -> Kernel:
        return fft(op, self.p, batch, self.dtype)

    def _conjugate(self, n: Count, launches: Count = 1, op: str = "_conj_physical") -> Kernel:
        return elementwise(op, n, self.dtype, flops=0, reads=n, launches=launches, complex_=True)

    def _products(self, rows: Count, inner: Count, columns: Count, elements: Count) -> Kernels:
        return (
            self._spectral_mul(elements, elements + self.bins),
            bmm(self.bins, rows, inner, columns, self.dtype, complex_=True, launches=1 - self._single),
        )

    def _spectral_mul(self, n: Count, reads: Count) -> Kernel:
        return elementwise("mul", n, self.dtype, flops=6, reads=reads, launches=self._single, complex_=True)

    def forward(self) -> Kernels:
        """``irfft(rfft(c) * rfft(x))``: two forward transforms and an inverse one (paper, section on FFT)."""
        return (
            self._pad("constant_pad_nd", self.width, self.q_in),
            self._fft("_fft_r2c", self.tokens * self.q_in),
            self._fft("_fft_r2c", self.q_out * self.q_in),
            self._conjugate(self.q_out * self.q_in * self.bins, flag(self.row)),
            *self._products(self.tokens, self.q_in, self.q_out, self.tokens * self.bins),
            self._fft("_fft_c2r", self.tokens * self.q_out),
        )

    def backward_handwritten(self) -> Kernels:
        """The paper's: one forward transform of g, two inverse ones, from the spectra kept."""
        t, spectrum = self.tokens, self.q_out * self.q_in * self.bins
        return (
            self._pad("constant_pad_nd", self.d_out, self.q_out),
            self._fft("_fft_r2c", t * self.q_out),
            self._conjugate(spectrum),
            *self._products(t, self.q_out, self.q_in, t * self.bins),
            self._fft("_fft_c2r", t * self.q_in),
            self._conjugate(t * self.q_in * self.bins),
            bmm(self.bins, self.q_out, t, self.q_in, self.dtype, complex_=True),
            self._conjugate(spectrum, flag(self.row)),
            self._fft("_fft_c2r", self.q_out * self.q_in),
        )

    def backward_autograd(self) -> Kernels:
        """Autograd's, through torch.fft: complex transforms of zero-filled buffers for both gradients."""
        t, p, bins, single = self.tokens, self.p, self.bins, self._single
        blocks = self.q_out * self.q_in
        several = 1 - single
        inner = bins - 1 - flag(p % 2 == 0) * flag(p > 1)  # frequencies that have a mirror image

        def rfft_gradient(batch: Count) -> Kernels:
            padded = flag(bins != p)
            return (
                copy("new_zeros", 2 * batch * p, self.dtype, reads=0, launches=padded),
                copy("copy_", 2 * batch * bins, self.dtype, launches=padded),
                self._fft("_fft_c2c", batch),
            )

        return (
            self._pad("slice_backward", self.d_out, self.q_out),
            self._fft("_fft_r2c", t * self.q_out),
            elementwise(
                "mul_",
                t * self.q_out * inner,
                self.dtype,
                flops=2,
                reads=t * self.q_out * inner,
                launches=flag(inner > 0),
                complex_=True,
            ),
            # One block: two element-wise products with conjugates made explicit, then the sum over tokens.
            self._conjugate(bins, single, "clone"),
            self._spectral_mul(t * bins, t * bins + bins),
            self._spectral_mul(t * bins, 2 * t * bins),
            self._conjugate(t * bins, single, "clone"),
            reduction("sum", t * bins, bins, self.dtype, launches=single * flag(t > 1), complex_=True),
            # Several: two products a frequency.
            bmm(bins, self.q_in, t, self.q_out, self.dtype, complex_=True, launches=several),
            bmm(bins, t, self.q_out, self.q_in, self.dtype, complex_=True, launches=several),
            self._conjugate(blocks * bins, flag(self.row)),
            *rfft_gradient(blocks),
            # The real part, made contiguous for .grad; a single entry is contiguous already.
            copy("copy_", self.parameters, self.dtype, launches=flag(self.parameters > 1)),
            *rfft_gradient(t * self.q_in),
            self._crop(self.width, self.q_in),
        )


def casts(n: Count, dtype: str, adapter: str, inward: bool) -> Kernels:
    """The cast of ``n`` elements between the base's dtype and the adapter's; none where they are the same."""
    source, target = (dtype, adapter) if inward else (adapter, dtype)
    return () if dtype == adapter else (copy("_to_copy", n, source, to=target),)


def wrap(
    change_forward: Kernels, change_backward: Kernels, layer: LinearShape, tokens: Count, dtype: str
) -> tuple[Kernels, Kernels]:
    """Both passes of ``base(x) + alpha * change(x)`` around the kernels of the change itself."""
    adapter = adapter_dtype(dtype)
    n_in, n_out = tokens * layer.d_in, tokens * layer.d_out
    scale = elementwise("mul", n_out, adapter, reads=n_out)
    forward = (
        *frozen_forward(layer, tokens, dtype),
        *casts(n_in, dtype, adapter, inward=True),
        *change_forward,
        scale,
        *casts(n_out, dtype, adapter, inward=False),
        elementwise("add", n_out, dtype),
    )
    backward = (
        *casts(n_out, dtype, adapter, inward=True),
        scale,
        *change_backward,
        *casts(n_in, dtype, adapter, inward=False),
        *frozen_backward(layer, tokens, dtype),
        elementwise("add", n_in, dtype),
    )
    return forward, backward
