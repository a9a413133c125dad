"""The compiled kernels beside PEFT's LoRA, as code for several vector widths: one table, in minutes.

Each target (16, 8 or 4 floats a vector) runs in processes of its own, by turns, since what a process's allocator and
pages happen to be moves a ratio by per cents. Within a process, all contenders of a layer run in the same rounds.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cdvft_bench.core.case import FROZEN, CasePass
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.text import markdown_table

if TYPE_CHECKING:
    from cdvft_bench.timing.built import Built
    from cdvft_bench.timing.clock import Contender


@dataclass(frozen=True)
class Row:
    """One layer of the table, square, with the ratio to LoRA's time that the kernels are to reach."""

    d: int
    tokens: int
    target: float
    p: int = 0
    m: int = 2
    dtype: str = "float32"
    pass_: CasePass = "step"

    def __str__(self) -> str:
        settings = [f"p={self.p}"] * bool(self.p) + [f"m={self.m}"] * (self.m != 2)
        kind = [self.dtype] * (self.dtype != "float32") + [self.pass_] * (self.pass_ != "step")
        return ", ".join([f"{self.d}", f"{self.tokens} tokens", *settings, *kind])


ROWS = (
    Row(768, 128, 0.90),
    Row(768, 1024, 0.80),
    Row(1024, 1024, 0.78),
    Row(4096, 64, 0.98),
    Row(4096, 512, 0.95),
    *(Row(768, 1024, 0.95, p=p) for p in (64, 96, 256)),
    Row(768, 1024, 1.0, m=3),
    Row(768, 1024, 0.95, pass_="forward"),
    Row(768, 1024, 0.80, dtype="bfloat16"),
)
QUICK = ROWS[:2]
CONTENDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("cdvft", {"path": "native"}),
    "lora": ("lora", {"rank": 8}),
    "frozen": (FROZEN, {}),
    "fft": ("cdvft", {"path": "fft"}),
    "c3a": ("c3a", {}),
}
"""The subject first; C3A of blocks as large as the layer, as the paper's comparison has it."""


@dataclass(frozen=True)
class Found:
    """A row in one process: seconds by contender (medians), and native's time over LoRA's, paired by round."""

    row: str
    target: str
    seconds: dict[str, float]
    over_lora: float


def contender(name: str, built: Built, pass_: CasePass) -> Contender:
    """Forward, or forward and backward, without an optimiser's update: what the layer itself takes."""
    import torch

    from cdvft_bench.timing.clock import Contender

    if pass_ == "forward":
        return Contender(name, built.forward)
    with torch.no_grad():
        g = torch.randn_like(built.forward())
    leaves = [*built.module.parameters(), *built.inputs]

    def drop_gradients() -> None:
        for leaf in leaves:
            leaf.grad = None

    return Contender(name, lambda: built.forward().backward(g), drop_gradients)


def _measured(row: Row, budget_s: float, threads: int) -> tuple[dict[str, float], float]:
    from cdvft_bench.sweep.evaluate import build
    from cdvft_bench.sweep.grid import make_case
    from cdvft_bench.timing.clock import time_interleaved

    contenders = []
    for name, (method, given) in CONTENDERS.items():
        values = dict(given)
        if method == "cdvft":
            values |= {"block_size": row.p or row.d, "m": row.m}
        if method == "c3a":
            values |= {"block_size": row.d}
        case = make_case(
            method, values, "layer", f"{row.d}x{row.d}", sequence=row.tokens, dtype=row.dtype, pass_=row.pass_
        )
        contenders.append(contender(name, build(case), row.pass_))
    timing = time_interleaved(contenders, precision=0.01, budget_s=budget_s, min_rounds=5, threads=threads)
    return {s.name: s.median for s in timing.samples}, timing.ratios["lora"].value


def measure_here(rows: Sequence[Row], budget_s: float, threads: int) -> Iterator[Found]:
    """Each row, in this process, for the target that $CDVFT_BENCH_TARGET names."""
    target = os.environ.get("CDVFT_BENCH_TARGET") or "native"
    for row in rows:
        seconds, ratio = _measured(row, budget_s / len(rows), threads)
        yield Found(str(row), target, seconds, ratio)


def measure(targets: Sequence[str], rows: Sequence[Row], budget_s: float, processes: int, threads: int) -> list[Found]:
    """Each row for every target, in so many processes of each, by turns.

    Args:
        budget_s: seconds of measuring in all; starting processes comes on top.

    Raises:
        UserError: a process failed, or the kernels are missing there.
    """
    share = budget_s / (processes * len(targets))
    arguments = (str(rows == QUICK), str(share), str(threads))
    return [Found(**json.loads(line)) for line in by_turns(__name__, arguments, targets, processes)]


def by_turns(module: str, arguments: Sequence[str], targets: Sequence[str], processes: int) -> Iterator[str]:
    """The lines that ``python -m module`` prints for every target, in so many processes of each.

    Raises:
        UserError: a process failed.
    """
    for _ in range(processes):
        for target in targets:
            environment = {**os.environ, "CDVFT_BENCH_TARGET": target}
            call = [sys.executable, "-m", module, *arguments]
            done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
                raise UserError(f"target {target}: {said[-1]}")
            yield from done.stdout.splitlines()


@contextmanager
def busy_neighbours(n: int) -> Iterator[None]:
    """So many processes that keep a core busy, and end with this one however it ends."""
    busy = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    others = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(n)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def table(found: Sequence[Found], rows: Sequence[Row]) -> str:
    """Markdown: native over LoRA by target (median of processes, their range), and the others' ratios and overheads."""
    targets = list(dict.fromkeys(f.target for f in found))
    others = [name for name in CONTENDERS if name not in ("native", "lora")]
    head = [
        "layer",
        "target",
        *(f"native ({t})" for t in targets),
        *others,
        *(f"overhead {t}: fft, c3a" for t in targets),
    ]
    lines = []
    for row in rows:
        of = {t: [f for f in found if f.row == str(row) and f.target == t] for t in targets}
        cells = [str(row), f"<= {row.target:.2f}"]
        for t in targets:
            ratios = [f.over_lora for f in of[t]]
            cells.append(f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
        every = [f.seconds for t in targets for f in of[t]]
        cells += [f"{statistics.median(s[name] / s['lora'] for s in every):.3f}" for name in others]
        for t in targets:
            times = [_overheads(f.seconds) for f in of[t]]
            middle = [statistics.median(x[k] for x in times) for k in range(2)]
            cells.append(", ".join(f"{m:.1f} x" if math.isfinite(m) else "none seen" for m in middle))
        lines.append(cells)
    return "\n".join(markdown_table(head, lines))


def _overheads(seconds: dict[str, float]) -> tuple[float, float]:
    """What path fft and C3A take beyond the frozen layer, over what native does; infinite where that is nothing."""
    own, frozen = seconds["native"] - seconds["frozen"], seconds["frozen"]
    fft, c3a = ((seconds[name] - frozen) / own if own > 0 else math.inf for name in ("fft", "c3a"))
    return fft, c3a


if __name__ == "__main__":
    for entry in measure_here(QUICK if sys.argv[1] == "True" else ROWS, float(sys.argv[2]), int(sys.argv[3])):
        print(json.dumps(asdict(entry)), flush=True)
