"""Measure what a device can do, once: the rates that predictions divide by.

``python -m cdvft_bench.timing.calibrate --output FILE`` needs torch and numpy only and takes under a minute.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cdvft_bench.core.files import write_file
from cdvft_bench.execution import native
from cdvft_bench.timing.clock import fixed_threads, require_device
from cdvft_bench.timing.environment import read_environment

Points = list[tuple[float, float]]

DTYPES = ("float32", "bfloat16")
LONGEST_S = 0.25  # a call that takes longer is repeated three times, not seven
LEAST_S = 0.05  # a point is measured for so long at least
REPEATS = 3  # of all points, the best of each counts: for seconds on end a shared machine may lend half its cores
LARGEST = 2e8  # entries of the largest operand
ROWS = (16, 128, 1024, 4096)


def calibrate(device: str = "cpu", threads: int | None = None) -> dict[str, Any]:
    """Measure matrix products, transforms, memory traffic and launches; the best of repeated calls.

    Args:
        device: "cpu" or "cuda".
        threads: CPU threads, None for torch's present number.

    Returns:
        A document that ``analytic.roofline.rates_from_json`` reads, with the environment.

    Raises:
        UserError: there is no such device.
    """
    place = require_device(device)
    with fixed_threads(threads) as used, torch.no_grad():
        gpu = place.type == "cuda"
        name = torch.cuda.get_device_name(place) if gpu else platform.processor() or "cpu"
        found = [_curves(place) for _ in range(REPEATS)]
        return {
            "device": name,
            "source": "measured",
            **{key: _best([one[key] for one in found]) for key in found[0]},
            "launch_s": min(_launch(place) for _ in range(REPEATS)),
            "asynchronous": gpu,
            "threads": 0 if gpu else used,
            "environment": asdict(read_environment()),
        }


def _curves(place: torch.device) -> dict[str, Any]:
    return {
        "matmul": {dtype: _matmul(place, getattr(torch, dtype)) for dtype in DTYPES},
        "complex_bmm": _complex_bmm(place),
        "fft": _fft(place),
        "native": _native(place),
        "bandwidth": {
            "elementwise": _traffic(place, lambda x, y: torch.mul(x, 1.5, out=y)),
            "reduction": _traffic(place, lambda x, _: x.sum(0), operands=1),
            "copy": _traffic(place, lambda x, y: y.copy_(x)),
        },
    }


def _best(found: list[Any]) -> Any:
    """The best rate of every point of several curves, or of dictionaries of curves."""
    if isinstance(found[0], dict):
        return {key: _best([one[key] for one in found]) for key in found[0]}
    return _points([point for one in found for point in one])


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Least seconds of a call, of at least 7 and for at least ``LEAST_S`` seconds in all.

    The least, not the median: a rate says what the device can do, and other work only ever takes away from it.
    """
    gpu = device.type == "cuda"
    for _ in range(3):
        call()
    times: list[float] = []
    while len(times) < 7 or (sum(times) < LEAST_S and len(times) < 500):
        if gpu:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            call()
            end.record()
            torch.cuda.synchronize(device)
            times.append(start.elapsed_time(end) / 1e3)
        else:
            begun = time.perf_counter()
            call()
            times.append(time.perf_counter() - begun)
        if sum(times) > 4 * LONGEST_S and len(times) >= 3:
            break
    return min(times)


def _randn(*shape: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, device=device, dtype=dtype)


def _points(measured: list[tuple[float, float]]) -> Points:
    """Sizes increasing, the best rate of equal sizes."""
    best: dict[float, float] = {}
    for size, rate in measured:
        best[size] = max(rate, best.get(size, 0.0))
    return sorted(best.items())


