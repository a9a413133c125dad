"""What the host's side of a trace says: operators, leaf operators, bytes; and the summary of a trace of a CPU."""

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.core.timed import TraceSummary
from cdvft_bench.timing.traces.events.attribution import Scopes, shares
from cdvft_bench.timing.traces.events.columns import Ints
from cdvft_bench.timing.traces.events.intervals import Stretches, union
from cdvft_bench.timing.traces.events.linking import Links
from cdvft_bench.timing.traces.events.model import SECOND, Trace
from cdvft_bench.timing.traces.events.roles import Role
from cdvft_bench.timing.traces.events.windows import Windows
from cdvft_bench.timing.traces.names.families import operator_family
from cdvft_bench.timing.traces.names.operators import bare
from cdvft_bench.timing.traces.summary.result import Detail, KernelTimes, OperatorTimes, StepTimes
from cdvft_bench.timing.traces.summary.traffic import moved_bytes, product
from cdvft_bench.timing.traces.summary.verdict import Evidence, judge_cpu


class HostWork:
    """A trace with what is worked out of its host's side once."""

    def __init__(self, trace: Trace, links: Links) -> None:
        self.trace, self.links = trace, links
        self.notes = list(trace.notes.lines())
        self.scopes = Scopes(trace)

    @cached_property
    def leaves(self) -> Ints:
        """Leaf operators in order of their start."""
        found = np.flatnonzero(self.trace.leaves[0])
        return found[np.argsort(self.trace.host.start[found], kind="stable")]

    @cached_property
    def clones(self) -> dict[int, list[int]]:
        """Copies that the dispatcher made before a leaf ran, of operands that were only marked as conjugated."""
        host, forest = self.trace.host, self.trace.forest
        clone = np.array([name == "aten::clone" for name in self.trace.names], np.bool_)
        first = np.minimum(self.leaves + 1, len(host) - 1)
        begins = clone[host.name[first]] & (forest.parent[first] == self.leaves) & (first == self.leaves + 1)
        return {leaf: found for leaf in self.leaves[begins].tolist() if (found := self._conjugations(leaf))}

    def _conjugations(self, leaf: int) -> list[int]:
        trace = self.trace
        parent = trace.forest.parent
        inside = takewhile(lambda i: i < len(parent) and parent[i] >= leaf, range(leaf + 1, len(parent)))
        children = (i for i in inside if parent[i] == leaf)
        leading = list(takewhile(lambda i: trace.name(i) == "aten::clone", children))
        typed = [trace.shape(i)[1] for i in leading]
        if any(types is not None for types in typed):
            return [i for i, types in zip(leading, typed, strict=True) if "complex" in str(types)]
        # Without recorded types, a clone inside another kind of operator may as well be the operator's own.
        return leading if operator_family(bare(trace.name(leaf))) == "elementwise" else []

    def dispatched(self, leaf: int) -> list[str]:
        """Names that the dispatcher sees for a leaf operator: its own, then those of copies made for it."""
        return [bare(self.trace.name(leaf)), *["clone"] * len(self.clones.get(leaf, ()))]

    def traffic(self, leaves: Ints) -> tuple[dict[str, int], NDArray[np.bool_]]:
        """Bytes moved by leaf operators and copies made for them, by family, and which leaves' shapes tell."""
        clones = [c for leaf in leaves.tolist() for c in self.clones.get(leaf, ())] if self.clones else []
        events = np.concatenate((leaves, np.array(clones, np.int64)))
        kinds, inverse, times = self._alike(events)
        moved = [moved_bytes(bare(self.trace.name(e)), self.trace.shape(e)) for e in kinds]
        found: Counter[str] = Counter()
        for event, one, n in zip(kinds, moved, times, strict=True):
            if one is not None:
                found[operator_family(bare(self.trace.name(event)))] += one * n
        told = np.array([one is not None for one in moved], np.bool_)[inverse]
        unknown = int((~told).sum())
        if 0 < unknown < len(events):
            self.notes.append(
                f"{unknown:,} of {len(events):,} operators have no shapes in the trace: the bytes are without theirs"
            )
        return (dict(sorted(found.items())) if unknown < len(events) else {}), told[: len(leaves)]

    def products(self, leaves: Ints) -> tuple[float, float, NDArray[np.bool_]]:
        """FLOPs and bytes of the matrix products among leaf operators, and which of the leaves they are."""
        kinds, inverse, times = self._alike(leaves)
        work = [product(self.trace.name(e), self.trace.shape(e)) for e in kinds]
        known = [(one, n) for one, n in zip(work, times, strict=True) if one is not None]
        flops = sum(one[0] * n for one, n in known)
        moved = sum(one[1] * n for one, n in known)
        return flops, moved, np.array([one is not None for one in work], np.bool_)[inverse]

    def _alike(self, events: Ints) -> tuple[list[int], Ints, list[int]]:
        """One host event of each name and shape, which of them each event is like, and how many are."""
        host = self.trace.host
        key = host.name[events].astype(np.int64) << 32 | (host.shape[events].astype(np.int64) + 1)
        _, first, inverse, times = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        return events[first].tolist(), inverse, times.tolist()

    def common(self, window: Windows) -> dict[str, Any]:
        """What every summary holds."""
        trace = self.trace
        operators = trace.operators
        return {
            "operators": int(operators.sum()),
            "host_seconds": int(trace.forest.own[operators].sum()) / SECOND,
            "dispatched": len(self.leaves) + sum(map(len, self.clones.values())),
            "span_seconds": (window.span[1] - window.span[0]) / SECOND,
        }

    def operator_times(self, launches: Ints, time: Ints, total: int) -> tuple[OperatorTimes, ...]:
        """Operators by name, those that took longest first.

        Args:
            launches, time: of each host event as the innermost operator of what was launched; picoseconds.
            total: picoseconds that shares are of.
        """
        trace = self.trace
        mine = np.flatnonzero(trace.host.role == Role.OPERATOR)
        names, inverse, calls = np.unique(trace.host.name[mine], return_inverse=True, return_counts=True)

        def summed(values: Ints) -> list[int]:
            found = np.zeros(len(names), np.int64)
            np.add.at(found, inverse, values[mine])
            return [int(v) for v in found]

        own, made, spent = summed(trace.forest.own), summed(launches), summed(time)
        rows = [
            OperatorTimes(trace.names[n], int(c), o / SECOND, m, s / SECOND, (s / total if total else 0.0))
            for n, c, o, m, s in zip(names.tolist(), calls.tolist(), own, made, spent, strict=True)
        ]
        return tuple(sorted(rows, key=lambda r: (-r.device_seconds, -r.host_seconds, r.name)))


