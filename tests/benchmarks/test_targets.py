"""The speeds to reach on a CPU: one layer on two threads, CDVFT's paths beside the frozen layer, LoRA and C3A.

``pytest tests/benchmarks/test_targets.py --benchmark-only --benchmark-autosave`` on each commit, then
``--benchmark-compare``: names stay. Within a group the target is auto <= lora, and half the others' overhead over
frozen. Ratios with intervals come from ``cdvft-bench sweep paths``, which interleaves the contenders.
"""

from typing import Any

import pytest

from cdvft_bench.core.case import FROZEN
from cdvft_bench.sweep.evaluate import build
from cdvft_bench.sweep.grid import make_case
from cdvft_bench.timing.clock import fixed_threads

SHAPES = [(768, 1024), (768, 128), (1024, 1024), (4096, 64), (4096, 512)]
CONTENDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "frozen": (FROZEN, {}),
    "lora": ("lora", {"rank": 8}),
    "c3a": ("c3a", {"block_size": "d"}),
    "fft": ("cdvft", {"path": "fft"}),
    "auto": ("cdvft", {"path": "auto"}),
}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize(("d", "tokens"), SHAPES)
def test_target(benchmark: Any, d: int, tokens: int, contender: str) -> None:
    method, values = CONTENDERS[contender]
    sizes = {name: d if value == "d" else value for name, value in values.items()}
    subject = build(make_case(method, sizes, "layer", f"{d}x{d}", sequence=tokens, pass_="step"))
    benchmark.group = f"{d}x{d}, {tokens} tokens, step on two threads"
    with fixed_threads(2):
        benchmark.pedantic(subject.step, rounds=15, iterations=1, warmup_rounds=3)
