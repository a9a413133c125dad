"""An answer as a table: what a terminal and a notebook show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cdvft_bench.core.text import clean, integer, prefixed, significant
from cdvft_bench.predictor.answering.sentence import fit_text

if TYPE_CHECKING:
    from cdvft_bench.core.interval import Interval
    from cdvft_bench.predictor.results import Answer, Choice


def title_of(answer: Answer) -> str:
    """The question in a line."""
    where = "" if answer.gpus == 1 else f" on {answer.gpus:,} GPUs ({answer.strategy})"
    tokens = f"batch {answer.batch} × {answer.sequence} tokens a GPU"
    return f"{answer.model}, {answer.device}{where}, {tokens}, {answer.dtype}"


def columns_of(answer: Answer, details: bool = False) -> list[str]:
    """Heads of the columns; the last says why, or what would fit, where there is something to say."""
    last = ["why"] if details else ["fit"] if answer.too_large else []
    return ["", "method", "step", "× LoRA r=8", "tokens/s", "memory", "trained", "known by", *last]


def rows_of(answer: Answer, details: bool = False) -> list[list[str]]:
    """A row a choice, those that fit first."""
    ranks, width = Counter(c.rank for c in answer.choices), len(columns_of(answer, details))
    return [_row(choice, ranks, details)[:width] for choice in (*answer.choices, *answer.too_large)]


def _row(choice: Choice, ranks: Mapping[int, int], details: bool) -> list[str]:
    told = fit_text(choice.fit)
    if details:
        told = "; ".join(filter(None, (told, choice.why)))
    ratio = choice.over_lora
    return [
        (f"{choice.rank}=" if ranks[choice.rank] > 1 else str(choice.rank)) if choice.rank else "",
        clean(choice.label),
        f"≥ {seconds(choice.step_s.value)}" if choice.at_least else seconds_range(choice.step_s),
        significant(ratio.value, 3) + ("" if ratio.low is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"),
        ("≤ " if choice.at_least else "") + integer(float(significant(choice.tokens_per_s.value, 3).replace(",", ""))),
        bytes_(choice.memory.total),
        integer(choice.parameters),
        choice.known,
        clean(told),
    ]


def seconds(value: float) -> str:
    """In milliseconds."""
    return f"{significant(value * 1e3, 3)} ms"


def seconds_range(value: Interval) -> str:
    """In milliseconds, with the interval where there is one."""
    if value.low is None or value.high is None:
        return seconds(value.value)
    low, high = (significant(v * 1e3, 3) for v in (value.low, value.high))
    return f"{seconds(value.value)} [{low}, {high}]"


def bytes_(value: float | None) -> str:
    """With a prefix; says where it is not known."""
    if value is None:
        return "not known"
    text = prefixed(value)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"
