"""Peak memory and energy of one call."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

import torch

from cdvft_bench.timing.chrome import record
from cdvft_bench.timing.gpu import nvml, uuid
from cdvft_bench.timing.result import Energy, Memory

_MARK = "cdvft_bench: measured call"


def peak_memory(call: Callable[[], object], device: str | torch.device = "cpu") -> Memory:
    """Peak bytes that tensors took during ``call``, above what was live before; the call is made twice.

    On a GPU the CUDA allocator says it, rounding each tensor up to its block size. On a CPU the
    allocations and frees that torch.profiler records are added up in order; what a library such as
    MKL allocates for itself is not seen. The profiler knows only blocks that were allocated while it
    ran, so the first call makes what the second frees (gradients of the step before, for one).
    """
    if torch.device(device).type == "cuda":
        call()
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return Memory(torch.cuda.max_memory_allocated(device) - before, "cuda allocator")

    def twice() -> None:
        call()
        with torch.profiler.record_function(_MARK):
            call()

    return Memory(peak_of(record(twice, shapes=False, memory=True)["traceEvents"]), "profiler")


def peak_of(events: Sequence[Any]) -> int:
    """Highest sum of allocations less frees in the marked range of a recorded trace, bytes; at least 0."""
    marks = [e for e in events if e.get("name") == _MARK and e.get("cat") == "user_annotation"]
    start, end = float(marks[0]["ts"]), float(marks[0]["ts"]) + float(marks[0]["dur"])
    changes = [
        e
        for e in events
        if e.get("name") == "[memory]" and not e["args"].get("Device Type") and start <= float(e["ts"]) <= end
    ]
    live = peak = 0
    for change in sorted(changes, key=lambda e: float(e["ts"])):
        live += int(change["args"]["Bytes"])
        peak = max(peak, live)
    return peak


# --- energy --------------------------------------------------------------------------------


def energy_per_call(call: Callable[[], object], device: str | torch.device = "cuda") -> float | None:
    """Joules that the GPU takes for one call; None where they cannot be read, see :func:`measure_energy`."""
    return measure_energy(call, device).joules


def measure_energy(
    call: Callable[[], object], device: str | torch.device = "cuda", seconds: float = 2.0, warm_ups: int = 1
) -> Energy:
    """Make the call again and again for ``seconds`` and take the GPU's energy for it, idle power included.

    The driver's energy counter is read through pynvml where it is installed (GPUs since Volta);
    else nvidia-smi samples the power ten times a second; else there is no figure, and ``how`` says why.
    """
    place = torch.device(device)
    if place.type != "cuda":
        return Energy(None, "energy is read from NVIDIA GPUs only")
    for _ in range(warm_ups):
        call()
    torch.cuda.synchronize(place)
    found = nvml(place)
    if found is not None:
        module, handle = found
        try:
            before = int(module.nvmlDeviceGetTotalEnergyConsumption(handle))
            calls, lasted = _repeat(call, place, seconds)
            joules = (int(module.nvmlDeviceGetTotalEnergyConsumption(handle)) - before) / 1e3
            return Energy(joules / calls, "NVML energy counter", calls, lasted / calls)
        except module.NVMLError:  # an older GPU has no counter; its power is sampled instead
            pass
    sampler = _sample_power(uuid(place))
    if sampler is None:
        return Energy(None, "neither pynvml nor nvidia-smi says what the GPU takes; install nvidia-ml-py")
    try:
        calls, lasted = _repeat(call, place, seconds)
    finally:
        watts = _end_sampling(sampler)
    if not watts:
        return Energy(None, "nvidia-smi gave no power figure")
    return Energy(mean(watts) * lasted / calls, f"nvidia-smi power, {len(watts)} samples", calls, lasted / calls)


def _repeat(call: Callable[[], object], place: torch.device, seconds: float) -> tuple[int, float]:
    """Call for at least ``seconds``; returns the calls and how long they took."""
    calls, start = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - start < seconds:
        call()
        calls += 1
        if calls % 16 == 0:
            torch.cuda.synchronize(place)  # else the host would queue far more than ``seconds`` of work
    torch.cuda.synchronize(place)
    return calls, time.perf_counter() - start


def _sample_power(name: str | None) -> subprocess.Popen[str] | None:
    command = ["nvidia-smi", "-i", str(name), "--query-gpu=power.draw", "--format=csv,noheader,nounits", "-lms", "100"]
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) if name else None
    except OSError:
        return None


def _end_sampling(sampler: subprocess.Popen[str]) -> list[float]:
    sampler.terminate()
    text, _ = sampler.communicate()
    watts = []
    for line in text.splitlines():
        try:
            watts.append(float(line))
        except ValueError:  # the last line may be cut off, and some GPUs say "[N/A]"
            continue
    return watts
