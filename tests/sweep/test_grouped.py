"""Groups: one process for all settings of a workload, which survives what any of them does, and its own death."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cdvft_bench.core.case import Case
from cdvft_bench.core.record import Record
from cdvft_bench.sweep.engines import grouped
from cdvft_bench.sweep.engines.grouped import timing_of
from cdvft_bench.sweep.engines.isolation import SCRATCH, sweep_scratch
from cdvft_bench.sweep.grid import Limits, make_case
from cdvft_bench.sweep.storage.keeping import SweepResult
from cdvft_bench.sweep.storage.store import Store
from tests.sweep import work
from tests.sweep.test_engine import descendants, running, wait_for
from tests.sweep.work import setting

ROOT = Path(__file__).parents[2]
PRELOAD = ("tests.sweep.work",)
FROZEN, LORA = (
    make_case("frozen", {}, "layer", "32x32", sequence=8),
    make_case("lora", {"rank": 8}, "layer", "32x32", sequence=8),
)

RUN = """
import signal
import sys
from cdvft_bench.cli import _end_on_sigterm
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.io.lock import RunLock
from cdvft_bench.sweep.engines.grouped import run
from cdvft_bench.sweep.storage.store import Store
from tests.sweep import work

here = Environment("cpu", 2, None, 1, (), None, None, "", "", "", "", {}, None, "2026-01-01")
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in its background
    _end_on_sigterm()
    cases = [work.setting(2, f"{d}x{d}") for d in (16, 24, 32, 40)]
    with Store(sys.argv[1], create=True) as store, RunLock(sys.argv[1]):
        run(cases, store, timing=getattr(work, sys.argv[2]), describing=work.tell, preload=["tests.sweep.work"],
            environment=here)
