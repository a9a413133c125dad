"""What an answer to a reviewer's question rests on: sentences with figures, made from records alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from cdvft_bench.analysis.agreement import adapter_flops, counted_launches, ratio_to_frozen, ratio_to_lora8
from cdvft_bench.analysis.groups import Section, Workload, hyperparameter, is_lora8, paper_setting
from cdvft_bench.claims.sources.trained import workload_of
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import NOT_MEASURED, clean, interval, listed, plural, significant, times
from cdvft_bench.report.figures.panels import CONVENTION

if TYPE_CHECKING:
    from cdvft_bench.accuracy.trial import TrialResult
    from cdvft_bench.claims.table import VerdictRow
    from cdvft_bench.expressivity.findings.finding import Finding

R = TypeVar("R")
K = TypeVar("K")
FFT_METHODS = ("cdvft", "block_circulant")


@dataclass(frozen=True)
class Evidence:
    """One sentence with its figures, where it is from, and the keys of the rows it rests on."""

    text: str
    source: str
    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """One question of the reviewers.

    Attributes:
        id, question: "R1" and what was asked.
        word: "yes", "no", "in part", or "not measured".
        plain: the answer in one or two sentences.
        evidence: what it rests on. open: what would have to be measured to say more.
    """

    id: str
    question: str
    word: str
    plain: str
    evidence: tuple[Evidence, ...]
    open: tuple[str, ...] = ()


@dataclass(frozen=True)
class Given:
    """All that the answers are made from."""

    sections: Sequence[Section]
    verdicts: Sequence[VerdictRow] = ()
    findings: Sequence[Finding] = ()
    runs: Sequence[TrialResult] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """Names of the files that hold the runs, by their trials' keys."""

    def fft_records(self) -> list[Record]:
        """Records of the methods that rest on FFTs, failed ones too."""
        return [r for s in self.sections for r in s.records if r.case.method in FFT_METHODS]

    def verdict(self, claim: str) -> Evidence | None:
        """A claim's verdict as evidence, with what a measured one rests on; None where it was not judged."""
        for row in self.verdicts:
            if row.id == claim:
                rests = f" ({clean(row.detail)})" if row.detail and not row.verdict.startswith(NOT_MEASURED) else ""
                return Evidence(f"{row.statement} Verdict: {row.verdict}{rests}.", f"claim {row.id}")
        return None

    def workloads(self) -> dict[str, list[TrialResult]]:
        """Fine-tuning runs by model and task; where these were trained in several ways, by that too, and what scored.

        Only runs of one workload compare.
        """
        found = grouped(self.runs, lambda r: (f"{r.trial.model} on {r.trial.task}", workload_of(r), r.trial.scored))
        short = [name for name, *_ in found]
        return {
            name if short.count(name) == 1 else f"{long}, {scored:,} examples scored": rows
            for (name, long, scored), rows in found.items()
        }

    def source(self, rows: Iterable[TrialResult]) -> str:
        """Where runs are from, as a piece of evidence names it."""
        names = sorted({self.files[r.trial.key] for r in rows if r.trial.key in self.files})
        return f"fine-tuning runs: {listed([clean(name) for name in names])}" if names else "fine-tuning runs"


