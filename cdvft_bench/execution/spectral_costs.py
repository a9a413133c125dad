"""Kernels of the primitives in ``execution.spectral``, and of the small vectors around them, operator by operator."""

from dataclasses import dataclass

from cdvft_bench.analytic.circulant import Factor, flag
from cdvft_bench.analytic.kernels import Count, Kernel, Kernels, bmm, copy, elementwise, fft, reduction
from cdvft_bench.execution.splits import FEW_BLOCKS


def column_dot(rows: Count, n: Count, dtype: str) -> Kernels:
    """The product of two (rows, n) operands, then its sum."""
    return elementwise("mul", rows * n, dtype), reduction("sum", rows * n, n, dtype)


def scaled(n: Count, alpha: float, dtype: str, complex_: bool = False, op: str = "mul") -> Kernels:
    """A small vector times alpha; nothing where alpha is 1."""
    if alpha == 1.0:
        return ()
    return (elementwise(op, n, dtype, flops=2 if complex_ else 1, reads=n, complex_=complex_),)


@dataclass(frozen=True)
class Spectral:
    """The primitives of ``execution.spectral`` for one factor on ``rows`` rows."""

    factor: Factor
    rows: Count

    @property
    def _few(self) -> Count:
        return flag(self.factor.q_out * self.factor.q_in <= FEW_BLOCKS)

    @property
    def _single(self) -> Count:
        return flag((self.factor.q_out == 1) & (self.factor.q_in == 1))

    def factor_spectrum(self, alpha: float) -> Kernels:
        f = self.factor
        n = f.q_out * f.q_in * f.bins
        return (
            fft("_fft_r2c", f.p, f.q_out * f.q_in, f.dtype),
            elementwise("_conj_physical", n, f.dtype, flops=0, reads=n, launches=flag(f.row), complex_=True),
            *scaled(n, alpha, f.dtype, complex_=True, op="mul_"),
            self._copied(n),
        )

    def _copied(self, n: Count) -> Kernel:
        """Frequencies moved to the front, or back; many blocks only."""
        return copy("clone", 2 * n, self.factor.dtype, launches=1 - self._few)

    def spectra(self, width: Count, blocks: Count) -> Kernels:
        f = self.factor
        padded = blocks * f.p
        return (
            copy(
                "constant_pad_nd", self.rows * padded, f.dtype, reads=self.rows * width, launches=flag(width != padded)
            ),
            fft("_fft_r2c", f.p, self.rows * blocks, f.dtype),
            self._copied(self.rows * blocks * f.bins),
        )

    def signals(self, width: Count, blocks: Count) -> Kernels:
        f = self.factor
        return (
            self._copied(self.rows * blocks * f.bins),
            fft("_fft_c2r", f.p, self.rows * blocks, f.dtype),
            copy("clone", self.rows * width, f.dtype, launches=flag(width != blocks * f.p)),
        )

    def multiply(self, inner: Count, outer: Count, in_place: bool = False) -> Kernels:
        f, n = self.factor, self.rows * self.factor.bins
        several = self._few - self._single
        return (
            elementwise(
                "mul_" if in_place else "mul",
                n,
                f.dtype,
                flops=6,
                reads=n + f.bins,
                launches=self._single,
                complex_=True,
            ),
            elementwise("mul", n, f.dtype, flops=6, reads=n + f.bins, launches=several * outer, complex_=True),
            elementwise(
                "addcmul_",
                n,
                f.dtype,
                flops=8,
                reads=2 * n + f.bins,
                launches=several * outer * (inner - 1),
                complex_=True,
            ),
            bmm(f.bins, self.rows, inner, outer, f.dtype, complex_=True, launches=1 - self._few),
        )

    def adjoint(self) -> Kernels:
        n = self.factor.q_out * self.factor.q_in * self.factor.bins
        return (elementwise("_conj_physical", n, self.factor.dtype, flops=0, reads=n, complex_=True),)

    def conjugate_in_place(self, blocks: Count) -> Kernels:
        n = self.rows * blocks * self.factor.bins
        return (elementwise("conj_physical_", n, self.factor.dtype, flops=0, reads=n, complex_=True),)

    def moment(self, in_place: bool) -> Kernels:
        f, t = self.factor, self.rows
        n = t * f.q_in * f.bins
        reads = t * f.bins + n
        single = self._single if in_place else 0
        return (
            elementwise("mul_", n, f.dtype, flops=6, reads=reads, launches=single, complex_=True),
            elementwise("mul", n, f.dtype, flops=6, reads=reads, launches=self._few * f.q_out - single, complex_=True),
            reduction("sum", n, f.q_in * f.bins, f.dtype, launches=self._few * f.q_out, complex_=True),
            bmm(f.bins, f.q_out, t, f.q_in, f.dtype, complex_=True, launches=1 - self._few),
        )

    def factor_gradient(self) -> Kernels:
        f = self.factor
        spectrum = f.q_out * f.q_in * f.bins
        return (
            elementwise(
                "_conj_physical", spectrum, f.dtype, flops=0, reads=spectrum, launches=flag(f.row), complex_=True
            ),
            fft("_fft_c2r", f.p, f.q_out * f.q_in, f.dtype),
        )
