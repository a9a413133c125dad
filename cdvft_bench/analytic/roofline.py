"""Predicted time: each kernel takes the longest of its arithmetic, its memory traffic and its launch.

Rates are measured by ``cdvft_bench.timing.calibrate`` or copied from a datasheet, and say which. A prediction is no
measurement; how far it misses is found by comparing it with recorded times.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from cdvft_bench.analytic.kernels import Kernel, Kernels
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import shown
from cdvft_bench.core.io.reading import read_json

Curve = tuple[tuple[float, float], ...]
"""A rate against the size of a kernel: (size, units a second), sizes increasing."""


@dataclass(frozen=True)
class Rates:
    """What a device can do.

    Attributes:
        device: its name. source: "measured", or the datasheet's title.
        matmul: real FLOP/s of a matrix product by dtype, against its FLOPs.
        complex_bmm: real FLOP/s of batched complex products, against their FLOPs.
        fft: real FLOP/s of transforms (2.5 n log2 n for a real one), against their FLOPs.
        bandwidth: bytes/s read and written by kind ("elementwise", "reduction", "copy"), against the bytes.
        launch_s: seconds from one launch to the next at least.
        asynchronous: whether launches overlap with execution (a GPU) or come on top (a CPU).
        threads: CPU threads that the rates hold for; 0 on a GPU.
        native: real FLOP/s of the compiled kernels, transforms and element-wise work together, against their FLOPs;
            empty where they were not calibrated: ``fft`` then stands in.
        fft_primes: share of a smooth length's rate that transforms reach whose length has a large prime factor, against
            that factor; empty where it was not measured: they then count as smooth.
        cpu: a digest of the CPU that they were measured on; empty on a GPU, and where nobody knows.
    """

    device: str
    source: str
    matmul: Mapping[str, Curve]
    complex_bmm: Curve
    fft: Curve
    bandwidth: Mapping[str, Curve]
    launch_s: float
    asynchronous: bool = False
    threads: int = 0
    native: Curve = ()
    fft_primes: Curve = ()
    notes: tuple[str, ...] = field(default=())
    cpu: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)


def rates_from_json(document: Any) -> Rates:
    """The inverse of :meth:`Rates.to_json`.

    Raises:
        UserError: the document is not one that it wrote.
    """

    def curve(points: Any) -> Curve:
        made = tuple((float(size), float(rate)) for size, rate in points)
        finite = all(0 < figure < math.inf for point in made for figure in point)
        if not made or not finite or any(a >= b for (a, _), (b, _) in itertools.pairwise(made)):
            raise ValueError("a curve needs points of increasing size, sizes and rates finite and above 0")
        return made

    try:
        return Rates(
            device=str(document["device"]),
            source=str(document["source"]),
            matmul={str(k): curve(v) for k, v in document["matmul"].items()},
            complex_bmm=curve(document["complex_bmm"]),
            fft=curve(document["fft"]),
            bandwidth={kind: curve(document["bandwidth"][kind]) for kind in ("elementwise", "reduction", "copy")},
            launch_s=_number(document, "launch_s", 0.0),
            asynchronous=bool(document["asynchronous"]),
            threads=int(_number(document, "threads", 0)),
            native=curve(document["native"]) if document.get("native") else (),
            fft_primes=curve(document["fft_primes"]) if document.get("fft_primes") else (),
            notes=tuple(map(str, document.get("notes", ()))),
            cpu=str(document.get("cpu", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"these are no calibrated rates ({type(error).__name__}: {error}); measure them anew with "
            "cdvft-bench calibrate"
        ) from error


def _number(document: Any, name: str, least: float) -> float:
    value = document[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 2**31:
        raise ValueError(f"{name} = {value!r:.40} is no number from {least:g} on")
    return float(value)


def load_rates(path: str | Path) -> Rates:
    """Rates that ``cdvft-bench calibrate`` wrote.

    Raises:
        UserError: the file cannot be read, or holds none.
    """
    document = read_json(path, "rates", "measure them with 'cdvft-bench calibrate'")
    try:
        return rates_from_json(document)
    except UserError as error:
        raise UserError(f"rates {shown(path)}: {error}") from error


def at(curve: Curve, size: float) -> float:
    """A rate at a size: linear between measured points on a logarithmic axis, constant beyond the ends."""
    if size <= curve[0][0]:
        return curve[0][1]
    for (low, low_rate), (high, high_rate) in itertools.pairwise(curve):
        if size <= high:
            share = math.log(size / low) / math.log(high / low)
            return low_rate + share * (high_rate - low_rate)
    return curve[-1][1]


@lru_cache(maxsize=4096)
def largest_prime(n: int) -> int:
    """The largest prime factor of n >= 1; 1 of 1."""
    largest, factor = 1, 2
    while factor * factor <= n:
        while n % factor == 0:
            largest, n = factor, n // factor
        factor += 1
    return max(largest, n)


@dataclass(frozen=True)
class Parts:
    """What one launch of a kernel takes, part by part, at full rates.

    Attributes:
        arithmetic, traffic: seconds of each alone; they overlap.
        unit: whose rate the arithmetic has: "matmul", "complex product", "fft", "native", or "" where there is none to
            count.
    """

    arithmetic: float
    traffic: float
    unit: str


ON_CHIP = 8192
"""Points of a complex transform that one thread block of a GPU holds (64 KB in float32); a longer one, or one of two
dimensions, is done in steps through memory (Bailey, J. Supercomputing 4, 1990)."""


def traffic(kernel: Kernel, rates: Rates) -> float:
    """Bytes that a launch moves: a GPU's transform that no block holds on chip goes through memory once a step."""
    steps = 1
    if kernel.kind == "fft" and rates.asynchronous:
        while float(kernel.fft_length) > ON_CHIP**steps:
            steps += 1
    return steps * float(kernel.read + kernel.written)


