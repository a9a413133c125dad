"""Sets of stretches of time, as sorted arrays of starts and ends that do not touch."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.timing.traces.events.columns import NONE, Ints


@dataclass(frozen=True)
class Stretches:
    """Stretches in order; between two of them is a gap."""

    start: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.start)

    @property
    def total(self) -> int:
        """Picoseconds."""
        return int((self.end - self.start).sum())

    def covered(self, times: Ints) -> Ints:
        """Picoseconds of the stretches before each of ``times``."""
        if not len(self.start):
            return np.zeros(len(times), np.int64)
        before = np.concatenate(([0], np.cumsum(self.end - self.start)))
        i = np.searchsorted(self.start, times, side="right")
        last = np.maximum(i - 1, 0)
        inside = np.minimum(times, self.end[last]) - self.start[last]
        return np.where(i > 0, before[last] + inside, 0)

    def overlap(self, start: Ints, end: Ints) -> Ints:
        """Picoseconds of the stretches in each of the intervals from ``start`` to ``end``."""
        return np.asarray(self.covered(end) - self.covered(start), np.int64)

    def within(self, other: Stretches) -> Stretches:
        """The intersection."""
        low = np.searchsorted(other.end, self.start, side="right")
        times = np.maximum(np.searchsorted(other.start, self.end, side="left") - low, 0)
        mine = np.repeat(np.arange(len(self.start)), times)
        begin = np.cumsum(times) - times
        theirs = low[mine] + np.arange(len(mine)) - begin[mine]
        start = np.maximum(self.start[mine], other.start[theirs])
        end = np.minimum(self.end[mine], other.end[theirs])
        return Stretches(start[start < end], end[start < end])

    def without(self, other: Stretches) -> Stretches:
        """What lies in none of the other's stretches."""
        if not len(self.start):
            return self
        lasting = other.start < other.end
        outside = Stretches(
            np.concatenate(([self.start[0]], other.end[lasting])),
            np.concatenate((other.start[lasting], [max(self.end[-1], other.end.max(initial=self.end[-1]))])),
        )
        found = outside.start < outside.end
        return self.within(Stretches(outside.start[found], outside.end[found]))

    def gaps(self) -> Stretches:
        """The stretches between them."""
        return Stretches(self.end[:-1], self.start[1:])


EMPTY = Stretches(np.zeros(0, np.int64), np.zeros(0, np.int64))


def union(start: Ints, end: Ints) -> Stretches:
    """The stretches that intervals cover together; those that touch are one."""
    if not len(start):
        return EMPTY
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    reach = np.maximum.accumulate(end)
    new = np.concatenate(([True], start[1:] > reach[:-1]))
    last = np.concatenate((np.flatnonzero(new)[1:] - 1, [len(start) - 1]))
    return Stretches(start[new], reach[last])


def union_of(pairs: Iterable[tuple[int, int]]) -> Stretches:
    """The same of pairs."""
    found = np.array(list(pairs), np.int64).reshape(-1, 2)
    return union(found[:, 0], found[:, 1])


# --- what encloses what on the threads of the host -------------------------------------------


_CHUNK = 1 << 15
V = TypeVar("V", bound=np.generic)


@dataclass(frozen=True)
class Forest:
    """Events of the host in preorder: an event before what it encloses.

    Attributes:
        parent: index of the innermost event around each, ``NONE`` at the top. depth: how many are around it.
        own: picoseconds in the event and in none inside it. On every thread they add up to the time in which any event
            is open, whatever overlaps: of the open events the one that began last has the time.
        levels: indices by depth, outermost first.
    """

    parent: Ints
    depth: Ints
    own: Ints
    levels: tuple[Ints, ...]

    def inherited(self, values: NDArray[V], given: NDArray[np.bool_]) -> NDArray[V]:
        """``values`` where ``given``, elsewhere the parent's; at the top what ``values`` has."""
        found = values.copy()
        for level in self.levels[1:]:
            lacking = level[~given[level]]
            found[lacking] = found[self.parent[lacking]]
        return found


def nest(track: Ints, start: Ints, end: Ints) -> Forest:
    """The forest of events that are sorted by track, then by start, the longer first."""
    n = len(track)
    parent, depth, own = array("i", [NONE]) * n, array("i", [0]) * n, array("q", [0]) * n
    stack: list[int] = []
    ends: list[int] = []
    at, thread, i = 0, None, 0
    for low in range(0, n, _CHUNK):
        part = slice(low, low + _CHUNK)
        for t, begin, finish in zip(track[part].tolist(), start[part].tolist(), end[part].tolist(), strict=True):
            if t != thread:
                _close(stack, ends, own, at)
                thread = t
            while ends:
                last = ends[-1]
                if last > begin or (last == begin and finish <= begin):
                    break
                closed = stack.pop()
                ends.pop()
                if last > at:
                    own[closed] += last - at
                    at = last
            if stack:
                around = stack[-1]
                parent[i] = around
                own[around] += begin - at
            at = begin
            depth[i] = len(stack)
            stack.append(i)
            ends.append(finish)
            i += 1
    _close(stack, ends, own, at)
    found = np.frombuffer(depth, np.int32) if n else np.zeros(0, np.int32)
    order = np.argsort(found, kind="stable").astype(np.int32)
    bounds = np.searchsorted(found[order], np.arange(1, int(found.max(initial=0)) + 1))
    levels = tuple(np.split(order, bounds))
    return Forest(np.frombuffer(parent, np.int32) if n else found, found, np.frombuffer(own, np.int64), levels)  # type: ignore[arg-type]


def _close(stack: list[int], ends: list[int], own: array[int], at: int) -> None:
    while stack:
        closed, last = stack.pop(), ends.pop()
        if last > at:
            own[closed] += last - at
            at = last
