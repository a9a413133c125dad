"""A sweep survives what its cases do, and its own death."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cdvft_bench.sweep.case import Case
from cdvft_bench.sweep.engine import run
from cdvft_bench.sweep.grid import Limits, make_case
from cdvft_bench.sweep.store import Store
from tests.sweep import work

ROOT = Path(__file__).parents[2]

SWEEP = """
import sys
from cdvft_bench.sweep.engine import run
from cdvft_bench.sweep.store import Store
from tests.sweep.test_engine import many
from tests.sweep.work import slowly

if __name__ == "__main__":
    with Store(sys.argv[1], create=True) as store:
        run(many(), store, work=slowly)
"""


def seeded(seed: int) -> Case:
    return make_case("cdvft", {"m": 2}, "layer", "32x32", sequence=8, seed=seed)


def many() -> list[Case]:
    return [seeded(seed) for seed in range(60)]


def test_failures_cost_their_case_alone(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite", create=True) as store:
        outcome = run([seeded(s) for s in range(8)], store, Limits(timeout_s=4, memory_gib=1), work=work.misbehave)
        assert (outcome.run, outcome.skipped, outcome.failed) == (8, 0, 6)
        records = {r.case.seed: r for r in store.records()}
    causes = {
        1: "RuntimeError: a library's error of two lines",
        2: "killed by SIGSEGV",
        3: "timed out after 4 s",
        4: "out of memory: limit 1 GiB",
        5: "UserError: value 3 is too small; use 4",
        6: "ended with exit code 7 and no result",
    }
    for seed, cause in causes.items():
        assert records[seed].status == "failed"
        assert (records[seed].error or "").startswith(cause)
        assert records[seed].predicted is None
    for seed in (0, 7):
        assert records[seed].status == "ok"
        assert records[seed].label == "CDVFT m=2 p=d"
        assert records[seed].predicted is not None


def test_failed_cases_are_run_again_only_when_asked(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite", create=True) as store:
        cases = [seeded(0), seeded(5)]
        assert run(cases, store, work=work.misbehave).failed == 1
        again = run(cases, store, work=work.predict_only)
        assert (again.run, again.failed) == (0, 1)
        mended = run(cases, store, work=work.predict_only, retry_failed=True)
        assert (mended.run, mended.skipped, mended.failed) == (1, 1, 0)


def _kill_and_resume(store_path: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    command = [sys.executable, "-c", SWEEP, str(store_path)]
    for _ in range(kills):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.5, 6.0))
        process.kill()
        process.wait()
        if store_path.exists():
            with Store(store_path) as store:
                assert store.intact()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=200)
    with Store(store_path) as store:
        assert store.intact()
        records = list(store.records())
        assert sorted(r.case.seed for r in records) == list(range(60))  # every case once
        assert all(r.status == "ok" and r.predicted is not None for r in records)


def test_sigkill_loses_nothing(tmp_path: Path) -> None:
    _kill_and_resume(tmp_path / "s.sqlite", kills=5, seed=0)


def test_the_process_of_a_case_dies_with_the_sweep(tmp_path: Path) -> None:
    code = SWEEP.replace("import slowly", "import misbehave as slowly").replace("many()", "many()[3:4]")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "s.sqlite")], cwd=ROOT)
    mine = f"/proc/{process.pid}/task/{process.pid}/children"
    deadline = time.monotonic() + 60
    grandchildren: list[str] = []
    while time.monotonic() < deadline and not grandchildren:
        time.sleep(0.2)
        for child in Path(mine).read_text().split():  # the fork server and multiprocessing's resource tracker
            grandchildren += Path(f"/proc/{child}/task/{child}/children").read_text().split()
    if not grandchildren:
        pytest.fail("the case never started")
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in grandchildren):
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in grandchildren)
