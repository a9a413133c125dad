"""What an analysis of a trace returns beside its summary: plain values, ready for JSON, a page or a data frame."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class StepTimes:
    """One step of the profiler.

    Attributes:
        name: as recorded. start_seconds: from the trace's first event. seconds: its length on the host.
        warm_up: whether shares and verdict leave it out.
        launches: activities that calls inside it launched, on all devices; a CPU's leaf operators.
        device_seconds: their time. busy_seconds: in which any device ran anything during the step.
        communication_seconds, exposed_seconds: of it in communication, and alone in it.
    """

    name: str
    start_seconds: float
    seconds: float
    warm_up: bool
    launches: int
    device_seconds: float
    busy_seconds: float
    communication_seconds: float
    exposed_seconds: float


@dataclass(frozen=True)
class KernelTimes:
    """Activities of one name and family (on a CPU: leaf operators).

    Attributes:
        name: in full. label: short. family: see ``rules``. launches: how many.
        seconds: together. share: of all device time (CPU: of all time in leaf operators).
    """

    name: str
    label: str
    family: str
    launches: int
    seconds: float
    share: float


@dataclass(frozen=True)
class OperatorTimes:
    """Operators of one name.

    Attributes:
        calls: on the host. host_seconds: in them and in no operator, range or call inside.
        launches: of which it is the innermost operator. device_seconds: their time. share: of all device time (CPU: of
            all host time in operators).
    """

    name: str
    calls: int
    host_seconds: float
    launches: int
    device_seconds: float
    share: float


@dataclass(frozen=True)
class DeviceTimes:
    """One device.

    Attributes:
        window_seconds: of which shares are taken, see ``windows``. busy_seconds: of it with anything running.
        launches, device_seconds: in the whole trace. gaps, gap_seconds: between its activities, in the whole trace.
        communication_seconds, exposed_seconds: of the window in communication, and in nothing else.
        idle_seconds: of the window by cause, see ``gaps``.
    """

    name: str
    window_seconds: float
    busy_seconds: float
    busy_fraction: float | None
    launches: int
    device_seconds: float
    gaps: int
    gap_seconds: float
    communication_seconds: float
    exposed_seconds: float
    idle_seconds: dict[str, float]


@dataclass(frozen=True)
class QueueLength:
    """Operations launched onto a stream that have not begun, over all moments at which that number changes."""

    changes: int
    mean: float
    std: float
    minimum: int
    quarter: float
    median: float
    three_quarters: float
    maximum: int


@dataclass(frozen=True)
class StreamTimes:
    """One stream of a device; ``queue`` is None where no launch of its work is in the trace."""

    device: str
    stream: str
    launches: int
    device_seconds: float
    busy_seconds: float
    queue: QueueLength | None


@dataclass(frozen=True)
class Gap:
    """An idle stretch of a device.

    Attributes:
        start_seconds: from the trace's first event. starved_seconds: in which what ran next had not been launched.
        cause: see ``gaps``. after, before: what ran before and after it, "" for nothing.
        host: what the launching thread was in for most of it, outermost first; empty where nothing was recorded.
        host_share: of the gap.
    """

    device: str
    start_seconds: float
    seconds: float
    starved_seconds: float
    cause: str
    after: str
    before: str
    host: tuple[str, ...]
    host_share: float


@dataclass(frozen=True)
class Communication:
    """Communication between devices in their windows, summed over the devices.

    Attributes:
        seconds: with any communication running. exposed_seconds: with nothing else. overlapped: share of the former
            in which something else ran, None without communication. kernels: by name, in the whole trace.
    """

    seconds: float
    exposed_seconds: float
    overlapped: float | None
    kernels: tuple[KernelTimes, ...]


@dataclass(frozen=True)
class Graphs:
    """Replayed graphs.

    Attributes:
        replays: calls that launch one. launches, device_seconds: of what they launched. host_seconds: in the calls.
        recorded: launch calls made while a graph was recorded, which launch nothing. captures: recordings.
    """

    replays: int
    launches: int
    device_seconds: float
    host_seconds: float
    recorded: int
    captures: int


@dataclass(frozen=True)
class Calls:
    """Calls into the runtime of one kind, see ``runtime``, and the host time in them."""

    calls: int
    seconds: float


@dataclass(frozen=True)
class Detail:
    """Everything beside the summary.

    Attributes:
        kernels, operators: by time, longest first. gaps: the ten longest of the windows. runtime: by kind of call.
        compute_seconds: of the windows of all devices in anything but communication and copies from the host.
        window_seconds: of all devices. evidence: share of device time (CPU: time in leaf operators) of operators whose
            shapes were recorded and whose kernels were timed; bandwidth and intensity are of these alone.
        flops_per_byte: of the matrix products among them; None unknown.
        lost: launches whose kernels are not in the trace.
    """

    steps: tuple[StepTimes, ...] = ()
    kernels: tuple[KernelTimes, ...] = ()
    operators: tuple[OperatorTimes, ...] = ()
    devices: tuple[DeviceTimes, ...] = ()
    streams: tuple[StreamTimes, ...] = ()
    communication: Communication = field(default_factory=lambda: Communication(0.0, 0.0, None, ()))
    gaps: tuple[Gap, ...] = ()
    graphs: Graphs = field(default_factory=lambda: Graphs(0, 0, 0.0, 0.0, 0, 0))
    runtime: dict[str, Calls] = field(default_factory=dict)
    window_seconds: float = 0.0
    compute_seconds: float = 0.0
    evidence: float | None = None
    flops_per_byte: float | None = None
    lost: int = 0
