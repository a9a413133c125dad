"""Two real transforms, or one complex transform of both packed together and taken apart: why x and g go one by one.

``pytest tests/benchmarks/test_packing.py --benchmark-only``
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from cdvft_bench.timing.clock import fixed_threads


def one_by_one(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    return torch.fft.rfft(x), torch.fft.rfft(g)


def packed(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Z = FFT(x + i g) holds both: X[k] = (Z[k] + conj Z[-k]) / 2 and G[k] = (Z[k] - conj Z[-k]) / 2i."""
    z = torch.fft.fft(torch.complex(x, g))
    bins = x.shape[1] // 2 + 1
    front = z[:, :bins]
    back = torch.cat((z[:, :1], z[:, 1:].flip(1)), 1)[:, :bins].conj_physical()
    return (front + back).mul_(0.5), (front - back).mul_(-0.5j)


@pytest.mark.parametrize("way", [one_by_one, packed])
@pytest.mark.parametrize(("tokens", "d"), [(128, 768), (341, 768), (64, 4096)])
def test_spectra_of_two(benchmark: Any, tokens: int, d: int, way: Any) -> None:
    x, g = torch.randn(tokens, d), torch.randn(tokens, d)
    exact = torch.fft.rfft(x.double()), torch.fft.rfft(g.double())
    for ours, theirs in zip(way(x, g), exact, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-6
    benchmark.group = f"{tokens} rows of {d}, two threads"
    with fixed_threads(2):
        benchmark(way, x, g)
