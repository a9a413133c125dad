"""Peak memory and energy of one call."""

import subprocess
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from cdvft_bench.core.timed import Energy, Memory
from cdvft_bench.tensors import plain_parts
from cdvft_bench.timing.machine.gpu import nvml, uuid
from cdvft_bench.timing.trace import record

_MARK = "cdvft_bench: measured call"
_GPUS_ONLY = "energy is read from NVIDIA GPUs only"
_NO_METER = "neither pynvml nor nvidia-smi says what the GPU takes; install nvidia-ml-py"
_CPU, _CUDA = 0, 1  # torch's numbers of device types


def peak_memory(call: Callable[[], object], device: str | torch.device = "cpu") -> Memory:
    """Peak bytes that tensors took during ``call``, above what was live before, and what its FFTs took for themselves.

    On a GPU the CUDA allocator says the peak, rounding each tensor up to its block size. On a CPU the
    allocations and frees that torch.profiler records are added up in order; what a library such as
    MKL allocates for itself is not seen. The profiler knows only blocks that were allocated while it
    ran, so the first call makes what the second frees (gradients of the step before, for one).
    """

    def twice() -> None:
        call()
        with torch.profiler.record_function(_MARK):
            call()

    if torch.device(device).type == "cuda":
        call()
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device) - before
        events = record(twice, device, shapes=False, memory=True)["traceEvents"]
        return Memory(peak, "cuda allocator", workspace_bytes=workspace_of(events, _CUDA))
    events = record(twice, shapes=False, memory=True)["traceEvents"]
    return Memory(peak_of(events), "profiler", workspace_bytes=workspace_of(events, _CPU))


def peak_of(events: Sequence[Any]) -> int:
    """Highest sum of allocations less frees in the marked range of a recorded trace, bytes; at least 0."""
    mark = next(e for e in events if e.get("name") == _MARK and e.get("cat") == "user_annotation")
    return _peak_and_rest(_changes(events, _CPU), mark)[0]


def workspace_of(events: Sequence[Any], device_type: int) -> int:
    """The most that one FFT operator allocated and gave back while it ran, bytes; 0 where there is no FFT.

    Args:
        events: of a trace recorded with memory.
        device_type: torch's number of the device whose memory counts: 0 a CPU, 1 CUDA.
    """
    changes = _changes(events, device_type)
    ffts = [e for e in events if e.get("cat") == "cpu_op" and str(e.get("name")).startswith("aten::_fft_")]
    found = (_peak_and_rest(changes, fft) for fft in ffts)
    return max((peak - max(rest, 0) for peak, rest in found), default=0)


def _changes(events: Sequence[Any], device_type: int) -> list[Any]:
    """Allocations and frees on a device, in time's order."""
    found = [e for e in events if e.get("name") == "[memory]" and e["args"].get("Device Type", 0) == device_type]
    return sorted(found, key=_time)


def _peak_and_rest(changes: Sequence[Any], within: Any) -> tuple[int, int]:
    """Highest (at least 0) and last sum of allocations less frees while an event lasted."""
    start = float(within["ts"])
    first = bisect_left(changes, start, key=_time)
    last = bisect_right(changes, start + float(within["dur"]), key=_time)
    sums = list(accumulate(int(change["args"]["Bytes"]) for change in changes[first:last])) or [0]
    return max(0, *sums), sums[-1]


def _time(event: Any) -> float:
    return float(event["ts"])


def tensor_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers, a storage that several share once."""
    parts = [part for t in (*module.parameters(), *module.buffers()) for part in plain_parts(t)]
    return sum({part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts}.values())


def optimizer_bytes(optimizer: torch.optim.Optimizer | None) -> int:
    """Bytes of an optimiser's state; 0 without one."""
    states = optimizer.state.values() if optimizer is not None else ()
    return sum(v.untyped_storage().nbytes() for state in states for v in state.values() if isinstance(v, Tensor))


# --- energy --------------------------------------------------------------------------------


def measure_energy(
    call: Callable[[], object], device: str | torch.device = "cuda", seconds: float = 2.0, warm_ups: int = 1
) -> Energy:
    """Make the call again and again for ``seconds`` and take the GPU's energy for it, idle power included.

    The driver's energy counter is read through pynvml where it is installed (GPUs since Volta);
    else nvidia-smi samples the power ten times a second; else there is no figure, and ``how`` says why.
    """
    place = torch.device(device)
    if place.type != "cuda":
        return Energy(None, _GPUS_ONLY)
    for _ in range(warm_ups):
        call()
    return _metered(lambda: _repeat(call, place, seconds), place) or Energy(None, _NO_METER)


def energy_while(call: Callable[[], object], device: str | torch.device = "cuda") -> Energy:
    """Make a call once, on a CPU too, and take the GPU's energy for it, idle power included.

    For calls of many seconds, such as a training. It is read as by :func:`measure_energy`; a reading that fails
    costs the figure, not the call.
    """
    place = torch.device(device)
    if place.type != "cuda":
        call()
        return Energy(None, _GPUS_ONLY)
    found = _metered(lambda: _repeat(call, place, 0.0), place)
    if found is None:
        call()
    return found or Energy(None, _NO_METER)


def _metered(run: Callable[[], tuple[int, float]], place: torch.device) -> Energy | None:
    """Energy a call of ``run``, which returns its calls and how long they took; None, without a run, if no meter is."""
    torch.cuda.synchronize(place)
    counter = _counter(place)
    if counter is not None:
        before = counter()
        calls, lasted = run()
        after = counter()
        if before is None or after is None or after <= before:
            return Energy(
                None, "the driver's energy counter did not move, or could not be read again", calls, lasted / calls
            )
        return Energy((after - before) / 1e3 / calls, "NVML energy counter", calls, lasted / calls)
    sampler = _sample_power(uuid(place))
    if sampler is None:
        return None
    try:
        calls, lasted = run()
    finally:
        watts = _end_sampling(sampler)
    if not watts:
        return Energy(None, "nvidia-smi gave no power figure")
    return Energy(mean(watts) * lasted / calls, f"nvidia-smi power, {len(watts)} samples", calls, lasted / calls)


def _counter(place: torch.device) -> Callable[[], int | None] | None:
    """Reads the driver's energy counter in millijoules; None where there is none, as on GPUs before Volta."""
    found = nvml(place)
    if found is None:
        return None
    module, handle = found

    def read() -> int | None:
        try:
            return int(module.nvmlDeviceGetTotalEnergyConsumption(handle))
        except module.NVMLError:
            return None

    return read if read() is not None else None


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
