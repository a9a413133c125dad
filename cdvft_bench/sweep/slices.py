"""Rows that ``python -m cdvft_bench.timing`` wrote on a bare node, as records of a store.

Such a file has the text form of a store already, with the clock's witness alone and perhaps an unfinished
last line. Here the closed form is added, and the suite's own names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.sweep import evaluate as witness
from cdvft_bench.sweep.grid import FROZEN, make_case
from cdvft_bench.sweep.store import Store, _Line
from cdvft_bench.timing.environment import Environment


@dataclass(frozen=True)
class Slice:
    """What a file of rows holds.

    Attributes:
        records: the last row of every case that did not fail, else its last one.
        environments: by key. unfinished: whether a last line was cut off while it was written.
    """

    records: tuple[Record, ...]
    environments: Mapping[str, Environment]
    unfinished: bool = False


def read_slice(path: str | Path) -> Slice:
    """Read a file of rows; formulas are added, nothing is counted.

    Raises:
        UserError: it cannot be read, or a line is no row; the message has its number.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    end = data.rfind(b"\n") + 1
    records: dict[str, Record] = {}
    environments: dict[str, Environment] = {}
    for number, line in enumerate(data[:end].splitlines(), 1):
        try:
            entry = msgspec.json.decode(line, type=_Line)
            if entry.environment is not None:
                environments[entry.key or entry.environment.key] = entry.environment
            if entry.record is not None:
                record = _whole(entry.record)
                if record.environment not in environments:
                    raise UserError(f"no line before it holds its environment {record.environment!r}")
                before = records.get(record.case.key)
                if before is None or record.status == "ok" or before.status != "ok":
                    records[record.case.key] = record
        except (msgspec.DecodeError, UnicodeError, UserError) as error:
            raise UserError(f"{path}, line {number} is no row of a slice: {error}") from error
    if not records:
        raise UserError(f"{path} holds no row; 'python -m cdvft_bench.timing --output {path} ...' writes some")
    return Slice(tuple(records.values()), environments, end < len(data))


def import_slice(path: str | Path) -> list[Record]:
    """The records of a file of rows, see :func:`read_slice`."""
    return list(read_slice(path).records)


def put_slice(store: Store, path: str | Path) -> int:
    """Take a file of rows over into a store; returns how many records came.

    A record that was counted as well is not replaced by one that was only timed, nor a finished one by a failed one.

    Raises:
        UserError: as :func:`read_slice`, or the store cannot be written.
    """
    read = read_slice(path)
    for environment in read.environments.values():
        store.put_environment(environment)
    taken = 0
    for record in read.records:
        mine = store.get(record.case.key, record.environment)
        if mine is not None and mine.status == "ok" and (record.status != "ok" or mine.counted is not None):
            continue
        if mine is not None and mine.created >= record.created and mine.status == record.status:
            continue
        store.put(record)
        taken += 1
    return taken


def _whole(record: Record) -> Record:
    """The record with the suite's label and its closed form."""
    case = record.case
    made = make_case(
        case.method, dict(case.hyperparameters), case.kind, case.subject, case.batch, case.sequence, case.dtype,
        case.pass_, case.device, case.seed,
    )  # fmt: skip
    if made != case:
        raise UserError("its case is not written as this suite writes it")
    label = witness.label(case)
    timed = record.timed
    if timed is not None and timed.timing is not None and timed.timing.samples:
        first, *others = timed.timing.samples
        named = (replace(first, name=label if case.method != FROZEN else first.name), *others)
        timed = replace(timed, timing=replace(timed.timing, samples=named))
    predicted = witness.predict(case) if record.status == "ok" else None
    return replace(record, label=label, timed=timed, predicted=predicted)
