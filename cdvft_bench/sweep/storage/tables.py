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
from cdvft_bench.core.io.decode import unknown_field
from cdvft_bench.core.io.files import replacing, shown
from cdvft_bench.core.io.reading import read_rows, reason_of
from cdvft_bench.core.record import Record, check_record
from cdvft_bench.core.text import harmless
from cdvft_bench.sweep.storage.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

SUFFIXES = (".csv", ".parquet")
_READ = ("record", "environment_row")
_ADVICE = "give a table that 'cdvft-bench export' wrote"
_Table = tuple[tuple[str, ...], list[tuple[str, tuple[Any, Any]]]]
"""Columns, and the name and the two cells of each row."""


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
        rows.append(
            {
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
            }
        )
    return DataFrame(rows, columns=list(rows[0]) if rows else ["record", "environment_row"], dtype=object)


def write_table(store: Store, path: Path) -> int:
    """Write a store as .csv or .parquet, whole or not at all; the number of rows.

    Raises:
        UserError: the ending is neither, a package is missing, or the file cannot be written.
    """
    _check(path)
    frame = to_table(store).map(harmless)
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
    _check(path)
    columns, rows = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    for column in _READ:
        if column not in columns:
            raise UserError(f"{shown(path)} has no column {column!r}; {_ADVICE}")
    found = []
    for number, (record, environment) in rows:
        try:
            pair = msgspec.json.decode(record, type=Record), msgspec.json.decode(environment, type=Environment)
            check_record(pair[0])
        except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{shown(path)}, {number} is no record: {error}; {_ADVICE}") from error
        for kind, text, name in ((Record, record, _READ[0]), (Environment, environment, _READ[1])):
            refuse_unknown(path, unknown_field(kind, msgspec.json.decode(text), name))
        found.append(pair)
    return found


def refuse_unknown(path: str | Path, field: str | None) -> None:
    """Refuse to take over, or to write anew, what a newer version has recorded: the field would be lost."""
    if field is not None:
        raise UserError(f"{shown(path)} holds {field}, which this version would lose; update cdvft-bench")


def _read_csv(path: Path) -> _Table:
    table = read_rows(path, "table", _ADVICE)
    return table.columns, [(f"line {n}", (row.get(_READ[0]), row.get(_READ[1]))) for n, row in table.rows]


def _read_parquet(path: Path) -> _Table:
    import pandas

    try:
        frame: Any = pandas.read_parquet(path)
    except Exception as error:  # pandas raises what its backends raise
        raise UserError(f"table {shown(path)} cannot be read: {reason_of(error)}; {_ADVICE}") from error
    if not {*_READ} <= {*frame.columns}:
        return tuple(map(str, frame.columns)), []
    pairs = zip(frame[_READ[0]], frame[_READ[1]], strict=True)
    return _READ, [(f"row {number}", pair) for number, pair in enumerate(pairs, 1)]


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
