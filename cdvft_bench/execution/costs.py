"""Kernels of the fast paths in ``cdvft_bench.execution``, operator by operator.

Each function mirrors the one of the same name there: what it launches, reads, writes and keeps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cdvft_bench.analytic.circulant import Factor, casts, flag
from cdvft_bench.analytic.kernels import (
    ITEMSIZE,
    Count,
    Kernel,
    Kernels,
    copy,
    elementwise,
    larger,
    mixed,
    mm,
    reduction,
    times,
)
from cdvft_bench.analytic.linear import LinearShape, frozen_backward, frozen_forward
from cdvft_bench.execution.native_costs import circulant_backward, circulant_forward
from cdvft_bench.execution.spectral_costs import Spectral, column_dot, scaled
from cdvft_bench.execution.splits import BY_PRODUCT, ROWS_AT_ONCE, piece
from cdvft_bench.execution.triton import costs as triton_costs

FAST_PATHS = ("fused", "stored", "merged", "merged_dense", "native", "triton")


@dataclass(frozen=True)
class FastLayer:
    """An adapted layer on a fast path.

    Attributes:
        layer: its shape. tokens: rows. dtype: of base and activations.
        factors: circulant factors (in the adapter's dtype).
        diagonals: their number, 0 for the block-circulant adapter.
        alpha: scale of the change. path: one of FAST_PATHS. device: "cpu" or "cuda".
    """

    layer: LinearShape
    tokens: Count
    dtype: str
    factors: Sequence[Factor]
    diagonals: int
    alpha: float
    path: str
    device: str

    @property
    def _adapter(self) -> str:
        return self.factors[0].dtype

    @property
    def _half(self) -> bool:
        return self.dtype != self._adapter

    @property
    def _by_kernels(self) -> bool:
        """Whether Triton's kernels build the merged weight and fold the dense gradient."""
        return self.device == "cuda" and self._adapter == "float32"

    def _in_pieces(self, of_rows: Callable[[Count], Kernels]) -> Kernels:
        """Kernels of all pieces of the rows."""
        n = piece(self.tokens, self.layer.d_in, self.layer.d_out, self.device)
        whole, rest = self.tokens // n, self.tokens % n
        return times(of_rows(n), whole) + times(of_rows(larger(rest, 1)), flag(rest > 0))

    def forward(self) -> Kernels:
        """The forward pass, base and change."""
        if self.path == "triton":
            fused = triton_costs.on_chip_forward(self.layer, self.tokens, self.factors[0], self.dtype)
            before = triton_costs.spectrum_of_c(self.factors[0])
            return (*before, *frozen_forward(self.layer, self.tokens, self.dtype), fused)
        if self.path == "native":
            return self._native_forward()
        return self._fused_forward() if self.path in ("fused", "stored") else self._merged_forward()

    def backward(self) -> Kernels:
        """The backward pass, with the gradient of the input."""
        if self.path == "triton":
            change = triton_costs.on_chip_backward(
                self.layer, self.tokens, self.factors[0], self.dtype, bool(self.diagonals)
            )
            after = triton_costs.partial_sums(
                self.tokens, self.factors[0], self.dtype, bool(self.diagonals), self.alpha
            )
            return (*frozen_backward(self.layer, self.tokens, self.dtype), *change, *after)
        if self.path == "native":
            return self._native_backward()
        if self.path in ("fused", "stored"):
            return self.gradients(input_gradient=True)
        merged = (*self._among(self.merged_weight()), *frozen_backward(self.layer, self.tokens, self.dtype))
        if self.path == "merged_dense":
            return merged + self._among(self._fold_gradients())
        by_product = flag(self.tokens <= BY_PRODUCT * self.layer.d_out)
        rebuilt = merged + self.gradients(input_gradient=False)
        return (
            *self.spectra_of_factors(),
            *times(self.gradients(input_gradient=True), by_product),
            *times(rebuilt, 1 - by_product),
        )

    @property
    def saved_bytes(self) -> Count:
        """x; on the FFT paths the factors' spectra; on "stored" the activations' spectra, and the products.

        Without diagonals "stored" needs neither products nor x itself.
        """
        size = ITEMSIZE[self._adapter]
        saved: Count = self.tokens * self.layer.d_in * ITEMSIZE[self.dtype]
        if self.path in ("merged", "merged_dense", "native"):
            return saved
        if self.path == "triton":
            return saved + 2 * triton_costs.area(self.factors[0]) * size
        for f in self.factors:
            saved = saved + 2 * f.q_out * f.q_in * f.bins * size
            if self.path == "stored":
                saved = saved if self.diagonals else saved - self.tokens * f.width * ITEMSIZE[self.dtype]
                saved = saved + 2 * self.tokens * f.q_in * f.bins * size
                saved = saved + (self.tokens * f.d_out * size if self.diagonals else 0)
        return saved

    # --- execution.fused ---------------------------------------------------------------------

    def spectra_of_factors(self) -> Kernels:
        kernels: Kernels = ()
        for i, f in enumerate(self.factors):
            last = i == len(self.factors) - 1
            kernels += Spectral(f, self.tokens).factor_spectrum(self.alpha if last and not self.diagonals else 1.0)
        return kernels

    def _input_spectrum(self, i: int, rows: Count) -> Kernels:
        f = self.factors[i]
        n = rows * f.width
        if self.diagonals:
            dtype = self.dtype if i == 0 else f.dtype
            first: Kernels = (mixed("mul", n, f.dtype, (n, dtype), (f.width, f.dtype)),)
        else:
            first = casts(n, self.dtype, f.dtype, inward=True)
        return first + Spectral(f, rows).spectra(f.width, f.q_in)

    def _fused_forward(self) -> Kernels:
        product = mm(self.tokens, self.layer.d_in, self.layer.d_out, self.dtype)
        return (
            *self.spectra_of_factors(),
            *(scaled(self.layer.d_out, self.alpha, self._adapter) if self.diagonals else ()),
            *self._in_pieces(self._piece_forward),
            *(frozen_forward(self.layer, self.tokens, self.dtype) if self._half else (_onto(product),)),
        )

    def _piece_forward(self, rows: Count) -> Kernels:
        keep = self.path == "stored"
        kernels: Kernels = ()
        for i, f in enumerate(self.factors):
            s = Spectral(f, rows)
            kernels += self._input_spectrum(i, rows)
            kernels += s.multiply(f.q_in, f.q_out, in_place=not keep)
            kernels += s.signals(f.d_out, f.q_out)
            kernels += s.conjugate_in_place(f.q_in) if keep else ()
        return (*kernels, self._put(rows, self.layer.d_out, self.layer.bias))

    def _put(self, rows: Count, width: Count, bias: bool) -> Kernel:
        n, dtype = rows * width, self._adapter
        if self._half:
            if not self.diagonals:
                return mixed("add_", n, self.dtype, (n, self.dtype), (n, dtype))
            return mixed("addcmul_", n, self.dtype, (n, self.dtype), (n + width, dtype), flops=2)
        if bias:
            if not self.diagonals:
                return elementwise("add", n, dtype, reads=n + width)
            return elementwise("addcmul", n, dtype, flops=2, reads=n + 2 * width)
        return elementwise("mul", n, dtype, reads=n + width) if self.diagonals else copy("copy_", n, dtype)

    def _recall(self, rows: Count) -> Kernels:
        if self.path == "stored":
            return ()
        kernels: Kernels = ()
        for i, f in enumerate(self.factors):
            s = Spectral(f, rows)
            kernels += self._input_spectrum(i, rows)
            if self.diagonals:
                kernels += s.multiply(f.q_in, f.q_out) + s.signals(f.d_out, f.q_out)
            kernels += s.conjugate_in_place(f.q_in)
        return kernels

    def gradients(self, input_gradient: bool) -> Kernels:
        layer, dtype = self.layer, self._adapter
        kernels: Kernels = ()
        if input_gradient:
            product = mm(self.tokens, layer.d_out, layer.d_in, self.dtype)
            kernels += frozen_backward(layer, self.tokens, self.dtype) if self._half else (_onto(product),)
        if self.diagonals or input_gradient:
            for f in self.factors:
                kernels += Spectral(f, self.tokens).adjoint()
        kernels += 2 * scaled(layer.d_out, self.alpha, dtype) if self.diagonals else ()
        kernels += self._in_pieces(lambda rows: self._piece_gradients(rows, input_gradient))
        added = -(-self.tokens // piece(self.tokens, layer.d_in, layer.d_out, self.device)) - 1
        widths_ = (layer.d_in, *(layer.d_out for _ in range(self.diagonals - 1))) if self.diagonals else ()
        for width in widths_:
            kernels += (elementwise("add_", width, dtype, launches=added),)
        for f in self.factors:
            n = f.q_out * f.q_in * f.bins
            kernels += (elementwise("add_", n, dtype, flops=2, launches=added, complex_=True),)
            kernels += Spectral(f, self.tokens).factor_gradient()
        return kernels + (() if self.diagonals else scaled(self.factors[0].parameters, self.alpha, dtype))

    def _piece_gradients(self, t: Count, input_gradient: bool) -> Kernels:
        d_out, dtype = self.layer.d_out, self._adapter
        kernels = (*self._recall(t), *casts(t * d_out, self.dtype, dtype, inward=True))
        if self.diagonals:
            kernels += column_dot(t, d_out, dtype)
            kernels += (elementwise("mul", t * d_out, dtype, reads=t * d_out + d_out),)
        for i, f in reversed(list(enumerate(self.factors))):
            s = Spectral(f, t)
            kernels += s.spectra(f.d_out, f.q_out) + s.moment(in_place=self.path != "stored")
            if not self.diagonals and not input_gradient:
                return kernels
            kernels += s.multiply(f.q_out, f.q_in, in_place=True) + s.signals(f.width, f.q_in)
            if self.diagonals:
                n = t * f.width
                kernels += casts(n, self.dtype, dtype, inward=True) if i == 0 else ()
                kernels += column_dot(t, f.width, dtype)
                kernels += (elementwise("mul_", n, dtype, reads=n + f.width),) if i else ()
        return (*kernels, self._put(t, self.layer.d_in, False)) if input_gradient else kernels

    # --- execution.merged --------------------------------------------------------------------

    def _merged_forward(self) -> Kernels:
        return self._among(self.merged_weight()) + frozen_forward(self.layer, self.tokens, self.dtype)

    def _among(self, kernels: Kernels) -> Kernels:
        """Kernels whose operands lie among all scratch matrices of the path, on a CPU: mostly out of its cache.

        The repeated circulant and the change; for the dense gradient also that, its product, and it skewed, twice.
        """
        if self.device != "cpu" or len(self.factors) > 1:
            return kernels
        (f,) = self.factors
        matrices = 6 if self.path == "merged_dense" else 2
        scratch: Count = matrices * f.parameters * f.p * ITEMSIZE[f.dtype]
        scratch = scratch + 2 * self.layer.weights * ITEMSIZE[self.dtype]  # W, and W with the change
        return tuple(replace(kernel, among=scratch) for kernel in kernels)

    def _circulant_view(self, f: Factor) -> Kernels:
        n = f.parameters
        reversed_ = times((copy("flip", n, f.dtype), copy("roll", n, f.dtype)), 1 - flag(f.row))
        return (*reversed_, copy("copy_", n * f.p, f.dtype, reads=n))

    def _padded(self, width: Count, padded: Count) -> Kernel:
        return copy("constant_pad_nd", padded, self._adapter, reads=width, launches=flag(width != padded))

    def merged_weight(self) -> Kernels:
        if len(self.factors) > 1:
            return self._merged_by_rows()
        (f,) = self.factors
        d_in, d_out, dtype = self.layer.d_in, self.layer.d_out, self._adapter
        square, n = f.parameters * f.p, self.layer.weights
        if self._by_kernels:
            return (triton_costs.merged_weight_kernel(self.layer, f, self.dtype, bool(self.diagonals)),)
        kernels = self._circulant_view(f)
        if not self.diagonals:
            kernels += (copy("new_full", d_in, dtype, reads=0),)
        kernels += (
            self._padded(d_in, f.q_in * f.p),
            elementwise("mul", square, dtype, reads=square + f.q_in * f.p),
        )
        if not self.diagonals:
            return (*kernels, mixed("add", n, self.dtype, (n, self.dtype), (n, dtype)))
        added = mixed("addcmul", n, self.dtype, (n, self.dtype), (n + d_out, dtype), flops=2)
        return (*kernels, *scaled(d_out, self.alpha, dtype), added)

    def _merged_by_rows(self) -> Kernels:
        d_out, dtype = self.layer.d_out, self._adapter
        kernels = self.spectra_of_factors()
        for f in self.factors:
            kernels += Spectral(f, self.tokens).adjoint()
        kernels += scaled(d_out, self.alpha, dtype)
        whole, rest = d_out // ROWS_AT_ONCE, d_out % ROWS_AT_ONCE
        return kernels + times(self._rows(ROWS_AT_ONCE), whole) + times(self._rows(larger(rest, 1)), flag(rest > 0))

    def _rows(self, rows: Count) -> Kernels:
        d_out, d_in, dtype = self.layer.d_out, self.layer.d_in, self._adapter
        kernels: Kernels = (copy("new_zeros", rows * d_out, dtype, reads=0), copy("copy_", rows, dtype))
        for f in reversed(self.factors):
            s, n = Spectral(f, rows), rows * f.width
            kernels += s.spectra(d_out, f.q_out) + s.multiply(f.q_out, f.q_in, in_place=True)
            kernels += (*s.signals(f.width, f.q_in), elementwise("mul_", n, dtype, reads=n + f.width))
        return (*kernels, mixed("add", rows * d_in, self.dtype, (rows * d_in, self.dtype), (rows * d_in, dtype)))

    def _fold(self, f: Factor) -> Kernels:
        square, n = f.parameters * f.p, f.parameters
        turned = times((copy("flip", n, f.dtype), copy("roll", n, f.dtype)), 1 - flag(f.row))
        return (
            copy("zero_", 2 * square, f.dtype, reads=0),
            copy("copy_", square, f.dtype),
            reduction("sum", 2 * square, 2 * n, f.dtype),
            elementwise("add", n, f.dtype),
            *turned,
        )

    def _fold_gradients(self) -> Kernels:
        (f,) = self.factors
        d_in, d_out, dtype = self.layer.d_in, self.layer.d_out, self._adapter
        square, n = f.parameters * f.p, self.layer.weights
        rows, columns = f.q_out * f.p, f.q_in * f.p
        if self._by_kernels:
            product = mm(d_out, self.tokens, d_in, self.dtype)
            return (product, *triton_costs.fold_kernels(self.layer, f, self.dtype, bool(self.diagonals)))
        kernels: Kernels = (
            copy("zero_", rows * (columns - d_in), dtype, reads=0, launches=flag(columns != d_in)),
            copy("zero_", (rows - d_out) * d_in, dtype, reads=0, launches=flag(rows != d_out)),
            mm(d_out, self.tokens, d_in, self.dtype),
            *(replace(cast, op="copy_") for cast in casts(n, self.dtype, dtype, inward=True)),
        )
        if not self.diagonals:
            return kernels + self._fold(f) + scaled(f.parameters, self.alpha, dtype)
        vector = replace(mm(rows, columns, 1, dtype), op="mv")
        return (
            *kernels,
            self._padded(d_in, columns),
            *scaled(d_out, self.alpha, dtype),
            self._padded(d_out, rows),
            *self._circulant_view(f),
            elementwise("mul", square, dtype),
            replace(mm(columns, rows, 1, dtype), op="mv"),
            vector,
            *scaled(d_out, self.alpha, dtype),
            elementwise("mul_", square, dtype, reads=square + columns),
            elementwise("mul_", square, dtype, reads=square + rows),
            *self._fold(f),
        )

    # --- execution.native --------------------------------------------------------------------

    def _native_forward(self) -> Kernels:
        layer, t = self.layer, self.tokens
        change = circulant_forward(layer, t, self.factors, self.diagonals, layer.bias, self.dtype)
        return change, _onto(mm(t, layer.d_in, layer.d_out, self.dtype))

    def _native_backward(self) -> Kernels:
        layer, t = self.layer, self.tokens
        change = circulant_backward(layer, t, self.factors, self.diagonals, self.dtype)
        return change, _onto(mm(t, layer.d_out, layer.d_in, self.dtype))


def _onto(product: Kernel) -> Kernel:
    """A matrix product added onto its output in place."""
    return replace(product, op="addmm_", read=product.read + product.written, scope="base")
