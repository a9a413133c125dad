"""What is done in a case's process: its three sources, a kept trace, the clock against itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cdvft_bench.core.case import Case
from cdvft_bench.core.record import Record
from cdvft_bench.sweep.engines.isolation import Report, isolated
from cdvft_bench.sweep.grid import Limits
from cdvft_bench.sweep.storage.keeping import now

if TYPE_CHECKING:
    from cdvft_bench.core.counted import Counted
    from cdvft_bench.core.record import Predicted
    from cdvft_bench.core.timed import SelfTest, Timed

    Evidence = tuple[str, Predicted | None, Counted | None, Timed | None]

Work = Callable[[Case, Limits], "Evidence"]
"""What is done with a case: returns the label and the three sources."""

TimeWork = Callable[..., None]
"""Times the cases of a group, see :func:`time_cases`."""
DescribeWork = Callable[..., None]
"""Tells everything else of them, see :func:`describe_cases`."""

PRELOAD = (
    "cdvft_bench.sweep.engines.local",
    "cdvft_bench.sweep.evaluate",
    "cdvft_bench.counting.count",
    "cdvft_bench.timing.measure",
    "cdvft_bench.accuracy.training.models",
    "cdvft_reference",
    "peft",
    "transformers",
    "transformers.models.auto.modeling_auto",
)
"""Modules that the fork server imports, so that no case has to."""

COMPARISONS = 20
"""Of the clock with itself, at the start of a sweep."""


def describe(case: Case, limits: Limits) -> Evidence:
    """The three sources of a case."""
    from cdvft_bench.sweep import evaluate as sources

    predicted = sources.predict(case)
    counted = sources.count(case) if limits.count else None
    timed = sources.time_case(
        case, budget_s=limits.budget_s, precision=limits.precision, modes=limits.modes, prepare_s=limits.timeout_s / 4
    )
    return sources.label(case), predicted, counted, timed


def time_cases(report: Report, cases: Sequence[Case], budget_s: float, precision: float, seed: int) -> None:
    """Rounds of all cases of a group, which begin with its two baselines; reports ``timing.joined.Rounds``.

    Args:
        budget_s: seconds of a case. precision, seed: see ``timing.rounds.time_rounds``.
    """
    from cdvft_bench.sweep import evaluate as sources
    from cdvft_bench.timing.clock import Contender
    from cdvft_bench.timing.rounds import time_rounds

    contenders = []
    for i, case in enumerate(cases):
        report.at(i)
        contenders.append(Contender(case.key, sources.target(case, share=True).call))
    baseline = cases[min(1, len(cases) - 1)]  # LoRA
    report(
        time_rounds(
            contenders,
            baseline.key,
            precision=precision,
            budget_s=budget_s * len(cases),
            seed=seed,
            device=cases[0].device,
            at=report.at,
        )
    )


def describe_cases(report: Report, cases: Sequence[Case], limits: Limits) -> None:
    """Everything of cases of one group but their times; reports (key, predicted, counted, timed) of each."""
    from cdvft_bench.sweep import evaluate as sources
    from cdvft_bench.timing.graphs import Replayer

    # In a process of its own: a capture that fails would leave this one unfit for the cases after it.
    with closing(Replayer("cdvft_bench.sweep.evaluate:build")) as replayer:
        for i, case in enumerate(cases):
            report.at(i)
            timed = sources.describe_case(
                case,
                budget_s=limits.budget_s,
                precision=limits.precision,
                modes=limits.modes,
                prepare_s=limits.timeout_s / 4,
                replays=replayer,
            )
            counted = sources.count(case) if limits.count else None
            report((case.key, sources.predict(case), counted, timed))


def trace(case: Case, limits: Limits) -> bytes:
    """The compressed trace of a case."""
    from cdvft_bench.sweep import evaluate as sources

    return sources.keep_trace(case)


def clock_itself(case: Case, limits: Limits, comparisons: int = COMPARISONS) -> SelfTest:
    """The clock against itself, on the device of the case and with as long as a case gets."""
    from cdvft_bench.timing.machine.selftest import selftest

    return selftest(comparisons=comparisons, device=case.device, budget_s=min(1.0, limits.budget_s))


def clock_test(context: Any, case: Case, limits: Limits, comparisons: int) -> SelfTest | None:
    """The clock against itself in a process of its own; None, and a line that says why, where that fails."""
    found, error = isolated(context, case, limits, partial(clock_itself, comparisons=comparisons))
    if error is not None:
        print(f"the clock was not tested against itself: {error}", file=sys.stderr)
    return found


def run_case(
    context: Any, case: Case, limits: Limits, work: Work, environment: str, selftest: SelfTest | None = None
) -> Record:
    """Run a case in a process of its own; whatever happens there, this returns its record.

    Args:
        context: of :func:`isolation.server`. case, limits, work: what to do. environment: key of its row.
        selftest: of the clock that times it.
    """
    start = time.perf_counter()
    evidence, error = isolated(context, case, limits, work)
    label, predicted, counted, timed = evidence or (case.plain_label, None, None, None)
    return Record(
        case=case,
        status="ok" if error is None else "failed",
        label=label,
        predicted=predicted,
        counted=counted,
        timed=timed if timed is None else replace(timed, selftest=selftest),
        error=error,
        environment=environment,
        created=now(),
        seconds=round(time.perf_counter() - start, 3),
    )
