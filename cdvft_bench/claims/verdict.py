"""What the judge says of a claim, and what each source gave; and as a file, with the environment that judged.

Standard library and core only: a report reads the file.
"""

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from cdvft_bench.claims.ledger.terms import Origin, Setting, Source, Value, Word
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.decode import decode
from cdvft_bench.core.io.files import shown, write_file
from cdvft_bench.core.io.reading import read_json


@dataclass(frozen=True)
class SourceResult:
    """What one source gives for a claim at one setting of its open axes.

    Attributes:
        source: which.
        text: the numbers, or why there are none.
        holds: whether they obey the law; None where the source is not available, or where the numbers' interval reaches
            both what is claimed and what is not (``open``).
        miss: relative to what is claimed, see ``laws.Outcome``; None where it cannot be told.
        value: for a law on one figure or on a ratio, that number.
        remedy: for a source that is not available, what would supply it; for an open question, what would settle it.
        open: there are numbers, and the question stays open.
    """

    source: Source
    text: str
    holds: bool | None
    miss: float | None = 0.0
    value: float | None = None
    remedy: str = ""
    open: bool = False


@dataclass(frozen=True)
class Reading:
    """All sources of a claim at one setting of its open axes.

    Attributes:
        setting: values of the open axes. results: one a source.
        asked: the ledger asks to show it, or it is of a workload that records name.
    """

    setting: Setting
    results: tuple[SourceResult, ...]
    asked: bool = False

    @property
    def judged(self) -> bool:
        """Every source is available, and clear."""
        return all(r.holds is not None for r in self.results)

    @property
    def open(self) -> bool:
        """Every source is available, and one leaves the question open."""
        return not self.judged and all(r.holds is not None or r.open for r in self.results)

    @property
    def holds(self) -> bool:
        """Every source is available, and for the claim."""
        return all(r.holds for r in self.results)

    @property
    def miss(self) -> float | None:
        """The largest miss of a source, with its sign; None where one cannot be told."""
        misses = [r.miss for r in self.results]
        known = [m for m in misses if m is not None]
        return max(known, key=abs, default=0.0) if len(known) == len(misses) else None

    @property
    def disagree(self) -> bool:
        """Some source is for the claim, another against it."""
        return len({r.holds for r in self.results if r.holds is not None}) == 2


@dataclass(frozen=True)
class Claimed:
    """What was claimed, without what it takes to judge it.

    Attributes:
        id, statement, origin, tolerance, assumption, for_all: as in the ledger.
        quantity, options: what is measured. law: what is claimed of it.
        expected: the verdict that the ledger expects.
    """

    id: str
    statement: str
    origin: Origin
    quantity: str
    law: str
    expected: Word
    options: Setting = ()
    tolerance: float = 0.0
    assumption: str = ""
    for_all: str = ""


@dataclass(frozen=True)
class Verdict:
    """The judge's verdict on one claim.

    Attributes:
        claim: what was claimed.
        word: the verdict.
        detail: what it rests on, in one line: the assumption it needs, how far it is off, what is missing.
        readings: settings to show, each with its sources' numbers; the first is the one that the verdict rests on.
        tried, judged, hits: settings of the open axes, those on which every source is clear, those that hold.
        open: those on which it is not shown either way.
        needed: for "holds only if", axes that not every value will do for, with those that will.
        wherever: values of axes with which alone it holds in every setting tried.
        chance: how likely free settings would hit any other figure of that size; None where that says nothing.
        pinned: why the verdict is not the ledger's; "" where it is.
        seconds: wall-clock that it took.
    """

    claim: Claimed
    word: Word
    detail: str
    readings: tuple[Reading, ...] = ()
    tried: int = 1
    judged: int = 1
    hits: int = 0
    open: int = 0
    needed: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    wherever: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    chance: float | None = None
    pinned: str = ""
    seconds: float = field(default=0.0, compare=False)

    @property
    def as_pinned(self) -> bool:
        """The verdict is the one that the ledger expects."""
        return not self.pinned


@dataclass(frozen=True)
class Verification:
    """A whole ledger judged.

    Attributes:
        title: of the ledger. ledger: its file.
        verdicts: in the ledger's order.
        created: UTC time, ISO 8601. environment: the machine and the software that judged; None unknown.
        records: files that the clock, accuracy and profiles were read from, by folder and name.
    """

    title: str
    ledger: str
    verdicts: tuple[Verdict, ...]
    created: str = ""
    environment: Environment | None = None
    records: tuple[str, ...] = ()

    @property
    def as_pinned(self) -> bool:
        """Every verdict is the one that the ledger expects."""
        return all(v.as_pinned for v in self.verdicts)

    def of(self, claim_id: str) -> Verdict:
        """One claim's verdict; KeyError where there is no such claim."""
        for verdict in self.verdicts:
            if verdict.claim.id == claim_id:
                return verdict
        raise KeyError(claim_id)


# --- in a file ------------------------------------------------------------------------------


FORMAT = "cdvft-bench verdicts"
VERSION = 1
"""Of the format. 1: the first."""

_ADVICE = "make it anew with 'cdvft-bench verify --output'"


def to_json(verification: Verification, **head: object) -> str:
    """Everything that was found, as the file holds it, ending in a newline; ``head`` comes first."""
    head |= {"format": FORMAT, "version": VERSION, "as_pinned": verification.as_pinned}
    verdicts = [{"as_pinned": verdict.as_pinned} | asdict(verdict) for verdict in verification.verdicts]
    document = head | asdict(verification) | {"verdicts": verdicts}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_verdicts(path: str | Path, verification: Verification) -> None:
    """Write the file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    write_file(path, to_json(verification))


def read_verdicts(path: str | Path) -> Verification:
    """Read the file.

    Raises:
        UserError: it cannot be read, is none of this kind or of a later version, or is damaged.
    """
    document = read_json(path, "verdicts", _ADVICE)
    if not isinstance(document, dict):
        raise UserError(f"verdicts {shown(path)}: it is no JSON object; {_ADVICE}")
    if document.get("format") != FORMAT:
        raise UserError(f"{shown(path)} holds no verdicts; give the file of 'cdvft-bench verify --output'")
    version = document.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UserError(f"verdicts {shown(path)}: version = {version!r} is none; {_ADVICE}")
    if version > VERSION:
        raise UserError(f"verdicts {shown(path)} have version {version}, this one reads {VERSION}; update cdvft-bench")
    try:
        return _checked(decode(Verification, document))
    except ValueError as error:
        raise UserError(f"verdicts {shown(path)} are damaged: {error}; {_ADVICE}") from None


def _checked(found: Verification) -> Verification:
    """Refuse what no judge writes: a count below what it counts, a name twice, a time that is none."""
    for at, verdict in enumerate(found.verdicts):
        counts = (verdict.hits, verdict.judged, verdict.tried)
        if not 0 <= verdict.hits <= verdict.judged <= verdict.tried or verdict.open < 0:
            raise ValueError(f"verdicts[{at}]: hits, judged and tried settings = {counts} are in no order")
        if verdict.chance is not None and not 0 <= verdict.chance <= 1:
            raise ValueError(f"verdicts[{at}].chance = {verdict.chance} is no probability")
    names = [verdict.claim.id for verdict in found.verdicts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"claim {twice!r} stands twice")
    if found.created and datetime.fromisoformat(found.created).utcoffset() is None:
        raise ValueError(f"created = {found.created!r} names no offset from UTC")
    return found
