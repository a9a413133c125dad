"""A slice of a campaign on a bare node: cases timed one by one, rows written as they come.

The file is a record log (``core.log``) and has the text form of the suite's store: a line with the environment, then
a line a record, which holds the case and what the clock says of it (formulas are added where the suite is installed,
see ``sweep.imports``). A row is synced when its case is done, so a killed slice loses the case in flight; the same
command goes on where it stopped.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from cdvft_bench.core.budget import Budget
from cdvft_bench.core.case import FROZEN, Case, baselines, case_from
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import shown
from cdvft_bench.core.io.log import Log
from cdvft_bench.core.timed import Mode, SelfTest, Timed
from cdvft_bench.timing.bare import build
from cdvft_bench.timing.clock import fixed_threads, require_device
from cdvft_bench.timing.machine.environment import read_environment
from cdvft_bench.timing.machine.selftest import selftest
from cdvft_bench.timing.measure import Plan, measure
from cdvft_bench.timing.replaying import replays_apart

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How a slice is measured.

    Attributes:
        budget_s: seconds that the slice may take; a case that would exceed it is not begun,
            but one is always made. None is no limit.
        case_s: seconds of timing a case, and again of timing its modes.
        precision: half-width of a ratio's interval at which to stop earlier.
        modes: "eager" alone, or with "graph" and "compile".
        energy_s: seconds of repeating a call for its energy (GPU only); 0 for none.
        trace: also profile one call and take its memory. traces: folder that keeps these profiles; None for none.
        comparisons: of the clock with itself at the start of a slice; 0 for none.
        threads: torch's CPU threads, None as they are.
        retry_failed: run cases again that the file holds as failed.
    """

    budget_s: float | None = None
    case_s: float = 1.0
    precision: float = 0.05
    modes: tuple[Mode, ...] = ("eager",)
    energy_s: float = 0.0
    trace: bool = True
    traces: Path | None = None
    comparisons: int = 20
    threads: int | None = None
    retry_failed: bool = False


@dataclass(frozen=True)
class SliceResult:
    """How a slice went: cases run now, failed ones among them, done before, and left over."""

    run: int
    failed: int
    skipped: int
    left: int


class BrokenDeviceError(RuntimeError):
    """The CUDA context does not answer any more; a new process has a new one."""


def run_slice(cases: Sequence[Case], output: Path, settings: Settings = Settings(), say: Say = print) -> SliceResult:
    """Time the cases that the file does not hold yet, and append their rows to it.

    Args:
        cases: what to time, in this order.
        output: JSON-lines file; it is made, or gone on with. An unfinished last line is cut off.
        settings: how.
        say: takes one line a case.

    Raises:
        UserError: the file cannot be used, another process is writing to it, or the device is not available.
        BrokenDeviceError: a case has broken the CUDA context; its row is written, and the rest is left.
    """
    if not output.name.endswith(".jsonl"):
        raise UserError(f"output {shown(output)} must end in .jsonl: rows are appended to it")
    for device in {case.device for case in cases}:
        require_device(device)
    budget = Budget(settings.budget_s)
    with Log(output) as log, fixed_threads(settings.threads):
        done, environments = _held(log, settings.retry_failed)
        todo = [case for case in cases if case.key not in done]
        environment = read_environment()
        if todo and environment.key not in environments:
            if environments:
                say(f"{shown(output)} was begun in another environment; each row says which one is its own")
            log.append({"key": environment.key, "environment": asdict(environment)})
        failed, run, skipped = 0, 0, len(cases) - len(todo)
        found = _selftests({case.device for case in todo}, settings)
        for case in todo:
            if budget.spent:
                break
            record = _kept(log, _record(case, settings, environment.key, found.get(case.device)))
            run, failed = run + 1, failed + (record["status"] == "failed")
            budget.took(record["seconds"])
            say(f"{skipped + run}/{len(cases)} {_line(case, record)}")
            _check_device(case)
    return SliceResult(run, failed, skipped, len(todo) - run)


# --- one case --------------------------------------------------------------------------------


