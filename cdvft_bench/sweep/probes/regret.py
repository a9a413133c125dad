"""What the planner's picks lose: the pick's time over the fastest path's, for several vector widths.

Every path that can execute a layer runs in the same rounds, in several processes of each target by turns. The planner
is uncalibrated: it plans by the rates that a first plan measures in seconds.
"""

import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from cdvft_bench.core.case import CasePass
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.text import markdown_table
from cdvft_bench.sweep.probes.widths import by_turns, contender

MEDIAN, WORST = 0.03, 0.10
"""Regrets that the planner is to stay below."""


@dataclass(frozen=True)
class Row:
    """One layer to plan; m = 0 is the block-circulant adapter, p = 0 one block as wide as the layer is narrow."""

    d_in: int
    d_out: int
    tokens: int
    p: int = 0
    m: int = 2
    dtype: str = "float32"
    training: bool = True

    def __str__(self) -> str:
        kind = [f"p={self.p}"] * bool(self.p) + [f"m={self.m}"] * (self.m != 2)
        kind += [self.dtype] * (self.dtype != "float32") + ["forward"] * (not self.training)
        return ", ".join([f"{self.d_in}x{self.d_out}", f"{self.tokens} tokens", *kind])


QUICK = (Row(768, 768, 128), Row(768, 768, 64, p=251))
ROWS = (
    *(Row(768, 768, tokens) for tokens in (1, 16, 128, 1024)),
    Row(1024, 1024, 1024),
    *(Row(4096, 4096, tokens) for tokens in (64, 512)),
    Row(768, 3072, 512),
    Row(3072, 768, 512),
    *(Row(768, 768, 1024, p=p) for p in (64, 96, 256)),
    *(Row(768, 768, tokens, p=251) for tokens in (64, 1024)),  # no blocks that the compiled kernels take
    Row(768, 768, 1024, m=3),
    *(Row(768, 768, 1024, p=p, m=0) for p in (64, 768)),
    *(Row(768, 768, tokens, training=False) for tokens in (16, 1024)),
    Row(768, 768, 1024, dtype="bfloat16"),
)


@dataclass(frozen=True)
class Found:
    """A row in one process: the path picked, and seconds by path (medians)."""

    row: str
    target: str
    pick: str
    seconds: dict[str, float]


def _measured(row: Row, budget_s: float, threads: int) -> tuple[str, dict[str, float]]:
    from cdvft_bench.execution.planner import NOT_PICKED, Problem, rank
    from cdvft_bench.execution.rates.quick import quick_rates
    from cdvft_bench.sweep.evaluate import build
    from cdvft_bench.sweep.grid import make_case
    from cdvft_bench.timing.clock import time_interleaved

    p = row.p or min(row.d_in, row.d_out)
    problem = Problem(row.d_in, row.d_out, p, row.m, row.tokens, row.dtype, training=row.training)
    ranked = [e.path for e in rank(problem, quick_rates(threads)) if e.path not in NOT_PICKED]
    pass_: CasePass = "step" if row.training else "forward"
    contenders = []
    for path in ranked:
        values: dict[str, int | float | str | bool] = {"block_size": p, "path": path}
        if row.m:
            values["m"] = row.m
        method, layer = "cdvft" if row.m else "block_circulant", f"{row.d_in}x{row.d_out}"
        case = make_case(method, values, "layer", layer, sequence=row.tokens, dtype=row.dtype, pass_=pass_)
        contenders.append(contender(path, build(case), pass_))
    timing = time_interleaved(contenders, precision=0.01, budget_s=budget_s, min_rounds=5, threads=threads)
    return ranked[0], {s.name: s.median for s in timing.samples}


def measure_here(rows: Sequence[Row], budget_s: float, threads: int) -> Iterator[Found]:
    """Each row, in this process, for the target that $CDVFT_BENCH_TARGET names."""

    from cdvft_bench.timing.clock import fixed_threads

    target = os.environ.get("CDVFT_BENCH_TARGET") or "native"
    with fixed_threads(threads):  # of the rates, too
        for row in rows:
            yield Found(str(row), target, *_measured(row, budget_s / len(rows), threads))


def measure(targets: Sequence[str], rows: Sequence[Row], budget_s: float, processes: int, threads: int) -> list[Found]:
    """Each row for every target, in so many processes of each, by turns.

    Args:
        budget_s: seconds of measuring in all; starting processes comes on top.

    Raises:
        UserError: a process failed.
    """
    arguments = (str(rows == QUICK), str(budget_s / (processes * len(targets))), str(threads))
    return [Found(**json.loads(line)) for line in by_turns(__name__, arguments, targets, processes)]


def _regret(found: Sequence[Found], pick: str) -> tuple[float, str]:
    """What ``pick`` loses against the fastest path of these processes, in the median over them, and that path."""
    best = min(found[0].seconds, key=lambda path: statistics.median(f.seconds[path] / f.seconds[pick] for f in found))
    return statistics.median(f.seconds[pick] / f.seconds[best] for f in found) - 1, best


def table(found: Sequence[Found], rows: Sequence[Row]) -> str:
    """Markdown: by layer and target the picks, the fastest path, and the median pick's regret; the worst and median."""
    targets = list(dict.fromkeys(f.target for f in found))
    if not found:
        raise UserError("nothing was measured; raise the budget")
    lines = []
    regrets: dict[str, list[float]] = {t: [] for t in targets}
    for row in rows:
        cells = [str(row)]
        for t in targets:
            of = [f for f in found if f.row == str(row) and f.target == t]
            picks = [f.pick for f in of]
            lost = [_regret(of, pick) for pick in picks]
            regret = max(one for one, _ in lost)
            regrets[t].append(regret)
            cells += [" or ".join(dict.fromkeys(picks)), lost[0][1], f"{100 * regret:.1f} %"]
        lines.append(cells)
    head = ["layer", *(name for t in targets for name in (f"{t}: pick", "fastest", "regret"))]
    said = [
        f"{t}: median {100 * statistics.median(r):.1f} % (aim {100 * MEDIAN:.0f} %), worst {100 * max(r):.1f} % (aim "
        f"{100 * WORST:.0f} %)"
        for t, r in regrets.items()
    ]
    return "\n".join([*markdown_table(head, lines), "", "; ".join(said) + "."])


if __name__ == "__main__":
    for entry in measure_here(QUICK if sys.argv[1] == "True" else ROWS, float(sys.argv[2]), int(sys.argv[3])):
        print(json.dumps(asdict(entry)), flush=True)
