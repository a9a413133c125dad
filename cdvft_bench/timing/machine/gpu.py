"""What the NVIDIA driver says of a GPU: its clock, why it is slowed down, its power and energy.

Read through pynvml where it can be imported, else through the command nvidia-smi, else not at all:
nothing is claimed then. The GPU's settings are only read.
"""

import atexit
import contextlib
import importlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from cdvft_bench.core.errors import UserError

CLOCK_DROP = 0.05  # relative drop of the clock that is worth a word
METER = "CDVFT_BENCH_GPU_METER"
"""Environment variable that says how a GPU's clock and power are read: nvml, nvidia-smi or none; auto where unset."""
METERS = ("auto", "nvml", "nvidia-smi", "none")
EVERY_MS = 100
"""Milliseconds between two lines of an nvidia-smi that runs along."""
FIRST_LINE_S = 3.0
_FIELDS = ("clocks.sm,clocks_event_reasons.active,power.draw", "clocks.sm,clocks_throttle_reasons.active,power.draw")
"""What nvidia-smi is asked for: as drivers call it since 2023, and as they did before."""
# Bits of the driver's clock event reasons that mean less speed than asked for.
_SLOWDOWNS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal limit (software)",
    0x40: "thermal limit (hardware)",
    0x80: "power brake",
}


@dataclass(frozen=True)
class GpuState:
    """One look at a GPU.

    Attributes:
        clock_mhz: clock of the multiprocessors.
        slowdowns: why the driver holds it back at this moment.
        watts: what the device takes; None where the driver does not say.
    """

    clock_mhz: float
    slowdowns: tuple[str, ...]
    watts: float | None = None


Look = Callable[[], GpuState | None]
"""Looks at a GPU; None where nothing answers."""


def uuid(device: torch.device) -> str | None:
    """The driver's name of a CUDA device, which CUDA_VISIBLE_DEVICES does not renumber; None unknown."""
    found = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    if found is None:
        return None
    text = str(found)
    return text if text.startswith("GPU-") else f"GPU-{text}"


def nvml(device: torch.device) -> tuple[Any, Any] | None:
    """pynvml and its handle of the device, or None where either is not available."""
    name = uuid(device)
    try:
        module = importlib.import_module("pynvml")
        module.nvmlInit()
        return (module, module.nvmlDeviceGetHandleByUUID(name)) if name is not None else None
    except Exception:  # not installed, no driver library, no permission: all mean "not available"
        return None


def meter() -> str:
    """How a GPU is to be read.

    Raises:
        UserError: the environment variable names no such way.
    """
    text = os.environ.get(METER, "").strip() or "auto"
    if text not in METERS:
        raise UserError(f"{METER} = {text!r} is not known; use one of {', '.join(METERS)}")
    return text


@lru_cache(maxsize=8)
def _looking(device: torch.device, way: str) -> Look:
    found = nvml(device) if way in ("auto", "nvml") else None
    if found is not None and (look := _nvml_look(*found))() is not None:
        return look
    name = uuid(device)
    for fields in _FIELDS if way in ("auto", "nvidia-smi") and name is not None else ():
        if (along := _along(str(name), fields)) is not None:
            return along
    return lambda: None


def looking(device: torch.device) -> Look:
    """What looks at a device again and again, in little time.

    Through NVML a look is of this moment; an nvidia-smi that runs along says it ten times a second.

    Raises:
        UserError: see :func:`meter`.
    """
    way = meter()
    return (lambda: None) if device.type != "cuda" else _looking(device, way)


def _nvml_look(module: Any, handle: Any) -> Look:
    def look() -> GpuState | None:
        try:
            clock = float(module.nvmlDeviceGetClockInfo(handle, module.NVML_CLOCK_SM))
            mask = int(module.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        except Exception:  # a driver may refuse one of them
            return None
        watts = None
        with contextlib.suppress(Exception):
            watts = float(module.nvmlDeviceGetPowerUsage(handle)) / 1e3
        return GpuState(clock, _named(mask), watts)

    return look


def _along(name: str, fields: str) -> Look | None:
    """Start an nvidia-smi that runs along; what gives its newest line, or None where it says nothing."""
    command = ["nvidia-smi", "-i", name, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        process = subprocess.Popen(
            [*command, "-lms", str(EVERY_MS)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return None
    newest: list[GpuState | None] = [None]
    begun = threading.Event()

    def follow() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            newest[0] = parse_state([part.strip() for part in line.split(",")])
            begun.set()
        newest[0] = None  # it ended: its last word is not of now
        begun.set()

    threading.Thread(target=follow, daemon=True).start()
    atexit.register(process.kill)
    begun.wait(FIRST_LINE_S)
    if newest[0] is None:
        process.kill()
        return None
    return lambda: newest[0]


def _named(mask: int) -> tuple[str, ...]:
    return tuple(reason for bit, reason in _SLOWDOWNS.items() if mask & bit)


def parse_state(fields: Sequence[str]) -> GpuState | None:
    """State from nvidia-smi's clock in MHz, its hexadecimal mask of reasons and its watts; None without the first two.

    Watts that are no number ("[N/A]") are None.
    """
    try:
        clock, mask, watts = fields
        state = GpuState(float(clock), _named(int(mask, 16)))
    except ValueError:
        return None
    with contextlib.suppress(ValueError):
        return GpuState(state.clock_mhz, state.slowdowns, float(watts))
    return state


def clocks_of(states: Sequence[GpuState | None]) -> tuple[float, ...]:
    """The GPU's clock [MHz] after every round; empty where one could not be read."""
    found = tuple(state.clock_mhz for state in states if state is not None)
    return found if len(found) == len(states) else ()


def watts_of(states: Sequence[GpuState | None]) -> tuple[float, ...]:
    """The GPU's power [W] after every round; empty where one could not be read."""
    found = tuple(state.watts for state in states if state is not None and state.watts is not None)
    return found if len(found) == len(states) else ()


def throttling(states: Sequence[GpuState | None]) -> Iterator[str]:
    """A warning where the clock dropped from the first of some looks or the driver held it back later."""
    known = [state for state in states if state is not None]
    if len(known) < 2:
        return
    first, lowest = known[0], min(known[1:], key=lambda state: state.clock_mhz)
    drop = 1 - lowest.clock_mhz / first.clock_mhz if first.clock_mhz else 0.0
    held = dict.fromkeys(reason for state in known[1:] for reason in state.slowdowns)
    if drop > CLOCK_DROP or held:
        reasons = f" ({', '.join(held)})" if held else ""
        clocks = f"from {first.clock_mhz:.0f} to {lowest.clock_mhz:.0f} MHz"
        yield f"the GPU throttled{reasons}: its clock went {clocks} during the run"
