"""C3A: ``dW`` is block-circulant, applied by circular convolution (Chen et al., 2024, arXiv 2407.19342)."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any, ClassVar, Self

import numpy as np

from cdvft_bench.analytic.circulant import flag
from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import (
    ITEMSIZE,
    Count,
    Kernel,
    Kernels,
    adapter_dtype,
    bmm,
    copy,
    elementwise,
    fft,
)
from cdvft_bench.analytic.linear import LinearShape, frozen_forward, itemsize
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods._peft import PeftMethod, PeftNames, base_backward, cast, divisors, first_misfit
from cdvft_bench.methods.base import register


@register
@dataclass(frozen=True)
class C3A(PeftMethod):
    """Block-circulant weight change. PEFT starts with uniform random kernels, so dW does not start at zero.

    PEFT works in float32 and complex64 whatever the base's dtype, with full complex spectra of
    real data (no use of their symmetry), and adds to the base's result in place. Where the base
    has a bias that result is a view, and autograd's backward of the in-place sum copies the whole
    gradient five times.

    Attributes:
        block_size: p, a divisor of both widths; None is their greatest common one, d of a square layer.
    """

    name: ClassVar[str] = "c3a"
    title: ClassVar[str] = "C3A"
    source: ClassVar[str] = "Chen et al.: arXiv 2407.19342"
    usual: ClassVar = ({"block_size": 64},)
    peft: ClassVar = PeftNames("C3AConfig")

    block_size: int | None = None

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        yield cls(block_size=rng.choice([None, *divisors(np.gcd(layer.d_in, layer.d_out))]))

    @property
    def label(self) -> str:
        return f"C3A p={self.block_size or 'd'}"

    def check(self, layer: LinearShape) -> None:
        if self.block_size is None:
            return
        p = self.block_size
        widths = first_misfit(layer, flag(layer.d_in % p != 0) + flag(layer.d_out % p != 0) > 0)
        if widths:
            d_in, d_out = widths
            raise UserError(
                f"block_size = {p} does not divide both widths of a {d_in}x{d_out} layer, as C3A needs; "
                f"use a divisor of {int(np.gcd(d_in, d_out))}, or leave block_size out for that one itself"
            )

    def block(self, layer: LinearShape) -> Count:
        """p on this layer."""
        if self.block_size is not None:
            return self.block_size
        p = np.gcd(layer.d_in, layer.d_out)
        return p if np.ndim(p) else int(p)

    def resolved(self, layer: LinearShape) -> Mapping[str, object]:
        return {**asdict(self), "block_size": self.block(layer)}

    def parameters(self, layer: LinearShape) -> Count:
        """``d_in d_out / p``."""
        self.check(layer)
        return layer.weights // self.block(layer)

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        parameters = self.parameters(layer)
        itemsize(dtype)
        adapter, single = adapter_dtype(dtype), "float32"
        p = self.block(layer)
        across, down = layer.d_in // p, layer.d_out // p
        n_in, n_out = tokens * layer.d_in, tokens * layer.d_out
        scale = elementwise("div", n_out, single, reads=n_out)

        def spectrum(batch: Count) -> Kernel:
            # Of real data, yet written in full: onesided=False.
            one = fft("_fft_r2c", p, batch, single)
            return replace(one, written=2 * one.read)

        def products(rows: Count, inner: Count, columns: Count, lone: Count) -> Kernels:
            # einsum: one product a frequency; where nothing is summed, an element-wise product
            # instead, whose conjugated operand (``lone`` values, from an ifft) is made explicit.
            summed = flag(inner > 1)
            n = rows * columns * p
            return (
                copy("clone", 2 * lone, single, launches=1 - summed),
                elementwise("mul", n, single, flops=6, reads=(rows + columns) * p, launches=1 - summed, complex_=True),
                bmm(p, rows, inner, columns, single, complex_=True, launches=summed),
            )

        forward = (
            *frozen_forward(layer, tokens, dtype),
            *cast(n_in, dtype, single),
            *cast(parameters, adapter, single),
            spectrum(tokens * across),
            spectrum(down * across),
            *products(tokens, across, down, lone=tokens * p),
            fft("_fft_c2c", p, tokens * down, single),
            scale,
            *cast(n_out, single, dtype),
            elementwise("add_", n_out, dtype),
        )
        in_place: Kernels = (
            copy("new_zeros", n_out, dtype, reads=0),
            copy("copy_", n_out, dtype).times(2),
            copy("clone", n_out, dtype),
            copy("copy_", n_out, dtype),
        )
        backward = (
            *(in_place if layer.bias else ()),
            *cast(n_out, dtype, single),
            scale,
            spectrum(tokens * down),
            spectrum(down * across),
            *products(tokens, down, across, lone=across * p),
            fft("_fft_c2c", p, tokens * across, single),
            spectrum(tokens * across),
            *products(down, tokens, across, lone=across * p),
            fft("_fft_c2c", p, down * across, single),
            # The gradient is the real part of a complex array: made contiguous, or cast, for .grad.
            *(cast(parameters, single, adapter) or (copy("copy_", parameters, single, launches=flag(parameters > 1)),)),
            *cast(n_in, single, dtype),
            *base_backward(layer, tokens, dtype),
        )
        kept = n_in + (0 if adapter == single else parameters)  # x, and the kernel if it was cast
        return Cost(parameters, 1, forward, backward, kept * ITEMSIZE[single], adapter)

    def options(self, layers: Mapping[str, LinearShape]) -> dict[str, Any]:
        if self.block_size is not None:
            return super().options(layers)
        pattern = {name: int(self.block(layer)) for name, layer in layers.items()}
        first = next(iter(pattern.values()))
        return {"block_size": first, "block_size_pattern": pattern, "target_modules": list(layers)}
