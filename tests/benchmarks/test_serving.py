"""Speed of one layer under a batch in which every request draws one of many adapters (tox -e bench)."""

from typing import Any

import pytest
import torch

from cdvft_bench.execution import native
from cdvft_bench.timing.clock import fixed_threads
from cdvft_bench.tuner.serving import Row, contenders

NAMES = ("frozen", "cdvft native", "cdvft fft", "lora bmm")


@pytest.mark.skipif(bool(native.missing(torch.float32)), reason="no compiled kernels")
@pytest.mark.parametrize("adapters", [1, 64, 4096])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch(benchmark: Any, name: str, adapters: int) -> None:
    row = Row(768, 256, adapters)
    benchmark.group = f"{row.d}x{row.d}, {row.requests} requests, {adapters} adapters"
    with fixed_threads(1), torch.no_grad():
        benchmark.pedantic(contenders(row, (name,))[name], rounds=7, iterations=1, warmup_rounds=1)
