"""Stand-ins for the work of a case, importable by its process."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cdvft_bench.core.case import Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.timed import Timed
from cdvft_bench.sweep import evaluate as sources
from cdvft_bench.sweep.engines.isolation import Report
from cdvft_bench.sweep.grid import Limits, make_case
from cdvft_bench.timing.joined import Rounds

if TYPE_CHECKING:
    from cdvft_bench.sweep.engines.work import Evidence


def seeded(seed: int) -> Case:
    return make_case("cdvft", {"m": 2}, "layer", "32x32", sequence=8, seed=seed)


def many() -> list[Case]:
    return [seeded(seed) for seed in range(60)]


def predict_only(case: Case, limits: Limits) -> Evidence:
    return sources.label(case), sources.predict(case), None, None


def slowly(case: Case, limits: Limits) -> Evidence:
    """Takes a moment, and imports nothing."""
    time.sleep(0.03)
    return f"{case.method} {case.seed}", None, None, None


def misbehave(case: Case, limits: Limits) -> Evidence:
    """What goes wrong is chosen by the case's seed."""
    if case.seed == 1:
        raise RuntimeError("a library's\nerror of two lines")
    if case.seed == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if case.seed == 3:
        time.sleep(600)
    if case.seed == 4:
        hoard = []
        while True:
            hoard.append(bytes(64 * 2**20))
    if case.seed == 5:
        raise UserError("value 3 is too small; use 4")
    if case.seed == 6:
        os._exit(7)
    return predict_only(case, limits)


def speak_oddly(case: Case, limits: Limits) -> Evidence:
    """Failures that are hard to write down."""
    if case.seed == 1:
        raise RuntimeError("no Unicode: \udc80")
    if case.seed == 2:
        raise MemoryError("37 TiB asked for")
    if case.seed == 3:
        name, predicted, _, _ = predict_only(case, limits)
        assert predicted is not None
        forward = replace(predicted.forward, flops={"flop": float("nan")})
        return name, replace(predicted, forward=forward), None, None
    if case.seed == 4:
        return "no Unicode: \udc80", None, None, None
    if case.seed == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if case.seed == 6:
        assert Path("/proc/self/oom_score_adj").read_text().strip() == "1000"
    return predict_only(case, limits)


def hang(case: Case, limits: Limits) -> Evidence:
    """Never ends; says through a file that it has begun."""
    Path(os.environ["SWEEP_TEST_MARK"]).touch()
    time.sleep(600)
    return slowly(case, limits)


def hold_the_lock(case: Case, limits: Limits) -> Evidence:
    """Hang in foreign code that does not let go of the interpreter's lock: no thread of Python runs any more."""
    Path(os.environ["SWEEP_TEST_MARK"]).touch()
    ctypes.PyDLL(None).sleep(600)
    return slowly(case, limits)


def hang_at_3(case: Case, limits: Limits) -> Evidence:
    """Works until the case of seed 3, which never ends."""
    return hang(case, limits) if case.seed == 3 else slowly(case, limits)


# --- groups: what goes wrong is chosen by m ----------------------------------------------------


def setting(m: int, subject: str = "32x32") -> Case:
    return make_case("cdvft", {"m": m}, "layer", subject, sequence=8)


def trouble(case: Case) -> None:
    """Go wrong as the setting says."""
    m = dict(case.hyperparameters).get("m")
    if m == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if m == 4:
        time.sleep(600)
    if m == 5:
        hoard = []
        while True:
            hoard.append(bytes(64 * 2**20))
    if m == 6:
        raise RuntimeError("a library's\nerror of two lines")


def rounds(report: Report, cases: Sequence[Case], budget_s: float, precision: float, seed: int) -> None:
    """Seven rounds: a setting of m takes m milliseconds, m = 9 only in the company of the baselines alone."""
    rng = random.Random(seed)
    for i, case in enumerate(cases):
        report.at(i)
        trouble(case)
        if dict(case.hyperparameters).get("m") == 9 and len(cases) > 3:
            raise RuntimeError("not in company")
        if dict(case.hyperparameters).get("m") == 10 and seed:
            raise RuntimeError("not twice")
    seconds = {
        case.key: tuple(dict(case.hyperparameters).get("m", 1) * 1e-3 * rng.uniform(0.99, 1.01) for _ in range(7))  # type: ignore[operator]
        for case in cases
    }
    report(Rounds(seconds, dict.fromkeys(seconds, 1), "perf_counter", 1))


def unsteady_rounds(report: Report, cases: Sequence[Case], budget_s: float, precision: float, seed: int) -> None:
    """Ten rounds a second of budget; a setting takes a third more in every second process."""
    seconds = {
        case.key: (1e-3 * (1 + seed % 2 / 3 * (case.method == "cdvft")),) * round(10 * budget_s) for case in cases
    }
    report(Rounds(seconds, dict.fromkeys(seconds, 1), "perf_counter", 1))


def killed_once(report: Report, cases: Sequence[Case], budget_s: float, precision: float, seed: int) -> None:
    """In the second process of the first group something outside kills it, once."""
    if seed and _is_first():
        os.kill(os.getpid(), signal.SIGKILL)
    rounds(report, cases, budget_s, precision, seed)


def orphaned_once(report: Report, cases: Sequence[Case], budget_s: float, precision: float, seed: int) -> None:
    """In the second process of the first group something outside kills the fork server, once."""
    if seed and _is_first():
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(0.5)
    rounds(report, cases, budget_s, precision, seed)


def _is_first() -> bool:
    mark = Path(os.environ["SWEEP_TEST_MARK"])
    if mark.exists():
        return False
    mark.touch()
    return True


def slow_rounds(report: Report, cases: Sequence[Case], budget_s: float, precision: float, seed: int) -> None:
    """Takes a moment, and imports nothing."""
    time.sleep(0.05)
    rounds(report, cases, budget_s, precision, seed)


def tell(report: Report, cases: Sequence[Case], limits: Limits) -> None:
    """The closed form; m = 7 dies on it."""
    for i, case in enumerate(cases):
        report.at(i)
        if dict(case.hyperparameters).get("m") == 7:
            os._exit(9)
        report((case.key, sources.predict(case), None, Timed(None, None, None)))


def start_others(report: Report, cases: Sequence[Case], budget_s: float, precision: float, seed: int) -> None:
    """Hangs, with a process and a temporary file of its own; says through a file which process that is."""
    _, _ = tempfile.mkstemp(prefix="left-over")
    child = subprocess.Popen(["sleep", "600"])
    Path(os.environ["SWEEP_TEST_MARK"]).write_text(str(child.pid))
    time.sleep(600)
