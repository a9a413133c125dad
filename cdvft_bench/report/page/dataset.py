"""Records as columns: what the page's tables and interactive figures read, in as few bytes as can be.

Texts are numbered by a dictionary, figures rounded to five significant digits (the CSV files hold
them in full). A block is a line of JSON, which says what the columns are, and behind it their values
as arrays of numbers, so that a browser reads a hundred thousand rows without parsing them. It is
compressed and written in base 64: an alphabet in which no text of a record can end a tag or begin a
script.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.analysis.agreement import (
    WHOLE,
    adapter_flops,
    compare,
    counted_launches,
    counted_passes,
    differing_operators,
    median_seconds,
    predicted_flops,
    predicted_launches,
    predicted_passes,
    ratio_to_frozen,
    ratio_to_lora8,
    total,
    trainable,
)
from cdvft_bench.analysis.groups import hyperparameter, is_frozen
from cdvft_bench.core.case import Case, SubjectKind, Value
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import NOT_MEASURED, clean
from cdvft_bench.report.figures.lines import resolved
from cdvft_bench.report.figures.panels import CONVENTION
from cdvft_bench.timing.traces.families import coarse, operator_family

Kind = Literal["text", "count", "ratio", "number", "bytes", "flops"]
FAMILIES = ("matmul", "fft", "elementwise", "reduction", "copy", "native", "other")
DIGITS = 5


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: for programs. title, unit: for readers.
        kind: how a value is written; "text" columns hold strings, the others numbers or None (not measured).
        values: one a row.
        shown: whether tables show it; the others serve figures and provenance.
    """

    name: str
    title: str
    unit: str
    kind: Kind
    values: Sequence[str] | Sequence[float | None]
    shown: bool = True


