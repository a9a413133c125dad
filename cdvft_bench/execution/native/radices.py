"""Into which stages the compiled kernels split a transform: told to them, as a number of points is. No torch."""

from __future__ import annotations

from functools import lru_cache

LARGE = 4096
"""Points from which on a signal of float32 fills the first cache of many CPUs."""


@lru_cache(maxsize=4096)
def stages(p: int, lanes: int) -> tuple[int, ...] | None:
    """Radices of the compiled kernels' transform of p points in vectors of ``lanes``; None where they take no such p.

    Four of the p / lanes columns, where they are so divisible, go with the lanes and are no stage. Of radices up to 8,
    4 took the least time a point, 2 the least in the first stage of a large signal: what is read and written together
    lies a power of two apart there and shares the places of a cache.
    """
    if p < 1 or p % lanes:
        return None
    columns = p // lanes
    rest, twos, odd = columns // 4 if columns % 4 == 0 else columns, 0, list[int]()
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    for r in (7, 5, 3):
        while rest % r == 0:
            rest //= r
            odd.append(r)
    if rest > 1:
        return None
    first = list[int]()
    if p >= LARGE and twos:
        first, twos = [2], twos - 1
    if twos % 2:
        if 3 in odd:
            odd[odd.index(3)] = 6
        elif twos > 1 and first:
            first, twos = [*first, 8], twos - 2
        else:
            first = [*first, 2]
    return (*first, *([4] * (twos // 2)), *odd) or (1,)
