"""What of the page is text: claims as cards, tables of predictions, machines, files. Plain values for the templates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING

from cdvft_bench.analysis.cases import in_words
from cdvft_bench.analysis.overview import Overview
from cdvft_bench.analysis.sentences import with_bounds
from cdvft_bench.claims.ledger.terms import WORDS
from cdvft_bench.claims.table import rows
from cdvft_bench.claims.verdict import Verification
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.text import clean, listed, plural, significant

if TYPE_CHECKING:
    from cdvft_bench.accuracy.published.reading import Published
    from cdvft_bench.analysis.kernels import Compiled
    from cdvft_bench.predictor.results import Evaluation, PublishedComparison

NOT_KNOWN = "not known"
ORDER = ("fails", "not identifiable", "holds only if", "holds", "undecided", "not measured")
"""Cards that a reader has to see come first."""


@dataclass(frozen=True)
class Card:
    """A claim with its verdict: ``word`` of ``WORDS``, one line of reason, and the evidence below it."""

    id: str
    word: str
    statement: str
    reason: str
    detail: str
    numbers: tuple[str, ...]
    origin: str
    pinned: str

    @property
    def slug(self) -> str:
        """The word as a CSS class."""
        return self.word.replace(" ", "-")


@dataclass(frozen=True)
class Table:
    """A table as shown: numbers are right-aligned; ``wide`` cells are texts that wrap."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    wide: tuple[int, ...] = ()

    @property
    def texts(self) -> frozenset[int]:
        """Columns that hold anything but figures: they are aligned to the left."""
        figure = re.compile(r"[-+−]?[\d.,]+( ?[%×])?|[\d.]+ \[[^a-z]*\]|not (known|measured)|[\d.]+ \[no interval\]")
        columns = enumerate(zip(*self.rows, strict=True)) if self.rows else ()
        return frozenset(i for i, cells in columns if not all(figure.fullmatch(cell) for cell in cells))


@dataclass(frozen=True)
class Comparison:
    """Runs that were made elsewhere: a heading, their table, what is to be said of them; ``given`` by the user."""

    title: str
    table: Table | None
    notes: tuple[str, ...]
    given: bool


@dataclass(frozen=True)
class Judged:
    """The verdicts of one ledger: counts by word, cards, and when, where and on which files they were judged."""

    title: str
    counts: tuple[tuple[str, int], ...]
    cards: tuple[Card, ...]
    how: str


def first_clause(text: str) -> str:
    """What comes before the first semicolon that stands outside of brackets."""
    return re.split(r"; (?![^()]*\))", text)[0]


def judged(verification: Verification) -> Judged:
    """Cards of a file of verdicts, those that fail or hold only on a condition first."""
    cards = []
    for row, verdict in zip(rows(verification), verification.verdicts, strict=True):
        word, said = verdict.word, in_words(row.verdict)
        reason = said.removeprefix(word).strip() if word == "holds only if" else first_clause(in_words(row.detail))
        cards.append(
            Card(
                id=clean(row.id),
                word=word,
                statement=clean(row.statement),
                reason=f"only if {reason}" if word == "holds only if" else reason,
                detail=in_words(row.detail),
                numbers=tuple(part for part in in_words(row.numbers).split(" · ") if part),
                origin=clean(row.origin),
                pinned="" if row.as_pinned else clean(row.pinned),
            )
        )
    cards.sort(key=lambda card: ORDER.index(card.word))
    found = Counter(card.word for card in cards)
    machine = verification.environment
    how = [f"Judged by cdvft-bench verify of {clean(verification.ledger)}"]
    how += [f"on {verification.created[:10]}"] if verification.created else []
    how += [f"on {clean(machine.cpu)}, {machine.cores} cores"] if machine else []
    how += [f"with {plural(len(verification.records), 'file')} of records"] if verification.records else []
    counts = tuple((word, found[word]) for word in sorted(WORDS, key=ORDER.index) if found[word])
    return Judged(clean(verification.title), counts, tuple(cards), f"{', '.join(how)}.")


def overview_table(found: Overview) -> Table:
    """The first picture as a table: every panel, every method."""
    columns = ("method", *(", ".join((panel.title, *found.under(panel))) for panel in found.panels))
    cells = [
        (row, *(with_bounds(p.cells[row].time) if row in p.cells else "not measured" for p in found.panels))
        for row in found.rows
    ]
    title = f"Time over {found.baseline_title}’s, with 95 % intervals"
    return Table(title, columns, tuple(cells))


def kernel_table(found: Sequence[Compiled]) -> Table:
    """Compiled kernels by the path that launches them."""
    cells = tuple(
        (
            one.path,
            "yes" if one.picked else "no",
            one.kernel,
            one.target,
            f"{one.configurations:,}",
            f"{one.spilling:,}" + (f", and {one.failed:,} not compiled" if one.failed else ""),
            f"{one.registers:,}",
            f"{one.local_bytes:,}",
            f"{one.shared_bytes:,}",
            "not known" if one.occupancy is None else f"{one.occupancy:.0%}",
            *("not counted" if n is None else f"{n:,}" for n in (one.loads, one.stores)),
        )
        for one in found
    )
    what = ("path", "auto may pick it", "kernel", "target", "configurations", "of them spill")
    most = ("registers a thread", "off chip [B a thread]", "shared [B a program]", "occupancy")
    columns = (*what, *most, "loads [B a program]", "stores [B a program]")
    picked = [one for one in found if one.picked]
    spilling = sum(one.spilling + one.failed for one in picked)
    caption = (
        f"{sum(one.configurations for one in found):,} configurations of the suite’s Triton kernels, compiled without "
        f"a GPU. Of the {sum(one.configurations for one in picked):,} that path auto may launch {spilling:,} keep "
        "registers off chip or did not compile. Registers and bytes are the most of any configuration, occupancy the "
        "least. A training step launches each kernel of its path once, filter_kernel three times; merged_dense "
        "launches that of merged, too. Loads and stores were counted by Triton’s interpreter: the most of a program of "
        "any recorded layer, what is read again counted again. How long one runs: not measured."
    )
    return Table("Triton kernels by path and target", columns, cells, caption)