def sorted_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """In order of the names."""
    return dict(sorted(counts.items()))


def in_seconds(picoseconds: Mapping[str, int]) -> dict[str, float]:
    """The same in seconds."""
    return {name: value / SECOND for name, value in sorted(picoseconds.items())}


def tally(work: HostWork, events: Ints, launches: Ints, time: Ints) -> tuple[dict[str, int], dict[str, float]]:
    """Launches and seconds by range.

    Args:
        work: of the trace. events: of the host, ``NONE`` for unknown. launches: how many each stands for.
        time: picoseconds of each.
    """
    counts: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for scope, n, length in zip(work.scopes.of(events), launches.tolist(), time.tolist(), strict=True):
        counts[scope] += n
        spent[scope] += length
    return sorted_counts(counts), in_seconds(spent)


# --- a trace of a CPU -----------------------------------------------------------------------


def analyse(work: HostWork, window: Windows) -> tuple[TraceSummary, Detail]:
    """Summary and detail of a trace whose work the CPU did."""
    trace, leaves = work.trace, work.leaves
    start, end = trace.host.start[leaves], trace.host.end[leaves]
    time = end - start
    families: Counter[str] = Counter()
    mine = np.flatnonzero(trace.operators)
    for name, own in zip(trace.host.name[mine].tolist(), trace.forest.own[mine].tolist(), strict=True):
        families[operator_family(bare(trace.names[name]))] += own
    names = [work.dispatched(leaf) for leaf in leaves.tolist()]
    dispatched = Counter(name for some in names for name in some)
    by_family: Counter[str] = Counter()
    for name, times in dispatched.items():
        by_family[operator_family(name)] += times
    sizes = np.array([len(some) for some in names], np.int64)
    scopes, scope_seconds = tally(work, leaves, sizes, time)
    parts = shares(work.scopes, leaves, [[operator_family(name) for name in some] for some in names], time)
    busy = union(start, end)
    inside = busy.within(window.whole).total
    fraction = inside / window.whole.total if window.whole.total else None
    traffic, told = work.traffic(leaves)
    flops, moved, products = work.products(leaves)
    spent = int(time.sum())
    evidence = Evidence(
        families=in_seconds(_by_family(work, names, time)),
        covered=int(time[told].sum()) / spent if spent else None,
        flops=flops,
        moved=moved,
        products=int(time[products].sum()) / SECOND,
    )
    working = host_working(trace)
    verdict, reason = judge_cpu(fraction, working, evidence)
    known = union(start[told], end[told]).total / SECOND
    bytes_moved = sum(traffic.values()) if traffic else None
    summary = TraceSummary(
        **work.common(window),
        launches=sum(dispatched.values()),
        device_seconds=0.0,
        families=in_seconds(families),
        by_operator=sorted_counts(dispatched),
        device="cpu",
        family_launches=sorted_counts(by_family),
        scopes=scopes,
        scope_seconds=scope_seconds,
        busy_fraction=fraction,
        moved_bytes=bytes_moved,
        family_bytes=traffic,
        bytes_per_second=bytes_moved / known if bytes_moved and known else None,
        verdict=verdict,
        reason=reason,
        notes=tuple(work.notes),
        parts=parts,
        evidence=evidence.covered,
        host_working=working,
    )
    launches, own = np.zeros(len(trace.host), np.int64), np.zeros(len(trace.host), np.int64)
    launches[leaves] = sizes
    detail = Detail(
        steps=_steps(work, window, busy),
        kernels=_leaf_times(work, names, time),
        operators=work.operator_times(launches, own, 0),
        window_seconds=window.whole.total / SECOND,
        compute_seconds=inside / SECOND,
        evidence=evidence.covered,
        flops_per_byte=flops / moved if moved else None,
    )
    return summary, detail


