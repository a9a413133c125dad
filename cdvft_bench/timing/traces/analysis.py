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

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cdvft_bench.core.timed import TraceSummary
from cdvft_bench.timing.traces.events.linking import link
from cdvft_bench.timing.traces.events.model import Trace, read
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


# --- one trace against another ---------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """One row.

    Attributes:
        name: of a family or kernel, or what the quantity is. family: of a kernel, else "".
        before, after: seconds in the other trace and in this one. launches_before, launches_after: likewise.
    """

    name: str
    family: str
    before: float
    after: float
    launches_before: float
    launches_after: float

    @property
    def difference(self) -> float:
        """Seconds that it takes more now."""
        return self.after - self.before


@dataclass(frozen=True)
class Comparison:
    """This trace against another.

    Attributes:
        basis: "a step" or "the whole trace": what the figures are for. steps: of the other and of this trace.
        times: window or span, device time, idle time by cause, launching, communication, by name.
        families, kernels: those that changed most first.
        verdicts: of the other and of this trace. busy: their busy shares.
        notes: why a comparison may mislead.
    """

    basis: str
    steps: tuple[int, int]
    times: tuple[Change, ...]
    families: tuple[Change, ...]
    kernels: tuple[Change, ...]
    verdicts: tuple[str, str]
    busy: tuple[float | None, float | None]
    notes: tuple[str, ...]


def compare(this: Analysis, other: Analysis) -> Comparison:
    """Compare this trace against another."""
    steps = len(other.detail.steps), len(this.detail.steps)
    per_step = min(steps) > 0
    scale = (steps[0], steps[1]) if per_step else (1, 1)
    notes = []
    if (this.summary.device == "cpu") != (other.summary.device == "cpu"):
        notes.append(f"one trace is of {other.summary.device}, the other of {this.summary.device}")
    if not per_step:
        notes.append("not both traces have the profiler's steps: the figures are of whole traces, whatever they hold")
    notes += [f"the other trace: {note}" for note in other.summary.notes]
    notes += [f"this trace: {note}" for note in this.summary.notes]
    kernels = {(k.name, k.family): (k.seconds, k.launches) for k in this.detail.kernels}
    others = {(k.name, k.family): (k.seconds, k.launches) for k in other.detail.kernels}
    labels = {(k.name, k.family): k.label for a in (other, this) for k in a.detail.kernels}
    rows = [
        _change(labels[key], key[1], others.get(key, (0.0, 0)), kernels.get(key, (0.0, 0)), scale)
        for key in sorted({*kernels, *others})
    ]
    return Comparison(
        basis="a step" if per_step else "the whole trace",
        steps=steps,
        times=_times(this, other, scale),
        families=_sorted(_families(this, other, scale)),
        kernels=_sorted(rows),
        verdicts=(other.summary.verdict, this.summary.verdict),
        busy=(other.summary.busy_fraction, this.summary.busy_fraction),
        notes=tuple(notes),
    )


def _change(
    name: str, family: str, before: tuple[float, int], after: tuple[float, int], scale: tuple[int, int]
) -> Change:
    return Change(name, family, before[0] / scale[0], after[0] / scale[1], before[1] / scale[0], after[1] / scale[1])


def _families(this: Analysis, other: Analysis, scale: tuple[int, int]) -> list[Change]:
    found = [_by_family(other), _by_family(this)]
    return [
        _change(name, "", found[0].get(name, (0.0, 0)), found[1].get(name, (0.0, 0)), scale)
        for name in sorted({*found[0], *found[1]})
    ]


def _by_family(one: Analysis) -> dict[str, tuple[float, int]]:
    seconds: Counter[str] = Counter()
    launches: Counter[str] = Counter()
    for row in one.detail.kernels:
        seconds[row.family] += row.seconds  # type: ignore[assignment] # a Counter of floats
        launches[row.family] += row.launches
    return {name: (seconds[name], launches[name]) for name in launches}


def _times(this: Analysis, other: Analysis, scale: tuple[int, int]) -> tuple[Change, ...]:
    found = [_quantities(other), _quantities(this)]
    names = list(dict.fromkeys((*found[0], *found[1])))
    return tuple(_change(name, "", (found[0].get(name, 0.0), 0), (found[1].get(name, 0.0), 0), scale) for name in names)


def _quantities(one: Analysis) -> Mapping[str, float]:
    summary, detail = one.summary, one.detail
    steps = sum(step.seconds for step in detail.steps)
    return {
        "steps on the host" if detail.steps else "span": steps if detail.steps else summary.span_seconds,
        "device time": summary.device_seconds,
        **{f"idle: {cause}": seconds for cause, seconds in summary.idle.items()},
        "communication": summary.communication_seconds,
        "communication alone": summary.exposed_seconds,
        "launching on the host": summary.launch_seconds,
        "host time in operators": summary.host_seconds,
    }


def _sorted(rows: list[Change]) -> tuple[Change, ...]:
    return tuple(sorted(rows, key=lambda row: (-abs(row.difference), row.name, row.family)))
