"""The source that reads recorded profiles of what the factorisation can express; measures nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cdvft_bench.claims.ledger.point import MethodSubject, Point, Subject
from cdvft_bench.claims.ledger.quantities import QUANTITIES
from cdvft_bench.claims.sources.source import ExactSource, NotAvailable
from cdvft_bench.expressivity.findings.finding import FINDINGS

if TYPE_CHECKING:
    from cdvft_bench.expressivity.profile import Profile

_RECORDED = "cdvft_bench.expressivity.recorded"
"""Functions of the same names and arguments as a ledger's, which read a profile instead of fitting anew."""
_REMEDY = "give a profile's findings.jsonl with --records, such as that of profiles/expressivity-cpu"


def is_profile(path: Path) -> bool:
    """Whether a file of records holds findings, by its name."""
    return path.name == FINDINGS


@dataclass(frozen=True)
class ProfileSource(ExactSource):
    """Gives what a profile recorded; of several profiles the last.

    Attributes:
        paths: their ``findings.jsonl``, read when they are asked for.
    """

    paths: Sequence[Path] = ()

    @cached_property
    def profile(self) -> Profile:
        """Rows of the profile.

        Raises:
            NotAvailable: none was given. UserError: it is missing or damaged.
        """
        from cdvft_bench.expressivity.profile import load

        if not self.paths:
            raise NotAvailable("no profile was given", _REMEDY)
        return load(self.paths[-1].parent)

    def value(self, point: Point, subject: Subject | None) -> tuple[float, ...]:
        """What the profile holds.

        Raises:
            NotAvailable: it does not hold it.
        """
        if point.quantity == "fit_error":
            assert isinstance(subject, MethodSubject)  # check_point refuses anything else
            return (self._recorded(f"{_RECORDED}:mean_error_on_changes", {"method": subject.name}),)  # type: ignore[return-value]
        options = dict(point.options)
        names = QUANTITIES[point.quantity].options
        arguments = {k: v for k, v in options.items() if k not in names}
        sides = [torch.as_tensor(self._recorded(str(options[name]), arguments)).double() for name in names]
        if len(sides) == 1:
            return (float(sides[0]),)
        left, right = sides
        return (float((left - right).norm() / torch.maximum(left.norm(), right.norm())),)

    def _recorded(self, path: str, arguments: Mapping[str, object]) -> object:
        name = path.partition(":")[2]
        function = getattr(import_module(_RECORDED), name, None)
        if function is None:
            raise NotAvailable(f"profiles do not hold {name!r}", "fit it anew with --refit")
        found = function(self.profile, **arguments)
        if found is None:
            words = ", ".join(f"{k} = {v}" for k, v in arguments.items())
            raise NotAvailable(f"no profile holds {name.replace('_', ' ')} at {words}", _REMEDY)
        return found
