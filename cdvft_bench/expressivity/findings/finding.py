"""What a finding is.

``holds`` is computed from the profile's rows: a statement whose evidence contradicts it says so, and one
without evidence is not measured. Labels: "proved" (by the argument in ``docs/expressivity.md``, or by exact
arithmetic for the shapes named), "checked numerically" (in floating point, on draws), "conjectured".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.decode import decode
from cdvft_bench.core.io.files import is_file
from cdvft_bench.core.io.log import damaged, read_log
from cdvft_bench.core.io.reading import packaged, parse_toml

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


@cache
def _statements() -> dict[str, Any]:
    return parse_toml(packaged(__package__, "statements.toml"))


def finding(id_: str, evidence: Mapping[str, float], holds: bool | None, **said: str) -> Finding:
    """A finding of ``statements.toml``; ``said``: what of its texts follows from the profile."""
    return Finding(id=id_, evidence=evidence, holds=holds, **{**_statements()[id_], **said})


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
