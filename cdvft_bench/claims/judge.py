"""The judge: asks every source of every claim at every setting that the claim leaves open."""

from __future__ import annotations

import fnmatch
import math
import multiprocessing
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cdvft_bench.claims import wording
from cdvft_bench.claims.conditions import EXPLAINS, chance_of, conditions
from cdvft_bench.claims.ledger.claim import Claim, Ledger
from cdvft_bench.claims.ledger.figures import Figure
from cdvft_bench.claims.ledger.point import Point
from cdvft_bench.claims.ledger.read import read_ledger
from cdvft_bench.claims.ledger.terms import UNSETTLED, Source
from cdvft_bench.claims.sources.analytic import FormulaSource
from cdvft_bench.claims.sources.counted import CountSource
from cdvft_bench.claims.sources.profiles import ProfileSource, is_profile
from cdvft_bench.claims.sources.records import AccuracySource, ClockSource, committed_records, read_records
from cdvft_bench.claims.sources.source import FigureSource, NotAvailable
from cdvft_bench.claims.verdict import Reading, SourceResult, Verdict, Verification
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.names import not_known
from cdvft_bench.core.ties import steady
from cdvft_bench.timing.clock import fixed_threads
from cdvft_bench.timing.machine.environment import read_environment

SHOWN = 6
"""Settings that hold which a verdict lists; the rest are counted."""

Sources = Mapping[Source, FigureSource]
_inherited: _Work
"""Of a process that judges for another."""


@dataclass(frozen=True)
class Choice:
    """Which claims of a ledger to judge, and how.

    Attributes:
        only: patterns of ids, as "flops-*"; empty for all. refit: fit anew what is otherwise read from a profile.
    """

    only: tuple[str, ...] = ()
    refit: bool = False

    def of(self, ledger: Ledger) -> list[Claim]:
        """The claims.

        Raises:
            UserError: a pattern is of none.
        """
        ids = [claim.id for claim in ledger.claims]
        for pattern in self.only:
            if not fnmatch.filter(ids, pattern):
                raise not_known("--only", pattern, ids, f"names no claim of {ledger.path}", "it has")
        claims = [c for c in ledger.claims if not self.only or any(fnmatch.fnmatch(c.id, p) for p in self.only)]
        return [_refitted(c) for c in claims] if self.refit else claims


def _refitted(claim: Claim) -> Claim:
    if claim.sources == ("profile",) and claim.point.quantity in ("figure", "difference"):
        return replace(claim, sources=("count",))
    return claim


def sources_of(folder: Path, records: Sequence[str | Path] = (), columns: Mapping[str, str] | None = None) -> Sources:
    """The sources; ``folder`` is the ledger's, ``records`` what was recorded, ``columns`` of its tables of runs.

    Raises:
        UserError: a file of records is not as it should be.
    """
    paths = [Path(path) for path in records]
    found = read_records((path for path in paths if not is_profile(path)), columns)
    return {
        "formula": FormulaSource(folder),
        "count": CountSource(folder),
        "clock": ClockSource(found.timed),
        "accuracy": AccuracySource(found.tables, found.results),
        "profile": ProfileSource([path for path in paths if is_profile(path)]),
    }


def verify_ledger(
    ledger: str | Path | Ledger | None = None,
    records: Sequence[str | Path] = (),
    choice: Choice | None = None,
    columns: Mapping[str, str] | None = None,
    workers: int = 1,
) -> Verification:
    """Judge the claims of a ledger, see ``claims.verify``."""
    book = ledger if isinstance(ledger, Ledger) else read_ledger(ledger)
    claims = (choice or Choice()).of(book)
    if ledger is None:
        records = [*committed_records({name for claim in claims for name in claim.sources}), *records]
    work = _Work(claims, sources_of(book.folder, records, columns), book.path)
    verdicts = _in_processes(work, workers) if workers > 1 else map(work.verdict, range(len(claims)))
    judged = tuple(verdicts)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    names = tuple("/".join(Path(path).parts[-2:]) for path in records)  # no path of this machine
    return Verification(book.title, book.path, judged, created, read_environment(), names)


@dataclass(frozen=True)
class _Work:
    """Claims to judge, with what it takes; ``path`` is the ledger's, for messages."""

    claims: Sequence[Claim]
    sources: Sources
    path: str

    def verdict(self, at: int) -> Verdict:
        """On the claim at an index."""
        start, claim = time.perf_counter(), self.claims[at]
        try:
            verdict = judge(claim, self.sources)
        except UserError as error:
            raise UserError(f"{self.path}, claim {claim.id!r}: {error}") from error
        return replace(verdict, seconds=time.perf_counter() - start)


