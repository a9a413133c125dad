"""What the judge says of a claim, and what each witness said."""

from __future__ import annotations

from dataclasses import dataclass, field

from cdvft_bench.claims.ledger.claim import Claim, Word
from cdvft_bench.claims.ledger.point import Setting, Value
from cdvft_bench.claims.ledger.quantities import Witness


@dataclass(frozen=True)
class Testimony:
    """One witness on a claim at one setting of its open axes.

    Attributes:
        witness: who.
        text: the numbers, or why there are none.
        holds: whether they obey the law; None where the witness is silent, or where the numbers' interval reaches both
            what is claimed and what is not (``open``).
        miss: relative to what is claimed, see ``laws.Outcome``.
        ratio: for a ratio, its value.
        remedy: for a silent witness, what would let it speak; for an open question, what would settle it.
        open: the witness spoke, and the question stays open.
    """

    witness: Witness
    text: str
    holds: bool | None
    miss: float = 0.0
    ratio: float | None = None
    remedy: str = ""
    open: bool = False


@dataclass(frozen=True)
class Reading:
    """All witnesses on a claim read at one setting of its open axes."""

    setting: Setting
    heard: tuple[Testimony, ...]

    @property
    def judged(self) -> bool:
        """Every witness spoke, and clearly."""
        return all(t.holds is not None for t in self.heard)

    @property
    def open(self) -> bool:
        """Every witness spoke, and one so that the question stays open."""
        return not self.judged and all(t.holds is not None or t.open for t in self.heard)

    @property
    def holds(self) -> bool:
        """Every witness spoke, and for the claim."""
        return all(t.holds for t in self.heard)

    @property
    def miss(self) -> float:
        """The largest miss of a witness, with its sign."""
        return max((t.miss for t in self.heard), key=abs, default=0.0)

    @property
    def disagree(self) -> bool:
        """Some witness speaks for the claim, another against it."""
        return len({t.holds for t in self.heard if t.holds is not None}) == 2


@dataclass(frozen=True)
class Verdict:
    """The judge's verdict on one claim.

    Attributes:
        claim: the entry of the ledger.
        word: the verdict.
        detail: what it rests on, in one line: the assumption it needs, how far it is off, who is missing.
        readings: settings to show, each with its witnesses' numbers; the first is the one the verdict rests on.
        tried, judged, hits: settings of the open axes, those on which every witness spoke clearly, those that hold.
        open: those on which it is not shown either way.
        needed: for "holds only if", axes that not every value will do for, with those that will.
        pinned: why the verdict is not the ledger's; "" where it is.
    """

    claim: Claim
    word: Word
    detail: str
    readings: tuple[Reading, ...] = ()
    tried: int = 1
    judged: int = 1
    hits: int = 0
    open: int = 0
    needed: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    pinned: str = ""

    @property
    def as_pinned(self) -> bool:
        """The verdict is the one that the ledger expects."""
        return not self.pinned


@dataclass(frozen=True)
class Verification:
    """A whole ledger judged.

    Attributes:
        title: of the ledger. path: its file.
        verdicts: in the ledger's order.
        seconds: wall-clock that it took, claim by claim.
    """

    title: str
    path: str
    verdicts: tuple[Verdict, ...]
    seconds: tuple[float, ...] = field(default=(), compare=False)

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
