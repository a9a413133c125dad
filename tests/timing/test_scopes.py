"""Launches of a trace are the adapter's or the base's: told by ranges, and by sequence numbers in the backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import record_function

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.timed import TraceSummary
from cdvft_bench.methods import make_method
from cdvft_bench.timing.scopes import ADAPTER, BASE, scoped
from cdvft_bench.timing.trace import analyse_events, trace_call
from cdvft_reference import CDVFTLinear
from tests.timing.cuda_trace import graph_replay, training_step

METHODS: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"rank": 4}),
    ("cdvft", {"m": 2}),
    ("cdvft", {"m": 3, "path": "handwritten"}),
    ("cdvft", {"m": 2, "block_size": 8}),
    ("block_circulant", {"block_size": 8, "path": "handwritten"}),
    ("c3a", {"block_size": 8}),
    ("fourierft", {"n_frequency": 20}),
    ("vera", {"rank": 4}),
]
SHAPE = LinearShape(32, 24)


def built(method: str, hyperparameters: dict[str, Any]) -> nn.Module:
    torch.manual_seed(3)
    module = make_method(method, hyperparameters).adapt_linear(nn.Linear(32, 24)).train()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    return module


def x(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def trace(module: nn.Module, backward: bool = False) -> TraceSummary:
    given = x(1, 6, 32).requires_grad_()
    gradient = x(1, 6, 24)

    def call() -> object:
        for p in (given, *module.parameters()):
            p.grad = None
        y = module(given)
        return y.backward(gradient) if backward else y

    with scoped(module):
        return trace_call(call)


@pytest.mark.parametrize(("method", "hyperparameters"), METHODS)
def test_forward_launches_are_those_of_the_formula(method: str, hyperparameters: dict[str, Any]) -> None:
    found = trace(built(method, hyperparameters))
    cost = make_method(method, hyperparameters).cost(SHAPE, 6, device="cpu")
    adapter = sum(int(k.launches) for k in cost.forward if k.scope != "base")
    base = sum(int(k.launches) for k in cost.forward if k.scope == "base")
    assert (found.parts["adapter"].launches, found.parts["base"].launches) == (adapter, base)
    assert found.parts["neither"].launches == 0
    assert all(part.backward_launches == 0 for part in found.parts.values())


@pytest.mark.parametrize(("method", "hyperparameters"), METHODS)
def test_backward_launches_follow_their_forward(method: str, hyperparameters: dict[str, Any]) -> None:
    module = built(method, hyperparameters)
    forward, step = trace(module), trace(module, backward=True)
    cost = make_method(method, hyperparameters).cost(SHAPE, 6, device="cpu")
    expected = {True: 0, False: 0}
    for k in cost.backward:
        expected[k.scope == "base"] += int(k.launches)
    made = {name: part.backward_launches for name, part in step.parts.items()}
    for name in ("base", "adapter"):
        assert step.parts[name].launches - made[name] == forward.parts[name].launches
    assert made == {"adapter": expected[False], "base": expected[True], "neither": 0}
    assert step.parts["neither"].launches == 0


def test_parts_add_up_to_the_whole() -> None:
    found = trace(built("cdvft", {"m": 3}), backward=True)
    assert sum(p.launches for p in found.parts.values()) == found.launches
    assert sum(p.seconds for p in found.parts.values()) == pytest.approx(sum(found.scope_seconds.values()))
    assert sum(p.families.get("fft", 0) for p in found.parts.values()) == found.family_launches["fft"]
    assert found.parts["adapter"].families["fft"] == found.family_launches["fft"]
    assert found.parts["base"].families == {"matmul": found.parts["base"].launches}


class Net(nn.Module):
    """Two layers, one of them adapted, an activation and a range of somebody else's."""

    def __init__(self) -> None:
        super().__init__()
        self.first = CDVFTLinear(nn.Linear(16, 16), m=2)
        self.last = nn.Linear(16, 16).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with record_function("somebody's own"):
            return self.last(self.first(x).tanh())  # type: ignore[no-any-return]


def test_a_model_is_the_base_but_for_its_adapters() -> None:
    net = Net()
    given = x(5, 16).requires_grad_()
    with scoped(net) as scoping:
        found = trace_call(lambda: net(given).sum())
    assert scoping.adapted == ("first",)
    assert scoping.bypassing == ()
    assert found.scopes == {ADAPTER: 8, BASE: 1, "somebody's own": 2, "unscoped": 1}
    parts = {name: part.launches for name, part in found.parts.items()}
    assert parts == {"adapter": found.scopes[ADAPTER], "base": 3, "neither": 1}


def test_without_ranges_there_are_no_parts() -> None:
    layer = nn.Linear(4, 4)
    assert trace_call(lambda: layer(x(2, 4))).parts == {}
    with scoped(layer):
        parts = trace_call(lambda: layer(x(2, 4))).parts
    assert (parts["base"].launches, parts["adapter"].launches) == (1, 0)


def test_a_layer_that_does_not_call_its_base_is_named() -> None:
    class Merged(CDVFTLinear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.base.weight + self.delta_weight())

    layer = Merged(nn.Linear(8, 8))
    with scoped(layer) as scoping:
        assert scoping.bypassing == ()  # it has not run yet
        found = trace_call(lambda: layer(x(2, 8)))
    assert scoping.bypassing == ("",)
    assert found.parts["base"].launches == 0


def test_kernels_are_told_apart_on_a_gpu() -> None:
    """A hand-made trace: the base's backward kernel follows its forward, a fill outside of both is neither's."""
    names = {"base": BASE, "adapter": ADAPTER}
    events = [{**e, "name": names.get(e["name"], e["name"])} for e in training_step()]
    parts = analyse_events(events).parts
    assert {k: (p.launches, p.backward_launches, p.families) for k, p in parts.items()} == {
        "base": (2, 1, {"matmul": 2}),
        "adapter": (2, 0, {"elementwise": 1, "fft": 1}),
        "neither": (1, 0, {"copy": 1}),
    }
    assert parts["base"].seconds == pytest.approx(150e-6)
    assert parts["adapter"].seconds == pytest.approx(30e-6)
    assert analyse_events(training_step()).parts == {}  # somebody else's ranges are no parts
    assert analyse_events(graph_replay()).parts == {}


def test_the_module_is_as_before_even_after_an_error() -> None:
    net = Net()
    before = net(x(3, 16))
    kept = net.last.forward
    net.last.forward = kept  # type: ignore[method-assign] # somebody's own patch stays
    with pytest.raises(RuntimeError, match="shapes"), scoped(net):
        net(x(3, 9) @ x(8, 16))
    assert "forward" not in net.__dict__
    assert "forward" not in net.first.__dict__
    assert "forward" not in net.first.base.__dict__
    with scoped(net):
        pass
    assert net.last.__dict__["forward"] is kept
    assert torch.equal(net(x(3, 16)), before)
