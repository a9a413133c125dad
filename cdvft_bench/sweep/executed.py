"""A case under the counters of the processor itself, where a machine has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from cdvft_bench.core.case import Case, case_from

if TYPE_CHECKING:
    from cdvft_bench.counting.hardware import Executed


def count_executed(case: Case) -> Executed:
    """Floating-point operations that one pass of the case executes, in a process of its own.

    Raises:
        UserError: the case cannot be built here.
        RuntimeError: it fails.
    """
    from cdvft_bench.counting import hardware
    from cdvft_bench.sweep.evaluate import require_device

    require_device(case.device)
    setup = f"from cdvft_bench.sweep.executed import pass_of\nrun = pass_of({json.dumps(asdict(case))!r})\nrun()"
    return hardware.count_executed("run()", setup, case.device)


def pass_of(text: str) -> Callable[[], object]:
    """The pass of a case that is given as JSON, to be run again and again."""
    from cdvft_bench.sweep.evaluate import build

    case = case_from(json.loads(text))
    built = build(case)
    return built.step if case.pass_ == "step" else built.forward
