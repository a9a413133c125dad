"""A record: a case, its three sources, and the environment that they come from."""

import math
from dataclasses import dataclass, field, is_dataclass
from datetime import datetime
from typing import Literal, get_args

from cdvft_bench.core.case import Case
from cdvft_bench.core.counted import Counted
from cdvft_bench.core.timed import Timed

Status = Literal["ok", "failed"]


@dataclass(frozen=True)
class PredictedPass:
    """One pass by closed form.

    Attributes:
        macs, elementwise_flops, ffts, launches, read, written: exact, see ``analytic.cost.Totals``.
        flops: FLOPs by counting convention.
        fft_flops: FLOPs of the FFTs alone by counting convention.
        operators: launches by ATen operator name.
        adapter_flops, adapter_launches: the adapter's share (everything but the frozen base).
    """

    macs: int
    elementwise_flops: int
    ffts: int
    launches: int
    read: int
    written: int
    flops: dict[str, float]
    fft_flops: dict[str, float]
    operators: dict[str, int]
    adapter_flops: dict[str, float]
    adapter_launches: int


@dataclass(frozen=True)
class Predicted:
    """What the closed forms say. For a model, passes cover its linear layers and attention products, see ``covers``."""

    parameters: int
    forward: PredictedPass
    backward: PredictedPass
    update: PredictedPass
    saved_bytes: int | None
    optimizer_bytes: int
    covers: str = "whole layer"


@dataclass(frozen=True)
class Record:
    """One row of the store.

    Attributes:
        case: what was asked.
        status: "ok", or "failed" with ``error``.
        label: the method with its hyperparameters, for tables.
        predicted, counted, timed: the sources; None where one was not asked or is not available.
        error: cause of the failure, one line.
        environment: key of the environment row.
        created: UTC time, ISO 8601.
        seconds: wall-clock that the case took in all.
        sequence: greater than that of every record before it in its store, whatever the clock says: milliseconds
            since 1970, or one more than the greatest before it; 0 in no store yet.
    """

    case: Case
    status: Status
    label: str
    predicted: Predicted | None
    counted: Counted | None
    timed: Timed | None
    error: str | None
    environment: str
    created: str
    seconds: float
    sequence: int = field(default=0, compare=False)

    @property
    def order(self) -> int:
        """The greater, the later: the sequence, or the time where there is none."""
        return self.sequence or round(1000 * datetime.fromisoformat(self.created).timestamp())


_SIGNED = {"launch_seconds", "differences", "correlation"}
"""Fields of a record that may be negative: differences of two times, which may be noise about 0; correlations."""


def check_record(record: Record) -> None:
    """Refuse what no run of the suite records, in a record from a file.

    Raises:
        ValueError: a number is not finite, negative or too large, a time names no offset from UTC, or the case's
            workload has no rows; says where.
    """
    for name, text in (("status", record.status), ("label", record.label), ("environment", record.environment)):
        if not isinstance(text, str):
            raise ValueError(f"{name} = {text!r:.40} is no text")
    if record.status not in get_args(Status):
        raise ValueError(f"status = {record.status!r:.40} is neither ok nor failed")
    if not (record.error is None or isinstance(record.error, str)):
        raise ValueError(f"error = {record.error!r:.40} is no text")
    try:
        offset = datetime.fromisoformat(record.created).utcoffset()
    except (TypeError, ValueError):
        raise ValueError(f"created = {record.created!r:.40} is no time as 2026-01-31T12:00:00+00:00") from None
    if offset is None:
        raise ValueError(f"created = {record.created!r} names no offset from UTC")
    _check_numbers(record, "")
    case = record.case
    for name, size in (("batch", case.batch), ("sequence", case.sequence)):
        if size < 1:
            raise ValueError(f"case.{name} = {size} is no number of rows; it is >= 1")


def _check_numbers(value: object, where: str) -> None:
    if isinstance(value, float | int):
        if not 0 <= value < (2**63 if isinstance(value, int) else math.inf):
            rule = "whole number from 0 to 2^63" if isinstance(value, int) else "finite number >= 0"
            raise ValueError(f"{where} = {value!s:.40} is no {rule}")
    elif isinstance(value, tuple | list):
        for i, part in enumerate(value):
            if type(part) is not float or not 0 <= part < math.inf:  # most are samples: no name is made for those
                _check_numbers(part, f"{where}[{i}]")
    elif isinstance(value, dict):
        for key, part in value.items():
            _check_numbers(part, f"{where}.{key}")
    elif is_dataclass(value):
        for name, part in vars(value).items():
            if name not in _SIGNED and name != "hyperparameters":
                _check_numbers(part, f"{where}.{name}".lstrip("."))
