"""Run cases on a Ray cluster, one a slot, into the one store of the driver.

A case runs as in ``engine``: in a process of its own under the Ray worker, with the same limits and the same causes of
failure. Ray moves cases whose node or worker dies elsewhere, up to ``retries`` times each; records come back to the
driver, which alone writes. Every record keeps the environment of the node that made it.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cdvft_bench.errors import UserError
from cdvft_bench.sweep.case import Case
from cdvft_bench.sweep.engine import PRELOAD, Outcome, Work, evaluate, failure, progress, run_case
from cdvft_bench.sweep.grid import Limits
from cdvft_bench.sweep.record import Record
from cdvft_bench.sweep.store import Store, UnstorableError

if TYPE_CHECKING:
    from cdvft_bench.timing.environment import Environment

RETRIES = 3


def _on_node(case: Case, limits: Limits, work: Work, preload: Sequence[str]) -> tuple[Record, Environment]:
    """What a Ray worker does with a case."""
    from cdvft_bench.timing.environment import read_environment

    # A process that multiprocessing starts imports its parent's main module; Ray's worker is none to import twice.
    sys.modules["__main__"].__dict__.pop("__file__", None)
    sys.modules["__main__"].__spec__ = None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    environment = read_environment()
    return run_case(context, case, limits, work, environment.key), environment


def run(
    cases: Iterable[Case],
    store: Store,
    limits: Limits | None = None,
    *,
    address: str | None = None,
    cpus: int | None = None,
    retries: int = RETRIES,
    retry_failed: bool = False,
    work: Work = evaluate,
    preload: Sequence[str] = PRELOAD,
    budget_s: float | None = None,
) -> Outcome:
    """Run cases that the store does not hold yet.

    Args:
        cases, store, limits, retry_failed, work, preload, budget_s: as in ``engine.run``; once the budget is spent no
            further case is handed out.
        address: of a running cluster ("auto" finds one on this machine); None starts one here and ends it.
        cpus: CPU slots a case takes; None is all CPUs of this machine, so that timed cases do not disturb each other.
            A case on a GPU takes one GPU slot and one CPU.
        retries: times that a case is handed out again when its node or worker died; then it is recorded as failed.

    Raises:
        UserError: ray is not installed, or there is no cluster at the address.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("engine 'ray' needs the package ray, which is not installed; pip install 'cdvft-bench[ray]'")
    import ray

    limits = limits or Limits()
    unique = list({case.key: case for case in cases}.values())
    done = store.keys("ok") if retry_failed else store.keys()
    todo = [case for case in unique if case.key not in done]
    mine = not ray.is_initialized()
    if mine:
        _connect(ray, address)
    try:
        made = _hand_out(ray, todo, store, limits, work, preload, cpus or os.cpu_count() or 1, retries, budget_s)
    finally:
        if mine:
            ray.shutdown()
    failed = len({case.key for case in unique} & store.keys("failed"))
    return Outcome(made, len(unique) - len(todo), failed, left=len(todo) - made)


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
    limits: Limits,
    work: Work,
    preload: Sequence[str],
    cpus: int,
    retries: int,
    budget_s: float | None,
) -> int:
    started, made = time.monotonic(), 0
    # Exceptions of the work are results; Ray retries what a dead node or worker took along.
    remote = ray.remote(max_retries=retries, retry_exceptions=False, scheduling_strategy="SPREAD")(_on_node)
    waiting = list(reversed(todo))
    running: dict[Any, Case] = {}
    with progress(len(todo)) as advance:
        while waiting or running:
            spent = budget_s is not None and made > 0 and time.monotonic() - started > budget_s
            slots = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
            while waiting and not spent and len(running) < slots:
                case = waiting.pop()
                gpu = case.device.startswith("cuda")
                task = remote.options(num_cpus=1 if gpu else cpus, num_gpus=1 if gpu else 0)
                running[task.remote(case, limits, work, preload)] = case
            if not running:
                break
            ready, _ = ray.wait(list(running), timeout=1.0)
            for reference in ready:
                case = running.pop(reference)
                record = _received(ray, reference, case, store)
                _keep(store, record)
                advance(record)
                made += 1
    return made


def _received(ray: Any, reference: Any, case: Case, store: Store) -> Record:
    """A task's record, or one that says why there is none."""
    from cdvft_bench.timing.environment import read_environment

    try:
        record, environment = ray.get(reference)
    except ray.exceptions.RayError as error:
        here = store.put_environment(read_environment())
        return failure(case, f"{type(error).__name__}: its node or worker died every time it was handed out", here)
    store.put_environment(environment)
    return record  # type: ignore[no-any-return]


def _keep(store: Store, record: Record) -> None:
    try:
        store.put(record)
    except UnstorableError as error:
        store.put(failure(record.case, f"what was measured cannot be kept: {error}", record.environment))
