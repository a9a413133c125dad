"""What is built to be counted and timed: one rule of weights, starts and steps for every room."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cdvft_bench.timing.built import DEVIATION, built_layer, copy_with_shared_weights, prepared, random_linear


class Adapter(nn.Module):
    """A base with a trained tensor at zero, one that is not, one that is frozen at zero, and dropout."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.drop = base, nn.Dropout(0.5)
        self.zero = nn.Parameter(torch.zeros(base.out_features, 300))
        self.other = nn.Parameter(torch.zeros(200))
        self.started = nn.Parameter(torch.full((300, base.in_features), 0.1))
        self.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.base(x) + self.drop(x) @ self.started.T @ self.zero.T + self.other.sum()
        return y


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_s_weights_are_drawn_alike_for_a_seed(bias: bool) -> None:
    rng = np.random.default_rng()
    d_in, d_out, seed = (int(rng.integers(low, high)) for low, high in ((200, 300), (200, 300), (0, 9999)))
    layer = random_linear(d_in, d_out, bias=bias, seed=seed)
    again, other = (random_linear(d_in, d_out, bias=bias, seed=s) for s in (seed, seed + 1))
    assert torch.equal(layer.weight, again.weight)
    assert not torch.equal(layer.weight, other.weight)
    assert (layer.bias is not None) == bias
    assert not any(p.requires_grad for p in layer.parameters())
    spread = float(layer.weight.double().std()) * d_in**0.5
    assert abs(spread - 1) < 0.05  # 40,000 draws or more: five standard deviations are 0.02


def test_only_trained_zeros_are_drawn_and_each_in_its_own_way() -> None:
    module = prepared(Adapter(random_linear(64, 300, seed=3)).eval(), seed=5)
    assert module.training
    assert module.drop.p == 0.0  # type: ignore[union-attr]
    assert abs(float(module.zero.detach().double().std()) / DEVIATION - 1) < 0.05  # type: ignore[operator,union-attr]
    assert torch.equal(module.started, torch.full((300, 64), 0.1))  # type: ignore[arg-type]
    assert not module.frozen.any()  # type: ignore[operator,union-attr]
    first = module.zero.flatten()[:200]  # type: ignore[operator,index,union-attr]
    assert not torch.equal(module.other, first)  # type: ignore[arg-type]


def test_a_step_trains_the_adapter_and_leaves_the_base() -> None:
    base = random_linear(16, 24)
    built = built_layer(prepared(Adapter(base)), torch.randn(1, 8, 16))
    before = {name: p.detach().clone() for name, p in built.module.named_parameters()}
    built.step()
    (x,) = built.inputs
    first = x.grad.clone()
    assert float(first.norm()) > 0
    built.step()
    assert float((x.grad - first).norm()) < 0.5 * float(first.norm())  # the second step's own, not added up
    changed = {name for name, p in built.module.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"zero", "other", "started"}
    assert built.advance is None  # a CPU has no cache to rotate inputs for
    frozen = built_layer(prepared(random_linear(16, 24)), torch.randn(1, 8, 16))
    assert frozen.optimizer is None
    frozen.step()


def test_a_copy_shares_weights_alone() -> None:
    base = random_linear(16, 24)
    copied = copy_with_shared_weights(base)
    assert isinstance(copied, nn.Linear)
    assert copied.weight is not base.weight
    assert copied.weight.data_ptr() == base.weight.data_ptr()
    copied.weight = nn.Parameter(torch.ones(24, 16))
    assert not torch.equal(base.weight, copied.weight)
