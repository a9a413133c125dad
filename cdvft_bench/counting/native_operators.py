"""What this suite's own compiled operators do, as instrumented builds of the same source were seen to do it.

No form over shapes: while :func:`watched` is on, the operators run kernels in which every addition, multiplication,
transform and access to an operand counts itself (``execution/native/numbers.h``). So the counts are those of the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from cdvft_bench.execution.native import Counts, counting

NAMESPACE = "cdvft"


def fft_flops(seen: Counts) -> float:
    """The transforms at 5 n log2 n each."""
    return 5.0 * seen.points * math.log2(seen.points) * seen.transforms


@contextmanager
def watched() -> Iterator[list[Counts]]:
    """Yields the counts of each call of an operator inside, in order."""
    with counting() as seen:
        yield seen
