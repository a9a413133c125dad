"""Which call of the host launched what ran on a device, and which operator made the call.

A runtime call and what it launched share a correlation id, which is unique in one process only: where several
processes use an id, the kernels of a device belong to the process whose calls come before them most evenly. Traces
without correlations are tied by external ids, which name the operator, or by arrows.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.timing.traces.events.columns import MICRO, NONE, Ints
from cdvft_bench.timing.traces.events.model import Trace
from cdvft_bench.timing.traces.events.roles import Role
from cdvft_bench.timing.traces.names.operators import ENQUEUING, LAUNCH, begins_capture, call_kind, ends_capture

_FEW = 8  # processes whose every assignment to devices is weighed
_SKEW = 100 * MICRO


@dataclass(frozen=True)
class Links:
    """Ties between host and device.

    Attributes:
        call: for each activity the host event that launched it (a runtime call, or an operator where calls were not
            recorded), ``NONE`` where the trace has lost it.
        operator: the innermost operator around that call, autograd's nodes among them. aten: the innermost that a
            dispatch mode sees. leaf: the leaf operator around it. ``NONE`` each for none.
        launching: host events that put work on a device. recorded: of the launch calls those made while a graph
            was recorded, which launch nothing.
        lost: launch calls of kernels whose kernels are not in the trace.
    """

    call: Ints
    operator: Ints
    aten: Ints
    leaf: Ints
    launching: NDArray[np.bool_]
    recorded: NDArray[np.bool_]
    lost: Ints


def link(trace: Trace) -> Links:
    """Tie a trace's activities to their calls."""
    host, device = trace.host, trace.device
    calls = np.flatnonzero(host.role == Role.RUNTIME)
    call = _by_correlation(trace, calls)
    _by_external(trace, calls, call)
    if trace.flows:
        _by_flow(trace, call)
    operator, aten, leaf = _operators(trace, call)
    kinds = np.array([call_kind(name) for name in trace.names])
    enqueuing = np.isin(kinds, list(ENQUEUING))[host.name] & (host.role == Role.RUNTIME)
    recorded = enqueuing & _captured(trace, calls)
    linked = np.zeros(len(host), np.bool_)
    linked[call[call != NONE]] = True
    # A call of the runtime may make one of the driver, and either may bear the kernel's id.
    nested = np.flatnonzero(trace.inner_calls)
    outer = trace.forest.parent[nested]
    served = linked.copy()
    served[outer[linked[nested]]] = True
    served[nested[linked[outer]]] = True
    recorded &= ~served
    launching = (enqueuing & ~recorded) | (linked & (host.role == Role.RUNTIME))
    kernels = (kinds == LAUNCH)[host.name] & (host.role == Role.RUNTIME) & ~recorded & ~served
    kernels[nested] = False
    # Where some calls are told by correlation, those that carry none cannot be missed.
    lost = np.flatnonzero(kernels & (host.correlation != NONE)) if len(device) else np.flatnonzero(kernels)
    return Links(call, operator, aten, leaf, launching, recorded, lost)


def _by_correlation(trace: Trace, calls: Ints) -> Ints:
    host, device = trace.host, trace.device
    found = np.full(len(device), NONE, np.int64)
    calls = calls[host.correlation[calls] != NONE]
    if not len(calls) or not len(device):
        return found
    processes = np.unique(host.process[calls])
    by_process = {int(p): _Calls(trace, calls[host.process[calls] == p]) for p in processes}
    if len(by_process) == 1:
        (only,) = by_process.values()
        return only.of(device.correlation)
    # A device belongs to one process; where there are more processes than devices, a stream does.
    unit = device.device if len(trace.devices) >= len(by_process) else device.stream
    members = [np.flatnonzero(unit == one) for one in np.unique(unit)]
    options = [[one.of(device.correlation[mine]) for one in by_process.values()] for mine in members]
    owners = _owners(trace, members, options)
    for mine, option, owner in zip(members, options, owners, strict=True):
        found[mine] = _choose(trace, mine, option, owner)
    return found


