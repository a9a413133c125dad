"""A record: a case, its three sources, and the environment that they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
