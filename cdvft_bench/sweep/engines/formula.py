"""Closed forms alone: cases stream through this process, thousands a second, and memory stays flat."""

from __future__ import annotations

import time
from collections.abc import Iterable

from cdvft_bench.core.case import Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.sweep import evaluate as witness
from cdvft_bench.sweep.progress import progress
from cdvft_bench.sweep.run import Outcome, failure, now
from cdvft_bench.sweep.store import Store
from cdvft_bench.timing.environment import read_environment

BATCH = 500
"""Records a transaction."""


def run(cases: Iterable[Case], store: Store, *, retry_failed: bool = False, budget_s: float | None = None) -> Outcome:
    """Predict the cases that the store does not hold yet. What is kept in memory is their keys.

    A case that is only predicted counts as done: use a store of its own.

    Args:
        cases: gone through twice, so an iterator is made a list first.
        store, retry_failed, budget_s: as in ``engine.run``.
    """
    cases = list(cases) if iter(cases) is cases else cases
    done = store.keys("ok") if retry_failed else store.keys()
    keys = {case.key for case in cases}
    todo, made = keys - done, 0
    skipped = len(keys) - len(todo)
    environment = store.put_environment(read_environment())
    started = time.monotonic()
    batch: list[Record] = []
    with progress(len(todo)) as advance:
        for case in cases:
            if case.key not in todo:
                continue
            if made and budget_s is not None and time.monotonic() - started > budget_s:
                break
            todo.discard(case.key)
            batch.append(_predicted(case, environment))
            advance(batch[-1])
            made += 1
            if len(batch) == BATCH:
                store.put_all(batch)
                batch.clear()
        store.put_all(batch)
    return Outcome(made, skipped, len(keys & store.keys("failed")), left=len(todo))


def _predicted(case: Case, environment: str) -> Record:
    begun = time.perf_counter()
    try:
        label, predicted = witness.label(case), witness.predict(case)
    except UserError as error:
        return failure(case, f"UserError: {error}", environment)
    seconds = round(time.perf_counter() - begun, 6)
    return Record(case, "ok", label, predicted, None, None, None, environment, now(), seconds)
