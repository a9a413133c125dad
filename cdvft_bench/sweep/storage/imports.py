"""Rows from elsewhere, by the ending of their file: stores, tables, and what a bare node wrote.

What ``python -m cdvft_bench.timing`` writes has the text form of a store already, with the clock's part alone. Here
the closed form is added, and the suite's own names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cdvft_bench.core.case import FROZEN
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import shown
from cdvft_bench.core.record import Record
from cdvft_bench.core.timed import Timing
from cdvft_bench.sweep.evaluate import label, predict
from cdvft_bench.sweep.grid import make_case
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.sweep.storage.tables import SUFFIXES, put_table, read_table, refuse_unknown
from cdvft_bench.sweep.storage.textform import no_record, read_text, unknown_in_text


def check_rows(path: Path) -> None:
    """Read a file without taking anything over.

    Raises:
        UserError: it is missing, damaged, or of none of these kinds.
    """
    if path.suffix in SUFFIXES:
        read_table(path)
        return
    if path.suffix == ".jsonl":
        read_slice(path)
    else:
        check_whole(path)
    check_fields(path)


def check_whole(path: Path) -> None:
    """Read all of a store.

    Raises:
        UserError: a record cannot be read, or its environment is missing.
    """
    with Store(path) as store:
        environments = store.environments()
        for record in store.records():
            if record.environment not in environments:
                key, lacks = record.case.key, record.environment
                raise UserError(
                    f"store {shown(path)} is damaged: record {key} names the environment {lacks!r}, which "
                    "is missing; restore the file"
                )


def check_fields(path: Path) -> None:
    """Refuse a store, of either form, that holds what this version would lose on writing it anew.

    Raises:
        UserError: it does, or cannot be read.
    """
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        refuse_unknown(path, unknown_in_text(path))
    else:
        with Store(path) as store:
            refuse_unknown(path, store.unknown_field())


def put_rows(store: Store, path: Path) -> int:
    """Take a file's records over into a store; returns how many came. Raises as :func:`check_rows`."""
    if path.suffix in SUFFIXES:
        return put_table(store, path)
    if path.suffix == ".jsonl":
        return put_slice(store, path)
    with Store(path) as other:
        return store.merge(other)


@dataclass(frozen=True)
class Slice:
    """What a bare node's file holds.

    Attributes:
        records: the last row of every case and environment that did not fail, else its last one.
        environments: by key.
    """

    records: tuple[Record, ...]
    environments: Mapping[str, Environment]


def read_slice(path: str | Path) -> Slice:
    """Read a bare node's file; formulas are added, nothing is counted.

    Raises:
        UserError: it cannot be read, or a line is no row; the message has its number.
    """
    records: dict[tuple[str, str], Record] = {}
    environments: dict[str, Environment] = {}
    for number, line in read_text(path):
        if line.environment is not None:
            environments[line.key or line.environment.key] = line.environment
        if line.record is None:
            continue
        try:
            record = _whole(line.record)
            if record.environment not in environments:
                raise UserError(f"no line before it holds its environment {record.environment!r}")
        except UserError as error:
            raise UserError(no_record(path, number, error)) from error
        before = records.get((record.case.key, record.environment))
        if before is None or record.status == "ok" or before.status != "ok":
            if before is not None and not record.sequence:  # a later line is later, whatever the clock said
                record = replace(record, sequence=max(record.order, before.order + 1))
            records[record.case.key, record.environment] = record
    if not records:
        raise UserError(
            f"{shown(path)} holds no row; 'python -m cdvft_bench.timing --output {shown(path)} ...' writes some"
        )
    return Slice(tuple(records.values()), environments)


def put_slice(store: Store, path: str | Path) -> int:
    """Take a bare node's file over into a store; returns how many records came.

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
        if (
            mine is not None
            and mine.status == "ok"
            and (record.status != "ok" or (mine.counted is not None and record.counted is None))
        ):
            continue
        if mine is not None and mine.order >= record.order and mine.status == record.status:
            continue
        store.put(record)
        taken += 1
    return taken


def _whole(record: Record) -> Record:
    """The record with the suite's label and its closed form."""
    case = record.case
    made = make_case(
        case.method,
        dict(case.hyperparameters),
        case.kind,
        case.subject,
        case.batch,
        case.sequence,
        case.dtype,
        case.pass_,
        case.device,
        case.seed,
    )
    if made != case:
        raise UserError("its case is not written as this suite writes it")
    name = label(case)
    timed = record.timed
    if timed is not None and case.method != FROZEN:
        timed = replace(timed, timing=_named(timed.timing, name))
        if timed.replays is not None:
            timed = replace(timed, replays=replace(timed.replays, timing=_named(timed.replays.timing, name)))
    predicted = predict(case) if record.status == "ok" else None
    return replace(record, label=name, timed=timed, predicted=predicted)


def _named(timing: Timing | None, name: str) -> Timing | None:
    """A timing whose subject has this name."""
    if timing is None or not timing.samples:
        return timing
    first, *others = timing.samples
    return replace(timing, samples=(replace(first, name=name), *others))
