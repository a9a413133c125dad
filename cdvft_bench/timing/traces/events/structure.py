"""What encloses what on the threads of the host: parents, self times, and what an event inherits from above."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.timing.traces.events.columns import NONE, Ints

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