def _by_family(work: HostWork, names: list[list[str]], time: Ints) -> dict[str, int]:
    found: Counter[str] = Counter()
    for some, length in zip(names, time.tolist(), strict=True):
        found[operator_family(some[0])] += length
    return dict(found)


def _leaf_times(work: HostWork, names: list[list[str]], time: Ints) -> tuple[KernelTimes, ...]:
    launches: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for some, length in zip(names, time.tolist(), strict=True):
        launches.update(some)
        spent[some[0]] += length
    total = sum(spent.values())
    rows = [
        KernelTimes(
            name, name, operator_family(name), times, spent[name] / SECOND, spent[name] / total if total else 0.0
        )
        for name, times in launches.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.seconds, row.name)))


def _steps(work: HostWork, window: Windows, busy: Stretches) -> tuple[StepTimes, ...]:
    trace, leaves = work.trace, work.leaves
    found = []
    for step in window.steps:
        inside = (trace.host.start[leaves] >= step.start) & (trace.host.start[leaves] < step.end)
        inside &= trace.host.process[leaves] == step.process
        chosen = leaves[inside]
        spent = int((trace.host.end[chosen] - trace.host.start[chosen]).sum())
        ran = int(busy.overlap(np.array([step.start]), np.array([step.end]))[0])
        found.append(
            StepTimes(
                step.name,
                (step.start - window.span[0]) / SECOND,
                (step.end - step.start) / SECOND,
                step.warm_up,
                len(chosen),
                spent / SECOND,
                ran / SECOND,
                0.0,
                0.0,
            )
        )
    return tuple(found)


def host_working(trace: Trace) -> float | None:
    """Share of the recorded call in which its thread worked, as this suite's recorder says; None for other traces."""
    said = trace.document.get("cdvft_bench")
    if not isinstance(said, Mapping):
        return None
    worked, lasted = said.get("thread_seconds"), said.get("wall_seconds")
    if not isinstance(worked, int | float) or not isinstance(lasted, int | float) or not lasted > 0 or not worked >= 0:
        return None
    return min(worked / lasted, 1.0)
