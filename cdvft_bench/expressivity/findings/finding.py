"""What a finding is.

``holds`` is computed from the profile's rows: a statement whose evidence contradicts it says so, and one
without evidence is not measured. Labels: "proved" (by the argument in ``docs/expressivity.md``, or by exact
arithmetic for the shapes named), "checked numerically" (in floating point, on draws), "conjectured".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.io.decode import decode
from cdvft_bench.core.io.files import is_file
from cdvft_bench.core.io.log import damaged, read_log
from cdvft_bench.core.student import mean_interval
from cdvft_bench.core.ties import steady
from cdvft_bench.expressivity.experiments import REACHED, Row

FINDINGS = "findings.jsonl"
"""The file of findings in the folder of a profile."""

Label = Literal["proved", "checked numerically", "conjectured"]


@dataclass(frozen=True)
class Finding:
    """One statement.

    Attributes:
        id: stable name.
        statement: one or two sentences.
        label: how it is known.
        evidence: named figures.
        assumptions: under which it is meant.
        holds: whether the profile agrees; None when the profile does not measure it.
    """

    id: str
    statement: str
    label: Label
    evidence: Mapping[str, float]
    assumptions: str
    holds: bool | None

    def __post_init__(self) -> None:
        if self.label not in get_args(Label):
            raise ValueError(f"label {self.label!r} is not known; use one of {', '.join(get_args(Label))}")


def read_findings(folder: Path) -> list[Finding]:
    """Read the findings of a profile folder.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / FINDINGS
    if not is_file(path):
        raise UserError(f"{folder} holds no {FINDINGS}; make it with 'cdvft-bench expressivity run'")
    found = []
    for number, entry in read_log(path):
        try:
            found.append(decode(Finding, entry))
        except ValueError as error:
            raise UserError(damaged(path, number, error)) from None
    return found


# --- means, and the best row within a budget -------------------------------------------------


def mean(values: Sequence[float]) -> float:
    """Mean of independent draws, of which there is one or more."""
    return interval(values).value


def interval(values: Sequence[float]) -> Interval:
    """Mean of independent draws with its 95 % interval (Student's t); without one of fewer than three.

    Raises:
        ValueError: there is no value.
    """
    return mean_interval(values)


def plus_minus(values: Sequence[float]) -> str:
    """Mean and half-width of independent draws, ``0.123 ± 0.004``; the mean alone where there is no interval."""
    found = interval(values)
    return f"{found.value:.3f}" if found.high is None else f"{found.value:.3f} ± {found.high - found.value:.3f}"


def rank_error(errors: Sequence[float]) -> float:
    """Mean error to rank by: all that is reached is alike, and so is what differs by rounding errors."""
    return max(steady(mean(errors)), REACHED)


def best_within(rows: Iterable[Row], axis: str, budget: float) -> Row | None:
    """The row of least mean error whose ``axis`` ("parameters" or "flops_per_token") is within the budget.

    Of rows alike in error (see :func:`rank_error`) the cheapest.
    """
    fitting = [row for row in rows if row[axis] <= budget * (1 + 1e-12)]
    return min(fitting, key=lambda row: (rank_error(row["errors"]), steady(row[axis])), default=None)


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent of a power law through positive points: the least-squares slope of their logarithms."""
    u, v = [math.log(value) for value in x], [math.log(value) for value in y]
    mean_u, mean_v = sum(u) / len(u), sum(v) / len(v)
    numerator = sum((a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True))
    return numerator / sum((a - mean_u) ** 2 for a in u)
