"""A slice of a campaign on a bare node: cases timed one by one, rows written as they come.

The file is the text form of the suite's store: a line with the environment, then a line a record,
which holds the case and the clock's witness (formula and count are added where the suite is
installed, see ``sweep.slices``). A row is appended, flushed and synced when its case is done, so a
killed slice loses the case in flight; the same command goes on where it stopped.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.timed import Mode, SelfTest, Timed
from cdvft_bench.timing.bare import FROZEN, LORA, BareCase, build
from cdvft_bench.timing.clock import fixed_threads, require_device
from cdvft_bench.timing.environment import read_environment
from cdvft_bench.timing.measure import Plan, Target, measure
from cdvft_bench.timing.selftest import selftest

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
class Progress:
    """How a slice went: cases run now, failed ones among them, done before, and left over."""

    run: int
    failed: int
    skipped: int
    left: int


class BrokenDeviceError(RuntimeError):
    """The CUDA context does not answer any more; a new process has a new one."""


def run_slice(cases: Sequence[BareCase], output: Path, settings: Settings = Settings(), say: Say = print) -> Progress:
    """Time the cases that the file does not hold yet, and append their rows to it.

    Args:
        cases: what to time, in this order.
        output: JSON-lines file; it is made, or gone on with. An unfinished last line is cut off.
        settings: how.
        say: takes one line a case.

    Raises:
        UserError: the file cannot be used, another slice is writing to it, or the device is not to be had.
        BrokenDeviceError: a case has broken the CUDA context; its row is written, and the rest is left.
    """
    for device in {case.device for case in cases}:
        require_device(device)
    started = time.monotonic()
    with _opened(output) as file, fixed_threads(settings.threads):
        done, environments = _read(file, output, settings.retry_failed)
        todo = [case for case in cases if case.key not in done]
        environment = read_environment()
        if todo and environment.key not in environments:
            if environments:
                say(f"{output} was begun in another environment; each row says which one is its own")
            _append(file, {"key": environment.key, "environment": asdict(environment)})
        longest, failed, run, skipped = 0.0, 0, 0, len(cases) - len(todo)
        found = _selftests({case.device for case in todo}, settings)
        for case in todo:
            spent = time.monotonic() - started
            if run and settings.budget_s is not None and spent + longest > settings.budget_s:
                break
            record = _record(case, settings, environment.key, found.get(case.device))
            _append_record(file, record)
            run, failed = run + 1, failed + (record["status"] == "failed")
            longest = max(longest, record["seconds"])
            say(f"{skipped + run}/{len(cases)} {_line(case, record)}")
            _check_device(case)
    return Progress(run, failed, skipped, len(todo) - run)


# --- one case --------------------------------------------------------------------------------


def time_case(case: BareCase, settings: Settings) -> Timed:
    """Time a case beside the frozen layer and LoRA of rank 8; then its trace, memory, energy and modes.

    What fails after the times is left out and said in the notes.
    """
    if "compile" in settings.modes:
        torch.compiler.reset()  # else the cases, which share their code, would run into the compiler's cache limit
    feet = {
        FROZEN: replace(case, method=FROZEN, hyperparameters=()),
        LORA: replace(case, method="lora", hyperparameters=(("rank", 8),)),
    }
    plan = Plan(
        settings.case_s, settings.precision, settings.modes, settings.energy_s, settings.trace,
        None if settings.traces is None else settings.traces / f"{case.label.replace(' ', '-')}-{case.key}.json.gz",
        threads=settings.threads, seed=case.seed,
    )  # fmt: skip
    notes = [f"{case.method}: plain torch, with the operators of the suite's own"] if case.method == "lora" else []
    return measure(
        _target(case.label, case),
        lambda: [_target(name, foot) for name, foot in feet.items() if foot != case],
        case.device, plan, notes,
    )  # fmt: skip


def _target(name: str, case: BareCase) -> Target:
    built = build(case)
    return Target(name, built.module, built.call, built.fixed, built.optimizer)


def _selftests(devices: set[str], settings: Settings) -> dict[str, SelfTest]:
    if not settings.comparisons:
        return {}
    return {
        device: selftest(
            comparisons=settings.comparisons, device=device, budget_s=min(1.0, settings.case_s),
            threads=settings.threads,
        )
        for device in devices
    }  # fmt: skip


def _record(case: BareCase, settings: Settings, environment: str, aa: SelfTest | None) -> dict[str, Any]:
    start = time.perf_counter()
    timed: Timed | None = None
    error: str | None = None
    try:
        timed = replace(time_case(case, settings), selftest=aa)
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
        "label": case.label,
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


def _check_device(case: BareCase) -> None:
    if torch.device(case.device).type != "cuda":
        return
    try:
        torch.cuda.synchronize(case.device)
        torch.ones(1, device=case.device).sum().item()
    except Exception as error:
        raise BrokenDeviceError(f"{case.label} on {case.subject} has broken CUDA: {_one_line(error)}") from error


def _line(case: BareCase, record: dict[str, Any]) -> str:
    what = f"{case.subject} {case.sequence} tokens {case.dtype} {case.pass_} {case.label}"
    if record["status"] == "failed":
        return f"{what}: failed, {record['error']}"
    timing = record["timed"]["timing"]
    ratio = timing["ratios"].get(FROZEN)
    beside = f", {ratio['value']:.2f} of frozen" if ratio else ""
    return f"{what}: {timing['samples'][0]['median'] * 1e3:.4g} ms{beside} ({record['seconds']:.1f} s)"


# --- the file --------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if not path.name.endswith(".jsonl"):
        raise UserError(f"output {str(path)!r} must end in .jsonl: rows are appended to it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}; name a file in a folder of yours") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another slice is writing to {path}; wait for it, or give another file") from error
        yield file


def _read(file: BinaryIO, path: Path, retry_failed: bool) -> tuple[set[str], set[str]]:
    """Keys of the cases and of the environments that the file holds; an unfinished last line is cut off."""
    file.seek(0)
    data = file.read()
    whole = data.rfind(b"\n") + 1
    cases: set[str] = set()
    environments: set[str] = set()
    for number, line in enumerate(data[:whole].splitlines(), 1):
        try:
            entry = json.loads(line)
            if entry.get("environment") is not None:
                environments.add(entry["key"])
            record = entry.get("record")
            if record is not None:
                key = _key(record["case"])
                if record["status"] == "ok" or not retry_failed:
                    cases.add(key)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}, line {number} is no row of a slice; give another file") from error
    if whole < len(data):
        if data[whole : whole + 1] != b"{":
            raise UserError(f"{path} is no file of a slice; give another file")
        file.truncate(whole)
    return cases, environments


def _key(fields: dict[str, Any]) -> str:
    pairs = tuple((name, value) for name, value in fields["hyperparameters"])
    return BareCase(**{**fields, "hyperparameters": pairs}).key


def _append(file: BinaryIO, entry: dict[str, Any]) -> None:
    try:
        file.write(json.dumps(entry, allow_nan=False, separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"the row cannot be written: {error}; free some space and run the same command again"
        ) from error


def _append_record(file: BinaryIO, record: dict[str, Any]) -> None:
    try:
        _append(file, {"record": record})
    except UserError:
        raise
    except ValueError as error:  # NaN and infinity are no JSON, and no measurement
        record.update(status="failed", timed=None, error=f"what was measured cannot be kept: {error}")
        _append(file, {"record": record})
