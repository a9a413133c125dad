"""Ways to run a case; the GPU's own where there is one."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.timed import Samples, Timing
from cdvft_bench.timing.modes import capture, launch_cost, time_modes
from cdvft_bench.timing.statistics import median_interval
from tests.timing.fake_machine import FakeMachine

X, W = torch.randn(8, 16), torch.randn(16, 16)
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_a_cpu_runs_eagerly() -> None:
    machine = FakeMachine()
    result = time_modes(machine.work(3e-3), timer=machine.now)
    assert [s.name for s in result.timing.samples] == ["eager"]
    assert result.launch_seconds is None
    assert result.notes == ()


@no_gpu
def test_a_graph_on_a_cpu_is_a_note() -> None:
    result = time_modes(lambda: X @ W, modes=["eager", "graph"], budget_s=0.02)
    assert [s.name for s in result.timing.samples] == ["eager"]
    assert result.notes == ("graph not run: CUDA graphs need a CUDA device",)
    with pytest.raises(UserError, match="CUDA device"):
        capture(lambda: X @ W)
    with pytest.raises(UserError, match="sees no GPU"):
        time_modes(lambda: X @ W, device="cuda")


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(UserError, match="mode 'warp' is not known"):
        time_modes(lambda: X @ W, modes=["warp"])  # type: ignore[list-item]


def test_compiled_is_timed_beside_eager_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine()

    def eager() -> torch.Tensor:
        machine.seconds += 4e-3
        return X @ W

    def compiled() -> torch.Tensor:
        machine.seconds += 2e-3
        return (X @ W) * (1 + 1e-3)

    monkeypatch.setattr(torch, "compile", lambda call: compiled)
    result = time_modes(eager, modes=["eager", "compile"], timer=machine.now)
    assert result.timing.ratios["compile"].value == pytest.approx(2)
    assert result.differences["compile"] == pytest.approx(1e-3, rel=1e-3)
    assert result.prepare_seconds["compile"] >= 0
    assert result.launch_seconds is None


def test_a_compiler_that_fails_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(call: object) -> object:
        raise RuntimeError("no compiler here\nand a long trace")

    monkeypatch.setattr(torch, "compile", broken)
    result = time_modes(lambda: X @ W, modes=["compile"], budget_s=0.02)
    assert result.notes == ("compile not run: RuntimeError: no compiler here",)
    assert [s.name for s in result.timing.samples] == ["eager"]


@pytest.mark.parametrize("call", [lambda: None, lambda: torch.randn(3), lambda: [X @ W]])
def test_outputs_that_change_are_not_compared(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda call: call)
    result = time_modes(call, modes=["compile"], budget_s=0.02)
    assert result.differences == {}
    assert any("not compared" in n for n in result.notes)


def test_an_output_of_another_shape_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda call: lambda: torch.ones(3))
    result = time_modes(lambda: X @ W, modes=["compile"], budget_s=0.02)
    assert result.differences == {"compile": None}
    assert any("cannot be compared" in n for n in result.notes)


def test_launch_cost_is_eager_minus_graph_round_by_round() -> None:
    eager, graph = (5.0, 6.0, 9.0, 5.5, 7.0), (3.0, 4.5, 6.5, 3.5, 5.2)
    samples = (Samples("eager", eager, 5.75, 5, 7), Samples("graph", graph, 4, 3, 5))
    cost = launch_cost(Timing(samples, {}, 4, "cuda_event", 1))
    assert cost is not None
    assert cost.value == pytest.approx(2.0)
    assert cost == median_interval(np.array(eager) - np.array(graph))
    assert launch_cost(Timing(samples[:1], {}, 4, "cuda_event", 1)) is None


def test_a_way_that_takes_too_long_to_prepare_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(call: Any) -> Any:
        time.sleep(20)
        return call

    monkeypatch.setattr(torch, "compile", slowly)
    result = time_modes(lambda: X @ W, modes=("eager", "compile"), budget_s=0.02, prepare_s=0.05)
    assert result.notes == ("compile not run: TooLongError: it takes longer than 0.05 s to prepare",)
    assert [s.name for s in result.timing.samples] == ["eager"]


@pytest.mark.slow
def test_the_real_compiler_agrees_with_eager() -> None:
    layer = nn.Sequential(nn.Linear(16, 16), nn.GELU())
    result = time_modes(lambda: layer(X), modes=["eager", "compile"], budget_s=0.1)
    assert result.notes == ()
    difference = result.differences["compile"]
    assert difference is not None
    assert difference < 1e-5
    assert result.prepare_seconds["compile"] > 0


@pytest.mark.gpu
@needs_gpu
def test_a_forward_pass_replays_to_the_same_output() -> None:
    layer = nn.Sequential(*(nn.Linear(64, 64) for _ in range(20))).cuda()
    x = torch.randn(8, 64, device="cuda")
    with torch.no_grad():
        result = time_modes(lambda: layer(x), device="cuda", modes=["eager", "graph"], budget_s=0.5)
    assert result.notes == ()
    difference = result.differences["graph"]
    assert difference is not None
    assert difference < 1e-6
    assert result.launch_seconds is not None


@pytest.mark.gpu
@needs_gpu
def test_a_training_step_replays() -> None:
    layer = nn.Linear(64, 64).cuda()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3, fused=True, capturable=True)
    x = torch.randn(8, 64, device="cuda")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        layer(x).square().mean().backward()
        optimizer.step()

    before = layer.weight.detach().clone()
    replay = capture(step)
    after_capture = layer.weight.detach().clone()
    replay()
    torch.cuda.synchronize()
    assert not torch.equal(before, after_capture)
    assert not torch.equal(after_capture, layer.weight)


@pytest.mark.gpu
@pytest.mark.slow
@needs_gpu
def test_what_cannot_be_captured_is_a_note() -> None:
    x = torch.randn(8, device="cuda")
    result = time_modes(lambda: x * float(x.sum().item()), device="cuda", modes=["eager", "graph"], budget_s=0.1)
    assert any(n.startswith("graph not run") for n in result.notes)