def grouped(rows: Iterable[R], key: Callable[[R], K]) -> dict[K, list[R]]:
    """Rows by key, in the order of the keys' texts."""
    found: dict[K, list[R]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return dict(sorted(found.items(), key=lambda item: str(item[0])))


def keys(records: Sequence[Record], limit: int = 4) -> tuple[str, ...]:
    """Keys of the first few rows."""
    return tuple(r.case.key for r in records[:limit])


def ran(what: str, rows: Sequence[Record]) -> Evidence:
    """How many cases ran, and what they took against LoRA r = 8."""
    ok = [r for r in rows if r.status == "ok"]
    text = f"{what}: {len(ok):,} of {plural(len(rows), 'case')} ran, {over_lora(ok)}."
    return Evidence(text[:1].upper() + text[1:], "records", keys(ok))


def over_lora(rows: Iterable[Record]) -> str:
    """Time over LoRA r = 8's in the median, with its range."""
    values = [ratio.value for r in rows if (ratio := ratio_to_lora8(r)) is not None]
    if not values:
        return "time not measured"
    if len(values) == 1:
        return f"time {times(values[0])} that of LoRA r=8"
    return (
        f"time {times(median(values))} that of LoRA r=8 in the median of {len(values):,} "
        f"(from {times(min(values))} to {times(max(values))})"
    )


def spread(given: Given, axis: str, name: str) -> Evidence | None:
    """How far the ratio to the frozen subject moves over one hyperparameter with all else equal."""
    factors: list[float] = []
    shown: list[Record] = []
    for section in given.sections:
        for rows in section.workloads().values():
            ours = [r for r in rows if r.case.method == "cdvft" and ratio_to_frozen(r)]
            for same in _series(ours, axis):
                values = [ratio.value for r in same if (ratio := ratio_to_frozen(r))]
                if len(values) > 1 and min(values) > 0:
                    factors.append(max(values) / min(values))
                    shown += same[:1]
    if not factors:
        return None
    text = (
        f"Over the {name}, all else equal, time moves by a factor of {significant(median(factors), 3)} in the median "
        f"of {plural(len(factors), 'series', 'series')}, at most {significant(max(factors), 3)}."
    )
    return Evidence(text, "records", keys(shown))


def _series(records: Iterable[Record], axis: str) -> list[list[Record]]:
    found: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        rest = tuple((k, v) for k, v in record.case.hyperparameters if k != axis)
        found.setdefault((rest, record.case.seed), []).append(record)
    return [rows for rows in found.values() if len({hyperparameter(r.case, axis) for r in rows}) > 1]


@dataclass(frozen=True)
class Against:
    """A step of CDVFT in the paper's setting beside another method's, on one workload.

    Attributes:
        foot: the other method.
        flops: of the adapter by formula, over the foot's; None unknown.
        time: over the foot's. paired: timed in the same rounds; else the interval is the widest that the two
            ratios to the frozen subject allow.
        evidence: the sentence.
    """

    foot: str
    flops: float | None
    time: Interval
    paired: bool
    evidence: Evidence

    @property
    def verdict(self) -> str:
        """Slower or faster where the whole interval says so."""
        return {"above": "slower", "below": "faster", "undecided": "no difference"}[self.time.side()]


def pair(rows: Sequence[Record]) -> tuple[Record | None, Record | None]:
    """CDVFT in the paper's setting by its fastest path, and LoRA r = 8."""
    timed = [r for r in paper_setting(rows) if r.status == "ok"]

    def order(record: Record) -> float:
        ratio = ratio_to_lora8(record) or ratio_to_frozen(record)
        return ratio.value if ratio else math.inf

    return min(timed, key=order, default=None), next((r for r in rows if is_lora8(r.case)), None)


def against(given: Given) -> Iterator[Against]:
    """Every step of CDVFT beside LoRA r = 8's, and beside FourierFT's (its fastest setting)."""
    for section in given.sections:
        for where, rows in section.workloads().items():
            ours, lora = pair(rows)
            if ours is None or where.pass_ != "step":
                continue
            if lora is not None and (time := ratio_to_lora8(ours)) is not None:
                yield _against(section, where, ours, lora, "LoRA r=8", time, True)
            timed = [r for r in rows if r.case.method == "fourierft" and ratio_to_frozen(r)]
            other = min(timed, key=_ratio, default=None)
            if other is not None and (time := _unpaired(ours, other)) is not None:
                yield _against(section, where, ours, other, clean(other.label), time, False)


def _against(
    section: Section, where: Workload, ours: Record, other: Record, foot: str, time: Interval, paired: bool
) -> Against:
    flops = _over(adapter_flops(ours, CONVENTION), adapter_flops(other, CONVENTION))
    launches = _over(counted_launches(ours), counted_launches(other))
    said = [f"{times(v)} the {n}" for v, n in ((flops, f'FLOPs ("{CONVENTION}")'), (launches, "launches")) if v]
    said.append(f"{interval(time.value, time.low, time.high)} the time")
    text = f"{section.title}, {where.title}: {clean(ours.label)} takes {listed(said)} of {foot}."
    return Against(foot, flops, time, paired, Evidence(text, "records", keys([ours, other])))


def _ratio(record: Record) -> float:
    ratio = ratio_to_frozen(record)
    return ratio.value if ratio else math.inf


def _unpaired(ours: Record, other: Record) -> Interval | None:
    mine, theirs = ratio_to_frozen(ours), ratio_to_frozen(other)
    if mine is None or theirs is None or theirs.value <= 0:
        return None
    return mine.over(theirs)


def _over(mine: float | None, theirs: float | None) -> float | None:
    return mine / theirs if mine is not None and theirs else None
