"""Floating-point counters of the hardware itself, where a machine has them and lets them be read.

A CPU's are read by the command ``perf stat``, an NVIDIA GPU's by ``ncu`` (Nsight Compute). Both
count what was executed, whoever wrote the code: an FFT inside a vendor's library too. Where they
cannot be read the answer is None, and :func:`probe_hardware` says why; no figure takes its place.

Both count retired work, so a library's own choices (a wider vector with unused lanes, a
recomputed product) are in it. A fused multiply-add counts as two.
"""

import csv
import math
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CPU = "CPU floating-point operations (perf)"
GPU = "GPU floating-point instructions (ncu)"

_TIMEOUT = 600  # s
_EVENTS_A_RUN = 3  # a core may have four counters, of which the kernel's watchdog holds one
_TRIAL = 100_000  # additions of the programs that try the counters

# Operations an event stands for; the processor itself counts a fused multiply-add twice.
_INTEL_WIDTHS = {
    "": {"scalar_single": 1, "scalar_double": 1, "128b_packed_double": 2, "128b_packed_single": 4},
    "avx": {"256b_packed_double": 4, "256b_packed_single": 8},
    "avx512f": {"512b_packed_double": 8, "512b_packed_single": 16},
}  # by the processor flag that a width needs
_AMD_EVENTS = {"fp_ret_sse_avx_ops.all": 1}

GPU_METRICS = {
    f"sm__sass_thread_inst_executed_op_{precision}{operation}_pred_on.sum": flops
    for precision in "fd"
    for operation, flops in {"add": 1, "mul": 1, "fma": 2}.items()
}
"""ncu's metrics of float32 and float64 work and the operations an instruction stands for. Half precision
(two numbers an instruction) and tensor cores are not among them."""


class CounterError(RuntimeError):
    """The counters cannot be read; the message holds the tool's own words."""


@dataclass(frozen=True)
class HardwareCounter:
    """One kind of counter on this machine.

    Attributes:
        name: what is counted, and by which tool.
        available: it was tried and counted a known program plausibly.
        reason: the tool and events used, or why there is none.
    """

    name: str
    available: bool
    reason: str


def probe_hardware() -> list[HardwareCounter]:
    """Try every counter on a small program: a second for the CPU, half a minute for a GPU. Tried once a process."""
    return [probe_perf(), probe_ncu()]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            list(command), capture_output=True, text=True, timeout=_TIMEOUT, env={**os.environ, "LC_ALL": "C"}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CounterError(f"{command[0]} did not run: {error}") from error


def _words(text: str, lines: int = 3) -> str:
    said = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return "; ".join(said[:lines]) or "nothing"


def _check_finished(run: subprocess.CompletedProcess[str], log: str = "") -> None:
    if run.returncode:
        said = f"{log}\n{run.stderr}".strip()[-2000:]
        raise RuntimeError(f"the program under the counters ended with {run.returncode}:\n{said}")


def _program(setup: str, script: str, repeats: int) -> str:
    return (
        f"{setup}\nfor _ in range({repeats}):\n{textwrap.indent(textwrap.dedent(script).strip() or 'pass', '    ')}\n"
    )


# --- CPU: perf stat -----------------------------------------------------------------------


@dataclass(frozen=True)
class EventCount:
    """One event as perf reported it.

    Attributes:
        value: the count, or None where perf has none.
        share: part of the time that the event was on a counter; below 1 perf has extrapolated.
        said: perf's word for a missing count, e.g. "<not supported>".
    """

    value: float | None
    share: float
    said: str = ""


def flop_events(cpuinfo: str | None = None) -> dict[str, int]:
    """Events that together hold every SSE and AVX operation, with operations an event; empty if none are known.

    Args:
        cpuinfo: text of /proc/cpuinfo; read from this machine when None.
    """
    if cpuinfo is None:
        path = Path("/proc/cpuinfo")
        cpuinfo = path.read_text(encoding="utf-8") if path.exists() else ""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    if fields.get("vendor_id") == "AuthenticAMD":
        return dict(_AMD_EVENTS)
    if fields.get("vendor_id") != "GenuineIntel":
        return {}
    flags = {"", *fields.get("flags", "").split()}
    return {
        f"fp_arith_inst_retired.{name}": flops
        for flag, widths in _INTEL_WIDTHS.items()
        if flag in flags
        for name, flops in widths.items()
    }


