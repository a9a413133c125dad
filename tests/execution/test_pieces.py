"""Rows executed some at a time: the same numbers, the same closed forms, and only on a CPU."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from cdvft_bench.analytic.cost import total
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.counting.count import count_layer
from cdvft_bench.execution import fused, splits
from cdvft_bench.execution.paths import FastBlockCirculantLinear, FastCDVFTLinear
from cdvft_bench.methods import make_method


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "PIECE", 100)


def test_pieces_are_even_and_whole_on_a_gpu() -> None:
    assert splits.piece(10, 10, 10, "cpu") == 5
    assert splits.piece(11, 10, 10, "cpu") == 4
    assert splits.piece(1, 500, 500, "cpu") == 1
    assert splits.piece(11, 10, 10, "cuda") == 11
    assert list(splits.piece(np.array([10, 11]), 10, 10, "cpu")) == [5, 4]


@pytest.mark.parametrize("m", [0, 2, 3])
@pytest.mark.parametrize("path", ["fused", "stored", "merged"])
@pytest.mark.parametrize("p", [3, 12])
def test_pieces_add_up(path, m, p) -> None:
    torch.manual_seed(0)
    base = nn.Linear(12, 9)
    layer: FastCDVFTLinear | FastBlockCirculantLinear = (
        FastCDVFTLinear(copy.deepcopy(base), path, m=m, block_size=p, alpha=0.5, init="random")
        if m
        else FastBlockCirculantLinear(copy.deepcopy(base), path, block_size=p, alpha=0.5)
    )
    layer = layer.double()
    if not m:
        nn.init.normal_(next(q for q in layer.parameters() if q.requires_grad))
    x = torch.randn(17, 12, dtype=torch.float64, requires_grad=True)
    trained = [x, *(q for q in layer.parameters() if q.requires_grad)]
    weight = layer.base.weight + layer.delta_weight()
    oracle = nn.functional.linear(x, weight, layer.base.bias)
    h, g = layer(x), torch.randn(17, 9, dtype=torch.float64)
    found, expected = torch.autograd.grad(h, trained, g), torch.autograd.grad(oracle, trained, g)
    for ours, theirs in zip((h, *found), (oracle, *expected), strict=True):
        assert float((ours - theirs).detach().norm() / theirs.detach().norm()) < 1e-12


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("seed", range(40))
def test_closed_forms_count_every_piece(seed, device, monkeypatch) -> None:
    """Under each device's rule of splitting rows; a GPU's is followed on the CPU."""
    monkeypatch.setattr(fused, "piece", lambda rows, d_in, d_out, _: splits.piece(rows, d_in, d_out, device))
    r = random.Random(seed)
    d_in, d_out, tokens = r.randint(1, 20), r.randint(1, 20), r.randint(1, 60)
    # On a GPU a merged weight is Triton's, which this machine cannot dispatch: test_triton.py interprets its kernels.
    paths = ["fused", "stored"] if device == "cuda" else ["fused", "stored", "merged"]
    options = {
        "block_size": r.choice([None, r.randint(1, 22)]),
        "path": r.choice(paths),
        "convention": r.choice(["column", "row"]),
        "alpha": r.choice([1.0, 0.5]),
    }
    method = make_method(*r.choice([("cdvft", {**options, "m": r.choice([2, 3])}), ("block_circulant", options)]))
    dtype = r.choice(["float32", "bfloat16"])
    shape = LinearShape(d_in, d_out, r.random() < 0.5)
    cost = method.cost(shape, tokens, dtype, device=device)
    torch.manual_seed(seed)
    layer = method.adapt_linear(nn.Linear(d_in, d_out, bias=shape.bias, dtype=getattr(torch, dtype)))
    for parameter in layer.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    counted = count_layer(layer, torch.randn(1, tokens, d_in, dtype=getattr(torch, dtype), requires_grad=True))
    for kernels, seen in ((cost.forward, counted.forward), (cost.backward, counted.backward)):
        assert seen is not None
        sums = total(kernels)
        operators: dict[str, int] = {}
        for kernel in kernels:
            if kernel.launches:
                operators[kernel.op] = operators.get(kernel.op, 0) + int(kernel.launches)
        assert operators == dict(seen.operators)
        assert (sums.macs, sums.elementwise_flops, sums.ffts) == (seen.macs, seen.elementwise_flops, seen.ffts)
        assert (sums.read, sums.written) == (seen.read, seen.written)
    assert cost.saved_bytes == counted.saved_bytes


def test_a_gpu_s_rows_are_priced_whole() -> None:
    """Llama-3-8B's query projection at 16,384 tokens in bfloat16: one piece on a GPU, 128 on a CPU."""
    method, shape = make_method("cdvft", {"m": 2, "path": "fused"}), LinearShape(4096, 4096, bias=False)
    on = {device: method.cost(shape, 16_384, "bfloat16", device=device) for device in ("cpu", "cuda")}
    launches = {device: cost.launches("forward") + cost.launches("backward") for device, cost in on.items()}
    assert launches["cuda"] == 28
    assert launches["cpu"] > 100 * launches["cuda"]
    assert on["cuda"].total("step").macs == on["cpu"].total("step").macs
