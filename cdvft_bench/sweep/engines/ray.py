"""Run cases on a Ray cluster, one a slot, into the one store of the driver.

A case runs as in ``local``: in a process of its own under the Ray worker, with the same limits and the same causes of
failure. Ray moves cases whose node or worker dies elsewhere, up to ``retries`` times each; records come back to the
driver, which alone writes. Every record keeps the environment of the node that made it.
"""

import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdvft_bench.core.budget import Budget
from cdvft_bench.core.case import Case
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.core.timed import SelfTest
from cdvft_bench.sweep.engines.isolation import isolated, server
from cdvft_bench.sweep.engines.work import PRELOAD, Work, clock_test, describe, run_case, trace
from cdvft_bench.sweep.grid import Limits
from cdvft_bench.sweep.progress import progress
from cdvft_bench.sweep.storage.keeping import SweepResult, Traces, failure, keep
from cdvft_bench.sweep.storage.store import Store

RETRIES = 3


_contexts: dict[tuple[str, ...], Any] = {}  # fork servers and
_tested: dict[str, SelfTest | None] = {}  # clock tests of this worker process, which does many cases


@dataclass(frozen=True)
class _Job:
    """What every case of a sweep has in common; it travels to the workers."""

    limits: Limits
    work: Work
    preload: tuple[str, ...]
    comparisons: int
    traced: frozenset[str]


@dataclass(frozen=True)
class _Answer:
    """What a node sends of a case: its record, the node's environment, and a trace (or why there is none) if asked."""

    record: Record
    environment: Environment
    trace: bytes | None = None
    no_trace: str | None = None


def _on_node(case: Case, job: _Job) -> _Answer:
    """What a Ray worker does with a case."""
    from cdvft_bench.timing.machine.environment import read_environment

    # A process that multiprocessing starts imports its parent's main module; Ray's worker is none to import twice.
    sys.modules["__main__"].__dict__.pop("__file__", None)
    sys.modules["__main__"].__spec__ = None
    context = _contexts.get(job.preload) or _contexts.setdefault(job.preload, server(job.preload))
    environment = read_environment()
    if job.comparisons and case.device not in _tested:
        _tested[case.device] = clock_test(context, case, job.limits, job.comparisons)
    record = run_case(context, case, job.limits, job.work, environment.key, _tested.get(case.device))
    if record.status != "ok" or case.key not in job.traced:
        return _Answer(record, environment)
    return _Answer(record, environment, *isolated(context, case, job.limits, trace))


def run(
    cases: Iterable[Case],
    store: Store,
    limits: Limits | None = None,
    *,
    address: str | None = None,
    cpus: int | None = None,
    retries: int = RETRIES,
    retry_failed: bool = False,
    work: Work = describe,
    preload: Sequence[str] = PRELOAD,
    budget_s: float | None = None,
    traces: Traces | None = None,
    comparisons: int = 0,
) -> SweepResult:
    """Run cases that the store does not hold yet.

    Args:
        cases, store, limits, retry_failed, work, preload, budget_s, traces, comparisons: as in ``local.run``, but
            traces are kept of cases that run now alone, and the clock is tested in every worker; once the budget is
            spent no further case is handed out.
        address: of a running cluster ("auto" finds one on this machine); None starts one here and ends it.
        cpus: CPU slots a case takes; None is all CPUs of the smallest node, so that timed cases do not disturb each
            other. A case on a GPU takes one GPU slot and one CPU.
        retries: times that a case is handed out again when its node or worker died; then it is recorded as failed.

    Raises:
        UserError: ray is not installed, there is no cluster at the address, or it has no GPU for a case on one.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("engine 'ray' needs the package ray, which is not installed; pip install 'cdvft-bench[ray]'")
    import ray

    unique = list({case.key: case for case in cases}.values())
    done = store.keys("ok") if retry_failed else store.keys()
    todo = [case for case in unique if case.key not in done]
    traces = traces or Traces(Path())
    job = _Job(limits or Limits(), work, tuple(preload), comparisons, traces.keys)
    mine = not ray.is_initialized()
    if mine:
        _connect(ray, address)
    try:
        if not ray.cluster_resources().get("GPU") and any(case.device == "cuda" for case in todo):
            raise UserError("the Ray cluster has no GPU slot for cases on cuda; add --device cpu, or a node with a GPU")
        made = _hand_out(ray, todo, store, job, traces, cpus or _slot(ray), retries, budget_s)
    finally:
        if mine:
            ray.shutdown()
    failed = len({case.key for case in unique} & store.keys("failed"))
    return SweepResult(made, len(unique) - len(todo), failed, left=len(todo) - made)


def _slot(ray: Any) -> int:
    """CPUs of the smallest node that has any."""
    nodes = (int(n["Resources"].get("CPU", 0)) for n in ray.nodes() if n["Alive"])
    return min(filter(None, nodes), default=1)


def _connect(ray: Any, address: str | None) -> None:
    os.environ.setdefault("RAY_worker_niceness", "0")  # a timed case is not to step back before other work
    try:
        options = {"include_dashboard": False} if address is None else {}
        ray.init(address=address or "local", log_to_driver=False, configure_logging=False, **options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"there is no Ray cluster at {address!r}: {error}; start one with 'ray start --head'"
        ) from error


def _hand_out(
    ray: Any,
    todo: Sequence[Case],
    store: Store,
    job: _Job,
    traces: Traces,
    cpus: int,
    retries: int,
    budget_s: float | None,
) -> int:
    budget, made = Budget(budget_s), 0
    # Exceptions of the work are results; Ray retries what a dead node or worker took along.
    remote = ray.remote(max_retries=retries, retry_exceptions=False, scheduling_strategy="SPREAD")(_on_node)
    shared = ray.put(job)
    waiting = list(reversed(todo))
    running: dict[Any, Case] = {}
    with progress(len(todo)) as advance:
        while waiting or running:
            spent = budget.spent
            slots = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
            while waiting and not spent and len(running) < slots:
                case = waiting.pop()
                gpu = case.device.startswith("cuda")
                task = remote.options(num_cpus=1 if gpu else cpus, num_gpus=1 if gpu else 0)
                running[task.remote(case, shared)] = case
            if not running:
                break
            ready, _ = ray.wait(list(running), timeout=1.0)
            for reference in ready:
                record = keep(store, _received(ray, reference, running.pop(reference), store, traces))
                advance(record)
                budget.took(record.seconds)
                made += 1
    return made


def _received(ray: Any, reference: Any, case: Case, store: Store, traces: Traces) -> Record:
    """A task's record, or one that says why there is none."""
    from cdvft_bench.timing.machine.environment import read_environment

    try:
        answer: _Answer = ray.get(reference)
    except ray.exceptions.RayError as error:
        here = store.put_environment(read_environment())
        return failure(case, f"{type(error).__name__}: its node or worker died every time it was handed out", here)
    store.put_environment(answer.environment)
    if traces.missing(answer.record):
        traces.keep(answer.record, answer.trace, answer.no_trace)
    return answer.record