class _Calls:
    """A process's calls by correlation id."""

    def __init__(self, trace: Trace, calls: Ints) -> None:
        # Of calls that share an id the outermost, which comes first, counts.
        order = np.lexsort((trace.host.start[calls], trace.host.correlation[calls]))
        self.calls = calls[order]
        self.ids = trace.host.correlation[self.calls]

    def of(self, ids: Ints) -> Ints:
        """The call of each id, ``NONE`` for an unknown one."""
        at = np.searchsorted(self.ids, ids)
        inside = np.minimum(at, len(self.ids) - 1)
        return np.where((self.ids[inside] == ids) & (ids != NONE), self.calls[inside], NONE)


def _owners(trace: Trace, members: list[Ints], options: list[list[Ints]]) -> list[int]:
    """Which process each device (or stream) belongs to: the one that knows most of its ids.

    Where several know them all, times decide: no call comes after its kernel, and the waits of one queue are much
    alike, so that of all ways to give each device a process of its own the one of the smallest squared waits is right.
    """
    known = np.array([[int((calls != NONE).sum()) for calls in row] for row in options])
    waits = np.array([[_wait(trace, mine, calls) for calls in row] for mine, row in zip(members, options, strict=True)])
    alike = known >= known.max(axis=1, keepdims=True)
    cost = np.where(alike, waits, np.inf)
    owners = cost.argmin(axis=1)
    told = np.flatnonzero(known.max(axis=1) > 0)
    n = len(told)
    if n == cost.shape[1] <= _FEW and alike[told].sum() > n:
        ways = [way for way in permutations(range(n)) if np.isfinite(cost[told, way]).all()]
        if ways:
            owners[told] = min(ways, key=lambda way: (float(cost[told, way].sum()), way))
    return [int(i) for i in owners]


def _wait(trace: Trace, kernels: Ints, calls: Ints) -> float:
    """Mean squared picoseconds from a process's calls to their kernels; calls after their kernels weigh more."""
    told = calls != NONE
    if not told.any():
        return float("inf")
    wait = (trace.device.start[kernels[told]] - trace.host.start[calls[told]]).astype(np.float64)
    # Yet clocks of host and device differ by some microseconds.
    return float((np.where(wait < -_SKEW, 1e6 * wait, wait) ** 2).mean())


def _choose(trace: Trace, kernels: Ints, options: list[Ints], owner: int) -> Ints:
    """Calls of a device's (or stream's) kernels; those whose ids its owner does not know may be another's."""
    several = np.sum([calls != NONE for calls in options], axis=0).max(initial=0) > 1
    repeated = len(np.unique(trace.device.correlation[kernels])) < len(kernels)
    if several and repeated and _several_kernels_each(trace, kernels, options):
        # Two processes that share a device and a stream's number: each kernel goes with the closest call before it.
        return _closest(trace, kernels, options)
    chosen = options[owner].copy()
    for calls in options:
        chosen = np.where(chosen == NONE, calls, chosen)
    return chosen


def _several_kernels_each(trace: Trace, kernels: Ints, options: list[Ints]) -> bool:
    """Whether most ids that several processes use have as many kernels here as calls."""
    ids, times = np.unique(trace.device.correlation[kernels], return_counts=True)
    calls = np.zeros(len(ids), np.int64)
    for option in options:
        known = np.unique(trace.device.correlation[kernels[option != NONE]])
        calls[np.searchsorted(ids, known)] += 1
    shared = calls > 1
    return bool(shared.any()) and int((times[shared] == calls[shared]).sum()) * 2 > int(shared.sum())


