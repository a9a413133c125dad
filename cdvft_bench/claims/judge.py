"""The judge: hears the witnesses of every claim at every setting that the claim leaves open."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from cdvft_bench.claims.ledger.claim import Claim, Ledger
from cdvft_bench.claims.ledger.laws import Figure, Ratio, at_most
from cdvft_bench.claims.ledger.point import Point, Subject
from cdvft_bench.claims.ledger.read import read_ledger
from cdvft_bench.claims.ledger.terms import Setting, Source, Value, Word
from cdvft_bench.claims.ledger.text import axis_text, number, percent, plural, setting, value_text
from cdvft_bench.claims.sources.analytic import Formula
from cdvft_bench.claims.sources.availability import Silent
from cdvft_bench.claims.sources.counted import Count
from cdvft_bench.claims.sources.profiles import Profiles, is_profile, read_profiles
from cdvft_bench.claims.sources.records import Accuracy, Clock, read_records
from cdvft_bench.claims.verdict import Reading, SourceResult, Verdict, Verification
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.ties import steady
from cdvft_bench.timing.clock import fixed_threads
from cdvft_bench.timing.environment import read_environment

WORKLOAD = "workload"
"""Axis of the workloads that accuracies were recorded on: no claim opens it, the records do."""

SHOWN = 6
"""Settings that hold which a verdict lists; the rest are counted."""


class Voice(Protocol):
    """A witness."""

    def say(self, point: Point, subject: Subject | None) -> tuple[float, ...]:
        """The figure at a point; raises Silent."""
        ...


Voices = Mapping[Source, Voice]


def voices(folder: Path, records: Sequence[str | Path] = ()) -> Voices:
    """The five witnesses; ``folder`` is the ledger's, ``records`` what was recorded.

    Raises:
        UserError: a file of records is not as it should be.
    """
    paths = [Path(path) for path in records]
    found = read_records(path for path in paths if not is_profile(path))
    return {
        "formula": Formula(folder),
        "count": Count(folder),
        "clock": Clock(found.timed),
        "accuracy": Accuracy(found.runs, found.results),
        "profile": Profiles(read_profiles(path for path in paths if is_profile(path))),
    }


def verify_ledger(ledger: str | Path | Ledger | None = None, records: Sequence[str | Path] = ()) -> Verification:
    """Judge every claim of a ledger, see ``claims.verify``."""
    book = ledger if isinstance(ledger, Ledger) else read_ledger(ledger)
    witnesses = voices(book.folder, records)
    verdicts = []
    for claim in book.claims:
        start = time.perf_counter()
        try:
            verdict = judge(claim, witnesses)
        except UserError as error:
            raise UserError(f"{book.path}, claim {claim.id!r}: {error}") from error
        verdicts.append(replace(verdict, seconds=time.perf_counter() - start))
    created = datetime.now(UTC).isoformat(timespec="seconds")
    names = tuple(Path(path).name for path in records)
    return Verification(book.title, book.path, tuple(verdicts), created, read_environment(), names)


def judge(claim: Claim, witnesses: Voices) -> Verdict:
    """Judge one claim.

    Raises:
        UserError: a foreign module or function fails, or hyperparameters do not fit a layer.
    """
    with fixed_threads(1):  # the layers are small, and on a busy machine threads wait for each other
        readings = [
            Reading(s, tuple(hear(claim, s, w, witnesses[w]) for w in claim.witnesses), _asked(claim, s))
            for s in _settings(claim, witnesses)
        ]
    judged = [r for r in readings if r.judged]
    hits = [r for r in judged if r.holds]
    unclear = [r for r in readings if r.open]
    verdict = Verdict(
        claim.claimed, "not measured", "", tried=len(readings), judged=len(judged), hits=len(hits), open=len(unclear)
    )
    if unclear and len(hits) == len(judged):
        verdict = replace(verdict, detail=_unclear(unclear, hits), readings=(*unclear, *hits)[:SHOWN])
    elif not judged:
        verdict = replace(verdict, detail=_missing(readings[0]), readings=tuple(readings[:1]))
    elif len(hits) == len(judged):
        verdict = replace(
            verdict, word="holds", detail=_everywhere(claim, readings), readings=_some(claim, hits, judged)
        )
    elif hits:
        needed, exact = conditions(claim, hits, judged)
        verdict = replace(
            verdict, word="holds only if", detail=_only_if(claim, needed, exact, hits, judged) + _besides(unclear),
            needed=needed, readings=_some(claim, hits, judged),
        )  # fmt: skip
    else:
        nearest = min(judged, key=lambda r: math.inf if r.miss is None else steady(abs(r.miss)))
        verdict = replace(
            verdict, word="fails", detail=_fails(nearest, judged) + _besides(unclear),
            readings=_some(claim, [nearest], judged),
        )  # fmt: skip
    return replace(verdict, pinned=_pin(claim, verdict))


def _settings(claim: Claim, witnesses: Voices) -> Iterator[Setting]:
    """Settings of the open axes; where accuracies were recorded, on each workload that has all it takes."""
    for at in claim.settings():
        voice = witnesses["accuracy"] if "accuracy" in claim.witnesses else None
        names = voice.workloads(claim.point.at(at)) if isinstance(voice, Accuracy) else []
        yield from ((*at, (WORKLOAD, name)) for name in names) if names else (at,)


def _asked(claim: Claim, at: Setting) -> bool:
    """Whether the ledger asks to show a setting, or it names a workload."""
    return WORKLOAD in dict(at) or any(set(shown) <= set(at) for shown in claim.show)


def hear(claim: Claim, at: Setting, witness: Source, voice: Voice) -> SourceResult:
    """One witness on a claim at one setting of its open axes, and of the workload that the setting may name."""
    point, law = claim.point.at(tuple((axis, v) for axis, v in at if axis != WORKLOAD)), claim.law
    if isinstance(voice, Accuracy) and WORKLOAD in dict(at):
        voice = voice.only(str(dict(at)[WORKLOAD]))
    try:
        if law.over is None:
            figures = [_figure(point, None, voice)]
        else:
            values = law.over.counted if witness == "count" and law.over.counted else law.over.values
            figures = [_figure(point.changed(law.over.axis, v), float(v), voice) for v in values]  # type: ignore[arg-type]
    except Silent as silent:
        return SourceResult(witness, silent.reason, None, remedy=silent.remedy)
    outcome = law.judge(figures, claim.tolerance)
    miss, ratio = (None if v is None or not math.isfinite(v) else v for v in (outcome.miss, outcome.ratio))
    return SourceResult(witness, outcome.text, outcome.holds, miss, ratio, outcome.remedy, open=outcome.holds is None)


def _figure(point: Point, x: float | None, voice: Voice) -> Figure:
    if isinstance(voice, Clock | Accuracy):
        return replace(voice.measured(point), x=x)
    against = None if point.against is None else voice.say(point, point.against)
    return Figure(x, voice.say(point, point.subject), against)


def conditions(
    claim: Claim, hits: Sequence[Reading], judged: Sequence[Reading]
) -> tuple[tuple[tuple[str, tuple[Value, ...]], ...], bool]:
    """Axes of which not every value is among the hits, with those that are; and whether they say it all.

    They do when every judged setting that has these values is a hit.
    """
    needed = []
    workloads = tuple(dict.fromkeys(dict(r.setting)[WORKLOAD] for r in judged if WORKLOAD in dict(r.setting)))
    for axis, values in (*claim.open, *([(WORKLOAD, workloads)] if workloads else [])):
        good = {repr(dict(r.setting)[axis]) for r in hits}
        if not good >= {repr(dict(r.setting)[axis]) for r in judged}:
            needed.append((axis, tuple(v for v in values if repr(v) in good)))
    allowed = sum(all(dict(r.setting)[axis] in values for axis, values in needed) for r in judged)
    return tuple(needed), allowed == len(hits)


def by_chance(law: Ratio, ratios: Sequence[float]) -> float:
    """How many of so many ratios would round to a printed figure if they lay where they do by chance.

    Their density within a quarter of the figure, times the width of the window that rounds to it.
    """
    expected = 0.0
    for figure in law.expected:
        near = sum(at_most(abs(r / figure - 1), 0.25) for r in ratios)
        expected += near * law.rounding(figure) / 0.5
    return expected


# --- words ---------------------------------------------------------------------------------


def _missing(reading: Reading) -> str:
    silent = [t for t in reading.results if t.holds is None]
    return "; ".join(f"missing: {t.source} ({t.text}; to supply it: {t.remedy})" for t in silent)


def _unclear(unclear: Sequence[Reading], hits: Sequence[Reading]) -> str:
    """Not shown either way: where, and what would show it."""
    remedies = dict.fromkeys(t.remedy for r in unclear for t in r.results if t.open)
    text = f"not shown either way{_where(unclear)}: the interval reaches both sides"
    text += f"; shown to hold{_where(hits)}" if hits else ""
    return f"{text}; to settle it: {'; '.join(remedies)}"


def _besides(unclear: Sequence[Reading]) -> str:
    return f"; not shown either way{_where(unclear)}" if unclear else ""


def _where(readings: Sequence[Reading]) -> str:
    """The workloads of readings; how many settings where they name none and there are several."""
    names = dict.fromkeys(str(v) for r in readings for axis, v in r.setting if axis == WORKLOAD)
    if names:
        return f" on {'; '.join(names)}"
    return f" in {plural(len(readings), 'setting')}" if readings[0].setting else ""


def _everywhere(claim: Claim, readings: Sequence[Reading]) -> str:
    judged = sum(r.judged for r in readings)
    if any(axis == WORKLOAD for axis, _ in readings[0].setting):
        return f"shown{_where(readings)}, and nowhere else"
    if len(readings) == 1:
        return "all witnesses agree" if len(claim.witnesses) > 1 else f"as the {claim.witnesses[0]} says"
    rest = "" if judged == len(readings) else f"; {plural(len(readings) - judged, 'setting')} not judged"
    return f"in all {plural(judged, 'setting')} tried{rest}"


def _fails(nearest: Reading, judged: Sequence[Reading]) -> str:
    off = "off" if nearest.miss is None else f"off by {percent(nearest.miss)}"
    if nearest.disagree:
        pro = ", ".join(t.source for t in nearest.results if t.holds)
        con = ", ".join(t.source for t in nearest.results if not t.holds)
        off += f"; the witnesses disagree: {pro} for it, {con} against"
    if len(judged) == 1:
        return off + (f", at {setting(judged[0].setting)}" if judged[0].setting else "")
    return f"in none of {plural(len(judged), 'setting')} tried; nearest: {off}, at {setting(nearest.setting)}"


def _only_if(
    claim: Claim,
    needed: Sequence[tuple[str, tuple[Value, ...]]],
    exact: bool,
    hits: Sequence[Reading],
    judged: Sequence[Reading],
) -> str:
    terms = [f"{axis_text(axis)} = {' or '.join(map(value_text, values))}" for axis, values in needed]
    if not terms:
        terms = ["axes are chosen together"]
    parts = [", ".join(terms) + ("" if exact else " (needed; not each combination of them will do)")]
    parts.append(f"{len(hits):,} of {plural(len(judged), 'setting')} tried")
    others = [t for r in judged if not r.holds for t in r.results]
    ratios = [t.ratio for t in others if t.ratio is not None]
    if ratios:
        low, high, middle = min(ratios), max(ratios), statistics.median(ratios)
        parts.append(f"the others give {number(low)} to {number(high)} (median {number(middle)})")
    else:
        misses = sorted(math.inf if t.miss is None else abs(t.miss) for t in others if not t.holds)
        parts.append(f"the others are off by {_span(misses)}")
    law = claim.law
    if isinstance(law, Ratio) and law.digits is not None:
        spoken = [r.results[0].ratio for r in judged if r.results[0].ratio is not None]
        parts += [_figure_text(law, e, spoken) for e in law.expected] if len(law.expected) > 1 else []
        different = len({round(r.results[0].ratio or 0.0, 9) for r in hits})
        parts.append(f"the hits come to {plural(different, 'different ratio')}")
        parts.append(f"by chance alone some {number(by_chance(law, spoken), 2)} would hit")
    return "; ".join(parts)


def _figure_text(law: Ratio, expected: float, ratios: Sequence[float]) -> str:
    """How one of several printed figures fares."""
    found = sum(law.prints(r, expected) for r in ratios)
    if found:
        return f"{expected} comes out {found} times" if found > 1 else f"{expected} comes out once"
    nearest = min(ratios, key=lambda r: steady(abs(r / expected - 1)))
    return f"{expected} never, nearest {number(nearest, 5)} ({percent(nearest / expected - 1)})"


def _span(misses: Sequence[float]) -> str:
    texts = [
        percent(m).removeprefix("+") if math.isfinite(m) else "more than can be said" for m in (misses[0], misses[-1])
    ]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"


def _some(claim: Claim, first: Sequence[Reading], judged: Sequence[Reading]) -> tuple[Reading, ...]:
    """Readings to show: of those the verdict rests on a few, those the ledger asks for, and each axis changed alone."""
    shown = {r.setting: r for r in sorted(first, key=lambda r: _rank(claim, r))[:SHOWN]}
    best = next(iter(shown.values()))
    for reading in judged:
        if (reading.asked and WORKLOAD not in dict(reading.setting)) or _apart(best.setting, reading.setting) == 1:
            shown.setdefault(reading.setting, reading)
    return tuple(shown.values())


def _rank(claim: Claim, reading: Reading) -> int:
    """How far down the axes' lists the values stand: a ledger puts first what is most usual."""
    values = dict(reading.setting)
    return sum([repr(v) for v in choices].index(repr(values[axis])) for axis, choices in claim.open)


def _apart(a: Setting, b: Setting) -> int:
    return sum(repr(x) != repr(y) for x, y in zip(a, b, strict=True))


def _pin(claim: Claim, verdict: Verdict) -> str:
    """Why the verdict is not the pinned one; "" where it is."""
    word: Word = claim.verdict
    if verdict.word != word:
        if word == "not measured" and {"clock", "accuracy", "profile"} & set(claim.witnesses):
            return ""  # somebody has measured since: news, not a regression
        return f"the ledger expects {word!r}, the verdict is {verdict.word!r}"
    found = dict(verdict.needed)
    for axis, values in claim.only_if:
        now = found.get(axis, dict(claim.open)[axis])
        if set(map(repr, now)) != set(map(repr, values)):
            return (
                f"the ledger expects it to hold only with {axis} = {' or '.join(map(value_text, values))}, "
                f"it does with {' or '.join(map(value_text, now))}"
            )
    return ""
