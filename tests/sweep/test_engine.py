"""A sweep survives what its cases do, and its own death."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cdvft_bench.core.errors import UserError
from cdvft_bench.sweep.engines.local import run
from cdvft_bench.sweep.grid import Limits
from cdvft_bench.sweep.run import run_grid
from cdvft_bench.sweep.storage.store import Store
from tests.sweep import work
from tests.sweep.work import many, seeded

ROOT = Path(__file__).parents[2]

SWEEP = """
import signal
import sys
from cdvft_bench.sweep.engines.local import run
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.core.environment import Environment
from tests.sweep import work

here = Environment("cpu", 2, None, 1, (), None, None, "", "", "", "", {}, None, "2026-01-01")
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in its background
    with Store(sys.argv[1], create=True) as store:
        run(work.many(), store, work=getattr(work, sys.argv[2]), preload=["tests.sweep.work"], environment=here)
"""
"""A sweep that imports no torch: it starts in a moment, so that kills hit it at work."""


def sweep(store_path: Path, doing: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SWEEP, str(store_path), doing]
    environment = {**os.environ, "SWEEP_TEST_MARK": str(mark(store_path))}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def mark(store_path: Path) -> Path:
    return store_path.with_suffix(".mark")


def rows(store_path: Path) -> int:
    """How many records the file holds, read as any other program would; 0 while there is no table yet."""
    if not store_path.exists():
        return 0
    db = sqlite3.connect(store_path, timeout=10)
    try:
        return int(db.execute("SELECT count(*) FROM records").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        db.close()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("what was waited for did not come")
        time.sleep(0.02)


def descendants(pid: int) -> set[int]:
    """Processes below one, the fork server's children among them."""
    try:
        children = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return set()
    return set(children).union(*map(descendants, children))


