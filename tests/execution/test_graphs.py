"""A training step of every path, captured in a CUDA graph and replayed on new data."""

import pytest
import torch
from torch import nn

from cdvft_bench.execution.paths import FastCDVFTLinear
from cdvft_bench.timing.modes import capture


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("path", ["fft", "fused", "stored", "merged", "merged_dense", "triton", "auto"])
def test_a_replayed_step_gives_the_gradients_of_a_plain_one(path: str) -> None:
    torch.manual_seed(0)
    layer = FastCDVFTLinear(nn.Linear(256, 256, device="cuda"), path=path, m=2)
    trained = [p for p in layer.parameters() if p.requires_grad]
    for parameter in trained:
        nn.init.normal_(parameter, std=0.1)
    x, g = (torch.randn(64, 256, device="cuda") for _ in range(2))
    x.requires_grad_()

    def step() -> tuple[torch.Tensor, ...]:
        return (y := layer(x), *torch.autograd.grad(y, [x, *trained], g))

    replay = capture(step)
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
        g.copy_(torch.randn_like(g))
    found = [t.detach().clone() for t in replay()]  # type: ignore[attr-defined]
    for ours, plain in zip(found, step(), strict=True):
        assert float((ours - plain).norm() / plain.norm()) < 1e-4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("path", ["merged", "merged_dense", "fused"])
def test_a_captured_layer_stays_right_when_a_larger_one_has_run(path: str) -> None:
    torch.manual_seed(0)
    layers = [FastCDVFTLinear(nn.Linear(d, d, device="cuda"), path=path, m=2) for d in (256, 1024)]
    for parameter in (p for layer in layers for p in layer.parameters() if p.requires_grad):
        nn.init.normal_(parameter, std=0.1)
    small, large = (torch.randn(64, d, device="cuda") for d in (256, 1024))
    with torch.no_grad():
        replay = capture(lambda: layers[0](small))
        expected = layers[0](small)
        layers[1](large)
        others = [torch.full((256 * 256,), float("nan"), device="cuda") for _ in range(64)]
        assert torch.equal(replay(), expected)  # type: ignore[call-overload]
    assert all(bool(t.isnan().all()) for t in others)
