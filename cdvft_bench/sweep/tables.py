"""Stores as flat tables, CSV or Parquet, and back: readable columns for other tools, the whole record beside them.

The columns ``record`` and ``environment_row`` hold JSON and are what is read back; the others repeat parts of them.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.files import replacing
from cdvft_bench.core.record import Record
from cdvft_bench.sweep.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

SUFFIXES = (".csv", ".parquet")


def to_table(store: Store) -> DataFrame:
    """One row a record."""
    from pandas import DataFrame

    encoder = msgspec.json.Encoder(order="sorted")
    environments = {key: encoder.encode(e).decode() for key, e in store.environments().items()}
    rows = []
    for record in store.records():
        case, timed = record.case, record.timed
        timing = timed.timing if timed else None
        ratio = timing.ratios.get("frozen") if timing else None
        rows.append({
            "key": case.key,
            "method": case.method,
            "label": record.label,
            "kind": case.kind,
            "subject": case.subject,
            "batch": case.batch,
            "sequence": case.sequence,
            "dtype": case.dtype,
            "pass": case.pass_,
            "device": case.device,
            "status": record.status,
            "error": record.error,
            "parameters": record.predicted.parameters if record.predicted else None,
            "median_s": timing.samples[0].median if timing and timing.samples else None,
            "ratio_to_frozen": ratio.value if ratio else None,
            "created": record.created,
            "environment": record.environment,
            "record": encoder.encode(record).decode(),
            "environment_row": environments[record.environment],
        })  # fmt: skip
    return DataFrame(rows, columns=list(rows[0]) if rows else ["record", "environment_row"], dtype=object)


def write_table(store: Store, path: Path) -> int:
    """Write a store as .csv or .parquet, whole or not at all; the number of rows.

    Raises:
        UserError: the ending is neither, a package is missing, or the file cannot be written.
    """
    _check(path)
    frame = to_table(store)
    with replacing(path) as part:
        if path.suffix == ".parquet":
            frame.convert_dtypes().to_parquet(part, index=False)
        else:
            frame.to_csv(part, index=False, lineterminator="\n")
    return len(frame)


def read_table(path: Path) -> list[tuple[Record, Environment]]:
    """The records of a table and the environment of each.

    Raises:
        UserError: the ending is neither .csv nor .parquet, the file is damaged, or it is not such a table.
    """
    import pandas

    _check(path)
    try:
        frame: Any = (
            pandas.read_parquet(path)
            if path.suffix == ".parquet"
            else pandas.read_csv(path, dtype=str, keep_default_na=False)
        )
    except Exception as error:  # pandas raises what its backends raise
        raise UserError(f"{path} cannot be read: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    for column in ("record", "environment_row"):
        if column not in frame.columns:
            raise UserError(f"{path} has no column {column!r}; give a table that 'cdvft-bench export' wrote")
    found = []
    pairs = zip(frame["record"], frame["environment_row"], strict=True)
    for number, (record, environment) in enumerate(pairs, 1):
        try:
            pair = msgspec.json.decode(record, type=Record), msgspec.json.decode(environment, type=Environment)
        except (msgspec.DecodeError, TypeError, UnicodeError) as error:
            raise UserError(f"{path}, row {number} is no record: {error}") from error
        found.append(pair)
    return found


def put_table(store: Store, path: Path) -> int:
    """Take a table's records over into a store, as ``Store.take`` does; how many came.

    Raises UserError as :func:`read_table`.
    """
    rows = read_table(path)
    return store.take({record.environment: e for record, e in rows}, (record for record, _ in rows))


def _check(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise UserError(f"{str(path)!r} must end in {' or '.join(SUFFIXES)}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError("Parquet needs the package pyarrow, which is not installed; pip install 'cdvft-bench[parquet]'")
