"""A process that answers questions ends with whoever asks it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cdvft_bench.core.helper import Helper, NoAnswerError

ANSWERS = """
import os, time
from cdvft_bench.core.helper import serve

def answer(asked):
    print("this is no answer")
    if asked.get("hang"):
        open(asked["hang"], "w").write(str(os.getpid()))
        time.sleep(600)
    return {"pid": os.getpid(), "twice": 2 * asked["n"]}

serve(answer)
"""
ASKS = f"""
import sys
from cdvft_bench.core.helper import Helper
Helper([sys.executable, "-c", {ANSWERS!r}]).ask({{"hang": sys.argv[1]}}, 600)
"""


def test_one_process_answers_until_it_fails() -> None:
    helper = Helper([sys.executable, "-c", ANSWERS])
    try:
        first, second = helper.ask({"n": 3}, 60), helper.ask({"n": 4}, 60)
        assert (first["twice"], second["twice"]) == (6, 8)
        assert first["pid"] == second["pid"] != os.getpid()
        with pytest.raises(NoAnswerError, match="KeyError: 'n'"):
            helper.ask({}, 60)
        assert helper.ask({"n": 5}, 60)["pid"] != first["pid"]
    finally:
        helper.close()
    helper.close()  # once more is no fault


def test_one_that_answers_no_more_and_does_not_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that hangs in a driver: no signal ends it, and nobody waits for it."""
    left, started = [], Helper._started
    monkeypatch.setattr(Helper, "_started", lambda self: left.append(started(self)) or left[-1])
    monkeypatch.setattr("cdvft_bench.core.helper.ENDING_S", 0.2)
    monkeypatch.setattr(os, "killpg", lambda *_: None)
    helper = Helper([sys.executable, "-c", "import os, time; os.close(1); time.sleep(600)"])
    try:
        with pytest.raises(NoAnswerError, match="does not end"):
            helper.ask({"n": 3}, 60)
        assert helper._process is None
        assert left[0].poll() is None
    finally:
        left[0].kill()
        left[0].wait()


def test_it_ends_when_whoever_asks_is_killed(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    asking = subprocess.Popen([sys.executable, "-c", ASKS, str(marker)])
    try:
        _until(lambda: marker.is_file() and marker.read_text() != "")
        pid = int(marker.read_text())
        os.kill(asking.pid, signal.SIGKILL)
        asking.wait()
        _until(lambda: not _lives(pid))
    finally:
        asking.kill()
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    with suppress(ProcessLookupError, FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _until(done: object, seconds: float = 60.0) -> None:
    assert callable(done)
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
