"""Closed forms alone: cases stream through this process, thousands a second, and memory stays flat."""

import time
from collections.abc import Iterable

from cdvft_bench.core.budget import Budget
from cdvft_bench.core.case import Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.sweep.evaluate import label, predict
from cdvft_bench.sweep.progress import progress
from cdvft_bench.sweep.storage.keeping import SweepResult, failure, now
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.timing.machine.environment import read_environment

BATCH = 500
"""Records a transaction."""


def run(
    cases: Iterable[Case], store: Store, *, retry_failed: bool = False, budget_s: float | None = None
) -> SweepResult:
    """Predict the cases that the store does not hold yet. What is kept in memory is their keys.

    A case that is only predicted counts as done: use a store of its own.

    Args:
        cases: gone through twice, so an iterator is made a list first.
        store, retry_failed, budget_s: as in ``local.run``.
    """
    cases = list(cases) if iter(cases) is cases else cases
    done = store.keys("ok") if retry_failed else store.keys()
    keys = {case.key for case in cases}
    todo, made = keys - done, 0
    skipped = len(keys) - len(todo)
    environment = store.put_environment(read_environment())
    budget = Budget(budget_s)
    batch: list[Record] = []
    with progress(len(todo)) as advance:
        for case in cases:
            if case.key not in todo:
                continue
            if budget.spent:
                break
            todo.discard(case.key)
            batch.append(_predicted(case, environment))
            advance(batch[-1])
            budget.took(batch[-1].seconds)
            made += 1
            if len(batch) == BATCH:
                store.put_all(batch)
                batch.clear()
        store.put_all(batch)
    return SweepResult(made, skipped, len(keys & store.keys("failed")), left=len(todo))


def _predicted(case: Case, environment: str) -> Record:
    begun = time.perf_counter()
    try:
        name, predicted = label(case), predict(case)
    except UserError as error:
        return failure(case, f"UserError: {error}", environment)
    seconds = round(time.perf_counter() - begun, 6)
    return Record(case, "ok", name, predicted, None, None, None, environment, now(), seconds)
