"""Which annotated range of a trace an event belongs to, in the backward too, and the shares of base and adapter."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.core.timed import Part
from cdvft_bench.timing.traces.events.columns import NONE, Ints
from cdvft_bench.timing.traces.events.model import SECOND, Trace
from cdvft_bench.timing.traces.events.roles import STEP, Role

BASE = "cdvft_bench::base"
ADAPTER = "cdvft_bench::adapter"
NEITHER = "neither"
PARTS = {BASE: "base", ADAPTER: "adapter"}
"""Ranges of ``timing.scopes``, and how a summary calls them."""

UNSCOPED = "unscoped"
_ENGINE = "autograd::engine::evaluate_function"
_ACCUMULATION = f"{_ENGINE}: torch::autograd::AccumulateGrad"
_NODES = 3  # autograd nodes that one operator makes, at most


class Scopes:
    """Finds the annotated range that an event of the host belongs to."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        host, forest = trace.host, trace.forest
        self._engine = _named(trace, lambda name: name.startswith(_ENGINE)) & (host.role == Role.OPERATOR)
        self._makers = self._find_makers()
        # From a backward operator the way up leads to its forward operator, which began earlier; so it ends.
        self._up = np.where(self._makers != NONE, self._makers, forest.parent)
        self._ranges = host.role == Role.RANGE
        self._in_backward = forest.inherited(self._engine, self._engine)

    def of(self, events: Ints) -> list[str]:
        """Name of the innermost range around each event, or around its forward operator."""
        found = self._first(self._ranges & ~_named(self._trace, lambda name: bool(STEP.match(name))), events)
        return [self._trace.name(e) if e != NONE else UNSCOPED for e in found.tolist()]

    def parts(self, events: Ints) -> list[str]:
        """Whose each event is, by the innermost range of ``timing.scopes``, whatever other ranges lie inside it."""
        trace = self._trace
        marks = self._ranges & _named(trace, PARTS.__contains__)
        if not marks.any():
            return [NEITHER] * len(events)
        found = self._first(marks, events)
        names = [PARTS[trace.name(e)] if e != NONE else NEITHER for e in found.tolist()]
        sums = self._sums_for_adapter(events)
        return [PARTS[ADAPTER] if name == PARTS[BASE] and s else name for name, s in zip(names, sums, strict=True)]

    def in_backward(self, events: Ints) -> NDArray[np.bool_]:
        """Whether autograd's engine runs each event."""
        known = events != NONE
        return np.asarray(self._in_backward[events] & known if len(self._in_backward) else known, np.bool_)

    def _first(self, accepted: NDArray[np.bool_], events: Ints) -> Ints:
        """The first accepted event on the way up from each event, itself among them; ``NONE`` for none."""
        n = len(accepted)
        # One more stands for the top. Each round doubles how far a step leads.
        leads = np.append(np.where(accepted, np.arange(n), np.where(self._up == NONE, n, self._up)), n)
        for _ in range(n.bit_length() + 1):
            leads = leads[leads]
        found = leads[np.where(events == NONE, n, events)]
        return np.where(found == n, NONE, found)

    def _sums_for_adapter(self, events: Ints) -> list[bool]:
        """Whether the engine here adds the base's input gradient to the adapter's: without adapter it would not."""
        trace = self._trace
        # What is nearest above: the engine itself, or the node that works inside it.
        working = (trace.host.role == Role.OPERATOR) & ~trace.operators
        index = np.arange(len(working))
        nearest = trace.forest.inherited(np.where(working, index, NONE), working)
        adapter = self._ranges & _named(trace, ADAPTER.__eq__)
        inside = trace.forest.inherited(adapter, adapter)
        above = np.where(events == NONE, NONE, nearest[events])
        engine = (above != NONE) & self._engine[above]
        forward = np.where(engine, self._makers[above], NONE)
        return [bool(v) for v in inside[forward] & (forward != NONE)]

    def _find_makers(self) -> Ints:
        """The forward operator of each backward one; for a gradient's accumulation, the node that made the gradient."""
        host = self._trace.host
        operator = host.role == Role.OPERATOR
        numbered = operator & (host.sequence != NONE)
        makers = np.full(len(host), NONE, np.int64)
        # An autograd node bears the sequence number that was next when its forward operator started: of the
        # operators that saw that number, the last made the node. Numbers are a process's own.
        ahead = np.flatnonzero(numbered & (host.forward <= 0))
        ahead = ahead[np.argsort(host.start[ahead], kind="stable")][::-1]
        keys, last = np.unique(_key(host.process[ahead], host.sequence[ahead]), return_index=True)
        behind = np.flatnonzero(numbered & (host.forward > 0))
        if len(keys):
            # An in-place operator on a view makes several nodes, and no operator sees the numbers of the later ones.
            for back in reversed(range(_NODES)):
                wanted = _key(host.process[behind], host.sequence[behind] - back)
                at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
                forward = ahead[last[at]]
                makers[behind] = np.where(keys[at] == wanted, forward, makers[behind])
            forward = makers[behind]
            makers[behind] = np.where((forward != NONE) & (host.start[forward] < host.start[behind]), forward, NONE)
        # A gradient is stored right after the node that made it: the engine knows nothing more urgent.
        producers: dict[int, int] = {}
        engine = np.flatnonzero(self._engine)
        stores = _named(self._trace, _ACCUMULATION.__eq__)
        for event in engine[np.argsort(host.start[engine], kind="stable")].tolist():
            track = int(host.track[event])
            if stores[event] and track in producers:
                makers[event] = producers[track]
            else:
                producers[track] = event
        return makers


def _named(trace: Trace, accepts: Callable[[str], bool]) -> NDArray[np.bool_]:
    """Host events whose names are accepted."""
    return np.array([accepts(name) for name in trace.names], np.bool_)[trace.host.name]


def _key(process: Ints, number: Ints) -> Ints:
    return process.astype(np.int64) << 44 | (number.astype(np.int64) & ((1 << 44) - 1))


def shares(scopes: Scopes, events: Ints, labels: Sequence[Sequence[str]], time: Ints) -> dict[str, Part]:
    """Shares of base, adapter and neither of what was launched; none where no part's range is in the trace.

    Args:
        scopes: of the trace.
        events: leaf operators or launching calls, ``NONE`` unknown.
        labels, time: families of what each launched, and its picoseconds.
    """
    names = scopes.parts(events)
    if set(names) <= {NEITHER}:
        return {}
    families: dict[str, Counter[str]] = {name: Counter() for name in (*PARTS.values(), NEITHER)}
    backward: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    behind = scopes.in_backward(events).tolist()
    for name, some, duration, is_backward in zip(names, labels, time.tolist(), behind, strict=True):
        families[name].update(some)
        spent[name] += duration
        backward[name] += len(some) if is_backward else 0
    return {
        name: Part(sum(found.values()), backward[name], spent[name] / SECOND, dict(sorted(found.items())))
        for name, found in families.items()
    }
