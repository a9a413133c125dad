"""What the NVIDIA driver says of a GPU: its clock, why it is slowed down, its power and energy.

Read through pynvml where it can be imported, else through the command nvidia-smi, else not at all:
nothing is claimed then. The GPU's settings are only read.
"""

from __future__ import annotations

import importlib
import subprocess
from dataclasses import dataclass
from typing import Any

import torch

CLOCK_DROP = 0.05  # relative drop of the clock that is worth a word
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
    """

    clock_mhz: float
    slowdowns: tuple[str, ...]


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


def query(name: str, fields: str) -> list[str] | None:
    """Ask nvidia-smi for comma-separated fields of the GPU of that uuid; None where it cannot say."""
    command = ["nvidia-smi", "-i", name, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return [part.strip() for part in done.stdout.splitlines()[0].split(",")] if done.stdout.strip() else None


def _named(mask: int) -> tuple[str, ...]:
    return tuple(reason for bit, reason in _SLOWDOWNS.items() if mask & bit)


def read_gpu(device: torch.device) -> GpuState | None:
    """Look at the GPU; None for a CPU or where neither pynvml nor nvidia-smi answers."""
    if device.type != "cuda":
        return None
    found = nvml(device)
    if found is not None:
        module, handle = found
        try:
            clock = float(module.nvmlDeviceGetClockInfo(handle, module.NVML_CLOCK_SM))
            return GpuState(clock, _named(int(module.nvmlDeviceGetCurrentClocksThrottleReasons(handle))))
        except Exception:  # a driver may refuse one of them
            return None
    name = uuid(device)
    return None if name is None else parse_state(query(name, "clocks.sm,clocks_throttle_reasons.active"))


def parse_state(fields: list[str] | None) -> GpuState | None:
    """State from nvidia-smi's clock in MHz and its hexadecimal mask of reasons; None where they are not given."""
    try:
        clock, mask = fields or []
        return GpuState(float(clock), _named(int(mask, 16)))
    except ValueError:
        return None


def throttling(before: GpuState, after: GpuState) -> str | None:
    """A warning where the clock dropped during a run or the driver held it back, else None."""
    drop = 1 - after.clock_mhz / before.clock_mhz if before.clock_mhz else 0.0
    if drop <= CLOCK_DROP and not after.slowdowns:
        return None
    reasons = f" ({', '.join(after.slowdowns)})" if after.slowdowns else ""
    clocks = f"from {before.clock_mhz:.0f} to {after.clock_mhz:.0f} MHz"
    return f"the GPU throttled{reasons}: its clock went {clocks} during the run"