def embed(columns: Sequence[Column]) -> str:
    """Columns as a compressed block in base 64; the same columns give the same text.

    The block is a line of JSON and arrays of little-endian numbers; each column's JSON names its ``type`` (u1, u2 or
    u4: places in its ``words``; f4 or f8: figures, NaN where not measured) and ``at``, the byte behind the line where
    its array begins, a multiple of 8.
    """
    heads: list[dict[str, object]] = []
    arrays: list[bytes] = []
    at = 0
    for column in columns:
        head, values = _packed(column)
        array = values.tobytes()
        heads.append(head | {"type": values.dtype.str[1:], "at": at})
        arrays.append(array + b"\0" * (-len(array) % 8))
        at += len(arrays[-1])
    document = {"rows": len(columns[0].values) if columns else 0, "columns": heads}
    line = json.dumps(document, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
    return compressed(b"".join([line, b" " * (-(len(line) + 1) % 8), b"\n", *arrays]))


def compressed(data: bytes) -> str:
    """Bytes as gzip (without a time) in base 64."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def _packed(column: Column) -> tuple[dict[str, object], NDArray[Any]]:
    packed: dict[str, object] = {"name": column.name, "title": column.title, "unit": column.unit, "kind": column.kind}
    packed["shown"] = column.shown
    if column.kind == "text":
        texts = [clean(value) for value in column.values]
        words = {text: i for i, text in enumerate(sorted(set(texts)))}
        kind = "u1" if len(words) <= 1 << 8 else "<u2" if len(words) <= 1 << 16 else "<u4"
        return packed | {"words": list(words)}, np.array([words[text] for text in texts], kind)
    return packed, _figures(column.values)


def _figures(values: Sequence[object]) -> NDArray[Any]:
    """In four bytes each where these hold whole numbers exactly and others to their digits, else in eight."""
    wide = np.array([math.nan if (v := _rounded(value)) is None else v for value in values], "<f8")
    with np.errstate(over="ignore", under="ignore"):
        narrow = wide.astype("<f4")
    held = np.isclose(narrow, wide, rtol=1e-6, atol=0.0, equal_nan=True)
    whole = (narrow == wide) | ~(wide % 1 == 0)
    return narrow if bool((held & whole).all()) else wide


def _rounded(value: object) -> float | int | None:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if isinstance(value, int) or float(value).is_integer():
        return int(value)
    return float(f"{value:.{DIGITS}g}")


def machine(environment: object, device: str) -> str:
    """What a record ran on, by name: the GPU or the CPU of its environment row."""
    fields = asdict(environment) if is_dataclass(environment) and not isinstance(environment, type) else environment
    if not isinstance(fields, Mapping):
        return NOT_MEASURED.replace("measured", "recorded")
    gpus = fields.get("gpus") or fields.get("gpu")
    gpu = gpus[0] if isinstance(gpus, list | tuple) and gpus else gpus
    return clean((gpu if device != "cpu" else None) or fields.get("cpu") or "not recorded")


def command(case: Case) -> str:
    """What predicts, counts and times one case again; for a POSIX shell, whatever the record holds."""
    return f"cdvft-bench time {_method_words(case)} {_where_words(case)}"


def _method_words(case: Case) -> str:
    words = [case.method, *(f"{name}={value}" for name, value in case.hyperparameters)]
    return " ".join(shlex.quote(clean(word)) for word in words)


def _where_words(case: Case) -> str:
    options = (
        (f"--{case.kind}", case.subject), ("--batch", case.batch), ("--tokens", case.sequence),
        ("--dtype", case.dtype), ("--pass", case.pass_), ("--device", case.device),
    )  # fmt: skip
    return " ".join(f"{name} {shlex.quote(clean(value))}" for name, value in options)


def agreement(record: Record) -> str:
    """Whether formula and count agree on everything of a record: "exact", "differs" or "not measured"."""
    if record.predicted is None or record.counted is None:
        return NOT_MEASURED
    passes = dict(predicted_passes(record))
    for name, counted in ((WHOLE, None), *counted_passes(record).items()):
        if compare(record, name) or differing_operators(passes.get(name), counted):
            return "differs"
    return "exact"


def launches_by_family(record: Record) -> Counter[str]:
    """Dispatched launches of the case's passes by kernel family; empty where a pass was not counted."""
    passes = list(counted_passes(record).values())
    found: Counter[str] = Counter()
    if all(passes):
        for one in passes:
            for operator, n in one.operators.items() if one else ():
                found[coarse(operator_family(operator))] += n
    return found


def _bound(read: Callable[[Record], object], which: str) -> Callable[[Record], float | None]:
    def value(record: Record) -> float | None:
        found = getattr(read(record), which, None)
        return found if isinstance(found, int | float) else None

    return value


def _ms(record: Record, which: str) -> float | None:
    timing = record.timed.timing if record.timed else None
    return 1e3 * float(getattr(timing.samples[0], which)) if timing and timing.samples else None


def _warning(record: Record) -> str:
    timing = record.timed.timing if record.timed else None
    return "; ".join(timing.warnings) if timing and timing.warnings else "none" if timing else NOT_MEASURED


_NUMBERS: tuple[tuple[str, str, str, Kind, Callable[[Record], float | None]], ...] = (
    ("frozen", "time ÷ frozen", "×", "ratio", _bound(ratio_to_frozen, "value")),
    ("frozen_low", "time ÷ frozen, low", "×", "ratio", _bound(ratio_to_frozen, "low")),
    ("frozen_high", "time ÷ frozen, high", "×", "ratio", _bound(ratio_to_frozen, "high")),
    ("lora", "time ÷ LoRA r=8", "×", "ratio", _bound(ratio_to_lora8, "value")),
    ("lora_low", "time ÷ LoRA r=8, low", "×", "ratio", _bound(ratio_to_lora8, "low")),
    ("lora_high", "time ÷ LoRA r=8, high", "×", "ratio", _bound(ratio_to_lora8, "high")),
    ("median", "time of a call", "ms", "number", lambda r: None if (s := median_seconds(r)) is None else 1e3 * s),
    ("q25", "first quartile", "ms", "number", lambda r: _ms(r, "q25")),
    ("q75", "third quartile", "ms", "number", lambda r: _ms(r, "q75")),
    ("parameters", "trainable parameters", "", "count", trainable),
    ("adapter_flops", "adapter's FLOPs, formula", f'FLOP, "{CONVENTION}"', "flops",
     lambda r: adapter_flops(r, CONVENTION)),
    ("flops", "FLOPs in all, formula", f'FLOP, "{CONVENTION}"', "flops", lambda r: predicted_flops(r, CONVENTION)),
    ("traffic", "read and written, formula", "bytes", "bytes",
     lambda r: total(one.read + one.written for _, one in predicted_passes(r))),
    ("launches_formula", "launches, formula", "", "count", predicted_launches),
    ("launches", "launches, dispatched", "", "count", counted_launches),
    ("launches_profiler", "launches, profiler", "", "count",
     lambda r: r.timed.trace.launches if r.timed and r.timed.trace else None),
    ("saved", "kept for backward", "bytes", "bytes", lambda r: r.counted.saved_bytes if r.counted else None),
    ("peak", "peak of a call", "bytes", "bytes",
     lambda r: r.timed.memory.peak_bytes if r.timed and r.timed.memory else None),
    ("energy", "energy of a call", "J", "number",
     lambda r: r.timed.energy.joules if r.timed and r.timed.energy else None),
    ("m", "diagonals m", "", "count", lambda r: _size(r.case, "m")),
    ("p", "block size p", "", "count", lambda r: _size(r.case, "block_size")),
    ("batch", "batch", "", "count", lambda r: r.case.batch),
    ("sequence", "sequence", "", "count", lambda r: r.case.sequence),
    ("tokens", "tokens", "", "count", lambda r: r.case.tokens),
    ("seed", "seed", "", "count", lambda r: r.case.seed),
)  # fmt: skip
_UNSHOWN = {"frozen_low", "frozen_high", "lora_low", "lora_high", "q25", "q75", "m", "p", "batch", "sequence", "seed",
            "traffic", "flops"}  # fmt: skip


def _size(case: Case, name: str) -> int | None:
    return _sizes(case.method, case.hyperparameters, case.kind, case.subject).get(name)


@cache
def _sizes(
    method: str, hyperparameters: tuple[tuple[str, Value], ...], kind: SubjectKind, subject: str
) -> dict[str, int]:
    values = resolved(Case(method, hyperparameters, kind, subject, 1, 1))
    return {k: v for k, v in values.items() if isinstance(v, int) and not isinstance(v, bool)}


def record_columns(
    records: Sequence[Record],
    environments: Mapping[str, object],
    stores: Mapping[int, str],
    predicted_ms: Mapping[tuple[str, str], float] | None = None,
) -> list[Column]:
    """One row a record, with all that names its origin.

    Args:
        records: rows, in order.
        environments: environment rows by key.
        stores: the store's name by ``id`` of a record.
        predicted_ms: predicted milliseconds of a call by (case key, environment), where a predictor spoke.
    """
    machines = {(r.environment, r.case.device): "" for r in records}
    machines = {key: machine(environments.get(key[0]), key[1]) for key in machines}
    texts: tuple[tuple[str, str, Callable[[Record], str], bool], ...] = (
        ("setting", "setting", lambda r: r.label, True),
        ("method", "method", lambda r: r.case.method, False),
        ("subject", "layer or model", lambda r: r.case.subject, True),
        ("workload", "workload", lambda r: f"{r.case.pass_}, {r.case.batch} × {r.case.sequence}", True),
        ("pass", "pass", lambda r: r.case.pass_, False),
        ("dtype", "dtype", lambda r: r.case.dtype, True),
        ("device", "device", lambda r: r.case.device, True),
        ("machine", "machine", lambda r: machines[r.environment, r.case.device], True),
        ("status", "status", lambda r: r.status, True),
        ("agreement", "formula against count", agreement, True),
        ("warnings", "the clock warns", _warning, True),
        ("error", "error", lambda r: r.error or "none", True),
        ("frozen_one", "is the frozen subject", lambda r: "yes" if is_frozen(r.case) else "no", False),
        ("path", "path", lambda r: str(hyperparameter(r.case, "path", "") or ""), False),
        ("key", "row key", lambda r: r.case.key, True),
        ("store", "store", lambda r: stores.get(id(r), "not recorded"), True),
        ("created", "recorded", lambda r: r.created, True),
        ("environment", "environment", lambda r: r.environment, False),
        ("command_method", "command", lambda r: _method_words(r.case), False),
        ("command_where", "command", lambda r: _where_words(r.case), False),
    )
    families = [launches_by_family(r) for r in records]
    columns = [Column(name, title, "", "text", [read(r) for r in records], shown) for name, title, read, shown in texts]
    figures = [
        Column(name, title, unit, kind, [read(r) for r in records], name not in _UNSHOWN)
        for name, title, unit, kind, read in _NUMBERS
    ]
    if predicted_ms:
        guesses = [predicted_ms.get((r.case.key, r.environment)) for r in records]
        figures.append(Column("predicted", "time of a call, predicted", "ms", "number", guesses))
    figures += [
        Column(f"family_{name}", f"launches, {name}", "", "count", [f[name] if f else None for f in families], False)
        for name in FAMILIES
    ]
    return [columns[0], *columns[2:4], *figures, columns[1], *columns[4:]]


def only_recorded(columns: Iterable[Column]) -> list[Column]:
    """The columns without the shown ones in which nothing was measured at all."""
    return [
        Column(c.name, c.title, c.unit, c.kind, c.values, c.shown and _speaks(c.values)) if c.kind != "text" else c
        for c in columns
    ]


def _speaks(values: Sequence[object]) -> bool:
    return any(value is not None for value in values)
