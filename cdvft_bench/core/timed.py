"""What is measured of a case. Every field goes into JSON as it is."""

import re
from dataclasses import dataclass, field
from typing import Literal

from cdvft_bench.core.interval import Interval

Mode = Literal["eager", "graph", "compile"]
"""Ways to run a case."""


def precision_missed(asked: float) -> str:
    """How a warning begins that some ratio of a run is less precise than was asked."""
    return f"the asked precision of {asked:.1%} was not reached"


def missed_precision(warning: str) -> float | None:
    """The precision that was asked, of a warning that begins as :func:`precision_missed` says; None of any other."""
    found = re.match(r"the asked precision of ([\d.]+)% was not reached", warning)
    return float(found[1]) / 100 if found else None


@dataclass(frozen=True)
class Samples:
    """Seconds a call of one contender, round by round; rounds pair up across the contenders of one run.

    Attributes:
        name: the contender.
        seconds: one figure a round: seconds of one call.
        median, q25, q75: of ``seconds``.
    """

    name: str
    seconds: tuple[float, ...]
    median: float
    q25: float
    q75: float


@dataclass(frozen=True)
class Timing:
    """An interleaved wall-clock run of several contenders.

    Attributes:
        samples: one entry a contender, the first is the subject of the record.
        ratios: ratio of the subject's time to each other contender's, paired by round, with its interval.
        rounds: rounds kept after warm-up, over all processes.
        method: how time was read: "perf_counter" or "cuda_event".
        threads: torch's CPU threads during the run.
        warnings: drift, throttling, too few rounds: what a reader must know before quoting it.
        calls: calls that one sample of each contender was made of, in the last round.
        group: the same for all records whose ratios share their baselines and rounds; "" for one timed by itself.
        processes: from how many the rounds come. Of three or more, intervals hold in the next process, too.
        correlation: of each round's ratio with the next round's, within a process (of ranks, lag 1, the largest of the
            ratios); None where it was not measured.
        split: rounds of each process, in the order of the samples; empty where there is one.
        clocks_mhz, watts: the GPU's clock and power after each round; empty on a CPU and where they cannot be read.
    """

    samples: tuple[Samples, ...]
    ratios: dict[str, Interval]
    rounds: int
    method: str
    threads: int
    warnings: tuple[str, ...] = ()
    calls: dict[str, int] = field(default_factory=dict)
    group: str = ""
    processes: int = 1
    correlation: float | None = None
    split: tuple[int, ...] = ()
    clocks_mhz: tuple[float, ...] = ()
    watts: tuple[float, ...] = ()


@dataclass(frozen=True)
class Modes:
    """One case run in several ways: eagerly, as a replayed CUDA graph, compiled.

    Attributes:
        timing: the ways side by side, eager first; its ratios are eager over the other.
        launch_seconds: seconds a call that a graph saves, eager minus graph, paired by round: the cost of
            launching; None where no graph ran.
        prepare_seconds: seconds that capturing or compiling took once, by way.
        differences: relative norm of the difference between a way's output and eager's, where the call
            returns the same tensor each time it is made eagerly; None where there is none to take.
        notes: ways that could not run, and why.
    """

    timing: Timing
    launch_seconds: Interval | None
    prepare_seconds: dict[str, float]
    differences: dict[str, float | None]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """What the base, the adapter, or neither of them had of a trace, see ``timing.scopes``.

    Attributes:
        launches: as ``TraceSummary.launches``. backward_launches: those of them made by autograd's backward.
        seconds: device seconds (CPU: seconds inside leaf operators).
        families: launches by kernel family.
    """

    launches: int
    backward_launches: int
    seconds: float
    families: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TraceSummary:
    """A torch.profiler trace, summed up. Host times include what the profiler itself costs.

    Attributes:
        operators: ATen operators called on the host (top level and nested), views included.
        launches: kernels, copies and fills that ran on the device; on a CPU, ``dispatched``.
        host_seconds: host time inside operators. device_seconds: time of kernels on the device (CPU: 0.0).
        families: seconds by kernel family, see ``timing.traces.names.families``; device time where there is a device,
            self CPU time of operators otherwise.
        by_operator: launches by the ATen operator that made them, "(no operator)" where none did.
        device: "cpu", "cuda" (ROCm's devices, too), or another accelerator's name as its profiler writes it.
        dispatched: leaf operators: those that reach a kernel, views and bare allocations left out.
        family_launches: launches by kernel family.
        by_kernel: launches by kernel name, template arguments left out (CPU: empty).
        scopes: launches by the innermost ``record_function`` range around them, backward launches by the range
            around their forward operator; "unscoped" for the rest.
        scope_seconds: device seconds by range (CPU: seconds inside leaf operators).
        span_seconds: from the first operator, range or launch to the last end.
        busy_fraction: share of the window in which the device ran something (CPU: in which a leaf operator ran): of the
            profiler's steps without warm-up, or of the span where there are none; the mean of several devices.
        launch_calls: calls on the host that put work on the device; a replayed graph is one (CPU: 0).
        launch_seconds: host time in those that launch kernels, graphs and fills; copies, which may wait, are apart.
        gaps: idle stretches of a device between two of its kernels, of all devices (CPU: 0).
        gap_seconds, largest_gap_seconds: their sum and the largest.
        starved_seconds: the part of the gaps in which the next kernel had not even been launched.
        queue_delay_seconds: median time from a launching call's start to its first kernel's start; None unknown.
        queue_depth: median number of a device's kernels launched and not yet finished when another is launched; None
            unknown.
        moved_bytes: bytes that operators read and write, see ``timing.traces.summary.traffic``, on a device of those
            whose kernels were timed; None where no shapes were recorded.
        family_bytes: the same by kernel family.
        bytes_per_second: achieved bandwidth: ``moved_bytes`` over the time in which those kernels (CPU: operators) ran;
            None unknown.
        verdict: what bounds the work, see ``timing.traces.summary.verdict``. reason: why.
        notes: what of the trace was mended, left out or not recorded.
        parts: shares of "base", "adapter" and "neither", which add up to the whole; empty where the call did not
            run under ``timing.scopes``.
        evidence: share of device time (CPU: of time in leaf operators) in operators whose shapes were recorded and
            whose kernels were timed; None unknown. Below half of it no verdict speaks of bandwidth or arithmetic.
        host_working: share of the recorded call in which its thread worked; None where the recorder does not say.
        idle: idle seconds of the window by cause, see ``timing.traces.summary.gaps``, of all devices together.
        runtime: host seconds in calls into the runtime by kind, see ``timing.traces.names.operators``.
        communication_seconds, exposed_seconds: of the window in communication between devices, and in nothing else.
        lost: launches whose kernels are not in the trace.
    """

    operators: int
    launches: int
    host_seconds: float
    device_seconds: float
    families: dict[str, float]
    by_operator: dict[str, int]
    device: str
    dispatched: int = 0
    family_launches: dict[str, int] = field(default_factory=dict)
    by_kernel: dict[str, int] = field(default_factory=dict)
    scopes: dict[str, int] = field(default_factory=dict)
    scope_seconds: dict[str, float] = field(default_factory=dict)
    span_seconds: float = 0.0
    busy_fraction: float | None = None
    launch_calls: int = 0
    launch_seconds: float = 0.0
    gaps: int = 0
    gap_seconds: float = 0.0
    largest_gap_seconds: float = 0.0
    starved_seconds: float = 0.0
    queue_delay_seconds: float | None = None
    queue_depth: float | None = None
    verdict: str = "unknown"
    reason: str = ""
    notes: tuple[str, ...] = ()
    parts: dict[str, Part] = field(default_factory=dict)
    moved_bytes: int | None = None
    family_bytes: dict[str, int] = field(default_factory=dict)
    bytes_per_second: float | None = None
    evidence: float | None = None
    host_working: float | None = None
    idle: dict[str, float] = field(default_factory=dict)
    runtime: dict[str, float] = field(default_factory=dict)
    communication_seconds: float = 0.0
    exposed_seconds: float = 0.0
    lost: int = 0


