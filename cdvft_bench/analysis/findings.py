"""What the records say in sentences: generated from values and intervals, never written by hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cdvft_bench.analysis.agreement import (
    adapter_flops,
    counted_launches,
    ratio_to_frozen,
    ratio_to_lora8,
    trainable,
    warned,
)
from cdvft_bench.analysis.groups import Section, is_frozen, is_lora8, paper_setting
from cdvft_bench.analysis.tables import EXACT, witness_table
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import NOT_MEASURED, clean, interval, listed, plural, prefixed, times
from cdvft_bench.core.ties import steady

FEW = 5
"""Fewest settings for which a rank correlation is quoted."""


@dataclass(frozen=True)
class Finding:
    """Sentences, and what they are about."""

    where: str
    sentences: tuple[str, ...]


def section_findings(section: Section) -> list[Finding]:
    """Sentences of one section: for every workload what CDVFT takes, what it costs, and what time goes with."""
    found: list[Finding] = []
    for where, records in section.workloads().items():
        said = (time_finding(section, records), cost_finding(records), correlation_finding(records))
        found.append(Finding(_capital(where.title), tuple(filter(None, said))))
    return found


def headlines(sections: Sequence[Section], records: Sequence[Record], limit: int = 12) -> list[Finding]:
    """The report's first sentences: time of every section and workload, then agreement and failures."""
    said = [
        Finding(f"{section.title}: {where.title}", (time_finding(section, rows),))
        for section in sections
        for where, rows in section.workloads().items()
    ]
    if len(said) > limit:
        rest = plural(len(said) - limit, "further workload")
        said = [*said[:limit], Finding("More", (f"{rest}: see the sections below.",))]
    return [
        *said,
        Finding("Formula against count", (agreement_finding(records),)),
        Finding("Failures", (failure_finding(records),)),
    ]


def time_finding(section: Section, records: Sequence[Record]) -> str:
    """CDVFT in the paper's setting against the frozen subject and LoRA r = 8, and the fastest setting of all."""
    lora = next((r for r in records if is_lora8(r.case)), None)
    settings = sorted(paper_setting(records), key=lambda r: _value(ratio_to_frozen(r)))
    measured = [r for r in settings if ratio_to_frozen(r)]
    parts = [f"{clean(r.label)} takes {_said(ratio_to_frozen(r))}" for r in measured]
    said = f"{listed(parts)} the frozen {section.kind}'s time" if parts else ""
    unmeasured = [clean(r.label) for r in settings if r not in measured]
    if unmeasured:
        said += f"{'; ' if said else ''}time of {listed(unmeasured)} not measured"
    if not settings:
        said = "CDVFT with m = 2 was not recorded"
    said += f"; LoRA r=8 {_said(ratio_to_frozen(lora))}." if lora else "; LoRA r=8 was not recorded."
    if measured:
        against = ratio_to_lora8(measured[0])
        if against is not None:
            said += (
                f" Paired with LoRA r=8 round by round, {clean(measured[0].label)} takes {_said(against)} its time: "
                f"{_verdict(against)}."
            )
    adapted = _comparable(records)
    if len(adapted) > 1:
        best = min(adapted, key=lambda r: _value(ratio_to_frozen(r)))
        said += (
            f" Fastest of {len(adapted)} settings with an interval: {clean(best.label)} at "
            f"{_said(ratio_to_frozen(best))}."
        )
    doubtful = [clean(r.label) for r in records if warned(r)]
    if doubtful:
        shown = listed(doubtful) if len(doubtful) <= 3 else f"{len(doubtful)} of {len(records)} settings"
        said += f" The clock warns of {shown}: see the warnings in the table of times before quoting."
    return said


def cost_finding(records: Sequence[Record]) -> str:
    """Parameters, launches and FLOPs of CDVFT in the paper's setting beside LoRA r = 8's."""
    lora = next((r for r in records if is_lora8(r.case)), None)
    settings = sorted(paper_setting(records), key=lambda r: _value(ratio_to_frozen(r)))
    if lora is None or not settings:
        return ""
    return f"{_costs(settings[0], lora)}; {_costs(lora, lora)}."


