"""Which records belong together: sections (what may be compared at all) and workloads (what is compared)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cdvft_bench.core.case import FROZEN, Case, Value
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import clean, slug
from cdvft_bench.methods.base import method_class


@dataclass(frozen=True, order=True)
class Workload:
    """Batch, sequence and pass: records of one section and one workload are compared with each other."""

    pass_: str
    batch: int
    sequence: int

    @property
    def title(self) -> str:
        """For sentences and captions."""
        return f"{self.pass_}, batch {self.batch} × sequence {self.sequence}"

    @property
    def short(self) -> str:
        """For panels of a figure."""
        return f"{self.pass_}, {self.batch} × {self.sequence} tokens"


@dataclass(frozen=True)
class Section:
    """Records of one subject in one dtype on one machine.

    Attributes:
        environment: key of the environment row.
        machine: how the report calls that environment, "" where it has only one.
        kind, subject, device, dtype: as in ``Case``.
        anchor: start of file names and anchors, one section's own.
        records: sorted; the latest of every case.
    """

    environment: str
    machine: str
    kind: str
    subject: str
    device: str
    dtype: str
    anchor: str
    records: tuple[Record, ...]

    @property
    def title(self) -> str:
        """Heading."""
        return clean(", ".join(filter(None, (self.subject, self.dtype, self.device, self.machine))))

    @property
    def ok(self) -> tuple[Record, ...]:
        """Records that did not fail."""
        return tuple(r for r in self.records if r.status == "ok")

    def workloads(self) -> dict[Workload, tuple[Record, ...]]:
        """Records that did not fail, by workload: steps before forward passes, small workloads first."""
        found: dict[Workload, list[Record]] = {}
        for record in self.ok:
            found.setdefault(workload(record.case), []).append(record)
        order = sorted(found, key=lambda w: (w.pass_ != "step", w.batch * w.sequence, w))
        return {w: tuple(found[w]) for w in order}


def workload(case: Case) -> Workload:
    """The workload of a case."""
    return Workload(case.pass_, case.batch, case.sequence)


def latest(records: Iterable[Record]) -> tuple[list[Record], int]:
    """The newest record of every case on every machine, in a stable order, and how many older ones it replaces."""
    newest: dict[tuple[str, str], Record] = {}
    seen = 0
    for record in records:
        seen += 1
        key = (record.case.key, record.environment)
        if key not in newest or (record.created, record.seconds) >= (newest[key].created, newest[key].seconds):
            newest[key] = record
    kept = sorted(newest.values(), key=_order)
    return kept, seen - len(kept)


def sections(records: Iterable[Record]) -> list[Section]:
    """Group records; machines are named "machine 1", "machine 2" … where there are several."""
    kept = sorted(records, key=_order)
    environments = sorted({r.environment for r in kept})
    names = {key: f"machine {i}" if len(environments) > 1 else "" for i, key in enumerate(environments, 1)}
    found: dict[tuple[str, str, str, str, str], list[Record]] = {}
    for record in kept:
        case = record.case
        found.setdefault((record.environment, case.kind, case.subject, case.device, case.dtype), []).append(record)
    made: list[Section] = []
    for (environment, kind, subject, device, dtype), rows in found.items():
        machine = names[environment]
        anchor = slug(f"{kind} {subject} {dtype} {device} {machine}")
        same = sum(other.anchor.rpartition("--")[0] == anchor or other.anchor == anchor for other in made)
        anchor = f"{anchor}--{same + 1}" if same else anchor
        made.append(Section(environment, machine, kind, subject, device, dtype, anchor, tuple(rows)))
    return made


def _order(record: Record) -> tuple[object, ...]:
    case = record.case
    subject = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", case.subject)]
    values = tuple((name, type(value).__name__, value) for name, value in case.hyperparameters)
    where = (record.environment, case.kind, [str(s).rjust(9) for s in subject], case.device, case.dtype)
    what = (case.pass_ != "step", case.tokens, case.batch, case.method != "frozen", case.method)
    return (*where, *what, values, case.seed, case.key)


def hyperparameter(case: Case, name: str, default: Value | None = None) -> Value | None:
    """A hyperparameter of the case, or ``default`` where it was left unset."""
    return dict(case.hyperparameters).get(name, default)


def title_of(method: str) -> str:
    """How tables and figures write a method's name."""
    try:
        return method_class(method).title
    except UserError:
        return clean(method)


def is_frozen(case: Case) -> bool:
    """Whether this is the frozen subject, the foot of every ratio."""
    return case.method == FROZEN


def is_lora8(case: Case) -> bool:
    """Whether this is LoRA of rank 8, the second foot."""
    rank = hyperparameter(case, "r", hyperparameter(case, "rank", 8))
    return case.method == "lora" and rank == 8


def paper_setting(records: Iterable[Record]) -> list[Record]:
    """CDVFT as the paper sets it: m = 2 at the largest block size there is, one record a path."""
    chosen = [r for r in records if r.case.method == "cdvft" and hyperparameter(r.case, "m", 2) == 2]
    sizes = [size for r in chosen if isinstance(size := hyperparameter(r.case, "block_size"), int)]
    unset = [r for r in chosen if hyperparameter(r.case, "block_size") is None]
    largest = max(sizes, default=None)
    return unset or [r for r in chosen if hyperparameter(r.case, "block_size") == largest]
