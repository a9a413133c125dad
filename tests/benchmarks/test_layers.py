"""Speed of a step and of a forward pass, one adapted layer of every method and path (tox -e bench).

Compare commits with ``pytest-benchmark compare``; for ratios with intervals use ``cdvft-bench time``,
which interleaves the contenders.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cdvft_bench.methods import method_names
from cdvft_bench.sweep.case import CasePass
from cdvft_bench.sweep.grid import FROZEN, make_case
from cdvft_bench.sweep.witness import build

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    (FROZEN, {}),
    *((name, {}) for name in method_names()),
    ("cdvft", {"path": "handwritten"}),
    ("cdvft", {"m": 3}),
    ("cdvft", {"block_size": "d/4"}),
    ("block_circulant", {"path": "handwritten"}),
    ("block_circulant", {"block_size": "d/4"}),
]


def title(setting: tuple[str, dict[str, Any]]) -> str:
    return " ".join([setting[0], *(f"{k}={v}" for k, v in setting[1].items())])


@pytest.mark.parametrize("pass_", ["forward", "step"])
@pytest.mark.parametrize("setting", SETTINGS, ids=title)
def test_layer(benchmark: Any, setting: tuple[str, dict[str, Any]], pass_: CasePass) -> None:
    method, hyperparameters = setting
    case = make_case(method, hyperparameters, "layer", "768x768", sequence=128, pass_=pass_)
    subject = build(case)
    torch.set_num_threads(2)
    benchmark.group = f"768x768, 128 tokens, {pass_}"
    benchmark(subject.step if pass_ == "step" else subject.forward)
