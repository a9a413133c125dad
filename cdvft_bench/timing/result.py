"""What the third witness returns. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval (``low == high == value`` is never claimed: None instead)."""

    value: float
    low: float | None
    high: float | None


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
        ratios: ratio of the subject's time to each other contender's, paired by round: median and interval.
        rounds: rounds kept after warm-up.
        method: how time was read: "perf_counter" or "cuda_event".
        threads: torch's CPU threads during the run.
        warnings: drift, throttling, too few rounds: what a reader must know before quoting it.
    """

    samples: tuple[Samples, ...]
    ratios: dict[str, Interval]
    rounds: int
    method: str
    threads: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class TraceSummary:
    """A torch.profiler trace of one call, summed up.

    Attributes:
        operators: ATen operators called on the host (top level and nested), views included.
        launches: kernel launches on the device; on a CPU, leaf operators that are no views.
        host_seconds: host time inside operators. device_seconds: time of kernels on the device (CPU: 0.0).
        families: seconds by kernel family: "matmul", "fft", "elementwise", "copy", "other"; device time
            where there is a device, self CPU time of operators otherwise.
        by_operator: launches by name.
        device: "cpu" or "cuda".
    """

    operators: int
    launches: int
    host_seconds: float
    device_seconds: float
    families: dict[str, float]
    by_operator: dict[str, int]
    device: str


@dataclass(frozen=True)
class Memory:
    """Memory of one call.

    Attributes:
        peak_bytes: peak allocated by tensors above what was live before the call.
        how: "cuda allocator" or "profiler" (the CPU allocator as torch.profiler reports it).
    """

    peak_bytes: int
    how: str


@dataclass(frozen=True)
class Timed:
    """The clock's part of a record."""

    timing: Timing | None
    trace: TraceSummary | None
    memory: Memory | None
    notes: tuple[str, ...] = field(default=())
