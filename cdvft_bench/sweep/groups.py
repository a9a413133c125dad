"""Groups: all settings of one subject and workload, which are timed in one process, in the same rounds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from cdvft_bench.core.case import FROZEN, Case, baselines
from cdvft_bench.core.record import Record
from cdvft_bench.core.timed import Timing

PROCESSES = 3
"""In which a group is timed: fewer say nothing of the next one."""


@dataclass
class Group:
    """Cases that share their baselines and their rounds.

    Attributes:
        cases: that records are kept of.
        key: the same for all of their records, see ``Timing.group``.
        processes: in which they have been timed. seconds: that the last of them took, if it was in this run.
    """

    cases: list[Case]
    key: str
    processes: int = 0
    seconds: float = 0.0

    @property
    def title(self) -> str:
        """For a progress bar."""
        first = self.cases[0]
        return f"{first.subject}, {first.pass_}, {first.batch} × {first.sequence} tokens"

    def contenders(self) -> list[Case]:
        """What is timed: the two baselines, then the other cases."""
        return list(dict.fromkeys((*beside(self.cases[0]).values(), *self.cases)))


def beside(case: Case) -> dict[str, Case]:
    """The baselines of a case's group, by the names that timings have for them."""
    plain = replace(case, method=FROZEN, hyperparameters=())
    return {FROZEN: plain, **baselines(plain)}


def workload(case: Case) -> Case:
    """What all cases of a group have in common."""
    return replace(case, method=FROZEN, hyperparameters=())


def new_key(cases: Iterable[Case], environment: str, created: str) -> str:
    """A key of a group that has not been timed yet."""
    words = [environment, created, *sorted(case.key for case in cases)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]


def timing_of(record: Record | None) -> Timing | None:
    """A record's timing, if it was timed in a group."""
    timing = record.timed.timing if record is not None and record.timed is not None else None
    return timing if timing is not None and timing.group else None


def grouped(
    cases: Iterable[Case], found: Mapping[str, Record], environment: str, created: str, retry_failed: bool = False
) -> Iterator[Group]:
    """Groups of cases; those that have been timed together stay together, the others of a workload make a new one.

    Args:
        cases: in the order in which they are to be run. found: their records on this machine, by key.
        environment, created: of the run, for keys. retry_failed: whether failed cases are to be run again.
    """
    made: dict[tuple[Case, str, int], list[Case]] = {}
    for case in dict.fromkeys(cases):
        record = found.get(case.key)
        if record is not None and record.status == "failed" and not retry_failed:
            continue
        timing = timing_of(record)
        place = (workload(case), "", 0) if timing is None else (workload(case), timing.group, timing.processes)
        made.setdefault(place, []).append(case)
    for (_, key, processes), members in made.items():
        yield Group(members, key or new_key(members, environment, created), processes)
