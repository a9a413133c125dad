"""Peak memory with known answers; energy without a GPU."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cdvft_bench.timing.machine import memory
from cdvft_bench.timing.machine.memory import energy_while, measure_energy, peak_memory

MIB = 2**20


def mib() -> torch.Tensor:
    return torch.empty(MIB, dtype=torch.uint8)


def test_two_tensors_at_once_are_two() -> None:
    def call() -> None:
        first, second = mib(), mib()
        del first, second

    result = peak_memory(call)
    assert result.peak_bytes == 2 * MIB
    assert result.how == "profiler"


def test_two_tensors_one_after_the_other_are_one() -> None:
    def call() -> None:
        first = mib()
        del first
        second = mib()
        del second

    assert peak_memory(call).peak_bytes == MIB


def test_results_count_and_what_was_live_before_does_not() -> None:
    before = [mib() for _ in range(3)]
    assert peak_memory(lambda: before[0].clone()).peak_bytes == MIB
    assert peak_memory(lambda: before[0].view(2, -1)).peak_bytes == 0


def test_what_the_call_before_left_is_not_counted_twice() -> None:
    x = torch.randn(MIB // 4, requires_grad=True)
    seed = torch.randn_like(x)

    def step() -> None:
        x.grad = None  # frees 1 MiB that the call before allocated
        (x * 2).backward(seed)

    # The output and the gradient of x, each 1 MiB, less the old gradient.
    assert peak_memory(step).peak_bytes <= MIB + 4096


def test_an_intermediate_adds_to_the_peak() -> None:
    x = torch.randn(MIB // 4)
    assert peak_memory(lambda: x.double().exp().float()).peak_bytes == 4 * MIB


def test_an_fft_s_own_memory_is_told_from_its_result() -> None:
    x = torch.randn(8, 64)
    half = torch.fft.rfft2(x)
    assert peak_memory(lambda: torch.fft.rfft(x)).workspace_bytes == 0  # what MKL takes, torch does not see
    inverse = peak_memory(lambda: torch.fft.irfft2(half, s=(8, 64)))
    assert inverse.workspace_bytes == half.numel() * 8  # it destroys its input, so it works on a copy
    assert peak_memory(lambda: x * 2).workspace_bytes == 0


def test_a_plan_s_workspace_on_a_gpu() -> None:
    """A hand-made trace: the operator takes 4 MiB for its result and 3 for the plan, which it gives back."""

    def memory_event(ts: float, size: int, device: int = 1) -> dict[str, Any]:
        return {"ph": "i", "name": "[memory]", "ts": ts, "args": {"Device Type": device, "Bytes": size}}

    fft = {"ph": "X", "cat": "cpu_op", "name": "aten::_fft_r2c", "ts": 10, "dur": 10}
    changes = [
        memory_event(1, 7 * MIB),
        memory_event(11, 4 * MIB),
        memory_event(12, 3 * MIB),
        memory_event(13, 9 * MIB, device=0),
        memory_event(14, -3 * MIB),
        memory_event(25, 8 * MIB),
    ]
    assert memory.workspace_of([fft, *changes], 1) == 3 * MIB
    assert memory.workspace_of([fft, *changes], 0) == 0  # kept, so a result
    assert memory.workspace_of(changes, 1) == 0


def test_what_a_method_keeps_is_counted_once_a_storage() -> None:
    layer = torch.nn.Linear(8, 8)
    twin = torch.nn.Linear(8, 8)
    twin.weight = layer.weight
    twin.register_buffer("table", torch.zeros(16))
    assert memory.tensor_bytes(torch.nn.Sequential(layer, twin)) == 4 * (64 + 8 + 8 + 16)
    optimizer = torch.optim.AdamW([layer.bias])
    assert memory.optimizer_bytes(optimizer) == memory.optimizer_bytes(None) == 0
    layer(torch.ones(8)).sum().backward()
    optimizer.step()
    assert memory.optimizer_bytes(optimizer) == 4 * (8 + 8 + 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_plan_s_workspace() -> None:
    x = torch.randn(64, 4099, device="cuda")  # a prime length: cuFFT needs a workspace
    workspace = peak_memory(lambda: torch.fft.rfft(x), "cuda").workspace_bytes
    assert workspace is not None
    assert workspace > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_cuda_allocator_says_the_same() -> None:
    result = peak_memory(lambda: [torch.empty(2 * MIB, dtype=torch.uint8, device="cuda") for _ in range(2)], "cuda")
    assert result.peak_bytes == 4 * MIB
    assert result.how == "cuda allocator"


def test_a_cpu_has_no_energy_figure_and_says_so() -> None:
    calls = []
    energy = measure_energy(lambda: calls.append(1), "cpu")
    assert energy.joules is None
    assert "NVIDIA" in energy.how
    assert calls == []
    assert energy_while(lambda: calls.append(2), "cpu").joules is None
    assert calls == [2]  # it is made all the same


# A stand-in for the GPU: synchronising does nothing, the driver's answers are made up.


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(memory, "uuid", lambda device: "GPU-0")
    monkeypatch.setattr(memory, "nvml", lambda device: None)


def test_the_energy_counter_is_divided_by_the_calls(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counter:
        NVMLError = RuntimeError
        millijoules = 5000

        def nvmlDeviceGetTotalEnergyConsumption(self, handle: object) -> int:  # noqa: N802
            return self.millijoules

    counter = Counter()

    def call() -> None:
        counter.millijoules += 250

    monkeypatch.setattr(memory, "nvml", lambda device: (counter, object()))
    energy = measure_energy(call, "cuda", seconds=0.01, warm_ups=2)
    assert energy.joules == pytest.approx(0.25)
    assert energy.how == "NVML energy counter"
    assert energy.calls > 0
    before = counter.millijoules
    assert energy_while(call, "cuda").joules == pytest.approx(0.25)
    assert counter.millijoules == before + 250  # one call
    unmoved = energy_while(lambda: None, "cuda")
    assert unmoved.joules is None
    assert "did not move" in unmoved.how

    def break_it() -> None:
        counter.nvmlDeviceGetTotalEnergyConsumption = broken  # type: ignore[method-assign]

    def broken(handle: object) -> int:
        raise RuntimeError("gone")

    lost = energy_while(break_it, "cuda")
    assert (lost.joules, lost.calls) == (None, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_sampled_power_is_multiplied_by_time(gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    said = tmp_path / "said"
    script.write_text(f"#!/bin/sh\nwhile true; do echo 300.0; echo '[N/A]'; touch {said}; sleep 0.01; done\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def call() -> None:
        while not said.exists():
            time.sleep(0.001)

    energy = measure_energy(call, "cuda", seconds=0.02, warm_ups=0)
    assert energy.joules == pytest.approx(300 * energy.seconds)
    assert "nvidia-smi" in energy.how


def test_without_a_driver_there_is_no_energy_figure(gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    energy = measure_energy(lambda: None, "cuda", seconds=0.01)
    assert energy.joules is None
    assert "nvidia-ml-py" in energy.how
    calls: list[int] = []
    assert energy_while(lambda: calls.append(1), "cuda").how == energy.how
    assert calls == [1]
