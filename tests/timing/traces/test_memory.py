"""A big trace is streamed: its process never holds more than columns of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.test_traces import MEMORY, SIZE, write_trace

PEAK = """
import resource, sys
from cdvft_bench.timing.traces.analysis import analyse_file
found = analyse_file(sys.argv[1])
print(found.summary.launches, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(path: Path) -> tuple[int, int]:
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    launches, memory = done.stdout.split()
    return int(launches), int(memory)


def test_memory_grows_by_less_than_the_file_does(tmp_path: Path) -> None:
    small, large = tmp_path / "small.json", tmp_path / "large.json"
    sizes = (2_000_000, 12_000_000)
    kernels = [write_trace(path, size) for path, size in zip((small, large), sizes, strict=True)]
    found = [peak(path) for path in (small, large)]
    assert [launches for launches, _ in found] == kernels
    assert found[1][1] - found[0][1] < (sizes[1] - sizes[0]) / 1.2


@pytest.mark.slow
def test_a_trace_of_186_mb_fits_into_a_tenth_of_what_objects_take(tmp_path: Path) -> None:
    kernels = write_trace(tmp_path / "t.json", SIZE)
    assert peak(tmp_path / "t.json")[0] == kernels
    assert peak(tmp_path / "t.json")[1] < MEMORY