def parse_perf(text: str) -> dict[str, EventCount]:
    """Events by name from ``perf stat -x ";"``; counts of one event on several units are added.

    Raises:
        CounterError: the text holds no event.
    """
    found: dict[str, EventCount] = {}
    for line in text.splitlines():
        fields = line.split(";")
        if line.startswith("#") or len(fields) < 5:
            continue
        counted = not fields[0].startswith("<")
        name = fields[2].removesuffix(":u")
        new = EventCount(
            float(fields[0]) if counted else None, float(fields[4] or 100) / 100, "" if counted else fields[0]
        )
        old = found.get(name)
        if old is not None:
            value = None if old.value is None or new.value is None else old.value + new.value
            new = EventCount(value, min(old.share, new.share), old.said or new.said)
        found[name] = new
    if not found:
        raise CounterError(f"perf reported no event: {_words(text)}")
    return found


def read_events(command: Sequence[str], events: Sequence[str]) -> dict[str, EventCount]:
    """Run a command under perf and read events of its user-mode work, threads and children included.

    Raises:
        CounterError: perf is missing, or refuses to count.
        RuntimeError: the command itself fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "perf.csv"
        named = ",".join(f"{event}:u" for event in events)
        run = _run(["perf", "stat", "-x", ";", "-o", str(log), "-e", named, "--", *command])
        text = log.read_text(encoding="utf-8") if log.exists() else ""
    if not any(";" in line for line in text.splitlines()):
        raise CounterError(f"perf does not count {', '.join(events)}; it says: {_words(run.stderr)}")
    _check_finished(run)
    return parse_perf(text)


def measure_flops(command: Sequence[str]) -> float:
    """Float32 and float64 operations of a command, scalar or vector; x87 and matrix units are not in it.

    The command runs as often as its events need counters, so it should do the same work each time.

    Raises:
        CounterError: this machine's counters cannot be read, or were read for part of the time only.
        RuntimeError: the command itself fails.
    """
    weights = flop_events()
    if not weights:
        raise CounterError("no floating-point event of this processor is known (Intel's and AMD's x86-64 are)")
    names, flops = list(weights), 0.0
    for start in range(0, len(names), _EVENTS_A_RUN):
        group = names[start : start + _EVENTS_A_RUN]
        counts = read_events(command, group)
        for name in group:
            count = counts.get(name, EventCount(None, 0.0, "nothing"))
            if count.value is None:
                raise CounterError(f"perf says {count.said} of {name}")
            if count.share < 1:
                raise CounterError(f"{name} was on a counter for {count.share:.0%} of the time: others hold counters")
            flops += weights[name] * count.value
    return flops


@cache
def probe_perf() -> HardwareCounter:
    """Whether the CPU's floating-point events can be read, tried on a loop of additions."""
    if shutil.which("perf") is None:
        return HardwareCounter(CPU, False, "perf is not on the PATH; it comes with the kernel's tools (linux-perf)")
    loop = f"x = 0.0\nfor _ in range({_TRIAL}):\n    x += 1.0"
    try:
        plain = next(iter(read_events(["true"], ["instructions"]).values()))
        if plain.value is None:
            hidden = "the processor's counters are not visible here, as often in a virtual machine"
            return HardwareCounter(CPU, False, f"perf says {plain.said} of the event instructions: {hidden}")
        counted = measure_flops([sys.executable, "-c", loop])
    except RuntimeError as error:
        return HardwareCounter(CPU, False, str(error))
    if counted < _TRIAL:
        return HardwareCounter(CPU, False, f"the counters read {counted:.0f} for a program of {_TRIAL} additions")
    return HardwareCounter(CPU, True, f"perf stat, events {', '.join(flop_events())}")


def count_flops_perf(script: str, setup: str = "", repeats: int = 1) -> float | None:
    """Floating-point operations of one run of ``script`` on the CPU; None where :func:`probe_perf` says no.

    ``setup`` and ``repeats`` runs of ``script`` are counted in a fresh Python, then ``setup``
    alone; the difference over ``repeats`` is the answer. Put imports, data and a first call (FFT
    plans compute their twiddle factors in it) into ``setup``.

    Raises:
        RuntimeError: the script fails.
    """
    if not probe_perf().available:
        return None
    both, alone = (measure_flops([sys.executable, "-c", _program(setup, script, n)]) for n in (repeats, 0))
    return (both - alone) / repeats


# --- GPU: ncu -----------------------------------------------------------------------------


@dataclass(frozen=True)
class KernelCount:
    """One kernel launch as ncu measured it.

    Attributes:
        kernel: the kernel's name.
        instructions: thread-level instructions by metric, see ``GPU_METRICS``.
    """

    kernel: str
    instructions: dict[str, float]

    @property
    def flops(self) -> float:
        """Operations: a fused multiply-add is two."""
        return sum(GPU_METRICS[metric] * count for metric, count in self.instructions.items())