def _in_processes(work: _Work, workers: int) -> list[Verdict]:
    """The verdicts of forked processes, which have the sources without reading them again."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, _inherit, (work,)) as pool, warnings.catch_warnings():
        # Python warns of forks beside threads; those of the libraries for linear algebra take care of themselves.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return list(pool.map(_verdict, range(len(work.claims))))
        except BrokenProcessPool as error:
            raise UserError(
                f"{work.path}: a process that judged claims was killed, as for want of memory; give --workers 1"
            ) from error


def _inherit(work: _Work) -> None:
    global _inherited
    _inherited = work


def _verdict(at: int) -> Verdict:
    return _inherited.verdict(at)


def judge(claim: Claim, sources: Sources) -> Verdict:
    """Judge one claim.

    Raises:
        UserError: a foreign module or function fails, or hyperparameters do not fit a layer.
    """
    with fixed_threads(1):  # the layers are small, and on a busy machine threads wait for each other
        readings = list(_readings(claim, sources))
    judged = [r for r in readings if r.judged]
    hits = [r for r in judged if r.holds]
    unclear = [r for r in readings if r.open]
    verdict = Verdict(
        claim.claimed, "not measured", "", tried=len(readings), judged=len(judged), hits=len(hits), open=len(unclear)
    )
    if unclear and len(hits) == len(judged):
        detail = wording.unclear(unclear, hits)
        verdict = replace(verdict, word="undecided", detail=detail, readings=(*unclear, *hits)[:SHOWN])
    elif not judged:
        verdict = replace(verdict, detail=wording.missing(readings[0]), readings=tuple(readings[:1]))
    elif len(hits) == len(judged):
        detail = wording.everywhere(claim, readings)
        verdict = replace(verdict, word="holds", detail=detail, readings=_some(claim, hits, judged))
    elif hits:
        found = conditions(claim, hits, judged)
        chance = chance_of(claim, judged)
        explained = chance is not None and chance.share >= EXPLAINS
        verdict = replace(
            verdict,
            word="not identifiable" if explained else "holds only if",
            detail=wording.only_if(claim, found, hits, judged, chance) + wording.besides_unclear(unclear),
            needed=found.needed,
            wherever=found.wherever,
            chance=None if chance is None else chance.share,
            readings=_some(claim, hits, judged),
        )
    else:
        nearest = min(judged, key=lambda r: math.inf if r.miss is None else steady(abs(r.miss)))
        detail = wording.fails(nearest, judged) + wording.besides_unclear(unclear)
        verdict = replace(verdict, word="fails", detail=detail, readings=_some(claim, [nearest], judged))
    return replace(verdict, pinned=_pin(claim, verdict, readings))


def _readings(claim: Claim, sources: Sources) -> Iterator[Reading]:
    """Each setting of the open axes; of several recorded workloads or machines, on each that has all it takes."""
    for at in claim.settings():
        point = claim.point.at(at)
        groups = {group for name in claim.sources for group in sources[name].groups(point)} or {()}
        for group in sorted(groups - {()} or {()}):
            results = tuple(
                _consult(claim, point, name, sources[name].within(group) if group else sources[name])
                for name in claim.sources
            )
            setting = (*at, *group)
            asked = bool(group) or any(set(shown) <= set(setting) for shown in claim.show)
            yield Reading(setting, results, asked)


def _consult(claim: Claim, point: Point, name: Source, source: FigureSource) -> SourceResult:
    """One source on a claim at one point."""
    law = claim.law
    try:
        if law.over is None:
            figures = [source.figure(point)]
        else:
            values = law.over.counted if name == "count" and law.over.counted else law.over.values
            figures = [
                replace(source.figure(point.changed(law.over.axis, v)), x=float(v))  # type: ignore[arg-type]
                for v in values
            ]
    except NotAvailable as missing:
        return SourceResult(name, missing.reason, None, remedy=missing.remedy)
    return _result(name, claim, figures)


def _result(name: Source, claim: Claim, figures: Sequence[Figure]) -> SourceResult:
    outcome = claim.law.judge(figures, claim.tolerance)
    miss, value = (None if v is None or not math.isfinite(v) else v for v in (outcome.miss, outcome.value))
    return SourceResult(name, outcome.text, outcome.holds, miss, value, outcome.remedy, open=outcome.holds is None)


# --- what to show ---------------------------------------------------------------------------


def _some(claim: Claim, first: Sequence[Reading], judged: Sequence[Reading]) -> tuple[Reading, ...]:
    """Readings to show: of those the verdict rests on a few, those the ledger asks for, and each axis changed alone."""
    ranks = {axis: {repr(v): i for i, v in enumerate(choices)} for axis, choices in claim.open}

    def rank(reading: Reading) -> int:
        """How far down the axes' lists the values stand: a ledger puts first what is most usual."""
        return sum(ranks[axis][repr(value)] for axis, value in reading.setting if axis in ranks)

    shown = {r.setting: r for r in sorted(first, key=rank)[:SHOWN]}
    best = next(iter(shown))
    for reading in judged:
        by_ledger = any(set(s) <= set(reading.setting) for s in claim.show)
        if by_ledger or sum(repr(x) != repr(y) for x, y in zip(best, reading.setting, strict=True)) == 1:
            shown.setdefault(reading.setting, reading)
    return tuple(shown.values())


def _pin(claim: Claim, verdict: Verdict, readings: Sequence[Reading]) -> str:
    """Why the verdict is not the pinned one; "" where it is."""
    recorded = bool({"clock", "accuracy", "profile"} & set(claim.sources))
    if verdict.word != claim.verdict:
        if recorded and {claim.verdict, verdict.word} & set(UNSETTLED):
            return ""  # somebody has measured since, or the records are not at hand: news, not a regression
        return f"the ledger expects {claim.verdict!r}, the verdict is {verdict.word!r}"
    found = dict(verdict.needed)
    for axis, values in claim.only_if:
        judged = {repr(dict(r.setting)[axis]) for r in readings if r.judged}
        now = found.get(axis, tuple(v for v in dict(claim.open)[axis] if repr(v) in judged))
        if {repr(v) for v in now} != {repr(v) for v in values} & judged:
            return (
                f"the ledger expects it to hold only with {axis} = {wording.values_text(values)}, "
                f"it does with {wording.values_text(now)}"
            )
    return ""
