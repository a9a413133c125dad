"""What the driver says, and what is made of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from cdvft_bench.timing import clock
from cdvft_bench.timing.clock import Contender, time_interleaved
from cdvft_bench.timing.machine.gpu import GpuState, parse_state, query, read_gpu, throttling
from tests.timing.fake_machine import FakeMachine


def test_a_cpu_is_not_asked() -> None:
    assert read_gpu(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (GpuState(1980, ()), GpuState(1950, ()), None),
        (GpuState(1980, ()), GpuState(1500, ()), "from 1980 to 1500 MHz"),
        (GpuState(1980, ()), GpuState(1980, ("power cap",)), "power cap"),
        (GpuState(0, ()), GpuState(1000, ()), None),
        (GpuState(1000, ()), GpuState(1980, ()), None),
    ],
)
def test_throttling_is_a_drop_or_a_reason(before, after, said) -> None:
    warning = throttling(before, after)
    assert warning is None if said is None else warning is not None and said in warning


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        (["1980", "0x0000000000000000"], GpuState(1980, ())),
        (["1200", "0x0000000000000024"], GpuState(1200, ("power cap", "thermal limit (software)"))),
        (["1200", "0x0000000000000001"], GpuState(1200, ())),  # idle is no slowdown
        (["[N/A]", "0x0"], None),
        (["1200", "[Not Supported]"], None),
        (["1200"], None),
        (None, None),
    ],
)
def test_fields_are_parsed(fields, state) -> None:
    assert parse_state(fields) == state


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_nvidia_smi_is_asked_for_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text('#!/bin/sh\n[ "$2" = GPU-7 ] && echo "1980, 0x0000000000000004" || exit 6\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert query("GPU-7", "clocks.sm,clocks_throttle_reasons.active") == ["1980", "0x0000000000000004"]
    assert query("GPU-8", "clocks.sm") is None
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert query("GPU-7", "clocks.sm") is None


def test_a_throttled_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([GpuState(1980, ()), GpuState(1400, ("hardware slowdown",))])
    monkeypatch.setattr(clock, "read_gpu", lambda place: next(states))
    machine = FakeMachine()
    timing = time_interleaved([Contender("a", machine.work(3e-3))], timer=machine.now)
    assert any("throttled (hardware slowdown)" in w for w in timing.warnings)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_has_a_clock_where_the_driver_speaks() -> None:
    state = read_gpu(torch.device("cuda"))
    assert state is None or state.clock_mhz > 0
