"""Run cases here, one after the other, each in a process of its own (``isolation``).

Whatever happens in such a process costs its case alone and is recorded with its cause. A record is
written in one transaction when its case is done: killing the sweep at any instant loses the case in
flight, and Ctrl-C ends it the same way. No process of a case outlives its sweep.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from cdvft_bench.core.budget import Budget
from cdvft_bench.core.case import Case
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.timed import SelfTest
from cdvft_bench.sweep.engines.isolation import isolated, server
from cdvft_bench.sweep.engines.work import PRELOAD, Work, clock_test, describe, run_case, trace
from cdvft_bench.sweep.grid import Limits
from cdvft_bench.sweep.progress import progress
from cdvft_bench.sweep.storage.keeping import SweepResult, Traces, keep
from cdvft_bench.sweep.storage.store import Store


def run(
    cases: Iterable[Case],
    store: Store,
    limits: Limits | None = None,
    *,
    retry_failed: bool = False,
    work: Work = describe,
    environment: Environment | None = None,
    preload: Sequence[str] = PRELOAD,
    budget_s: float | None = None,
    traces: Traces | None = None,
    comparisons: int = 0,
) -> SweepResult:
    """Run cases that the store does not hold yet.

    Args:
        cases: finished ones are skipped, and a case given twice is run once.
        store: records go here, each in a transaction.
        limits: of every case.
        retry_failed: run cases again that are recorded as failed.
        work: what to do in the case's process; importable from a module.
        environment: of this machine; read if not given.
        preload: modules that the fork server imports when it starts, which it does once a process.
        budget_s: seconds that this run may take: a case that would exceed it, if it took as long as the longest
            so far, is not begun, and one that does exceed it is left for the next run; but one is always made.
            None is no limit.
        traces: to keep, also of cases that are finished and have none.
        comparisons: of the clock with itself, before the first case on a device; their figures go into its records.
    """
    from cdvft_bench.timing.machine.environment import read_environment

    limits = limits or Limits()
    traces = traces or Traces(Path())
    unique = list({case.key: case for case in cases}.values())
    done = store.keys("ok") if retry_failed else store.keys()
    todo = [case for case in unique if case.key not in done]
    traced = {key for key in traces.keys & done if traces.missing(store.get(key))}
    key = store.put_environment(environment or read_environment())
    budget, made = Budget(budget_s), 0
    tested: dict[str, SelfTest | None] = {}
    context = server(preload) if todo or traced else None
    with progress(len(todo)) as advance:
        for case in unique:
            if case.key in done and case.key not in traced:
                continue
            if comparisons and case.device not in tested and case.key not in done:
                tested[case.device] = clock_test(context, case, limits, comparisons)
            if budget.spent:
                break
            begun = time.monotonic()
            record = store.get(case.key) if case.key in done else None
            if record is None:
                cut = budget.longest > 0 and budget.left < limits.timeout_s
                given = replace(limits, timeout_s=budget.left) if cut else limits
                record = run_case(context, case, given, work, key, tested.get(case.device))
                if cut and (record.error or "").startswith("timed out"):
                    break  # by this run's budget, not by its own limit
                record = keep(store, record)
                advance(record)
                made += 1
            if traces.missing(record):
                traces.keep(record, *isolated(context, case, limits, trace))
            budget.took(time.monotonic() - begun)
    failed = len({case.key for case in unique} & store.keys("failed"))
    return SweepResult(made, len(unique) - len(todo), failed, left=len(todo) - made)