def _costs(record: Record, lora: Record) -> str:
    mine, theirs = trainable(record), trainable(lora)
    parameters = "trainable parameters not measured" if mine is None else plural(mine, "trainable parameter")
    if mine and theirs and mine != theirs:
        less = mine < theirs
        parameters += (
            f" ({times(theirs / mine if less else mine / theirs)} {'fewer' if less else 'more'} than LoRA r=8)"
        )
    launches, flops = counted_launches(record), adapter_flops(record, "flop")
    dispatched = "launches not measured" if launches is None else f"{plural(launches, 'launch', 'launches')} dispatched"
    arithmetic = (
        "FLOPs not measured" if flops is None else f'{prefixed(flops)} adapter FLOPs (formula, convention "flop")'
    )
    return f"{clean(record.label)} has {parameters}, {dispatched}, {arithmetic}"


def correlation_finding(records: Sequence[Record]) -> str:
    """Whether time ranks the adapted settings as launches do, or as FLOPs do."""
    adapted = _comparable(records)
    said = []
    quantities: tuple[tuple[str, Callable[[Record], float | None]], ...] = (
        ("dispatched launches", counted_launches),
        ('adapter FLOPs (convention "flop")', lambda r: adapter_flops(r, "flop")),
        ("trainable parameters", trainable),
    )
    for name, value in quantities:
        pairs = [(x, _value(ratio_to_frozen(r))) for r in adapted if (x := value(r)) is not None]
        rank = spearman(pairs) if len(pairs) >= FEW else None
        if rank is not None:
            said.append(f"with {name} at {rank:+.2f}")
    if not said:
        return ""
    return (
        f"Across {len(adapted)} settings with an interval time ranks {listed(said)} (Spearman; +1 is the same order)."
    )


def agreement_finding(records: Sequence[Record]) -> str:
    """How often formula and operator count agree, and the operators that part them."""
    frame = witness_table(records)
    checked = frame[frame["agreement"] != NOT_MEASURED]
    if not len(checked):
        return "Formula and operator count: not measured together on any record."
    exact = int((checked["agreement"] == EXACT).sum())
    said = f"Formula and operator count agree exactly on {exact:,} of {plural(len(checked), 'check')}"
    if exact == len(checked):
        return f"{said}: every operator of every pass, every parameter, every saved byte."
    differing = checked[checked["agreement"] != EXACT]
    names: Counter[str] = Counter()
    for cell in differing["operators that differ (formula → count)"]:
        names.update(part.rsplit(" ", 3)[0] for part in str(cell).split("; ") if " → " in part)
    partly = int((differing["formula covers"] != "whole layer").sum())
    said += f"; {len(differing):,} differ"
    if partly:
        said += f", {partly:,} of them where the formula covers only part of the subject"
    if names:
        top = sorted(names.items(), key=lambda item: (-item[1], item[0]))[:5]
        said += f"; the operators most often apart: {listed([f'{name} ({n})' for name, n in top])}"
    return said + "."


def failure_finding(records: Sequence[Record]) -> str:
    """How many cases failed."""
    failed = sum(r.status == "failed" for r in records)
    return f"{failed:,} of {plural(len(records), 'case')} failed: see Failures." if failed else "No case failed."


def spearman(pairs: Iterable[tuple[float, float]]) -> float | None:
    """Rank correlation with ties at their mean rank; None where a side does not vary.

    Values that differ by rounding errors alone are ties: FLOPs of one amount are summed in other orders.
    """
    found = list(pairs)
    if not found:
        return None
    x, y = (_ranks(side) for side in zip(*found, strict=True))
    mean = (len(found) + 1) / 2
    covariance = sum((a - mean) * (b - mean) for a, b in zip(x, y, strict=True))
    spread = math.sqrt(sum((a - mean) ** 2 for a in x) * sum((b - mean) ** 2 for b in y))
    return covariance / spread if spread else None


def _ranks(values: Sequence[float]) -> list[float]:
    values = [steady(v) for v in values]
    ordered = sorted(values)
    return [ordered.index(v) + (ordered.count(v) + 1) / 2 for v in values]


def _comparable(records: Sequence[Record]) -> list[Record]:
    """Adapted settings whose time is known well enough to rank: with an interval."""
    return [r for r in records if not is_frozen(r.case) and (q := ratio_to_frozen(r)) and q.low is not None]


def _value(ratio: Interval | None) -> float:
    return ratio.value if ratio else math.inf


def _said(ratio: Interval | None) -> str:
    return NOT_MEASURED if ratio is None else interval(ratio.value, ratio.low, ratio.high)


def _verdict(ratio: Interval) -> str:
    if ratio.bounds is None:
        return "no interval, so nothing is concluded"
    return {"above": "slower", "below": "faster", "undecided": "no difference shown"}[ratio.side()]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