@dataclass(frozen=True)
class Memory:
    """Memory of one call. What a call saves for its backward pass is the count's to say.

    Attributes:
        peak_bytes: peak allocated by tensors above what was live before the call.
        how: "cuda allocator" or "profiler" (the CPU allocator as torch.profiler reports it).
        kept_bytes: what lives between calls beyond the frozen subject: trained tensors, the adapter's buffers, the
            optimiser's state; None not measured.
        workspace_bytes: the most that one FFT operator took for itself while it ran, its result aside: plans'
            workspaces and copies (on a CPU without what the FFT library allocates past torch); None not measured.
    """

    peak_bytes: int
    how: str
    kept_bytes: int | None = None
    workspace_bytes: int | None = None


@dataclass(frozen=True)
class Energy:
    """Energy of one call.

    Attributes:
        joules: of the whole device during one call, its idle share included; None where it cannot be read.
        how: where the figure comes from, or why there is none.
        calls: calls that were measured. seconds: of one call.
    """

    joules: float | None
    how: str
    calls: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class SelfTest:
    """The clock timed against itself.

    Attributes:
        comparisons: A/A comparisons made: the same call under two names.
        excluded: share of them whose 95 % interval excludes 1 (a good clock: some 5 %).
        excluded_by_1_percent: share of them whose whole interval is more than 1 % away from 1: false findings.
        largest_deviation: largest |ratio - 1| of a comparison's median.
        widest_half_width: largest relative half-width of an interval; None where a comparison had none.
        doubled: ratio of a contender that makes the call twice to one that makes it once: 2 is right.
        doubled_found: whether 2 lies in that interval, give or take 1 %.
        seconds: median seconds of the call.
        warnings: of the comparisons, each once.
    """

    comparisons: int
    excluded: float
    excluded_by_1_percent: float
    largest_deviation: float
    widest_half_width: float | None
    doubled: Interval
    doubled_found: bool
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Replays:
    """A case and what it is compared with as CUDA graphs, their replays timed side by side.

    Attributes:
        timing: seconds of one call, and the case's ratios, to its own eager calls ("eager"), too; None where it, or all
            the others, could not be captured.
        inputs: that a replay goes through in turn.
        differences: by contender, the largest relative norm of the difference between a gradient after a replay and
            after the same calls made eagerly; None where a call leaves no gradient.
        notes: what could not be captured, after which operator, and why.
    """

    timing: Timing | None
    inputs: int
    differences: dict[str, float | None]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timed:
    """The clock's part of a record.

    Attributes:
        timing: the case beside the frozen subject and LoRA, eagerly.
        trace, memory: of one call; None not measured.
        notes: what could not be measured, and why.
        modes: the case eagerly, as a CUDA graph, compiled; None not measured.
        energy: of one call; None not measured.
        selftest: the clock against itself on this machine, at the start of the run that the case belongs to; None
            not made.
        replays: the case beside the frozen subject and LoRA as CUDA graphs; None not made.
    """

    timing: Timing | None
    trace: TraceSummary | None
    memory: Memory | None
    notes: tuple[str, ...] = field(default=())
    modes: Modes | None = None
    energy: Energy | None = None
    selftest: SelfTest | None = None
    replays: Replays | None = None
