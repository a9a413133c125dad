"""What the driver says, and what is made of it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cdvft_bench.core.errors import UserError
from cdvft_bench.timing import clock
from cdvft_bench.timing.clock import Contender, CudaClock, HostClock, Sampler, time_interleaved, warm_clock
from cdvft_bench.timing.joined import joined
from cdvft_bench.timing.machine import gpu
from cdvft_bench.timing.machine.gpu import GpuState, looking, parse_state, throttling
from cdvft_bench.timing.rounds import time_rounds
from tests.timing.fake_machine import FakeMachine

CUDA = torch.device("cuda", 0)


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "uuid", lambda device: "GPU-7")
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    monkeypatch.delenv(gpu.METER, raising=False)
    gpu._looking.cache_clear()


def test_a_cpu_is_not_asked() -> None:
    assert looking(torch.device("cpu"))() is None


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ([GpuState(1980, ()), GpuState(1950, ())], None),
        ([GpuState(1980, ()), GpuState(1500, ()), GpuState(1980, ())], "from 1980 to 1500 MHz"),
        ([GpuState(1980, ()), GpuState(1980, ("power cap",)), GpuState(1970, ())], "power cap"),
        ([GpuState(1980, ("power cap",)), GpuState(1980, ())], None),
        ([GpuState(0, ()), GpuState(1000, ())], None),
        ([GpuState(1000, ()), GpuState(1980, ())], None),
        ([GpuState(1000, ())], None),
        ([None, GpuState(1980, ()), None, GpuState(1400, ())], "from 1980 to 1400 MHz"),
        ([], None),
    ],
)
def test_throttling_is_a_drop_or_a_reason_in_any_round(states, said) -> None:
    warnings = list(throttling(states))
    assert warnings == [] if said is None else len(warnings) == 1 and said in warnings[0]


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        (["1980", "0x0000000000000000", "412.25"], GpuState(1980, (), 412.25)),
        (["1200", "0x0000000000000024", "1"], GpuState(1200, ("power cap", "thermal limit (software)"), 1.0)),
        (["1200", "0x0000000000000001", "[N/A]"], GpuState(1200, ())),  # idle is no slowdown
        (["[N/A]", "0x0", "3"], None),
        (["1200", "[Not Supported]", "3"], None),
        (["1200"], None),
        ([], None),
    ],
)
def test_fields_are_parsed(fields, state) -> None:
    assert parse_state(fields) == state


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_an_nvidia_smi_runs_along_and_its_newest_line_counts(tmp_path: Path, monkeypatch, one_gpu) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text(
        '#!/bin/sh\n[ "$2" = GPU-7 ] || exit 6\ncase "$3" in *event*) echo "no valid field"; exit 2 ;; esac\n'
        'echo "345, 0x1, 75.5"\n'
        f"while [ ! -e {tmp_path}/busy ]; do sleep 0.01; done\n"
        'echo "1980, 0x0000000000000004, 650.25"\nexec sleep 60\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    look = looking(CUDA)
    assert look() == GpuState(345, (), 75.5)
    (tmp_path / "busy").touch()
    until = time.monotonic() + 10
    while look() == GpuState(345, (), 75.5) and time.monotonic() < until:
        time.sleep(0.01)
    assert look() == GpuState(1980, ("power cap",), 650.25)
    assert looking(CUDA) is look  # one process a device
    monkeypatch.setattr(gpu, "uuid", lambda device: "GPU-8")
    gpu._looking.cache_clear()
    assert looking(CUDA)() is None
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    gpu._looking.cache_clear()
    assert looking(CUDA)() is None


def fake_nvml(watts: object) -> SimpleNamespace:
    def power(handle: str) -> int:
        if watts is None:
            raise RuntimeError("not supported")
        return int(1e3 * float(str(watts)))

    return SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: name,
        NVML_CLOCK_SM=1,
        nvmlDeviceGetClockInfo=lambda handle, kind: 1755,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 0x40,
        nvmlDeviceGetPowerUsage=power,
    )


@pytest.mark.parametrize("watts", [512.5, None])
def test_nvml_is_asked_first_and_can_be_left_out(monkeypatch: pytest.MonkeyPatch, one_gpu, watts) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(watts))
    monkeypatch.setenv("PATH", "/nowhere")
    state = GpuState(1755, ("thermal limit (hardware)",), watts)
    for way, found in (("", state), ("auto", state), ("nvml", state), ("nvidia-smi", None), ("none", None)):
        monkeypatch.setenv(gpu.METER, way)
        assert looking(CUDA)() == found, way
    monkeypatch.setenv(gpu.METER, "rocm")
    with pytest.raises(UserError, match="'rocm' is not known; use one of auto, nvml, nvidia-smi, none"):
        looking(CUDA)


def looks(monkeypatch: pytest.MonkeyPatch, *states: GpuState | None) -> None:
    given = iter(states)
    monkeypatch.setattr(clock, "looking", lambda place: lambda: next(given, states[-1]))


def test_clock_and_power_of_every_round_are_kept_and_a_throttled_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    looks(monkeypatch, GpuState(1980, (), 90.0), GpuState(1400, ("hardware slowdown",), 300.0))
    machine = FakeMachine()
    timing = time_interleaved([Contender("a", machine.work(3e-3))], timer=machine.now)
    assert any("throttled (hardware slowdown)" in w for w in timing.warnings)
    assert timing.clocks_mhz == (1400.0,) * timing.rounds
    assert timing.watts == (300.0,) * timing.rounds
    looks(monkeypatch, None)
    timing = time_interleaved([Contender("a", machine.work(3e-3))], timer=machine.now)
    assert timing.clocks_mhz == timing.watts == ()


def test_rounds_of_several_processes_keep_the_clocks_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine()
    contenders = [Contender("base", machine.work(3e-3)), Contender("dear", machine.work(60e-3))]  # joins one in four
    timing = None
    for mhz in (1980.0, 1410.0):
        looks(monkeypatch, GpuState(mhz, (), 2 * mhz))
        found = time_rounds(contenders, "base", timer=machine.now, budget_s=1.0, max_rounds=12)
        assert found.clocks_mhz == (mhz,) * len(found.seconds["base"])
        timing = joined(timing, found, "dear", "dear", {"base": "base"}, "g", 0.05)
    assert timing is not None
    first, second = timing.split
    assert first < len(found.clocks_mhz)
    assert timing.clocks_mhz == (1980.0,) * first + (1410.0,) * second
    assert timing.watts == (3960.0,) * first + (2820.0,) * second


def test_a_gpu_is_warmed_until_its_clock_rests() -> None:
    for clocks, spent in (
        ([345, 1500, 1970, 1980], 0.3),  # two looks of 1 %
        ([1980, 1980], 0.1),
        ([1980, 1900, 1950], 0.1),  # at a power cap it never stands still
        ([1980, 1400, 1390], 0.2),  # throttled: it falls on
        ([0, 0, 1980, 1980], 0.3),  # a driver that does not know yet
        ([None], 0.1),  # no meter: once
        ([float(100 * i) for i in range(1, 99)], 1.0),  # never rests
    ):
        machine = FakeMachine()
        given = iter(clocks)

        def look(given=given, last=clocks[-1]) -> GpuState | None:
            mhz = next(given, last)
            return None if mhz is None else GpuState(mhz, ())

        samplers = [Sampler(Contender("a", machine.work(1e-3)), HostClock(machine.now))]
        begun = machine.now()
        warm_clock(samplers, look, machine.now)
        assert machine.now() - begun == pytest.approx(spent, rel=0.1), clocks


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_has_a_clock_where_the_driver_speaks() -> None:
    state = looking(torch.device("cuda"))()
    assert state is None or state.clock_mhz > 0
    x = torch.randn(2048, 2048, device="cuda")
    samplers = [Sampler(Contender("product", lambda: x @ x), CudaClock())]
    warm_clock(samplers, looking(torch.device("cuda")), time.perf_counter)
