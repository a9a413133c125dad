"""A claim and a ledger of them, once read."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cdvft_bench.claims.ledger.laws import Law
from cdvft_bench.claims.ledger.point import Point
from cdvft_bench.claims.ledger.terms import Origin, Setting, Source, Value, Word
from cdvft_bench.claims.verdict import Claimed


@dataclass(frozen=True)
class Claim:
    """One entry of a ledger.

    Attributes:
        id: unique name. statement: the claim in the ledger's own words. origin: where it is made.
        point: what is measured, with every open axis at its first value.
        law: what is claimed of it.
        open: axes that the claim leaves unsaid, each with the values that it may mean.
        show: settings to report in any case, beside those that hold.
        tolerance: relative; 0 is exact.
        sources: all of which must be available.
        verdict: the pinned one. assumption: what it holds only under, in words.
        only_if: pinned values of open axes under which alone it holds; empty pins the verdict's word only.
        for_all: what the statement ranges over beyond the settings tried, as "every width d >= 2"; "" for nothing.
    """

    id: str
    statement: str
    origin: Origin
    point: Point
    law: Law
    open: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    show: tuple[Setting, ...] = ()
    tolerance: float = 0.0
    sources: tuple[Source, ...] = ()
    verdict: Word = "holds"
    assumption: str = ""
    only_if: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    for_all: str = ""

    @property
    def claimed(self) -> Claimed:
        """What a verdict keeps of it."""
        return Claimed(
            self.id,
            self.statement,
            self.origin,
            self.point.quantity,
            self.law.kind,
            self.verdict,
            self.point.options,
            self.tolerance,
            self.assumption,
            self.for_all,
        )

    def settings(self) -> Iterator[Setting]:
        """Every combination of the open axes' values; one empty setting where nothing is open."""
        axes = [name for name, _ in self.open]
        for values in itertools.product(*(values for _, values in self.open)):
            yield tuple(zip(axes, values, strict=True))


@dataclass(frozen=True)
class Ledger:
    """A ledger.

    Attributes:
        path: its file. folder: where its modules may lie, beside those that are installed.
        title, version: of the ledger.
        claims: in the file's order.
    """

    path: str
    folder: Path
    title: str
    version: int
    claims: tuple[Claim, ...] = field(default=())