def ncu_command(command: Sequence[str], log: Path) -> list[str]:
    """ncu's command line: count between the program's profiler marks, clocks left as they are, CSV to ``log``."""
    return [
        *("ncu", "--csv", "--print-units", "base", "--log-file", str(log), "--metrics", ",".join(GPU_METRICS)),
        *("--profile-from-start", "off", "--target-processes", "all", "--clock-control", "none"),
        *command,
    ]


def parse_ncu(text: str) -> list[KernelCount]:
    """Kernel launches, in order, from ncu's CSV of one row a launch and metric.

    Raises:
        CounterError: there is no table, or a launch lacks a metric; holds ncu's own words.
    """
    lines = text.splitlines()
    header = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if header is None:
        said = [line for line in lines if line.startswith(("==ERROR==", "==WARNING=="))]
        raise CounterError(f"ncu measured no kernel; it says: {_words(chr(10).join(said or lines))}")
    launches: dict[tuple[str, str], KernelCount] = {}
    rows = csv.DictReader(line for line in lines[header:] if line.startswith('"'))
    for row in rows:
        launch = launches.setdefault((row["Process ID"], row["ID"]), KernelCount(row["Kernel Name"], {}))
        metric, value = row["Metric Name"], row["Metric Value"].replace(",", "")
        if metric in GPU_METRICS:
            try:
                launch.instructions[metric] = float(value)
            except ValueError:
                raise CounterError(f"ncu says {value!r} of {metric} for the kernel {launch.kernel}") from None
    for launch in launches.values():
        missing = [m for m in GPU_METRICS if not math.isfinite(launch.instructions.get(m, math.nan))]
        if missing:
            raise CounterError(f"ncu gives no {', '.join(missing)} for the kernel {launch.kernel}")
    return list(launches.values())


def measure_kernels(script: str, setup: str = "", repeats: int = 1) -> list[KernelCount]:
    """Every kernel that ``repeats`` runs of a torch ``script`` launch, after ``setup``, in a fresh Python.

    Raises:
        CounterError: ncu is missing, or measured nothing.
        RuntimeError: the script fails, or ncu may not read the counters.
    """
    program = (
        f"import torch\n{setup}\ntorch.cuda.synchronize()\ntorch.cuda.profiler.start()\n"
        + _program("", script, repeats)
        + "torch.cuda.synchronize()\ntorch.cuda.profiler.stop()\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "ncu.csv"
        run = _run(ncu_command([sys.executable, "-c", program], log))
        text = log.read_text(encoding="utf-8") if log.exists() else ""
    _check_finished(run, f"{text}\n{run.stdout}")
    return parse_ncu(text if '"ID"' in text else f"{text}\n{run.stdout}\n{run.stderr}")


@cache
def probe_ncu() -> HardwareCounter:
    """Whether the GPU's instruction counters can be read, tried on one sum of two vectors."""
    import torch

    if not torch.cuda.is_available():
        return HardwareCounter(GPU, False, "torch sees no CUDA device")
    if shutil.which("ncu") is None:
        return HardwareCounter(GPU, False, "ncu (Nsight Compute, part of the CUDA toolkit) is not on the PATH")
    try:
        kernels = measure_kernels("a + a", f"a = torch.rand({_TRIAL}, device='cuda')\na + a")
    except RuntimeError as error:
        return HardwareCounter(GPU, False, str(error))
    counted = sum(kernel.flops for kernel in kernels)
    if counted < _TRIAL:
        return HardwareCounter(GPU, False, f"ncu read {counted:.0f} for a sum of {_TRIAL} entries")
    return HardwareCounter(GPU, True, "ncu, float32 and float64 additions, multiplications and fused multiply-adds")


def count_flops_ncu(script: str, setup: str = "", repeats: int = 1) -> float | None:
    """Float32 and float64 operations of one run of a torch ``script`` on the GPU; None where :func:`probe_ncu` says no.

    Work on tensor cores and in half precision is not in it. ``setup`` is run before, uncounted.

    Raises:
        RuntimeError: the script fails.
    """
    if not probe_ncu().available:
        return None
    return sum(kernel.flops for kernel in measure_kernels(script, setup, repeats)) / repeats


@dataclass(frozen=True)
class Executed:
    """What a processor's own counters read of a script.

    Attributes:
        flops: operations of one run, or None where the counters cannot be read.
        counter: which kind. reason: the tool and events used, or why there is none.
    """

    flops: float | None
    counter: str
    reason: str


def count_executed(script: str, setup: str, device: str, repeats: int = 4) -> Executed:
    """Operations of one run of ``script`` by the counters of a kind of device, "cpu" or "cuda".

    Raises:
        RuntimeError: the script fails.
    """
    probe, count = (probe_ncu, count_flops_ncu) if device == "cuda" else (probe_perf, count_flops_perf)
    found = probe()
    return Executed(count(script, setup, repeats) if found.available else None, found.name, found.reason)
