"""Rates of a GPU, on one that is emulated."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cdvft_bench.execution.rates import measured
from tests.timing.fake_cuda import install
from tests.timing.fake_machine import FakeMachine


def test_on_a_gpu_calls_are_many_in_a_row_and_go_round_more_than_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that charges a launch to every event pair, and a cache of 64 KiB."""
    install(monkeypatch)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *a: SimpleNamespace(L2_cache_size=2**16))
    machine = FakeMachine()

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.at = 0.0

        def record(self) -> None:
            machine.seconds += 2e-6
            self.at = machine.now()

        def elapsed_time(self, other: Any) -> float:
            return 1e3 * (other.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    bench = measured._Bench(torch.device("cpu"), replace(measured.GPU, point_s=0.0, calls=2))
    bench.gpu = True
    sets = bench.turns(lambda: (torch.zeros(64, 32),))  # 8 KiB each
    assert len(sets) == 1 + 2 * 2**16 // 2**13
    seen: list[int] = []

    def call(x: torch.Tensor) -> None:
        seen.append(x.data_ptr())
        machine.seconds += 3e-6

    assert bench.seconds(call, sets) == pytest.approx(3e-6, rel=0.01)
    assert seen[: 2 * len(sets)] == [x.data_ptr() for (x,) in sets] * 2
    bench.gpu = False
    assert len(bench.turns(lambda: (torch.zeros(4),))) == 1
