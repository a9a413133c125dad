"""The classifier's table, ``rules.toml``: families, and the rules that tell them by names."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Rule:
    """One rule of the table.

    Attributes:
        family: of what it knows. pattern: of the names, a verbose regular expression.
        weight: how much a name tells: 3 for a purpose, 2 for a means, 1 for a form, 0 for nothing.
        examples: real names that this very rule knows.
    """

    family: str
    pattern: str
    weight: int
    examples: tuple[str, ...]

    def compiled(self) -> re.Pattern[str]:
        """The pattern, which is searched for anywhere in a name."""
        return re.compile(self.pattern, re.IGNORECASE | re.VERBOSE)


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("rules.toml").read_text(encoding="utf-8"))


@cache
def families() -> dict[str, str]:
    """Families, and what belongs to each."""
    return dict(_table()["families"])


@cache
def coarse_families() -> dict[str, str]:
    """The families that the closed forms know, by the finer ones."""
    return dict(_table()["coarse"])


@cache
def rules() -> tuple[Rule, ...]:
    """The rules in their order: the first that fits wins."""
    return tuple(Rule(family, pattern, weight, tuple(names)) for family, weight, pattern, names in _table()["rules"])
