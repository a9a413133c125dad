"""The analysis of a trace: its summary, as records keep it, and everything beside it.

On a device a launch is a kernel, copy or fill, tied to the host call that made it. On a CPU it is a leaf operator: one
that reaches a kernel, as a TorchDispatchMode sees it below autograd. The two ways of counting agree, forward and
backward, but for these:

- under a dispatch mode autograd works out of place: it sees ``add`` and ``index_put`` where a trace has ``add_``
  and ``_index_put_impl_``;
- a trace without input types misses the copy of a conjugated operand, unless an element-wise operator takes it;
- a trace counts operators on empty tensors, which launch nothing;
- operators of other namespaces than ATen are seen only through the ATen operators that they call, and
  torch.compile's generated CPU code, which calls none, not at all;
- an operator that no table knows is taken for a leaf.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cdvft_bench.core.timed import TraceSummary
from cdvft_bench.timing.traces.events.linking import link
from cdvft_bench.timing.traces.events.model import Trace
from cdvft_bench.timing.traces.events.reading import read
from cdvft_bench.timing.traces.events.windows import windows
from cdvft_bench.timing.traces.summary import device_analysis, host_analysis
from cdvft_bench.timing.traces.summary.result import Detail


@dataclass(frozen=True)
class Analysis:
    """What a trace says: ``summary`` as records keep it, ``detail`` beside it, and the ``trace`` itself."""

    summary: TraceSummary
    detail: Detail
    trace: Trace


def analyse_file(path: str | Path) -> Analysis:
    """Analyse a Chrome trace file, plain, compressed or in an archive, whoever made it.

    Raises:
        UserError: the file cannot be read, or holds neither operators nor kernels.
    """
    return analyse(read(path))


def analyse(trace: Trace, device: Literal["cpu", "cuda"] | None = None) -> Analysis:
    """Analyse a trace.

    Args:
        trace: as read.
        device: what ran the work; None for a device where there are kernels or launches, else "cpu".
    """
    links = link(trace)
    window = windows(trace, links)
    on_cpu = device == "cpu" or (device is None and not len(trace.device) and not np.any(links.launching))
    work = host_analysis.HostWork(trace, links)
    if on_cpu:
        summary, detail = host_analysis.analyse(work, window)
    else:
        summary, detail = device_analysis.analyse(work, window)
    return Analysis(summary, detail, trace)
