"""Rates of a CPU that was never calibrated: measured quickly at the first plan, and kept.

They depend on the width of its vectors, its caches, its cores and torch's threads: those of another machine mislead.
"""

import hashlib
import json
import platform
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from cdvft_bench.analytic.roofline import Rates, load_rates, rates_from_json
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.caches import alone_in, cache_folder, private_folder
from cdvft_bench.core.io.files import write_file
from cdvft_bench.execution import native
from cdvft_bench.execution.rates.measured import QUICK, measure, this_cpu

KIND = 3
"""Of what is measured: rates of another kind are measured anew."""
BUSY = 0.85
"""A measurement that got a smaller share of its time from the CPU met other work, which its rates hold, too."""
BUSY_S = 600.0
"""How long such rates are used; then they are measured anew."""
_BUSY_NOTE = "other work took the CPU meanwhile"


def quick_path(threads: int) -> Path:
    """Where they are kept: those of another CPU, torch, number of threads or build of the kernels lie elsewhere."""
    parts = (this_cpu(), torch.__version__, str(threads), str(KIND), native.described(torch.float32))
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return cache_folder() / f"rates-{key}.json"


@lru_cache(maxsize=16)
def quick_rates(threads: int) -> Rates:
    """Rates of this CPU with torch's present number of threads, measured in about two seconds and kept on disk.

    Those of a busy machine are kept for ten minutes, see ``BUSY``: what they say of paths need not hold on a quiet one.
    A failure to keep them costs the next process the same seconds. Processes that start at once measure one by one.
    """
    try:
        folder = private_folder(cache_folder())
    except (OSError, UserError):
        return _measured(threads)
    path = quick_path(threads)
    found = _kept(path)
    if found is None:
        try:
            with alone_in(folder, "rates.lock", wait_s=60):
                found = _kept(path)
                if found is None:
                    found = _measured(threads)
                    write_file(path, json.dumps(found.to_json(), indent=1) + "\n")
        except (OSError, UserError):  # locked for long, read-only, full
            found = found or _measured(threads)
    return found


def _kept(path: Path) -> Rates | None:
    try:
        found = load_rates(path)
        old = time.time() - path.stat().st_mtime > BUSY_S
    except (OSError, UserError):
        return None
    return None if _BUSY_NOTE in found.notes and old else found


def _measured(threads: int) -> Rates:
    """In a thread of its own, where no mode, autocast or gradient of the caller's reaches."""
    native.missing(torch.float32)  # is not to be compiled while a clock runs
    found: list[dict[str, Any]] = []

    def work() -> None:
        begun, own = time.perf_counter(), time.thread_time()
        with torch.no_grad():
            rates = measure(torch.device("cpu"), QUICK)
        share = (time.thread_time() - own) / (time.perf_counter() - begun)
        found.append({**rates, "notes": [_BUSY_NOTE] if share < BUSY else []})

    thread = threading.Thread(target=work, name="rates")
    thread.start()
    thread.join()
    if not found:
        raise UserError("this CPU's rates could not be measured; run cdvft-bench calibrate")
    name = platform.processor() or platform.machine() or "cpu"
    source = "measured in about 2 s at the first plan"
    return rates_from_json({"device": name, "source": source, "asynchronous": False, "threads": threads, **found[0]})
