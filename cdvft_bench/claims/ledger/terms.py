"""The words that a ledger and its verdicts are made of. Standard library only: verdicts are read where nothing runs."""

from dataclasses import dataclass
from typing import Literal, get_args

Value = int | float | str | bool | tuple[str, ...]
"""Of an axis, an option or a hyperparameter."""

Setting = tuple[tuple[str, Value], ...]
"""Values of axes, such as ``(("tokens", 256), ("subject.path", "fft"))``."""

Source = Literal["formula", "count", "clock", "accuracy", "profile"]
"""Where figures come from: closed forms, runs that are watched, and three kinds of records."""
SOURCES: tuple[Source, ...] = get_args(Source)

Word = Literal["holds", "holds only if", "not identifiable", "fails", "undecided", "not measured"]
"""A verdict; "not identifiable" is one that chance explains: the free settings would hit most other figures as well;
"undecided" was measured, and the interval reaches both sides of what is claimed."""
UNSETTLED: tuple[Word, ...] = ("undecided", "not measured")
WORDS: tuple[Word, ...] = get_args(Word)


@dataclass(frozen=True)
class Origin:
    """Where a claim stands: the paper, and the section or the words to find it by."""

    paper: str
    section: str
