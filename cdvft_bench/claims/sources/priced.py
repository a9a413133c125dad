"""FLOPs of a change's forward pass at open prices: the arithmetic behind a claim whose counting is not stated.

A pass is boiled down to :class:`Terms`; :func:`price` adds them up. The formula gives the terms by
closed form, the count reads them off the operators that run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.claims.ledger.quantities import TALLIED
from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.claims.sources.availability import Silent
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import Method


@dataclass(frozen=True)
class Transform:
    """``batch`` transforms of ``dims`` points (two numbers for a plane).

    Attributes:
        dims: lengths. batch: how many. real: one side is real.
        of_input: it depends on the layer's input; else on the parameters alone.
    """

    dims: tuple[int, ...]
    batch: int
    real: bool
    of_input: bool


@dataclass(frozen=True)
class Terms:
    """What the forward pass of a weight change consists of.

    Attributes:
        macs: multiply-adds of real matrix products.
        transforms: FFTs.
        diagonals: products of activations with the entries of a vector.
        bins: products of complex spectra, at the n // 2 + 1 frequencies of real data.
        entries: the same at all n frequencies.
    """

    macs: int
    transforms: tuple[Transform, ...] = ()
    diagonals: int = 0
    bins: int = 0
    entries: int = 0


def fft_flops(dims: tuple[int, ...], real: bool, fft: Value, half: bool) -> float:
    """FLOPs of one transform; ``fft`` is the factor f of f n log2 n or "tallied", ``half`` what real data saves."""
    n = math.prod(dims)
    if fft == TALLIED:
        return float(sum(n // length * _tallied(length, real and half) for length in dims))
    assert isinstance(fft, int | float)
    return fft * n * math.log2(n) * (0.5 if real and half else 1.0)


def _tallied(length: int, real: bool) -> int:
    from cdvft_bench.counting.exact_fft import count_fft

    try:
        return count_fft(length, real=real).flops
    except UserError as error:
        remedy = "tally an algorithm for such lengths in counting/exact_fft.py, or choose others"
        raise Silent(f"no tally of {length} points: {error}", remedy) from error


def price(terms: Terms, options: Mapping[str, Value], tokens: int) -> float:
    """FLOPs at the options of the quantity "priced_flops".

    mac: of a multiply-add. fft: f in f n log2 n (a plane has n = rows x columns points), or "tallied".
    real_fft: a real transform takes "half" of that, or as much ("as complex"). spectrum_of_c: one-dimensional
    transforms of parameters are counted once "per batch", once "per token" or "never". diagonals: whether
    they are counted. products: of spectra, "none", 1 "per entry", or 6 "per bin".
    """
    half = options["real_fft"] == "half"
    total = terms.macs * float(options["mac"])  # type: ignore[arg-type]
    repeats = {"per batch": 1, "per token": tokens, "never": 0}[str(options["spectrum_of_c"])]
    for t in terms.transforms:
        times = t.batch * (1 if t.of_input or len(t.dims) > 1 else repeats)
        if times:
            total += times * fft_flops(t.dims, t.real, options["fft"], half)
    if options["diagonals"]:
        total += terms.diagonals
    return total + {"none": 0, "per entry": terms.entries, "per bin": 6 * terms.bins}[str(options["products"])]


def formula_terms(method: Method | None, layer: LinearShape, tokens: int) -> Terms | None:
    """Terms by closed form; None for a method that they are not written down for."""
    from cdvft_bench.methods.block_circulant import BlockCirculant
    from cdvft_bench.methods.cdvft import CDVFT
    from cdvft_bench.methods.fourierft import FourierFT
    from cdvft_bench.methods.lora import LoRA

    d_in, d_out = int(layer.d_in), int(layer.d_out)
    if type(method) is LoRA:
        return Terms(tokens * method.rank * (d_in + d_out))
    if type(method) is FourierFT:
        return Terms(tokens * d_in * d_out, (Transform((d_out, d_in), 1, real=False, of_input=False),))
    if type(method) is CDVFT:
        factors = method.factors(layer, tokens)
        diagonals = tokens * (d_in + (method.m - 1) * d_out)
    elif type(method) is BlockCirculant:
        factors, diagonals = [method.factor(layer, tokens)], 0
    else:
        return None
    transforms: list[Transform] = []
    bins = entries = 0
    for f in factors:
        p, q_in, q_out = int(f.p), int(f.q_in), int(f.q_out)
        for batch, of_input in ((tokens * q_in, True), (q_out * q_in, False), (tokens * q_out, True)):
            transforms.append(Transform((p,), batch, real=True, of_input=of_input))
        bins += tokens * q_in * q_out * int(f.bins)
        entries += tokens * q_in * q_out * p
    return Terms(0, tuple(transforms), diagonals, bins, entries)
