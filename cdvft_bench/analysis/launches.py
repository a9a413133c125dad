"""How much of a case's time is launches: eager minus graph on a GPU, the time outside operators on a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cdvft_bench.analysis.groups import is_lora8, paper_setting, sections
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import NOT_MEASURED, integer
from cdvft_bench.core.timed import Modes
from cdvft_bench.timing.statistics import median_interval

COLUMNS = ("subject", "batch × tokens", "pass, dtype", "method", "launches", "of them the adapter's",
           "eager − graph, of eager", "nothing running, of the trace")  # fmt: skip


def launch_share(modes: Modes | None) -> Interval | None:
    """Share of an eager call that a CUDA graph saves, paired by round; None where no graph was timed."""
    seconds = {s.name: np.array(s.seconds) for s in modes.timing.samples} if modes else {}
    if "eager" not in seconds or "graph" not in seconds:
        return None
    return median_interval(1 - seconds["graph"] / seconds["eager"])


def launch_rows(records: Iterable[Record]) -> list[Sequence[object]]:
    """A row for CDVFT at the paper's setting, by path, and for LoRA of rank 8, at every subject and workload."""
    rows: list[Sequence[object]] = []
    for section in sections(records):
        for workload, found in section.workloads().items():
            for record in (*paper_setting(found), *(r for r in found if is_lora8(r.case))):
                timed = record.timed
                if timed is None or (timed.trace is None and timed.modes is None):
                    continue
                trace, share = timed.trace, launch_share(timed.modes)
                adapter = trace.parts.get("adapter") if trace else None
                busy = trace.busy_fraction if trace else None
                rows.append((
                    section.subject,
                    f"{workload.batch} × {workload.sequence:,}",
                    ", ".join(filter(None, (workload.pass_, section.dtype, section.machine))),
                    record.label,
                    NOT_MEASURED if trace is None else integer(trace.launches),
                    NOT_MEASURED if adapter is None else integer(adapter.launches),
                    _percent(share),
                    NOT_MEASURED if busy is None else f"{1 - busy:.0%}",
                ))  # fmt: skip
    return rows


def _percent(share: Interval | None) -> str:
    if share is None:
        return NOT_MEASURED
    bounds = "no interval" if share.low is None or share.high is None else f"{share.low:.0%}, {share.high:.0%}"
    return f"{share.value:.0%} [{bounds}]"