def _closest(trace: Trace, kernels: Ints, options: list[Ints]) -> Ints:
    """The k-th kernel of an id with the k-th call of that id, in order of time."""
    chosen = np.full(len(kernels), NONE, np.int64)
    groups: dict[int, list[int]] = {}
    for i, identifier in enumerate(trace.device.correlation[kernels].tolist()):
        groups.setdefault(identifier, []).append(i)
    for members in groups.values():  # in order of start
        calls = sorted({int(o[members[0]]) for o in options} - {NONE}, key=lambda c: int(trace.host.start[c]))
        for k, member in enumerate(members):
            if calls:
                chosen[member] = calls[min(k, len(calls) - 1)]
    return chosen


def _by_external(trace: Trace, calls: Ints, call: Ints) -> None:
    """Tie what has no correlation by the id of the operator around its call: the k-th kernel to the k-th call."""
    host, device = trace.host, trace.device
    lacking = np.flatnonzero((call == NONE) & (device.external > 0))
    if not len(lacking):
        return
    taken = np.zeros(len(host), np.bool_)
    taken[call[call != NONE]] = True
    by_id: dict[int, list[int]] = {}
    for i in calls[(host.external[calls] > 0) & ~taken[calls]].tolist():
        if call_kind(trace.name(i)) in ENQUEUING:
            by_id.setdefault(int(host.external[i]), []).append(i)
    for group in by_id.values():
        group.sort(key=lambda i: int(host.start[i]))
    operators = np.flatnonzero((host.role == Role.OPERATOR) & (host.external > 0))
    operator_of = dict(zip(host.external[operators].tolist(), operators.tolist(), strict=True))
    used: dict[int, int] = {}
    for k in lacking.tolist():
        identifier = int(device.external[k])
        group = by_id.get(identifier, [])
        position = used.get(identifier, 0)
        used[identifier] = position + 1
        if group:
            call[k] = group[min(position, len(group) - 1)]
        elif identifier in operator_of:
            call[k] = operator_of[identifier]


def _by_flow(trace: Trace, call: Ints) -> None:
    """Tie by arrows from an operator's start to a kernel's, as the legacy profiler draws them."""
    host, device = trace.host, trace.device
    begins = {identifier: (track, start) for identifier, track, start, ends in trace.flows if not ends}
    kernels: dict[tuple[int, int], list[int]] = {}
    for k in np.flatnonzero(call == NONE).tolist():
        kernels.setdefault((int(device.track[k]), int(device.start[k])), []).append(k)
    events = {(t, s): i for i, (t, s) in enumerate(zip(host.track.tolist(), host.start.tolist(), strict=True))}
    for identifier, track, start, ends in trace.flows:
        waiting = kernels.get((track, start)) if ends else None
        event = events.get(begins[identifier]) if waiting and identifier in begins else None
        if waiting and event is not None:
            call[waiting.pop(0)] = event


def _operators(trace: Trace, call: Ints) -> tuple[Ints, Ints, Ints]:
    """Innermost operator of any kind, innermost dispatched operator and leaf operator around each call."""
    host, forest = trace.host, trace.forest
    index = np.arange(len(host), dtype=np.int64)
    is_operator = host.role == Role.OPERATOR
    leaf, _ = trace.leaves
    found = []
    for wanted in (is_operator, trace.operators, leaf):
        nearest = forest.inherited(np.where(wanted, index, NONE), wanted)
        found.append(np.where(call == NONE, NONE, nearest[call]) if len(host) else call.copy())
    return found[0], found[1], found[2]


def _captured(trace: Trace, calls: Ints) -> NDArray[np.bool_]:
    """Events between the begin and the end of a capture on their thread."""
    inside = np.zeros(len(trace.host), np.bool_)
    marks = [i for i in calls.tolist() if "Capture" in trace.name(i)]
    open_at: dict[int, int] = {}
    for i in marks:
        track = int(trace.host.track[i])
        if begins_capture(trace.name(i)):
            open_at[track] = i
        elif ends_capture(trace.name(i)) and track in open_at:
            inside[open_at.pop(track) + 1 : i] = True  # of one track, in preorder
    for track, i in open_at.items():  # the trace ends first
        inside[i + 1 :] |= trace.host.track[i + 1 :] == track
    return inside
