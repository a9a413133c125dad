"""The witness who reads recorded profiles of what the factorisation can express; measures nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cdvft_bench.claims.ledger.point import MethodSubject, Point, Subject
from cdvft_bench.claims.sources.availability import Silent
from cdvft_bench.expressivity.findings.finding import Finding

_REAL_CHANGES = "real-changes"


def is_profile(path: Path) -> bool:
    """Whether a file of records holds findings, by its name."""
    from cdvft_bench.expressivity.findings.algebraic import FINDINGS

    return path.name == FINDINGS


def read_profiles(paths: Iterable[Path]) -> list[Finding]:
    """The findings of profiles, given by their ``findings.jsonl``.

    Raises:
        UserError: a file is missing or damaged.
    """
    from cdvft_bench.expressivity.findings.algebraic import read_findings

    return [finding for path in paths for finding in read_findings(path.parent)]


@dataclass(frozen=True)
class Profiles:
    """Speaks of what a profile recorded; of several profiles the last."""

    findings: Sequence[Finding]

    def say(self, point: Point, subject: Subject | None) -> tuple[float, ...]:
        """Mean least relative error of a method on recorded weight changes.

        Raises:
            Silent: no profile holds it.
        """
        assert isinstance(subject, MethodSubject)  # check_point refuses anything else
        name = f"mean_error_{subject.name}"
        found = [f.evidence[name] for f in self.findings if f.id == _REAL_CHANGES and name in f.evidence]
        if not found:
            raise Silent(
                f"no profile holds {subject.name}'s error on real weight changes",
                "give a profile's findings.jsonl with --records, such as that of profiles/expressivity-cpu",
            )
        return (found[-1],)
