"""The ways of executing one method side by side: time, memory, and what the planner's pick loses."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdvft_bench.analysis.agreement import (
    counted_launches,
    counted_passes,
    median_seconds,
    ratio_to_frozen,
    ratio_to_lora8,
)
from cdvft_bench.analysis.groups import Section, Workload, hyperparameter, is_lora8, sections
from cdvft_bench.analysis.tables import interval_cells
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import NOT_MEASURED, clean, interval
from cdvft_bench.report.figures.style import Styles
from cdvft_bench.report.page.model import SectionView
from cdvft_bench.report.page.views import view

if TYPE_CHECKING:
    from pandas import DataFrame

    from cdvft_bench.analytic.roofline import Rates

LEAST = 3  # paths of one setting that make a comparison
CAPTION = (
    "Median ratios with 95 % intervals, timed round by round beside the frozen layer and LoRA r = 8. Overhead is the "
    "time beyond the frozen layer's; it is set against that of the path fft, which torch's autograd differentiates. "
    "The floor is the time of the frozen products and the factors' transforms at the best rates that calibrate found "
    "on the machine, or of moving each operand once, whichever is longer."
)
NO_FLOOR = "layers only"


@dataclass(frozen=True)
class Setting:
    """One method with one set of hyperparameters on one workload, executed by several paths.

    Attributes:
        section, workload: where. label: the method with its hyperparameters, without the path.
        paths: the record of every path that was timed. lora: LoRA r = 8's on the same workload.
    """

    section: Section
    workload: Workload
    label: str
    paths: dict[str, Record]
    lora: Record | None = None

    def ratio(self, path: str) -> Interval | None:
        """Time over the frozen layer's."""
        record = self.paths.get(path)
        return ratio_to_frozen(record) if record else None

    def gain(self, path: str) -> float | None:
        """How many times less overhead a path has than "fft"; None where either is no overhead at all."""
        ours, naive = self.ratio(path), self.ratio("fft")
        if ours is None or naive is None or ours.value <= 1 or naive.value <= 1:
            return None
        return (naive.value - 1) / (ours.value - 1)

    @property
    def regret(self) -> float | None:
        """Time of the planner's pick over the fastest path's, less 1; None without either."""
        auto = self.ratio("auto")
        others = [r.value for p in self.paths if p != "auto" and (r := self.ratio(p)) is not None]
        return auto.value / min(others) - 1 if auto is not None and len(others) >= LEAST - 1 else None


def settings(records: Iterable[Record]) -> list[Setting]:
    """Every setting that at least ``LEAST`` paths executed."""
    found: list[Setting] = []
    for section in sections(records):
        for workload, rows in section.workloads().items():
            groups: dict[tuple[object, ...], dict[str, Record]] = {}
            for record in rows:
                values = dict(record.case.hyperparameters)
                path = values.pop("path", "fft" if record.case.method in ("cdvft", "block_circulant") else None)
                if path is not None and record.timed is not None:
                    groups.setdefault((record.case.method, *sorted(values.items())), {})[str(path)] = record
            lora = next((r for r in rows if is_lora8(r.case)), None)
            for paths in groups.values():
                if len(paths) >= LEAST:
                    shortest = min((r.label for r in paths.values()), key=len)
                    found.append(Setting(section, workload, shortest, paths, lora))
    return found


def over_floor(record: Record, rates: Mapping[str, Rates]) -> str:
    """A layer's time over its floor; "not measured" where the record's machine was not calibrated.

    Args:
        rates: by the key of a record's environment.
    """
    from cdvft_bench.analytic.circulant import resolve_block_size
    from cdvft_bench.analytic.models import layer_shape
    from cdvft_bench.execution.floors import layer_floor
    from cdvft_bench.execution.planner import Problem

    case = record.case
    if case.kind != "layer":
        return NO_FLOOR
    own, seconds = rates.get(record.environment), median_seconds(record)
    if own is None or seconds is None:
        return NOT_MEASURED
    shape = layer_shape(case.subject)
    m, size = hyperparameter(case, "m", 2), hyperparameter(case, "block_size")
    assert isinstance(m, int)
    p = int(resolve_block_size(int(size) if size else None, shape))
    problem = Problem(int(shape.d_in), int(shape.d_out), p, m if case.method == "cdvft" else 0, case.tokens,
                      case.dtype, case.device, case.pass_ == "step", shape.bias)  # fmt: skip
    return f"{seconds / layer_floor(problem, own):.2f}"


