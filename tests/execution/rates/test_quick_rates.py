"""Rates of a CPU that nobody calibrated: its own, measured once, and never those of another."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cdvft_bench.core.io.caches import cache_folder
from cdvft_bench.counting.dispatch import count_dispatch
from cdvft_bench.execution import native, planner
from cdvft_bench.execution.native import kernels
from cdvft_bench.execution.paths import FastCDVFTLinear
from cdvft_bench.execution.planner import BUILT_IN, device_rates, pick_for
from cdvft_bench.execution.rates import measured, quick
from cdvft_bench.execution.rates.measured import Effort
from cdvft_bench.timing.clock import fixed_threads

BRIEF = Effort(point_s=1e-4, calls=1, repeats=1, rows=(16, 128), traffic=(4, 64), largest=1e6)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A machine that was never calibrated; yields one entry for each time that it is measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CDVFT_BENCH_RATES", raising=False)
    monkeypatch.setattr(quick, "QUICK", BRIEF)
    monkeypatch.setattr(native, "missing", lambda dtype: "not here")  # nothing is to be compiled
    monkeypatch.setattr(kernels, "missing", lambda dtype: "not here")
    right, times = measured.measure, list[Any]()
    monkeypatch.setattr(quick, "measure", lambda *arguments: times.append(arguments) or right(*arguments))
    _forget()
    yield times
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    for cached in (quick.quick_rates, planner._pick_for, planner._pick, planner._read_rates):
        cached.cache_clear()


def test_they_are_measured_once_a_machine(fresh: list[Any]) -> None:
    first = device_rates("cpu")
    assert "measured" in first.source
    assert first.threads == torch.get_num_threads()
    assert all(0 < share <= 1 for _, share in first.fft_primes)
    _forget()
    assert device_rates("cpu") == first
    assert len(fresh) == 1
    with fixed_threads(3):
        assert device_rates("cpu").threads == 3
    assert len(fresh) == 2
    assert device_rates("cuda") is BUILT_IN["cuda"]


def test_other_kernels_are_measured_anew(fresh: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an update, for another $CDVFT_BENCH_TARGET, or where a compiler was installed meanwhile."""
    device_rates("cpu")
    monkeypatch.setattr(quick.native, "described", lambda dtype: "others")
    _forget()
    device_rates("cpu")
    assert len(fresh) == 2


@pytest.mark.parametrize("text", ["", "{", "{}", "[]"])
def test_a_damaged_file_is_measured_anew(fresh: list[Any], text: str) -> None:
    right = device_rates("cpu")
    quick.quick_path(torch.get_num_threads()).write_text(text)
    _forget()
    assert device_rates("cpu").source == right.source
    assert len(fresh) == 2


def test_those_of_a_busy_machine_are_measured_anew_later(fresh: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = quick.quick_path(torch.get_num_threads()), time.time()
    monkeypatch.setattr(time, "thread_time", lambda: time.perf_counter() / 2)  # half of the time went to others
    assert device_rates("cpu").notes == ("other work took the CPU meanwhile",)
    _forget()
    device_rates("cpu")
    assert len(fresh) == 1
    os.utime(path, (now - 700, now - 700))
    monkeypatch.setattr(time, "thread_time", time.perf_counter)
    _forget()
    assert device_rates("cpu").notes == ()
    os.utime(path, (now - 7000, now - 7000))
    _forget()
    device_rates("cpu")
    assert len(fresh) == 2


def test_another_cpu_s_are_not_taken(fresh: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick ones lie elsewhere, calibrated ones say of which CPU they are: a home may be shared."""
    device_rates("cpu")
    document = {**BUILT_IN["cpu"].to_json(), "source": "measured", "cpu": measured.this_cpu()}
    path = cache_folder() / "rates.json"
    path.write_text(json.dumps(document))
    assert device_rates("cpu").source == "measured"
    path.write_text(json.dumps({**document, "cpu": "another"}))
    assert device_rates("cpu").source != "measured"
    monkeypatch.setenv("CDVFT_BENCH_RATES", str(path))
    _forget()
    assert device_rates("cpu").source == "measured"  # named by the user
    monkeypatch.delenv("CDVFT_BENCH_RATES")
    _forget()
    monkeypatch.setattr(measured.build, "this_cpu", lambda: "another machine")
    device_rates("cpu")
    assert len(fresh) == 2


def test_a_cache_that_is_not_to_be_written(fresh: list[Any], tmp_path: Path) -> None:
    (tmp_path / "cdvft_bench").write_text("a file where the folder should be")
    assert "measured" in device_rates("cpu").source
    assert "measured" in device_rates("cpu").source
    assert len(fresh) == 1  # kept by the process, at least


def test_a_layer_that_plans_first_is_not_disturbed(fresh: list[Any]) -> None:
    """Neither modes nor random numbers of the caller see the measurement, nor does it see theirs."""
    torch.manual_seed(3)
    layer = FastCDVFTLinear(nn.Linear(32, 32), "auto", init="random")
    x = torch.randn(4, 32, requires_grad=True)
    state = torch.get_rng_state()
    with count_dispatch() as first, torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x)
    assert len(fresh) == 1
    assert torch.equal(torch.get_rng_state(), state)
    with count_dispatch() as second, torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x)
    assert first.result() == second.result()
    _forget()
    with torch.inference_mode(), torch.device("meta"):
        assert pick_for(planner.Problem(32, 32, 32, tokens=4))
