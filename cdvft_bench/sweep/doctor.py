"""What this machine can and cannot measure."""

import importlib.metadata
import os
import shutil
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that a machine has or lacks.

    Attributes:
        what: the capability.
        available: whether it is there.
        detail: a version or size, or what is missing and how to supply it.
    """

    what: str
    available: bool
    detail: str


def _package(name: str, use: str) -> Finding:
    try:
        return Finding(name, True, f"{importlib.metadata.version(name)}: {use}")
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, f"{use}; install it with: pip install {name}")


def _gpu() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        build = torch.version.cuda or "none: this is a CPU build of torch"
        missing = f"no CUDA device is visible (CUDA of the torch build: {build}); GPU figures stay 'not measured'"
        return [Finding("GPU time, launches and memory", False, missing)]
    found = []
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        detail = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {properties.multi_processor_count} SMs"
        found.append(Finding(f"GPU {i}: time, launches and memory", True, detail))
    smi = shutil.which("nvidia-smi")
    energy = "read through nvidia-smi / NVML" if smi else "nvidia-smi is not on the PATH"
    return [*found, Finding("GPU energy", smi is not None, energy)]


def _half_fft() -> Finding:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.fft.rfft(torch.ones(8, dtype=torch.bfloat16, device=device))
    except RuntimeError:
        return Finding("bfloat16 FFT", False, f"torch has none on {device}: 16-bit layers take their FFTs in float32")
    return Finding("bfloat16 FFT", True, f"torch has one on {device}; the layers do not use it")


def _kernels() -> Finding:
    import torch

    from cdvft_bench.execution import native

    why = native.missing(torch.float32) or native.missing(torch.float64)
    return Finding("compiled CPU kernels (path native)", not why, why or native.described(torch.float32))


def examine() -> list[Finding]:
    """Look at this machine; nothing is timed, and nothing is written but kernels to the cache."""
    import torch

    from cdvft_bench.accuracy.training.models import package_status
    from cdvft_bench.counting.hardware import probe_hardware

    cores = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    findings = [
        Finding(
            "CPU time", True, f"{cores} logical cores, {memory:.0f} GiB, torch uses {torch.get_num_threads()} threads"
        ),
        Finding("CPU operator traces", torch.profiler.supported_activities() != set(), f"torch {torch.__version__}"),
        *_gpu(),
        _half_fft(),
        _kernels(),
        Finding(
            "compiled graphs",
            shutil.which("g++") is not None or shutil.which("c++") is not None,
            "torch.compile needs a C++ compiler on the PATH",
        ),
        _package("fvcore", "forward multiply-adds"),
        _package("peft", "LoRA, DoRA, FourierFT, C3A, VeRA, BOFT"),
        _package("transformers", "whole models"),
    ]
    findings += [Finding(c.name, c.available, c.reason) for c in probe_hardware()]
    findings += [Finding(f"model {s.name}", s.installed, s.detail) for s in package_status()]
    return findings
