"""One run at a time; a lock whose owner is gone is taken over."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.lock import RunLock

HOLD = """
import sys
from cdvft_bench.core.io.lock import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_told_who_holds_it_and_a_dead_owner_s_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"in use: process {process.pid} on {socket.gethostname()} is running into it"):
        RunLock(path)
    process.kill()
    process.communicate()
    assert path.with_name("records.sqlite.lock").exists()  # stale
    with RunLock(path) as lock:
        assert json.loads(lock.path.read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}
        with pytest.raises(UserError, match="in use"):
            RunLock(path)
    assert not lock.path.exists()
    RunLock(path).release()


def test_a_damaged_lock_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_text("{")
    RunLock(tmp_path / "x").release()


def test_where_there_are_no_locks_the_owner_s_life_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*arguments: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lock = tmp_path / "x.lock"
    lock.write_text(json.dumps({"pid": ended.pid, "host": socket.gethostname()}))
    RunLock(tmp_path / "x").release()
    for owner in ({"pid": os.getppid(), "host": socket.gethostname()}, {"pid": 1, "host": "elsewhere"}):
        lock.write_text(json.dumps(owner))
        with pytest.raises(UserError, match=f"process {owner['pid']} on {owner['host']}"):
            RunLock(tmp_path / "x")
