"""What a source of figures is, and how it says that it has none."""

from __future__ import annotations

from abc import ABC, abstractmethod

from cdvft_bench.claims.ledger.figures import Figure
from cdvft_bench.claims.ledger.point import Point, Subject
from cdvft_bench.claims.ledger.terms import Setting


class NotAvailable(Exception):  # noqa: N818 - no error: a source that has no such figure
    """A source has no such figure.

    Attributes:
        reason: why. remedy: what would supply it.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


class FigureSource(ABC):
    """Gives figures at points."""

    @abstractmethod
    def figure(self, point: Point) -> Figure:
        """The figure at a point, with that of the other side where the point has one.

        Raises:
            NotAvailable: there is none.
        """

    def groups(self, point: Point) -> list[Setting]:
        """Groups of records that can be compared, as ``(("workload", "..."),)``; one empty for no records."""
        return [()]

    def within(self, group: Setting) -> FigureSource:
        """The source on the records of one group."""
        return self


class ExactSource(FigureSource):
    """Gives figures without an interval, a subject at a time."""

    @abstractmethod
    def value(self, point: Point, subject: Subject | None) -> tuple[float, ...]:
        """The quantity's figure for a subject at a point.

        Raises:
            NotAvailable: there is none.
        """

    def figure(self, point: Point) -> Figure:
        against = None if point.against is None else self.value(point, point.against)
        return Figure(self.value(point, point.subject), against)