def paths_table(found: Sequence[Setting], rates: Mapping[str, Rates] | None = None) -> DataFrame:
    """One row a setting and path; ``rates`` by the key of a record's environment."""
    from pandas import DataFrame

    rows = []
    for setting in found:
        ordered = sorted(setting.paths, key=lambda p: (r.value if (r := setting.ratio(p)) else float("inf"), p))
        for path in ordered:
            record = setting.paths[path]
            counted = record.counted
            launches = counted_launches(record)
            gain = setting.gain(path)
            rows.append({
                "layer": clean(setting.section.title),
                "workload": setting.workload.short,
                "method": clean(record.case.method),
                "setting": clean(setting.label),
                "path": clean(path),
                **interval_cells("time over frozen", setting.ratio(path), NOT_MEASURED),
                **interval_cells("time over LoRA r=8", ratio_to_lora8(record), NOT_MEASURED),
                "time over floor": over_floor(record, rates or {}),
                "times less overhead than fft": NOT_MEASURED if gain is None else f"{gain:.2f}",
                "launches": NOT_MEASURED if launches is None else launches,
                "kept for backward [bytes]": NOT_MEASURED if counted is None else counted.saved_bytes,
            })  # fmt: skip
    return DataFrame(rows)


def regret_sentence(found: Sequence[Setting]) -> str:
    """What the planner's picks lose against the fastest path, in words; empty where nothing was planned."""
    regrets = {f"{s.label} on {s.section.title}, {s.workload.short}": r for s in found if (r := s.regret) is not None}
    if not regrets:
        return ""
    worst = max(regrets, key=lambda name: regrets[name])
    median, most = 100 * statistics.median(regrets.values()), 100 * regrets[worst]
    return (
        f"The planner's pick (path auto) takes {median:.1f} % longer than the fastest path in the median over "
        f"{len(regrets)} settings, at worst {most:.1f} % ({clean(worst)}); the clock's noise is part of both figures."
    )


def target_sentence(found: Sequence[Setting]) -> str:
    """Where the planner's pick of a step costs no more than LoRA r = 8, where it does, and what it does more of."""
    picks = [s for s in found if s.workload.pass_ == "step" and s.lora is not None and "auto" in s.paths]
    said, met = [], 0
    for setting in picks:
        ratio = ratio_to_lora8(setting.paths["auto"])
        if ratio is None:
            continue
        if ratio.side() != "above":
            met += 1
            continue
        at = f"{setting.label} on {setting.section.title}, {setting.workload.short}"
        said.append(f"{clean(at)} {interval(ratio.value, ratio.low, ratio.high)} ({_more_work(setting)})")
    if not met and not said:
        return ""
    start = f"The planner's pick costs no more than LoRA r = 8 within its interval in {met} of {met + len(said)} steps."
    return start + (f" It costs more: {'; '.join(said)}." if said else "")


def _more_work(setting: Setting) -> str:
    """Launches and traffic of the planner's pick beside LoRA's, as counted."""
    sums = []
    for record in (setting.paths["auto"], setting.lora):
        passes = [] if record is None else list(counted_passes(record).values())
        if not passes or not all(passes):
            return "operators not counted"
        sums.append((sum(p.launches for p in passes if p), sum(p.read + p.written for p in passes if p) / 1e6))
    (ours, our_mb), (theirs, their_mb) = sums
    return f"{ours} launches to {theirs}, {our_mb:.1f} MB read and written to {their_mb:.1f}"


def paths_section(found: Sequence[Setting], styles: Styles, rates: Mapping[str, Rates] | None = None) -> SectionView:
    """The section of a report; ``rates`` as for :func:`paths_table`."""
    caption = " ".join(filter(None, (CAPTION, regret_sentence(found), target_sentence(found))))
    return SectionView(
        anchor="paths",
        title="Ways of executing CDVFT",
        facts=(("settings", f"{len(found):,}"),),
        findings=(),
        figures=(),
        skipped=(),
        tables=(view(paths_table(found, rates), "Path by path", "paths", caption, styles),),
    )