"""


def run(cases: Sequence[Case], path: Path, **options: object) -> tuple[SweepResult, dict[str, Record]]:
    limits = Limits(timeout_s=8, memory_gib=0.5)
    given: Any = {"timing": work.rounds, "describing": work.tell, "preload": PRELOAD, **options}
    with Store(path, create=True) as store:
        found = grouped.run(cases, store, limits, **given)
        records = {r.case.plain_label + r.case.subject.removeprefix("32x32"): r for r in store.records()}
        return found, records


def processes(store: Store) -> int:
    return sum(timing.processes for record in store.records() if (timing := timing_of(record)) is not None)


def test_all_settings_share_their_rounds_over_three_processes(tmp_path: Path) -> None:
    told: list[str] = []
    cases = [FROZEN, LORA, setting(2), setting(8), setting(2, "48x48")]
    with Store(tmp_path / "s.sqlite", create=True) as store:
        done = grouped.run(
            cases,
            store,
            timing=work.rounds,
            describing=work.tell,
            preload=PRELOAD,
            first=lambda: told.extend(r.label for r in store.records()),
        )
        assert (done.run, done.failed, done.left) == (5, 0, 0)
        assert len(told) == 5  # all were timed once when the first table was shown
        records = {r.case: r for r in store.records()}
        timings = {case: timing_of(record) for case, record in records.items()}
        assert all(t is not None and t.processes == 3 and t.split == (7, 7, 7) for t in timings.values())
        small = {case: t for case, t in timings.items() if case.subject == "32x32" and t is not None}
        assert len({t.group for t in small.values()}) == 1
        assert len({t.group for t in timings.values() if t}) == 2
        frozen = small[FROZEN].samples[0].seconds
        for case, timing in small.items():
            assert case == FROZEN or timing.samples[1].seconds == frozen  # the one frozen layer
        ratio = small[setting(8)].ratios["lora r=8"]
        assert 0.98 * 8 < ratio.value < 1.02 * 8
        assert ratio.bounds is not None
        assert all(r.predicted is not None for r in records.values())
        again = grouped.run(cases, store, timing=work.rounds, describing=work.tell, preload=PRELOAD)
        assert (again.run, again.skipped) == (0, 5)


def test_a_setting_costs_itself_alone(tmp_path: Path) -> None:
    done, records = run([LORA, *map(setting, (2, 3, 4, 5, 6, 7, 9, 10))], tmp_path / "s.sqlite")
    errors = {label: r.error or "" for label, r in records.items() if r.status == "failed"}
    assert set(errors) == {f"cdvft m={m}" for m in (3, 4, 5, 6, 7, 10)}
    assert "SIGSEGV" in errors["cdvft m=3"]
    assert "timed out after 8 s" in errors["cdvft m=4"]
    assert "out of memory" in errors["cdvft m=5"]
    assert errors["cdvft m=6"] == "RuntimeError: a library's error of two lines"
    assert "exit code 9" in errors["cdvft m=7"]
    assert "not twice in process 2" in errors["cdvft m=10"]
    assert done.failed == 6
    whole, alone = timing_of(records["cdvft m=2"]), timing_of(records["cdvft m=9"])
    assert whole is not None
    assert alone is not None
    assert whole.processes == alone.processes == 3
    assert whole.group != alone.group  # it was timed beside baselines of its own


def test_a_budget_stops_a_run_that_goes_on_and_buys_processes(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    cases = [setting(2), setting(2, "48x48")]
    done, _ = run(cases, path, budget_s=1e-6)
    assert done.left == 2
    with Store(path) as store:
        assert processes(store) == 1  # one always is made
    done, _ = run(cases, path)
    assert done.left == 0
    done, _ = run(cases, path, budget_s=3.0)
    with Store(path) as store:
        assert processes(store) > 6


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 3, 3), (50.0, 4, 6)])
def test_ratios_wider_than_asked_get_further_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, least: int, most: int
) -> None:
    monkeypatch.setattr(grouped, "SETTLING", share)
    monkeypatch.setattr(grouped, "MOST_PROCESSES", 6)
    _, records = run([setting(2), LORA], tmp_path / "s.sqlite", timing=work.unsteady_rounds)
    timing = timing_of(records["cdvft m=2"])
    assert timing is not None
    assert least <= timing.processes <= most
    assert timing.split[:3] == (8, 10, 10)  # the first process is shorter: a first table comes early
    assert "was not reached" in timing.warnings[0]


def started(path: Path, doing: str, folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "SWEEP_TEST_MARK": str(path.with_suffix(".mark")), "TMPDIR": str(folder)}
    command = [sys.executable, "-c", RUN, str(path), doing]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for temporary files; names of sockets, which lie there, may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="t") as name:
        yield Path(name)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_a_run(
    tmp_path: Path, short_folder: Path, monkeypatch: pytest.MonkeyPatch, by: signal.Signals
) -> None:
    path, folder = tmp_path / "s.sqlite", short_folder
    process = started(path, "start_others", folder)
    wait_for(lambda: path.with_suffix(".mark").exists() and path.with_suffix(".mark").read_text())
    below = {*descendants(process.pid), int(path.with_suffix(".mark").read_text())}
    assert list(folder.glob(f"{SCRATCH}*/left-over*"))
    process.send_signal(by)
    process.communicate(timeout=30)
    wait_for(lambda: not any(map(running, below)), seconds=10)
    if by == signal.SIGKILL:  # the next run takes away what this one left
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        sweep_scratch()
    else:
        assert not path.with_name("s.sqlite.lock").exists()
    assert not list(folder.iterdir())


def test_a_killed_fork_server_is_started_again(tmp_path: Path) -> None:
    from multiprocessing import forkserver

    pids: list[int] = []

    def kill_it() -> None:
        pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
        os.kill(pid, signal.SIGKILL)
        pids.append(pid)

    done, records = run([setting(2), setting(2, "48x48")], tmp_path / "s.sqlite", first=kill_it)
    assert pids
    assert (done.failed, done.left) == (0, 0)
    assert [t.processes if (t := timing_of(r)) else 0 for r in records.values()] == [3, 3]


@pytest.mark.parametrize("how", ["killed_once", "orphaned_once"])
def test_a_worker_that_is_killed_costs_no_timing(tmp_path: Path, short_folder: Path, how: str) -> None:
    path = tmp_path / "s.sqlite"
    process = started(path, how, short_folder)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert path.with_suffix(".mark").exists()
    with Store(path) as store:
        assert [r.status for r in store.records()] == ["ok"] * 4
        assert processes(store) == 12


def kills(path: Path, folder: Path, number: int, seed: int) -> int:
    """Kill runs, their fork servers and their workers at any instant; returns how many hit a run at work."""
    rng, hits, before = random.Random(seed), 0, 0
    for _ in range(number):
        process = started(path, "slow_rounds", folder)
        if rng.random() < 0.8:  # at work: the fork server, multiprocessing's resource tracker and a worker are there
            wait_for(lambda process=process: len(descendants(process.pid)) > 2 or process.poll() is not None)  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.8))
        else:
            time.sleep(rng.uniform(0, 3))
        victims = [process.pid, *sorted(descendants(process.pid))]
        victim = rng.choice(victims)
        hits += process.poll() is None
        if running(victim):
            os.kill(victim, rng.choice([signal.SIGKILL, signal.SIGTERM]))
        if victim == process.pid:
            process.communicate(timeout=60)
        else:
            process.communicate(timeout=300)
        with Store(path, create=True) as store:
            assert store.intact()
            now = processes(store)
        assert now >= before  # none was lost
        before = now
        if process.returncode == 0:  # nothing is left to do: a worker that was killed cost its setting
            path.unlink()
            before = 0
    return hits


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_five_hundred_kills_lose_no_record(tmp_path: Path, short_folder: Path) -> None:
    assert kills(tmp_path / "s.sqlite", short_folder, 500, 1) >= 400