def case_in_flight(process: subprocess.Popen[bytes], store_path: Path) -> set[int]:
    """Wait until a case hangs: the fork server, multiprocessing's resource tracker and the case."""
    wait_for(mark(store_path).exists)
    below = descendants(process.pid)
    assert len(below) == 3
    return below


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_failures_cost_their_case_alone(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite", create=True) as store:
        outcome = run([seeded(s) for s in range(8)], store, Limits(timeout_s=10, memory_gib=0.5), work=work.misbehave)
        assert (outcome.run, outcome.skipped, outcome.failed) == (8, 0, 6)
        records = {r.case.seed: r for r in store.records()}
    causes = {
        1: "RuntimeError: a library's error of two lines",
        2: "killed by SIGSEGV",
        3: "timed out after 10 s",
        4: "out of memory: limit 0.5 GiB",
        5: "UserError: value 3 is too small; use 4",
        6: "ended with exit code 7 and no result",
    }
    for seed, cause in causes.items():
        assert records[seed].status == "failed"
        assert (records[seed].error or "").startswith(cause)
        assert records[seed].predicted is None
    for seed in (0, 7):
        assert records[seed].status == "ok"
        assert records[seed].label == "CDVFT m=2 p=d fft"
        assert records[seed].predicted is not None


def test_failed_cases_are_run_again_only_when_asked(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite", create=True) as store:
        cases = [seeded(0), seeded(5)]
        assert run(cases, store, work=work.misbehave).failed == 1
        again = run(cases, store, work=work.predict_only)
        assert (again.run, again.failed) == (0, 1)
        mended = run(cases, store, work=work.predict_only, retry_failed=True)
        assert (mended.run, mended.skipped, mended.failed) == (1, 1, 0)


def test_failures_that_are_hard_to_write_down(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite", create=True) as store:
        outcome = run([seeded(s) for s in range(7)], store, work=work.speak_oddly)
        assert (outcome.run, outcome.failed) == (7, 5)
        errors = {r.case.seed: r.error for r in store.records()}
    assert errors == {
        0: None,
        1: "RuntimeError: no Unicode: \\udc80",
        2: "out of memory: 37 TiB asked for",
        3: "what was measured cannot be kept: forward.flops.flop = nan is no finite number, "
        "so it is no measurement to keep",
        4: errors[4],
        5: "killed by SIGKILL, which came from outside, as when memory runs out",
        6: None,
    }
    assert "what was measured cannot be kept: text 'no Unicode: \\udc80'" in (errors[4] or "")


def test_a_case_given_twice_is_run_once(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite", create=True) as store:
        outcome = run([seeded(0), seeded(1), seeded(0)], store, work=work.predict_only)
        assert (outcome.run, outcome.skipped) == (2, 0)


def test_what_a_grid_leaves_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = tmp_path / "grid.toml"
    text = """
        [grid]
        name = "odd"
        [[block]]
        kind = "layer"
        subjects = ["48x32"]
        skip_invalid = true
        [[block.method]]
        name = "c3a"
        block_size = 32
    """
    grid.write_text(text)
    with pytest.raises(UserError, match="no case that fits"):
        run_grid(str(grid), tmp_path / "s.sqlite")
    assert "1 combinations of" in capsys.readouterr().err
    assert not (tmp_path / "s.sqlite").exists()


def test_a_sweep_is_not_run_into_a_file_that_cannot_keep_it(tmp_path: Path) -> None:
    for existing in (False, True):
        if existing:
            (tmp_path / "s.jsonl").touch()
        with pytest.raises(UserError, match="read only"):
            run_grid("smoke", tmp_path / "s.jsonl")


def test_sigkill_loses_nothing(tmp_path: Path) -> None:
    store_path, rng = tmp_path / "s.sqlite", random.Random(0)
    for _ in range(2):
        before = rows(store_path)
        process = sweep(store_path, "slowly")
        wait_for(lambda before=before: rows(store_path) > before)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        process.communicate()
        done = rows(store_path)
        assert before < done < len(many())  # it was killed on its way
        with Store(store_path) as store:
            assert store.intact()
            kept = {r.case.key: r.created for r in store.records()}
    process = sweep(store_path, "slowly")
    assert process.communicate(timeout=100)[1] is not None
    assert process.returncode == 0
    with Store(store_path) as store:
        assert store.intact()
        records = list(store.records())
    assert sorted(r.case.seed for r in records) == list(range(len(many())))  # every case once
    assert all(r.status == "ok" and r.label == f"cdvft {r.case.seed}" for r in records)
    assert kept.items() <= {r.case.key: r.created for r in records}.items()  # and none again


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    """At any instant: while the sweep starts, between cases, inside a case, inside a transaction.

    Every fourth kill comes at any moment from the start on, the others at any moment of the work.
    """
    store_path, rng = tmp_path / "s.sqlite", random.Random(1)
    kept: dict[str, str] = {}
    at_work = sweeps = 0
    for number in range(200):
        process = sweep(store_path, "slowly")
        if number % 4:
            wait_for(lambda: rows(store_path) > len(kept) or process.poll() is not None)  # noqa: B023
            time.sleep(rng.uniform(0, 0.2))
        else:
            time.sleep(rng.uniform(0, 3))
        process.kill()
        process.communicate()
        if not store_path.exists():
            continue
        try:
            with Store(store_path) as store:
                assert store.intact()
                records = list(store.records())
                assert len(records) == len(store.keys())  # none doubled
                now = {r.case.key: r.created for r in records}
        except UserError:  # killed before the store's first transaction: there is nothing to lose yet
            assert not kept
            continue
        assert kept.items() <= now.items()
        at_work += kept.keys() < now.keys() and len(now) < len(many())
        kept = now
        if len(kept) == len(many()):  # done: another sweep
            store_path.unlink()
            kept, sweeps = {}, sweeps + 1
    assert at_work >= 100
    assert sweeps >= 1
    assert sweep(store_path, "slowly").wait(timeout=600) == 0
    with Store(store_path) as store:
        assert store.intact()
        assert sorted(r.case.seed for r in store.records()) == list(range(len(many())))


@pytest.mark.parametrize("doing", ["hang", "hold_the_lock"])
def test_no_process_outlives_a_killed_sweep(tmp_path: Path, doing: str) -> None:
    store_path = tmp_path / "s.sqlite"
    process = sweep(store_path, doing)
    below = case_in_flight(process, store_path)
    process.kill()
    try:
        wait_for(lambda: not any(map(running, below)), seconds=10)
    finally:
        for pid in filter(running, below):
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=10)


def test_an_interrupt_ends_the_sweep_and_its_case(tmp_path: Path) -> None:
    store_path = tmp_path / "s.sqlite"
    process = sweep(store_path, "hang_at_3")
    below = case_in_flight(process, store_path)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert b"KeyboardInterrupt" in said
    wait_for(lambda: not any(map(running, below)), seconds=10)
    with Store(store_path) as store:
        assert store.intact()
        assert sorted(r.case.seed for r in store.records()) == [0, 1, 2]  # nothing is blamed on the case in flight
