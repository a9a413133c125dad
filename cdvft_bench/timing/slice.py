"""A slice of a campaign on a bare node: cases timed one by one, rows written as they come.

The file is a record log (``core.log``) and has the text form of the suite's store: a line with the environment, then
a line a record, which holds the case and what the clock says of it (formulas are added where the suite is installed,
see ``sweep.imports``). A row is synced when its case is done; the same command goes on where it stopped. A small file
beside the rows names the case in flight: one with which the process died fails, since it would do so again.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cdvft_bench.core.budget import Budget
from cdvft_bench.core.case import FROZEN, Case, case_from
from cdvft_bench.core.errors import UserError, one_line
from cdvft_bench.core.flight import DIED, InFlight
from cdvft_bench.core.helper import NoAnswerError
from cdvft_bench.core.io.decode import decode
from cdvft_bench.core.io.files import shown
from cdvft_bench.core.io.log import Log
from cdvft_bench.core.timed import Mode, SelfTest, Timed
from cdvft_bench.timing.built import beside, freed
from cdvft_bench.timing.clock import fixed_threads, require_device
from cdvft_bench.timing.graphs import Build, Replayer, named
from cdvft_bench.timing.machine.environment import read_environment
from cdvft_bench.timing.machine.memory import tensor_bytes
from cdvft_bench.timing.machine.selftest import selftest
from cdvft_bench.timing.measure import Plan, describe, measure

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
        trace: also profile one call and take its memory. On a GPU that is done when all cases have been timed, since
            the profiler stays attached. traces: folder that keeps these profiles; None for none.
        comparisons: of the clock with itself at the start of a slice; 0 for none.
        build: "module:function" that builds a case.
        threads: torch's CPU threads, None as they are.
        limit_s: seconds after which the process ends with the case that it times; None for no limit. A GPU's driver
            may never return, and no exception reaches it: only a new process goes on.
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
    limit_s: float | None = None
    retry_failed: bool = False
    build: str = "cdvft_bench.timing.bare:build"


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
        if fault := _fault(device):  # before the first case: it is none's
            raise UserError(f"device {device!r} does not work: {fault}; look at it with nvidia-smi")
    budget = Budget(settings.budget_s)
    with Log(output) as log, fixed_threads(settings.threads), closing(Replayer(settings.build)) as replayer:
        held = _held(log)
        flight = InFlight(output, settings.limit_s)
        fatal = flight.left()
        done = {key for key, record in held.records.items() if record["status"] == "ok" or not settings.retry_failed}
        done |= {fatal.key} if fatal else set()
        todo = [case for case in cases if case.key not in done]
        environment = read_environment()
        if (todo or fatal) and environment.key not in held.environments:
            if held.environments:
                say(f"{shown(output)} was begun in another environment; each row says which one is its own")
            log.append({"key": environment.key, "environment": asdict(environment)})
        failed, run, lost, skipped = 0, 0, 0, len(cases) - len(todo)
        if fatal is not None and (record := _lost(fatal, held.records.get(fatal.key), environment.key)) is not None:
            held.records[fatal.key] = _kept(log, record)
            lost = int(record["status"] == "failed" and fatal in cases)
            say(_line(fatal, record) if record["status"] == "failed" else f"no trace of {fatal.plain_label}: {DIED}")
        flight.clear()
        found = {d: _selftest(d, settings, held.selftests.get((environment.key, d))) for d in {c.device for c in todo}}
        for case in todo:
            if budget.spent:
                break
            work = partial(time_case, case, settings, replayer)
            with flight.noted(case):
                record = _kept(log, _record(case, work, environment.key, found.get(case.device)))
                _check_device(case)
            held.records[case.key] = record
            run, failed = run + 1, failed + (record["status"] == "failed")
            budget.took(record["seconds"])
            say(f"{skipped + run}/{len(cases)} {_line(case, record)}")
        left = len(todo) - run
        bare = [case for case in cases if settings.trace and _untraced(case, held.records.get(case.key))]
        for i, case in enumerate(bare):
            if left or budget.spent:
                left += len(bare) - i
                break
            with flight.noted(case):
                record = _kept(log, traced(case, settings, held.records[case.key]))
                _check_device(case)
            budget.took(record["seconds"] - held.records[case.key]["seconds"])
            say(f"trace {i + 1}/{len(bare)} {_line(case, record)}")
    return SliceResult(run + lost, failed + lost, skipped - lost, left)


def _lost(case: Case, record: Mapping[str, Any] | None, environment: str) -> dict[str, Any] | None:
    """What is kept of a case with which a process died; None where it was done before it did."""
    if _untraced(case, record):
        assert record is not None
        notes = [*record["timed"]["notes"], f"no trace: {DIED}"]
        return {**record, "timed": {**record["timed"], "notes": notes}, "created": _now()}
    return None if record is not None and record["status"] == "ok" else _record(case, _died, environment, None)


def _died() -> Timed:
    raise NoAnswerError(DIED)


# --- one case --------------------------------------------------------------------------------


def time_case(case: Case, settings: Settings, replayer: Replayer) -> Timed:
    """Time a case beside the frozen layer and LoRA of rank 8; then its energy and modes, and on a CPU its trace.

    What fails after the times is left out and said in the notes.
    """
    if "compile" in settings.modes:
        torch.compiler.reset()  # else the cases, which share their code, would run into the compiler's cache limit
    build: Build = named(settings.build)
    notes = [f"{case.method}: plain torch, with the operators of the suite's own"] if _plain(case, settings) else []
    notes += _without_triton(case)
    return measure(
        build(case).target(case.plain_label, case.pass_),
        lambda: beside(case, build),
        case.device,
        _plan(case, settings, trace=settings.trace and not _on_gpu(case)),
        notes,
        partial(replayer, case, settings.case_s, settings.precision),
    )


def traced(case: Case, settings: Settings, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the trace and memory of its case, which was timed before."""
    start = time.perf_counter()
    build: Build = named(settings.build)
    plan = replace(_plan(case, settings, trace=True), modes=("eager",), energy_s=0.0)
    try:
        frozen = tensor_bytes(build(replace(case, method=FROZEN, hyperparameters=())).module)
        found = describe(build(case).target(case.plain_label, case.pass_), case.device, plan, frozen)
    except Exception as fault:  # the times stand without it
        found = Timed(None, None, None, (f"no trace: {one_line(fault)}",))
    freed()
    notes = [*record["timed"]["notes"], *found.notes]
    timed = {**record["timed"], **{key: asdict(found)[key] for key in ("trace", "memory")}, "notes": notes}
    seconds = round(record["seconds"] + time.perf_counter() - start, 3)
    return {**record, "timed": timed, "created": _now(), "seconds": seconds}


