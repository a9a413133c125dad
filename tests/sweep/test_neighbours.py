"""Busy neighbours of a measurement do not outlive it."""

import signal
import subprocess
import sys

import pytest

from tests.sweep.test_engine import descendants, running, wait_for

HOLD = """
import time
from cdvft_bench.sweep.probes.widths import busy_neighbours
with busy_neighbours(2):
    print("begun", flush=True)
    time.sleep({})
"""


@pytest.mark.parametrize(("seconds", "by"), [(0, None), (600, signal.SIGKILL)])
def test_neighbours_end_with_what_they_disturb(seconds: int, by: signal.Signals | None) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD.format(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    others = descendants(process.pid)
    if by is not None:
        assert len(others) == 2
        process.send_signal(by)
    process.wait(timeout=60)
    process.stdout.close()
    wait_for(lambda: not any(map(running, others)), seconds=10)