def kernel_parts(kernel: Kernel, rates: Rates, dtype: str) -> Parts:
    """Arithmetic and traffic of one launch; ``dtype`` is that of products that do not say their own."""
    bytes_ = traffic(kernel, rates)
    if kernel.kind == "matmul":
        flops = 2.0 * float(kernel.macs)
        curve = rates.complex_bmm
        if not kernel.complex_product:
            curve = rates.matmul.get(kernel.dtype or dtype) or rates.matmul["float32"]
        unit, arithmetic = "complex product" if kernel.complex_product else "matmul", flops / at(curve, flops)
    elif kernel.kind in ("fft", "native"):
        price = 2.5 if kernel.fft_real else 5.0
        length = float(kernel.fft_length)
        flops = price * length * max(math.log2(length), 1.0) * float(kernel.fft_batch)
        if kernel.kind == "native":
            flops += float(kernel.flops)
        curve = (rates.native if kernel.kind == "native" else ()) or rates.fft
        share = at(rates.fft_primes, largest_prime(int(length))) if rates.fft_primes and kernel.kind == "fft" else 1.0
        unit, arithmetic = kernel.kind, flops / at(curve, flops) / share
    else:
        return Parts(0.0, bytes_ / at(rates.bandwidth[kernel.kind], max(bytes_, float(kernel.among))), "")
    return Parts(arithmetic, bytes_ / at(rates.bandwidth["elementwise"], bytes_), unit)


def kernel_seconds(kernel: Kernel, rates: Rates, dtype: str) -> float:
    """Seconds of one launch of ``kernel``; ``dtype`` is that of products that do not say their own."""
    parts = kernel_parts(kernel, rates, dtype)
    busy = max(parts.arithmetic, parts.traffic)
    return max(busy, rates.launch_s * float(kernel.starts)) if rates.asynchronous else busy + rates.launch_s


def predict_seconds(kernels: Kernels, rates: Rates, dtype: str = "float32") -> float:
    """Seconds of a sequence of kernels, each an integer shape (no grids), launched one after the other."""
    return sum(kernel_seconds(k, rates, dtype) * float(k.launches) for k in kernels if k.launches)