def _matmul(device: torch.device, dtype: torch.dtype) -> Points:
    found = []
    for rows in ROWS if device.type == "cpu" else (*ROWS, 16384):
        for width in (768, 4096) if device.type == "cuda" else (768,):
            if rows * width > LARGEST:
                continue
            x, w = _randn(rows, width, device=device, dtype=dtype), _randn(width, width, device=device, dtype=dtype)
            taken = _seconds(lambda x=x, w=w: x @ w, device)  # type: ignore[misc]
            found.append((2.0 * rows * width * width, 2.0 * rows * width * width / taken))
    return _points(found)


def _complex_bmm(device: torch.device) -> Points:
    found = []
    for rows in (128, 1024):
        for blocks, length in ((4, 192), (12, 64)):
            bins = length // 2 + 1
            x = torch.fft.rfft(_randn(rows, blocks, length, device=device)).permute(2, 0, 1).contiguous()
            c = torch.fft.rfft(_randn(blocks, blocks, length, device=device)).permute(2, 1, 0).contiguous()
            taken = _seconds(lambda x=x, c=c: torch.bmm(x, c), device)  # type: ignore[misc]
            flops = 8.0 * bins * rows * blocks * blocks
            found.append((flops, flops / taken))
    return _points(found)


def _fft(device: torch.device) -> Points:
    found = []
    for rows in (16, 128, 1024, 4096):
        x = _randn(rows, 768, device=device)
        spectrum = torch.fft.rfft(x)
        taken = _seconds(lambda x=x: torch.fft.rfft(x), device)  # type: ignore[misc]
        taken += _seconds(lambda s=spectrum: torch.fft.irfft(s, n=768), device)  # type: ignore[misc]
        flops = 2.5 * 768 * 9.585 * rows  # log2(768)
        found.append((flops, 2 * flops / taken))
    return _points(found)


def _native(device: torch.device) -> Points:
    """FLOP/s of the compiled kernels, forward and backward together; empty where they cannot run."""
    if device.type != "cpu" or native.missing(torch.float32):
        return []
    found: Points = []
    n = 768
    for rows in ROWS:
        x, g = _randn(rows, n, device=device), _randn(rows, n, device=device)
        diagonals, circulants = [_randn(n, device=device) for _ in range(2)], [_randn(1, 1, n, device=device)]

        def both(x: Tensor = x, g: Tensor = g, a: list[Tensor] = diagonals, c: list[Tensor] = circulants) -> None:
            native.forward(x, None, a, c, n, 1.0, False)
            native.backward(x, g, a, c, 1.0, False, True)

        # Two rows are one complex signal: six transforms, and 44 FLOPs a point of products with vectors and spectra.
        flops = rows / 2 * (6 * 5 * n * 9.585 + 44 * n)
        found.append((flops / 2, flops / _seconds(both, device)))
    return _points(found)


def _traffic(device: torch.device, call: Callable[[Tensor, Tensor], Tensor], operands: int = 2) -> Points:
    """Bytes a second of a call that reads one operand and writes the other, or reads one alone."""
    found: Points = []
    for rows in (4, 64, 256, 1024, 4096, 16384) if device.type == "cpu" else (16, 256, 4096, 32768, 131072):
        if rows * 1024 > LARGEST:
            break
        x, y = _randn(rows, 1024, device=device), _randn(rows, 1024, device=device)
        taken = _seconds(lambda x=x, y=y: call(x, y), device)  # type: ignore[misc]
        bytes_ = float(operands) * x.numel() * x.element_size()
        found.append((bytes_, bytes_ / taken))
    return _points(found)


def _launch(device: torch.device) -> float:
    """Seconds from one small launch to the next."""
    x = _randn(16, device=device)
    many = 200

    def launches() -> None:
        for _ in range(many):
            x.mul(1.5)

    return _seconds(launches, device) / many


def write(document: dict[str, Any], path: Path) -> None:
    """Write rates as JSON, whole or not at all."""
    write_file(path, json.dumps(document, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """The command of a bare node."""
    parser = argparse.ArgumentParser(prog="python -m cdvft_bench.timing.calibrate", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    options = parser.parse_args(arguments)
    write(calibrate(options.device, options.threads), options.output)
    print(f"rates written to {options.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