def time_case(case: Case, settings: Settings) -> Timed:
    """Time a case beside the frozen layer and LoRA of rank 8; then its trace, memory, energy and modes.

    What fails after the times is left out and said in the notes.
    """
    if "compile" in settings.modes:
        torch.compiler.reset()  # else the cases, which share their code, would run into the compiler's cache limit
    name = f"{case.plain_label.replace(' ', '-')}-{case.key}.json.gz"
    plan = Plan(
        settings.case_s,
        settings.precision,
        settings.modes,
        settings.energy_s,
        settings.trace,
        None if settings.traces is None else settings.traces / name,
        threads=settings.threads,
        seed=case.seed,
    )
    notes = [f"{case.method}: plain torch, with the operators of the suite's own"] if case.method == "lora" else []
    timed = measure(
        build(case).target(case.plain_label, case.pass_),
        lambda: [build(other).target(name, other.pass_) for name, other in baselines(case).items()],
        case.device,
        plan,
        notes,
    )
    if "graph" not in settings.modes or torch.device(case.device).type != "cuda" or case.method == FROZEN:
        return timed
    return replace(timed, replays=replays_apart(case, settings.case_s, settings.precision))


def _selftests(devices: set[str], settings: Settings) -> dict[str, SelfTest]:
    if not settings.comparisons:
        return {}
    return {
        device: selftest(
            comparisons=settings.comparisons,
            device=device,
            budget_s=min(1.0, settings.case_s),
            threads=settings.threads,
        )
        for device in devices
    }


def _record(case: Case, settings: Settings, environment: str, selftest: SelfTest | None) -> dict[str, Any]:
    start = time.perf_counter()
    timed: Timed | None = None
    error: str | None = None
    try:
        timed = replace(time_case(case, settings), selftest=selftest)
    except (MemoryError, torch.OutOfMemoryError) as fault:
        error = f"out of memory: {_one_line(fault)}"
    except Exception as fault:
        error = _one_line(fault)
    if timed is None or torch.device(case.device).type == "cuda":  # the next case finds the memory free
        gc.collect()
        torch.cuda.empty_cache()
    return {
        "case": asdict(case),
        "status": "ok" if error is None else "failed",
        "label": case.plain_label,
        "predicted": None,
        "counted": None,
        "timed": None if timed is None else asdict(timed),
        "error": error,
        "environment": environment,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "seconds": round(time.perf_counter() - start, 3),
    }


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:500].encode(errors="backslashreplace").decode()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _check_device(case: Case) -> None:
    if torch.device(case.device).type != "cuda":
        return
    try:
        torch.cuda.synchronize(case.device)
        torch.ones(1, device=case.device).sum().item()
    except Exception as error:
        raise BrokenDeviceError(f"{case.plain_label} on {case.subject} has broken CUDA: {_one_line(error)}") from error


def _line(case: Case, record: Mapping[str, Any]) -> str:
    what = f"{case.subject} {case.sequence} tokens {case.dtype} {case.pass_} {case.plain_label}"
    if record["status"] == "failed":
        return f"{what}: failed, {record['error']}"
    timing = record["timed"]["timing"]
    ratio = timing["ratios"].get(FROZEN)
    beside = f", {ratio['value']:.2f} of frozen" if ratio else ""
    return f"{what}: {timing['samples'][0]['median'] * 1e3:.4g} ms{beside} ({record['seconds']:.1f} s)"


# --- the file --------------------------------------------------------------------------------


def _held(log: Log, retry_failed: bool) -> tuple[set[str], set[str]]:
    """Keys of the cases that need not run, and of the environments, that the file holds."""
    cases: set[str] = set()
    environments: set[str] = set()
    for number, entry in enumerate(log.entries, 1):
        try:
            if entry.get("environment") is not None:
                environments.add(entry["key"])
            record = entry.get("record")
            if record is not None:
                key = case_from(record["case"]).key
                if record["status"] == "ok" or not retry_failed:
                    cases.add(key)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{shown(log.path)}, entry {number} is no row of a slice; give another file") from error
    return cases, environments


def _kept(log: Log, record: dict[str, Any]) -> dict[str, Any]:
    """Append a record, or one that says why it cannot be kept; returns what was appended."""
    try:
        log.append({"record": record})
    except UserError:
        raise
    except ValueError as error:  # NaN and infinity are no JSON, and no measurement
        record = {**record, "status": "failed", "timed": None, "error": f"what was measured cannot be kept: {error}"}
        log.append({"record": record})
    return record
