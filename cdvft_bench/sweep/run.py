"""A grid, run into a store by one of the engines."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cdvft_bench.core.case import Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.lock import RunLock
from cdvft_bench.sweep.engines import formula, grouped, local, ray
from cdvft_bench.sweep.engines.isolation import sweep_scratch
from cdvft_bench.sweep.engines.work import COMPARISONS
from cdvft_bench.sweep.grid import Grid, LeftOut, read_grid
from cdvft_bench.sweep.storage.keeping import SweepResult, Traces
from cdvft_bench.sweep.storage.store import Store


@dataclass(frozen=True)
class _Cases:
    """A grid's cases, as often as they are asked for, one by one; on another device if given."""

    grid: Grid
    device: str | None = None

    def __iter__(self) -> Iterator[Case]:
        return (self._placed(case) for case in self.grid)

    def traced(self) -> frozenset[str]:
        return frozenset(self._placed(case).key for case in self.grid.traced())

    def _placed(self, case: Case) -> Case:
        return case if self.device is None else replace(case, device=self.device)


def run_grid(
    grid: str,
    store_path: Path,
    retry_failed: bool = False,
    *,
    budget_s: float | None = None,
    precision: float | None = None,
    device: str | None = None,
    engine: str = "local",
    address: str | None = None,
    count: bool = True,
    first: Callable[[], None] = lambda: None,
) -> SweepResult:
    """Run a preset or a grid file into a store, with a progress bar; kept traces go into "traces" beside it.

    Args:
        grid, store_path, retry_failed: what, where to, and whether failed cases are run again.
        budget_s: see :func:`engines.local.run`.
        precision: of ratios, instead of the grid's own.
        device: to run every case on, instead of the grid's own.
        engine: "local", "ray" for a cluster at ``address`` (None starts one here), or "formula" for the closed forms
            alone: nothing is built, counted or timed, and cases stream through; "grouped" times all cases of a workload
            side by side, see ``engines.grouped``.
        count: whether cases are counted, too.
        first: of engine "grouped": called when there is something to show, and more to come.

    Raises:
        UserError: the grid or the store is not usable, or another sweep is running into the store.
    """
    read = read_grid(grid)
    limits = replace(read.limits, precision=precision or read.limits.precision, count=count)
    if precision is not None and not precision > 0:
        raise UserError(f"precision = {precision} is out of range; it must be a number > 0, as 0.02")
    cases = _Cases(read, device)
    misfit, fitting, left_out = _left_out(read)
    if misfit is not None:
        reason = f"{misfit.method} on {misfit.subject}: {misfit.reason}"
        print(f"{left_out} combinations of {grid} left out, such as {reason}", file=sys.stderr)
    if not fitting:
        raise UserError(f"grid {grid!r} has no case that fits its subject; change its hyperparameters or subjects")
    if engine != "ray" and address is not None:
        raise UserError(f"an address ({address}) belongs to engine 'ray'; add --engine ray")
    traces = Traces(store_path.parent / "traces", cases.traced())
    sweep_scratch()
    with Store(store_path, create=True) as store, RunLock(store_path):
        if engine == "grouped":
            outcome = grouped.run(cases, store, limits, budget_s=budget_s, retry_failed=retry_failed, first=first)
        elif engine == "formula":
            outcome = formula.run(cases, store, retry_failed=retry_failed, budget_s=budget_s)
        elif engine == "ray":
            outcome = ray.run(
                cases,
                store,
                limits,
                address=address,
                retry_failed=retry_failed,
                budget_s=budget_s,
                traces=traces,
                comparisons=COMPARISONS,
            )
        else:
            outcome = local.run(
                cases,
                store,
                limits,
                retry_failed=retry_failed,
                budget_s=budget_s,
                traces=traces,
                comparisons=COMPARISONS,
            )
    return replace(outcome, left_out=left_out)


def _left_out(grid: Grid) -> tuple[LeftOut | None, int, int]:
    """The first combination that does not fit, how many cases do, and how many combinations do not."""
    first: LeftOut | None = None
    fitting = out = 0
    for entry in grid.expand():
        if isinstance(entry, LeftOut):
            first, out = first or entry, out + 1
        else:
            fitting += 1
    return first, fitting, out
