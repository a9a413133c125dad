"""A device's rates, measured: what predictions divide by. torch alone, so that a bare node can, and a first plan."""

import hashlib
import itertools
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cdvft_bench.execution import native
from cdvft_bench.execution.native import build

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        point_s: seconds of a point (a kernel of one size), unless two calls take longer. calls: of a point, at least.
        repeats: of all points, of which the best counts: for seconds on end a shared machine may lend half its cores.
        rows: of products and transforms. traffic: rows of 1,024 numbers that are moved. dtypes: of products.
        largest: entries of the largest operand.
    """

    point_s: float
    calls: int
    repeats: int
    rows: tuple[int, ...]
    traffic: tuple[int, ...]
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    largest: float = 2e8


QUICK = Effort(0.04, 5, 1, (16, 128, 1024), (4, 256, 1024, 4096))
"""Some two seconds on two cores."""
FULL = Effort(0.12, 7, 3, (16, 128, 1024, 4096), (4, 64, 256, 1024, 4096, 16384))
"""Under half a minute on two cores."""
GPU = Effort(0.1, 7, 3, (16, 128, 1024, 4096, 16384), (16, 256, 4096, 32768, 131072))
LOG2_768 = 9.585
PRIMES = ((7, 112), (13, 64), (31, 24), (61, 12), (127, 6), (251, 3), (769, 1))
"""Prime factors, and by what to multiply them for a length near 768."""
SHORTEST_S = 1e-3
"""Seconds of a sample on a GPU, which is made of as many calls as that takes, and ``MOST_CALLS`` at most."""
MOST_CALLS = 1000


def this_cpu() -> str:
    """A digest of what a CPU's rates depend on, torch's number of threads and its version aside."""
    return hashlib.sha256(f"{build.this_cpu()}\0{platform.processor()}\0{os.cpu_count()}".encode()).hexdigest()[:16]


def measure(device: torch.device, effort: Effort) -> dict[str, Any]:
    """Curves of rates, the best of repeated calls, under the names that ``analytic.roofline.Rates`` has for them."""
    bench = _Bench(device, effort)
    found = [bench.curves() for _ in range(effort.repeats)]
    return {
        **{key: _best([one[key] for one in found]) for key in found[0]},
        "launch_s": min(bench.launch() for _ in range(effort.repeats)),
    }


def _best(found: list[Any]) -> Any:
    """The best rate of every point of several curves, or of dictionaries of curves."""
    if isinstance(found[0], dict):
        return {key: _best([one[key] for one in found]) for key in found[0]}
    best: dict[float, float] = {}
    for size, rate in (point for one in found for point in one):
        best[size] = max(rate, best.get(size, 0.0))
    return sorted(best.items())


class _Bench:
    def __init__(self, device: torch.device, effort: Effort) -> None:
        self.device, self.effort, self.gpu = device, effort, device.type == "cuda"
        self.generator = torch.Generator(device).manual_seed(0)  # the user's random numbers stay as they are

    def curves(self) -> dict[str, Any]:
        return {
            "matmul": {dtype: self.matmul(getattr(torch, dtype)) for dtype in self.effort.dtypes},
            "complex_bmm": self.complex_bmm(),
            "fft": self.fft(),
            "fft_primes": self.fft_primes(),
            "native": self.native(),
            "bandwidth": {
                "elementwise": self.traffic(lambda x, y: torch.mul(x, 1.5, out=y)),
                "reduction": self.traffic(lambda x, _: x.sum(0), operands=1),
                "copy": self.traffic(lambda x, y: y.copy_(x)),
            },
        }

    def seconds(self, call: Callable[..., object], operands: Sequence[tuple[Tensor, ...]] = ((),)) -> float:
        """Least seconds of a call on operands, which it goes round.

        The least, not the median: a rate says what the device can do, and other work only ever takes away from it.
        """
        effort, begun, turns = self.effort, time.perf_counter(), itertools.cycle(operands)

        def batch(calls: int = 1) -> None:
            for _ in range(calls):
                call(*next(turns))

        self.once(batch)
        first = self.once(batch)
        # On a GPU one short call is as long as its launch: of many in a row all but the first is hidden.
        calls = min(MOST_CALLS, math.ceil(SHORTEST_S / max(first, 1e-9))) if self.gpu else 1
        times = [first] if calls == 1 else []
        while (
            not times
            or time.perf_counter() - begun < effort.point_s
            or (len(times) < effort.calls and time.perf_counter() - begun < 2 * effort.point_s)
        ):
            times.append(self.once(lambda: batch(calls)) / calls)
        return min(times)

    def once(self, call: Callable[[], object]) -> float:
        if self.gpu:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            call()
            end.record()
            torch.cuda.synchronize(self.device)
            return start.elapsed_time(end) / 1e3
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun

    def turns(self, make: Callable[[], tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """Operands of a call; on a GPU as many as its L2 cache cannot hold half of: each call finds them in memory."""
        made = [make()]
        if self.gpu:
            size = sum(t.numel() * t.element_size() for t in made[0])
            cache = int(torch.cuda.get_device_properties(self.device).L2_cache_size)
            made += [make() for _ in range(min(MOST_CALLS, -(-2 * cache // size)))]
        return made

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, device=self.device, generator=self.generator, dtype=torch.float32).to(dtype)

    def normals(self, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        return tuple(self.normal(*shape, dtype=dtype) for shape in shapes)

    def spectra(self, rows: int, blocks: int, length: int) -> tuple[Tensor, ...]:
        """Of activations and of circulants, bins first."""
        x, c = self.normals((rows, blocks, length), (blocks, blocks, length))
        return (
            torch.fft.rfft(x).permute(2, 0, 1).contiguous(),
            torch.fft.rfft(c).permute(2, 1, 0).contiguous(),
        )

    def matmul(self, dtype: torch.dtype) -> Points:
        found = []
        for rows in self.effort.rows:
            for width in (768, 4096) if self.gpu else (768,):
                if rows * width <= self.effort.largest:
                    operands = self.turns(partial(self.normals, (rows, width), (width, width), dtype=dtype))
                    taken = self.seconds(torch.matmul, operands)
                    found.append((2.0 * rows * width * width, 2.0 * rows * width * width / taken))
        return _best([found])

    def complex_bmm(self) -> Points:
        found = []
        for rows in (128, 1024):
            for blocks, length in ((4, 192), (12, 64)):
                bins = length // 2 + 1
                taken = self.seconds(torch.bmm, self.turns(partial(self.spectra, rows, blocks, length)))
                flops = 8.0 * bins * rows * blocks * blocks
                found.append((flops, flops / taken))
        return _best([found])

    def fft(self) -> Points:
        found = []
        for rows in self.effort.rows[:4]:
            operands = self.turns(partial(self.normals, (rows, 768)))
            spectra = [(torch.fft.rfft(x),) for (x,) in operands]
            taken = self.seconds(torch.fft.rfft, operands)
            taken += self.seconds(partial(torch.fft.irfft, n=768), spectra)
            flops = 2.5 * 768 * LOG2_768 * rows
            found.append((flops, 2 * flops / taken))
        return _best([found])

    def fft_primes(self) -> Points:
        """Of lengths near 768 with one large prime factor: a library's transform of those takes other ways."""

        def rate(n: int) -> float:
            x = self.normal(128, n)
            return n * math.log2(n) / self.seconds(lambda: torch.fft.rfft(x))

        smooth = rate(768)
        return [(float(prime), min(1.0, rate(prime * times) / smooth)) for prime, times in PRIMES]

    def native(self) -> Points:
        """FLOP/s of the compiled kernels, forward and backward together; empty where they cannot run."""
        if self.device.type != "cpu" or native.missing(torch.float32):
            return []
        found: Points = []
        n = 768
        for rows in self.effort.rows[:4]:
            x, g = self.normal(rows, n), self.normal(rows, n)
            diagonals, circulants = [self.normal(n) for _ in range(2)], [self.normal(1, 1, n)]

            def both(x: Tensor = x, g: Tensor = g, a: list[Tensor] = diagonals, c: list[Tensor] = circulants) -> None:
                native.forward(x, None, a, c, n, 1.0, False)
                native.backward(x, g, a, c, 1.0, False, True)

            # Two rows are one complex signal: six transforms, and 44 FLOPs a point of vectors and spectra.
            flops = rows / 2 * (6 * 5 * n * LOG2_768 + 44 * n)
            found.append((flops / 2, flops / self.seconds(both)))
        return _best([found])

    def traffic(self, call: Callable[[Tensor, Tensor], Tensor], operands: int = 2) -> Points:
        """Bytes a second of a call that reads one operand and writes the other, or reads one alone."""
        found: Points = []
        for rows in self.effort.traffic:
            if rows * 1024 <= self.effort.largest:
                taken = self.seconds(call, self.turns(partial(self.normals, (rows, 1024), (rows, 1024))))
                bytes_ = 4.0 * operands * rows * 1024
                found.append((bytes_, bytes_ / taken))
        return _best([found])

    def launch(self) -> float:
        """Seconds from one small launch to the next."""
        x = self.normal(16)
        many = 200

        def launches() -> None:
            for _ in range(many):
                x.mul(1.5)

        return self.seconds(launches) / many
