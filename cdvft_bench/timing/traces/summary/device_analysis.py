"""Summary and detail of a trace whose work devices did."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.core.timed import TraceSummary
from cdvft_bench.timing.traces.events.attribution import shares
from cdvft_bench.timing.traces.events.columns import NONE, Ints
from cdvft_bench.timing.traces.events.intervals import union
from cdvft_bench.timing.traces.events.linking import Links
from cdvft_bench.timing.traces.events.model import SECOND, Trace
from cdvft_bench.timing.traces.events.roles import Role
from cdvft_bench.timing.traces.events.windows import Windows
from cdvft_bench.timing.traces.names.families import family_of, label, short_kernel
from cdvft_bench.timing.traces.names.operators import (
    GRAPH,
    LAUNCH,
    LAUNCHING,
    OTHER,
    RECORDING,
    bare,
    begins_capture,
    call_kind,
)
from cdvft_bench.timing.traces.summary import gaps
from cdvft_bench.timing.traces.summary.devices import (
    Account,
    accounts,
    device_times,
    queue_delay,
    queue_depth,
    stream_times,
)
from cdvft_bench.timing.traces.summary.host_analysis import HostWork, in_seconds, sorted_counts, tally
from cdvft_bench.timing.traces.summary.result import Calls, Communication, Detail, Graphs, KernelTimes, StepTimes
from cdvft_bench.timing.traces.summary.verdict import Evidence, Use, judge_device

NO_OPERATOR = "(no operator)"
LARGEST_GAPS = 10


def analyse(work: HostWork, window: Windows) -> tuple[TraceSummary, Detail]:
    """Summary and detail."""
    trace, links = work.trace, work.links
    time = trace.device.duration.astype(np.int64)
    families, labels = _families(trace, links)
    counts = np.bincount(labels, minlength=len(families))
    spent = _summed(labels, time, len(families))
    _say_what_is_missing(work)
    communication = np.isin(labels, [i for i, name in enumerate(families) if name == "communication"])
    incoming = np.array([_comes_in(name) for name in trace.names], np.bool_)[trace.device.name]
    host = gaps.Host(trace, links)
    found = accounts(trace, links, window, host, communication, incoming)
    traffic, evidence, bandwidth = _evidence(work, dict(zip(families, spent, strict=True)), time)
    use = _use(trace, links, found)
    verdict, reason = judge_device(use, evidence)
    runtime = _runtime(trace, links)
    scopes, scope_seconds = tally(work, links.call, np.ones(len(time), np.int64), time)
    singles = [[family] for family in families]
    parts = shares(work.scopes, links.call, [singles[i] for i in labels.tolist()], time)
    lengths = np.concatenate([one.gaps for one in found]) if found else np.zeros(0, np.int64)
    windows_total = sum(one.window.total for one in found)
    short = Counter[str]()
    for name, n in zip(*np.unique(trace.device.name, return_counts=True), strict=True):
        short[short_kernel(trace.names[name])] += int(n)
    summary = TraceSummary(
        **work.common(window),
        launches=len(trace.device),
        device_seconds=int(time.sum()) / SECOND,
        families={families[i]: spent[i] / SECOND for i in np.argsort(families).tolist()},
        by_operator=sorted_counts(_by_operator(trace, links)),
        device=trace.accelerator,
        family_launches={families[i]: int(counts[i]) for i in np.argsort(families).tolist()},
        by_kernel=sorted_counts(short),
        scopes=scopes,
        scope_seconds=scope_seconds,
        busy_fraction=_mean([one.busy_in_window / one.window.total for one in found if one.window.total]),
        launch_calls=_outer(trace, links.launching),
        launch_seconds=sum(runtime[kind].seconds for kind in LAUNCHING if kind in runtime),
        gaps=len(lengths),
        gap_seconds=int(lengths.sum()) / SECOND,
        largest_gap_seconds=int(lengths.max(initial=0)) / SECOND,
        starved_seconds=sum(one.starved for one in found) / SECOND,
        queue_delay_seconds=queue_delay(trace, links),
        queue_depth=queue_depth(trace, links),
        moved_bytes=sum(traffic.values()) if traffic else None,
        family_bytes=traffic,
        bytes_per_second=bandwidth,
        verdict=verdict,
        reason=reason,
        notes=tuple(work.notes),
        parts=parts,
        evidence=evidence.covered,
        idle=_idle(found),
        runtime={kind: calls.seconds for kind, calls in runtime.items()},
        communication_seconds=sum(one.communicating for one in found) / SECOND,
        exposed_seconds=sum(one.exposed for one in found) / SECOND,
        lost=len(links.lost),
    )
    detail = Detail(
        steps=_steps(trace, links, window, communication),
        kernels=(kernels := _kernel_times(trace, families, labels, time)),
        operators=work.operator_times(*_made(trace, links, time), int(time.sum())),
        devices=device_times(trace, found),
        streams=stream_times(trace, links),
        communication=_communication(found, kernels),
        gaps=tuple(
            gaps.largest(
                host,
                {i: one.idle for i, one in enumerate(found)},
                lambda k: label(trace.names[trace.device.name[k]]),
                window.span[0],
                LARGEST_GAPS,
            )
        ),
        graphs=_graphs(trace, links, time),
        runtime=runtime,
        window_seconds=windows_total / SECOND,
        compute_seconds=sum(one.computing for one in found) / SECOND,
        evidence=evidence.covered,
        flops_per_byte=evidence.flops / evidence.moved if evidence.moved else None,
        lost=len(links.lost),
    )
    return summary, detail


def _families(trace: Trace, links: Links) -> tuple[list[str], Ints]:
    """Families that occur, and which of them each activity is of."""
    operator = (
        np.where(links.operator == NONE, NONE, trace.host.name[links.operator]) if len(trace.host) else (links.operator)
    )
    pairs, inverse = np.unique(np.stack([trace.device.name, operator]), axis=1, return_inverse=True)
    names = [family_of(trace.names[k], trace.names[o] if o != NONE else "") for k, o in pairs.T.tolist()]
    families = sorted(set(names))
    index = np.array([families.index(name) for name in names], np.int64)
    return families, index[inverse.reshape(-1)] if len(names) else np.zeros(0, np.int64)


def _summed(labels: Ints, time: Ints, n: int) -> list[int]:
    found = np.zeros(n, np.int64)
    np.add.at(found, labels, time)
    return [int(v) for v in found]


def _comes_in(name: str) -> bool:
    """Whether an activity copies from the host."""
    return "memcpy" in name.lower() and ("htod" in name.lower() or "hosttodevice" in name.lower())


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _idle(found: list[Account]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for one in found:
        total.update(one.idle.by_cause())
    return in_seconds(total)


def _by_operator(trace: Trace, links: Links) -> dict[str, int]:
    """Launches by the leaf operator that made them, else the innermost operator."""
    chosen = np.where(links.leaf != NONE, links.leaf, np.where(links.aten != NONE, links.aten, links.operator))
    names = np.where(chosen == NONE, NONE, trace.host.name[chosen]) if len(trace.host) else chosen
    found: Counter[str] = Counter()
    for name, times in zip(*np.unique(names, return_counts=True), strict=True):
        found[bare(trace.names[name]) if name != NONE else NO_OPERATOR] += int(times)
    return dict(found)


def _say_what_is_missing(work: HostWork) -> None:
    trace, links = work.trace, work.links
    orphans = int((links.call == NONE).sum())
    if orphans:
        work.notes.append(
            f"{orphans:,} of {len(links.call):,} kernels have no launching call in the trace: no scope, no operator"
        )
    if len(links.lost):
        work.notes.append(
            f"{len(links.lost):,} launches have no kernel in the trace: they were not recorded, so that counts and "
            "times are too low (CUPTI before 13.1 drops the first)"
        )
    if len(trace.devices) > 1:
        work.notes.append(f"{len(trace.devices)} devices: the busy share is their mean")


# --- evidence and use -----------------------------------------------------------------------


def _evidence(work: HostWork, spent: dict[str, int], time: Ints) -> tuple[dict[str, int], Evidence, float | None]:
    """Bytes by family, what the verdict rests on, and bytes a second, of operators whose kernels were timed."""
    trace, links = work.trace, work.links
    total = int(time.sum())
    families = {name: value / SECOND for name, value in spent.items()}
    timed, inverse = np.unique(links.leaf[links.leaf != NONE], return_inverse=True)
    traffic, told = work.traffic(timed)
    of_leaf = np.flatnonzero(links.leaf != NONE)
    known = of_leaf[told[inverse]]
    # A copy's own bytes are recorded with it.
    copies = np.flatnonzero((trace.device.bytes > 0) & ~np.isin(np.arange(len(time)), known))
    covered = int(time[known].sum()) + int(time[copies].sum())
    flops, moved, products = work.products(timed)
    evidence = Evidence(
        families=families,
        covered=covered / total if total else None,
        flops=flops,
        moved=moved,
        products=int(time[of_leaf[products[inverse]]].sum()) / SECOND,
    )
    ran = union(trace.device.start[known], trace.device.end[known]).total / SECOND
    bandwidth = sum(traffic.values()) / ran if traffic and ran else None
    return traffic, evidence, bandwidth


def _use(trace: Trace, links: Links, found: list[Account]) -> Use:
    window = sum(one.window.total for one in found)
    made = int(np.isin(np.flatnonzero(links.launching), links.call).sum())
    lost = len(links.lost)
    if not window or not len(trace.device):
        return Use(None, {}, made, lost or int(links.launching.sum()))
    causes: Counter[str] = Counter()
    for one in found:
        causes.update(one.idle.by_cause())
        causes["communication"] += one.exposed
        causes[gaps.INPUT] += one.copying
    return Use(
        computing=sum(one.computing for one in found) / window,
        causes={cause: time / window for cause, time in causes.items() if time},
        launches=made,
        lost=lost,
        stalls=_stalls(found),
    )


def _stalls(found: list[Account]) -> str:
    lengths = [
        (end - start) / SECOND
        for one in found
        for start, end, cause in zip(
            one.idle.start.tolist(), one.idle.end.tolist(), one.idle.causes.tolist(), strict=True
        )
        if cause == gaps.STALL
    ]
    every = sum(len(one.idle.start) for one in found)
    waited = sum(int((one.idle.end - one.idle.start).sum()) for one in found) / SECOND
    if not lengths or not waited:
        return ""
    return (
        f"{len(lengths):,} of {every:,} gaps hold {sum(lengths) / waited:.0%} of the waiting, the longest "
        f"{max(lengths) * 1e3:.3g} ms"
    )


# --- tables ---------------------------------------------------------------------------------


def _kernel_times(trace: Trace, families: list[str], labels: Ints, time: Ints) -> tuple[KernelTimes, ...]:
    total = int(time.sum())
    keys, inverse, times = np.unique(
        trace.device.name.astype(np.int64) * max(len(families), 1) + labels, return_inverse=True, return_counts=True
    )
    spent = _summed(inverse, time, len(keys))
    rows = []
    for key, n, seconds in zip(keys.tolist(), times.tolist(), spent, strict=True):
        name, family = divmod(key, max(len(families), 1))
        said = trace.names[name]
        rows.append(
            KernelTimes(said, label(said), families[family], n, seconds / SECOND, seconds / total if total else 0.0)
        )
    return tuple(sorted(rows, key=lambda row: (-row.seconds, row.name)))


def _made(trace: Trace, links: Links, time: Ints) -> tuple[Ints, Ints]:
    """Launches and picoseconds of what each host event launched as the innermost operator."""
    launches, spent = np.zeros(len(trace.host), np.int64), np.zeros(len(trace.host), np.int64)
    known = links.operator != NONE
    np.add.at(launches, links.operator[known], 1)
    np.add.at(spent, links.operator[known], time[known])
    return launches, spent


def _outer(trace: Trace, chosen: NDArray[np.bool_]) -> int:
    """How many of some runtime calls are not inside of another, as the runtime's are around the driver's."""
    return int((chosen & _outermost(trace)).sum())


def _outermost(trace: Trace) -> NDArray[np.bool_]:
    return np.asarray((trace.host.role == Role.RUNTIME) & ~trace.inner_calls, np.bool_)


def _runtime(trace: Trace, links: Links) -> dict[str, Calls]:
    """Calls into the runtime by kind, outermost ones; launch calls while a graph is recorded are recording."""
    host, outer = trace.host, _outermost(trace)
    state = links.recorded.astype(np.int64) * 2 + links.launching
    key = (host.name.astype(np.int64) << 2 | state)[outer]
    found, inverse, times = np.unique(key, return_inverse=True, return_counts=True)
    spent = _summed(inverse, (host.end - host.start)[outer], len(found))
    calls: Counter[str] = Counter()
    time: Counter[str] = Counter()
    for one, n, lasted in zip(found.tolist(), times.tolist(), spent, strict=True):
        kind = call_kind(trace.names[one >> 2])
        if one & 2:
            kind = RECORDING
        elif kind == OTHER and one & 1:
            kind = LAUNCH
        calls[kind] += n
        time[kind] += lasted
    return {kind: Calls(calls[kind], time[kind] / SECOND) for kind in sorted(calls)}


def _graphs(trace: Trace, links: Links, time: Ints) -> Graphs:
    kinds = np.array([call_kind(name) for name in trace.names])
    replay = (kinds == GRAPH)[trace.host.name] & (trace.host.role == Role.RUNTIME) & _outermost(trace)
    within = links.call != NONE
    within[within] = (kinds == GRAPH)[trace.host.name[links.call[within]]]
    within |= trace.device.graph > 0
    lasted = trace.host.end - trace.host.start
    begins = np.array([begins_capture(name) for name in trace.names], np.bool_)[trace.host.name]
    return Graphs(
        replays=int(replay.sum()),
        launches=int(within.sum()),
        device_seconds=int(time[within].sum()) / SECOND,
        host_seconds=int(lasted[replay].sum()) / SECOND,
        recorded=int(links.recorded.sum()),
        captures=int((begins & (trace.host.role == Role.RUNTIME)).sum()),
    )


def _communication(found: list[Account], kernels: tuple[KernelTimes, ...]) -> Communication:
    total = sum(one.communicating for one in found)
    exposed = sum(one.exposed for one in found)
    return Communication(
        seconds=total / SECOND,
        exposed_seconds=exposed / SECOND,
        overlapped=1 - exposed / total if total else None,
        kernels=tuple(row for row in kernels if row.family == "communication"),
    )


def _steps(trace: Trace, links: Links, window: Windows, communication: NDArray[np.bool_]) -> tuple[StepTimes, ...]:
    start, end = trace.device.start, trace.device.end
    time = trace.device.duration
    every = union(start, end)
    talking = union(start[communication], end[communication])
    alone = talking.without(union(start[~communication], end[~communication]))
    # An activity belongs to the step in which it was launched; without its call, to the one in which it began.
    known = links.call != NONE
    moment = start.copy()
    moment[known] = trace.host.start[links.call[known]]
    process = np.full(len(moment), NONE, np.int64)
    process[known] = trace.host.process[links.call[known]]
    found = []
    for step in window.steps:
        low, high = np.array([step.start]), np.array([step.end])
        mine = (moment >= step.start) & (moment < step.end) & ((process == step.process) | ~known)
        found.append(
            StepTimes(
                name=step.name,
                start_seconds=(step.start - window.span[0]) / SECOND,
                seconds=(step.end - step.start) / SECOND,
                warm_up=step.warm_up,
                launches=int(mine.sum()),
                device_seconds=int(time[mine].sum()) / SECOND,
                busy_seconds=int(every.overlap(low, high)[0]) / SECOND,
                communication_seconds=int(talking.overlap(low, high)[0]) / SECOND,
                exposed_seconds=int(alone.overlap(low, high)[0]) / SECOND,
            )
        )
    return tuple(found)
