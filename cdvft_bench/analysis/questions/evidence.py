"""What an answer to a reviewer's question rests on: sentences with figures, made from records alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Literal, TypeVar

from cdvft_bench.accuracy.results import workloads
from cdvft_bench.accuracy.training.trial import TrialResult
from cdvft_bench.analysis.accuracy.ranking import Ranking, said_of
from cdvft_bench.analysis.frame import COMPARABLE, Entry, entries
from cdvft_bench.analytic.models import model_spec
from cdvft_bench.core.text import NOT_MEASURED, clean, listed, plural, times

if TYPE_CHECKING:
    from pandas import DataFrame

    from cdvft_bench.analysis.accuracy.plans import Plan
    from cdvft_bench.claims.table import VerdictRow
    from cdvft_bench.expressivity.findings.finding import Finding

R = TypeVar("R")
K = TypeVar("K")
Word = Literal["yes", "no", "in part", "not measured"]

FFT_METHODS = ("cdvft", "block_circulant")


@dataclass(frozen=True)
class Evidence:
    """One sentence with its figures, where it is from, and the keys of the rows it rests on."""

    text: str
    source: str
    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """One question of the reviewers.

    Attributes:
        id, question: "R1" and what was asked.
        word: "yes", "no", "in part", or "not measured".
        plain: the answer in one or two sentences.
        evidence: what it rests on. open: what would have to be measured to say more.
    """

    id: str
    question: str
    word: Word
    plain: str
    evidence: tuple[Evidence, ...] = ()
    open: tuple[str, ...] = ()


@dataclass(frozen=True)
class Given:
    """All that the answers are made from: the frame of records, and what stands beside it.

    Attributes:
        frame: of ``records_frame``. verdicts: on the claims. findings: on expressivity.
        runs: fine-tuning runs by the name of their file.
        ranking: methods over workloads; None where it was not asked for. plans: campaigns that would say more.
    """

    frame: DataFrame
    verdicts: Sequence[VerdictRow] = ()
    findings: Sequence[Finding] = ()
    runs: Mapping[str, Sequence[TrialResult]] = field(default_factory=dict)
    ranking: Ranking | None = None
    plans: Sequence[Plan] = ()

    @cached_property
    def rows(self) -> list[Entry]:
        """The frame's rows."""
        return entries(self.frame)

    @cached_property
    def done(self) -> list[Entry]:
        """Rows of cases that did not fail."""
        return [row for row in self.rows if row["status"] == "ok"]

    @cached_property
    def groups(self) -> list[list[Entry]]:
        """Rows that may be compared with each other."""
        return list(grouped(self.done, lambda row: tuple(row[name] for name in COMPARABLE)).values())

    def verdict(self, claim: str) -> Evidence | None:
        """A claim's verdict as evidence, with what a measured one rests on; None where it was not judged."""
        for row in self.verdicts:
            if row.id == claim:
                rests = f" ({clean(row.detail)})" if row.detail and not row.verdict.startswith(NOT_MEASURED) else ""
                return Evidence(f"{row.statement} Verdict: {row.verdict}{rests}.", f"claim {row.id}")
        return None

    def workloads(self) -> dict[str, list[TrialResult]]:
        """Fine-tuning runs by model and task; where these were trained in several ways, by that too, and what scored.

        Only runs of one workload compare.
        """
        every = {run.trial.key: run for runs in self.runs.values() for run in runs}
        found = workloads(every.values())
        short = [name.partition(" (")[0] for name in found]
        return {
            brief if short.count(brief) == 1 else name: rows
            for brief, (name, rows) in sorted(zip(short, found.items(), strict=True), key=lambda item: item[1][0])
        }

    def unrun(self, generation: bool | None = None) -> list[str]:
        """Campaigns that lack runs, each with the command that runs them and what it takes.

        Args:
            generation: those of models that generate alone, or all others; None for both.
        """
        return [
            plan.said
            for plan in self.plans
            if plan.outlook.left and generation in (None, model_spec(plan.model).auto == "AutoModelForCausalLM")
        ]

    def ranked(self, role: str) -> list[Evidence]:
        """What the table over workloads says of a method; nothing where it says nothing."""
        said = said_of(self.ranking, role) if self.ranking else ""
        return [Evidence(said, "fine-tuning runs: the table over workloads")] if said else []

    def source(self, rows: Iterable[TrialResult]) -> str:
        """Where runs are from, as a piece of evidence names it."""
        keys = {row.trial.key for row in rows}
        names = [clean(name) for name, runs in self.runs.items() if any(run.trial.key in keys for run in runs)]
        return f"fine-tuning runs: {listed(sorted(names))}" if names else "fine-tuning runs"


def grouped(rows: Iterable[R], key: Callable[[R], K]) -> dict[K, list[R]]:
    """Rows by key, in the order of the keys' texts."""
    found: dict[K, list[R]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return dict(sorted(found.items(), key=lambda item: str(item[0])))


def keys(rows: Sequence[Entry], limit: int = 4) -> tuple[str, ...]:
    """Keys of the first few rows."""
    return tuple(str(row["key"]) for row in rows[:limit])


def known(row: Entry, name: str) -> bool:
    """Whether a quantity of a row was recorded."""
    value = row[name]
    return value is not None and value == value


def place(row: Entry) -> str:
    """Where a row was measured, in words."""
    dtype = "" if row["dtype"] == "float32" else f", {row['dtype']}"
    gpu = "" if row["device"] == "cpu" else f", {row['machine']}"
    return f"{row['subject']}{dtype}{gpu}, {row['pass']}, {row['batch']:.0f} × {row['sequence']:,.0f} tokens"


def ran(what: str, rows: Sequence[Entry]) -> Evidence:
    """How many cases ran, and what they took against LoRA r = 8."""
    ok = [row for row in rows if row["status"] == "ok"]
    text = f"{what}: {len(ok):,} of {plural(len(rows), 'case')} ran, {over_lora(ok)}."
    return Evidence(text[:1].upper() + text[1:], "records", keys(ok))


def over_lora(rows: Iterable[Entry]) -> str:
    """Time over LoRA r = 8's in the median, with its range."""
    values = [row["lora"] for row in rows if known(row, "lora")]
    if not values:
        return "time not measured"
    if len(values) == 1:
        return f"time {times(values[0])} that of LoRA r=8"
    return (
        f"time {times(median(values))} that of LoRA r=8 in the median of {len(values):,} "
        f"(from {times(min(values))} to {times(max(values))})"
    )


def over(mine: float | None, theirs: float | None) -> float | None:
    """A ratio; None where a side is missing or the other is 0."""
    if mine is None or theirs is None or mine != mine or theirs != theirs or not theirs:
        return None
    return mine / theirs
