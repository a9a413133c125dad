"""What bounds traced work. Says "unknown" where a trace cannot tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cdvft_bench.timing.traces.names.families import coarse as coarse_family
from cdvft_bench.timing.traces.summary.gaps import INPUT, LAUNCH, OVERHEAD, STALL, UNTOLD, WAITING

LOST = 0.4
"""Share of a device's window in neither compute nor overlapped communication from which that is what bounds it."""
CPU_OVERHEAD = 0.5
"""Share of a CPU's window outside of leaf operators from which dispatch may bound it: the profiler itself costs some
microseconds an operator."""
WORKING = 0.8
"""Share of the wall-clock that a host thread must have worked for dispatch to bound it."""
MAJOR = 0.6
"""Share of kernel time that a bound must explain."""
EVIDENCE = 0.5
"""Share of device time that must belong to operators whose shapes were recorded and whose kernels were timed."""
MISSING = 0.1
"""Share of launches without kernels from which a recording is incomplete."""
# FLOPs a byte at which arithmetic and bandwidth take equally long: devices of 2010 to 2026 lie between these,
# in 16- and 32-bit arithmetic, from one core without matrix units to GPUs with them.
LOWEST_RIDGE = {"cpu": 3.0, "device": 8.0}
HIGHEST_RIDGE = {"cpu": 400.0, "device": 700.0}
_MOVING = frozenset({"elementwise", "reduction", "copy", "fft", "native"})  # of few FLOPs a byte on every device
_COMMUNICATION = "communication"
_NAMES = {
    LAUNCH: "launch-bound",
    STALL: "host stall",
    INPUT: "input-bound",
    OVERHEAD: "profiler overhead",
    _COMMUNICATION: "communication-bound",
}
_SAID = {
    LAUNCH: "because what ran next was launched only just",
    STALL: "while the host did something else for long",
    INPUT: "while the next data were fetched or copied",
    OVERHEAD: "while the profiler worked",
    WAITING: "with work launched: a synchronisation, a dependency or launch latency",
    UNTOLD: "and the trace does not say when the next kernel was launched",
    _COMMUNICATION: "in communication alone",
}


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on.

    Attributes:
        families: seconds of kernels (CPU: of leaf operators) by family.
        covered: share of that time in operators whose shapes were recorded; None where there is no time.
        flops, moved: of the matrix products among them: FLOPs and bytes. products: seconds of those products.
    """

    families: Mapping[str, float]
    covered: float | None
    flops: float = 0.0
    moved: float = 0.0
    products: float = 0.0


@dataclass(frozen=True)
class Use:
    """How a device's window was used, as shares of it.

    Attributes:
        computing: in compute, or in communication while computing. causes: of the rest, by cause.
        launches, lost: how many launches have kernels in the trace, and how many have none.
        stalls: the largest stalls of the host, in words.
    """

    computing: float | None
    causes: Mapping[str, float] = field(default_factory=dict)
    launches: int = 0
    lost: int = 0
    stalls: str = ""


def judge_device(use: Use, evidence: Evidence) -> tuple[str, str]:
    """Verdict on the work of one or several devices, and its reason."""
    if use.lost and not use.launches:
        return "unknown", (
            f"the recording failed: {use.lost:,} launches and no kernel; the profiler could not read the device"
        )
    if use.computing is None or sum(evidence.families.values()) <= 0:
        return "unknown", "the trace holds no kernel time"
    if use.lost > MISSING * (use.lost + use.launches):
        return "unknown", (
            f"the recording is incomplete: {use.lost:,} of {use.lost + use.launches:,} launches have no kernel in it"
        )
    rest = 1 - use.computing
    if rest >= LOST:
        cause, share = max(use.causes.items(), key=lambda item: item[1], default=(WAITING, 0.0))
        if share >= rest / 2:
            idle = f"the device computes in {use.computing:.0%} of its window; {share:.0%} pass {_SAID[cause]}"
            if cause == STALL and use.stalls:
                idle += f": {use.stalls}"
            return _NAMES.get(cause, "unknown"), idle
        parts = sorted(use.causes.items(), key=lambda item: -item[1])
        said = ", ".join(f"{share:.0%} {_SAID[cause]}" for cause, share in parts if share >= 0.005)
        return "unknown", f"the device computes in {use.computing:.0%} of its window, and nothing explains most: {said}"
    return _bound("device", evidence)


def judge_cpu(busy: float | None, working: float | None, evidence: Evidence) -> tuple[str, str]:
    """Verdict on work on a CPU, and its reason.

    Args:
        busy: share of the window in which a leaf operator ran.
        working: share of the recorded call in which its thread worked, as this suite's recorder has it; None unknown.
        evidence: what else there is.
    """
    if busy is None or sum(evidence.families.values()) <= 0:
        return "unknown", "the trace holds no operator's time"
    if working is None:
        return "unknown", (
            f"leaf operators run in {busy:.0%} of the span; whether the host worked or waited in the rest, a CPU's "
            "trace does not tell: only this suite's own recordings hold the host's working time"
        )
    if busy < CPU_OVERHEAD:
        outside = f"leaf operators run in {busy:.0%} of the span, and the host worked in {working:.0%} of it"
        if working >= WORKING:
            return "launch-bound", f"{outside}: the rest is Python, dispatch, autograd and the profiler"
        if 1 - working >= (1 - busy) / 2:
            return "host stall", f"{outside}: it waited for something"
        return "unknown", outside
    return _bound("cpu", evidence)


def _bound(device: str, evidence: Evidence) -> tuple[str, str]:
    """Bandwidth or arithmetic, by the families of what ran and the intensity of its products."""
    families = {name: time for name, time in evidence.families.items() if name != "communication"}
    total = sum(families.values())
    if total <= 0:
        return "unknown", "all kernel time is communication"
    coarse: dict[str, float] = {}
    for name, time in families.items():
        label = coarse_family(name)
        coarse[label] = coarse.get(label, 0.0) + time / total
    moving = sum(share for label, share in coarse.items() if label in _MOVING)
    matmul = coarse.get("matmul", 0.0)
    covered = evidence.covered or 0.0
    if moving >= MAJOR:
        said = f"{moving:.0%} of kernel time is element-wise work, copies, reductions and FFTs: few FLOPs a byte"
        return _if_covered("bandwidth-bound", said, covered)
    if matmul < MAJOR:
        said = f"matrix products take {matmul:.0%} of kernel time, work of few FLOPs a byte {moving:.0%}"
        return "unknown", f"{said}; neither explains {MAJOR:.0%}"
    said = f"matrix products take {matmul:.0%} of kernel time"
    if not evidence.moved:
        return "unknown", f"{said}, but their shapes were not recorded"
    intensity = evidence.flops / evidence.moved
    said = f"{said} at {intensity:.3g} FLOPs a byte"
    if evidence.products < EVIDENCE * matmul * total:
        share = evidence.products / (matmul * total)
        return "unknown", f"{said}, which is known of {share:.0%} of them only"
    if intensity > HIGHEST_RIDGE[device]:
        return _if_covered("compute-bound", f"{said}, above what any device's memory holds back", covered)
    if intensity < LOWEST_RIDGE[device]:
        return _if_covered("bandwidth-bound", f"{said}, less than any device can compute with at full speed", covered)
    return "unknown", f"{said}: whether that is compute- or bandwidth-bound depends on the device's ridge point"


def _if_covered(verdict: str, said: str, covered: float) -> tuple[str, str]:
    if covered < EVIDENCE:
        return "unknown", f"{said}; but shapes were recorded for {covered:.0%} of device time, less than {EVIDENCE:.0%}"
    return verdict, f"{said}; shapes cover {covered:.0%} of device time"
