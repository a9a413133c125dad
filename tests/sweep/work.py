"""Stand-ins for the work of a case, importable by its process."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from cdvft_bench.errors import UserError
from cdvft_bench.sweep import witness
from cdvft_bench.sweep.case import Case
from cdvft_bench.sweep.grid import Limits

if TYPE_CHECKING:
    from cdvft_bench.sweep.engine import Evidence


def predict_only(case: Case, limits: Limits) -> Evidence:
    return witness.label(case), witness.predict(case), None, None


def slowly(case: Case, limits: Limits) -> Evidence:
    time.sleep(0.03)
    return predict_only(case, limits)


def misbehave(case: Case, limits: Limits) -> Evidence:
    """What goes wrong is chosen by the case's seed."""
    if case.seed == 1:
        raise RuntimeError("a library's\nerror of two lines")
    if case.seed == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if case.seed == 3:
        time.sleep(600)
    if case.seed == 4:
        hoard = []
        while True:
            hoard.append(bytearray(64 * 2**20))
    if case.seed == 5:
        raise UserError("value 3 is too small; use 4")
    if case.seed == 6:
        os._exit(7)
    return predict_only(case, limits)