def prediction_tables(found: Evaluation | None, published: Sequence[PublishedComparison]) -> list[Table]:
    """Errors by device, kind, pass and split; what misses farthest; others' training times."""
    return [*(_error_tables(found) if found else ()), *map(_published_table, published)]


def _error_tables(found: Evaluation) -> list[Table]:
    errors = [
        (
            clean(e.device),
            f"{e.pass_} of a {e.kind}",
            e.split,
            f"{e.cases:,}",
            _factor(e.median),
            _factor(e.p90),
            _factor(e.flops_median),
            "not known" if e.covered is None else f"{e.covered:.0%}",
        )
        for e in found.errors
    ]
    head = ("device", "what", "left out", "cases", "median", "90th percentile", "FLOPs alone", "in the interval")
    caption = (
        "Each record was predicted by a fit that had left out the case, its shape, its method, its campaign or its "
        "machine; an error of 1.25 is a factor of 1.25, either way. FLOPs alone: the median error of one rate for all."
    )
    tables = [Table("How far predictions miss", head, tuple(errors), caption, wide=(0,))]
    if found.farthest:
        far = [
            (
                in_words(f.prediction.label),
                clean(f"{f.prediction.subject}, {f.prediction.pass_}"),
                f"{f.prediction.ratio:.2f}",
                clean(f.cause),
                clean(f.evidence),
            )
            for f in found.farthest
        ]
        tables.append(
            Table(
                "Farthest off",
                ("setting", "case", "predicted ÷ measured", "cause", "evidence"),
                tuple(far),
                wide=(3, 4),
            )
        )
    return tables


def _published_table(found: PublishedComparison) -> Table:
    cells = [
        (
            clean(r.experiment),
            f"{r.published_s:,.0f}",
            f"{r.published_ratio:.2f}",
            f"{r.predicted_ratio:.2f}",
            f"{r.flops_ratio:.2f}",
        )
        for r in found.runs
    ]
    said = (
        f"Published by {clean(found.source)}; ratios to {clean(found.reference)}. Predicted and published "
        f"order agree at {_range(found.rank_correlation)} (1 is the same order; FLOPs alone "
        f"{_range(found.flops_rank_correlation)})."
    )
    return Table(
        "Training times that others published",
        ("experiment", "published [s]", "ratio, published", "ratio, predicted", "ratio of FLOPs"),
        tuple(cells),
        said,
    )


def _factor(error: float) -> str:
    return significant(1 + error, 3)


def _range(value: Interval) -> str:
    if value.low is None or value.high is None:
        return f"{value.value:.2f}"
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def environment_table(environments: Mapping[str, object]) -> Table:
    """One row a fact, one column a machine or campaign."""
    facts = {key: _flat(fields) for key, fields in sorted(environments.items())}
    names = list(dict.fromkeys(name for fields in facts.values() for name in fields))
    cells = [(name, *(fields.get(name, "not recorded") for fields in facts.values())) for name in names]
    return Table("Environments", ("", *map(clean, facts)), tuple(cells), wide=tuple(range(1, len(facts) + 1)))


def _flat(value: object, prefix: str = "") -> dict[str, str]:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        flat: dict[str, str] = {}
        for name, inner in value.items():
            flat |= _flat(inner, f"{prefix}, {clean(name)}" if prefix else clean(name))
        return flat
    if isinstance(value, list | tuple):
        return {prefix: clean("; ".join(map(str, value))) or "none"}
    return {prefix: "not recorded" if value is None or value == "" else clean(value)}


def days(created: Iterable[str]) -> str:
    """The days that records are of: "2026-11-24 to 2026-11-25"."""
    found = sorted({clean(text[:10]) for text in created if text})
    return listed([found[0], found[-1]], "to") if len(found) > 1 else "".join(found)


def joined(parts: Sequence[str]) -> str:
    """Facts in a line."""
    return " · ".join(filter(None, parts))


def comparison(found: Published, notes: tuple[str, ...], given: bool) -> Comparison:
    """Runs that were made elsewhere; a user's own are listed."""
    if not given:
        return Comparison("As others published it", None, (), given)
    columns = ("run", "method", found.metric.replace("_", " "), "trained parameters", "training time", "peak memory")
    cells = []
    for run in sorted(found.runs, key=lambda run: (-run.score, run.experiment)):
        size, memory = run.trainable_params, run.peak_memory_bytes
        cells.append(
            (
                clean(run.experiment),
                clean(run.method),
                f"{run.score:.4g}",
                NOT_KNOWN if size is None else f"{size:,}",
                NOT_KNOWN if run.train_time_s is None else f"{run.train_time_s:,.4g} s",
                NOT_KNOWN if memory is None else f"{memory / 1e9:,.3g} GB",
            )
        )
    return Comparison(found.source, Table("Runs, best first", columns, tuple(cells), wide=(0,)), notes, given)