def _untraced(case: Case, record: Mapping[str, Any] | None) -> bool:
    """Whether a case was timed on a GPU, and not traced nor tried to be."""
    if record is None or record["status"] != "ok" or not _on_gpu(case):
        return False
    timed = record["timed"]
    return timed["trace"] is None and not any(note.startswith("no trace") for note in timed["notes"])


def _on_gpu(case: Case) -> bool:
    return torch.device(case.device).type == "cuda"


def _plain(case: Case, settings: Settings) -> bool:
    return case.method == "lora" and settings.build == Settings.build


def _without_triton(case: Case) -> list[str]:
    """That torch's operators stand for the suite's own kernels on a GPU, and why."""
    if not _on_gpu(case) or case.method not in ("cdvft", "block_circulant"):
        return []
    why = importlib.import_module("cdvft_bench.execution.triton.path").refusal(torch.device(case.device))
    return [f"torch's operators in place of Triton's kernels: {why}"] if why else []


def _plan(case: Case, settings: Settings, trace: bool) -> Plan:
    name = f"{case.plain_label.replace(' ', '-')}-{case.key}.json.gz"
    return Plan(
        settings.case_s,
        settings.precision,
        settings.modes,
        settings.energy_s,
        trace,
        None if settings.traces is None else settings.traces / name,
        threads=settings.threads,
        seed=case.seed,
    )


def _selftest(device: str, settings: Settings, held: Mapping[str, Any] | None) -> SelfTest | None:
    """The clock's test of itself; the one that the file holds of this environment, where that made as many comparisons.

    It takes as long as twenty cases, and the slice begins anew after every case with which a process died.
    """
    if not settings.comparisons:
        return None
    if held is not None and held["comparisons"] >= settings.comparisons:
        return decode(SelfTest, held)
    return selftest(
        comparisons=settings.comparisons,
        device=device,
        budget_s=min(1.0, settings.case_s),
        threads=settings.threads,
    )


def _record(case: Case, work: Callable[[], Timed], environment: str, selftest: SelfTest | None) -> dict[str, Any]:
    start = time.perf_counter()
    timed: Timed | None = None
    error: str | None = None
    try:
        timed = replace(work(), selftest=selftest)
    except (MemoryError, torch.OutOfMemoryError) as fault:
        error = f"out of memory: {one_line(fault)}"
    except Exception as fault:
        error = one_line(fault)
    if timed is None or _on_gpu(case):
        freed()
    return {
        "case": asdict(case),
        "status": "ok" if error is None else "failed",
        "label": case.plain_label,
        "predicted": None,
        "counted": None,
        "timed": None if timed is None else asdict(timed),
        "error": error,
        "environment": environment,
        "created": _now(),
        "seconds": round(time.perf_counter() - start, 3),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _check_device(case: Case) -> None:
    if fault := _fault(case.device):
        raise BrokenDeviceError(f"{case.plain_label} on {case.subject} has broken CUDA: {fault}")


def _fault(device: str) -> str:
    """Why a device computes nothing any more; "" where it does."""
    if torch.device(device).type == "cuda":
        try:
            torch.cuda.synchronize(device)
            torch.ones(1, device=device).sum().item()
        except Exception as error:
            return one_line(error)
    return ""


def _line(case: Case, record: Mapping[str, Any]) -> str:
    what = f"{case.subject} {case.sequence} tokens {case.dtype} {case.pass_} {case.plain_label}"
    if record["status"] == "failed":
        return f"{what}: failed, {record['error']}"
    timing = record["timed"]["timing"]
    ratio = timing["ratios"].get(FROZEN)
    beside = f", {ratio['value']:.2f} of frozen" if ratio else ""
    return f"{what}: {timing['samples'][0]['median'] * 1e3:.4g} ms{beside} ({record['seconds']:.1f} s)"


# --- the file --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Held:
    """What a file holds: the newest record of every case that did not fail, else its newest; keys of environments.

    Of the clock's tests of itself the newest by environment and device.
    """

    records: dict[str, Mapping[str, Any]]
    environments: set[str]
    selftests: dict[tuple[str, str], Mapping[str, Any]]


def _held(log: Log) -> _Held:
    held = _Held({}, set(), {})
    for number, entry in enumerate(log.entries, 1):
        try:
            if entry.get("environment") is not None:
                held.environments.add(entry["key"])
            record = entry.get("record")
            if record is not None:
                key = case_from(record["case"]).key
                if record["status"] == "ok" or key not in held.records:
                    held.records[key] = record
                if record["timed"] and record["timed"].get("selftest"):
                    held.selftests[record["environment"], record["case"]["device"]] = record["timed"]["selftest"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{shown(log.path)}, entry {number} is no row of a slice; give another file") from error
    return held


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
