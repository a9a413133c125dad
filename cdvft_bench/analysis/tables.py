"""The tables: one pandas frame each, made from records alone.

Column names end in their unit, ``[ms]``, and name the convention where there is one. A cell whose
witness did not speak reads "not measured"; no cell is empty, NaN, or a zero that stands for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, TypeVar

from cdvft_bench.analysis.agreement import (
    PASSES,
    WHOLE,
    adapter_flops,
    compare,
    counted_flops,
    counted_launches,
    counted_passes,
    differing_operators,
    predicted_launches,
    predicted_passes,
    ratio_to_frozen,
    ratio_to_lora8,
    total,
    trainable,
    unpriced_operators,
)
from cdvft_bench.analysis.groups import is_frozen, is_lora8, workload
from cdvft_bench.analytic.conventions import CONVENTIONS
from cdvft_bench.analytic.conventions import convention as lookup
from cdvft_bench.core.case import Case
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import NOT_CONVERTIBLE, NOT_IN_PASS, NOT_MEASURED, clean
from cdvft_bench.core.timed import Interval

if TYPE_CHECKING:  # pandas takes a second to import
    from pandas import DataFrame

Cell = int | float | str
Row = dict[str, Cell]
T = TypeVar("T")
IDENTITY = (
    "setting", "method", "kind", "subject", "device", "dtype", "pass",
    "batch [sequences]", "sequence [tokens]", "seed", "environment", "case key", "recorded",
)  # fmt: skip
BASELINE = "is the baseline"
EXACT = "exact"


def parameters_table(records: Iterable[Record]) -> DataFrame:
    """Trainable parameters of every method on every subject: formula against count, and against LoRA r = 8."""
    kept = [r for r in records if r.status == "ok"]
    lora: dict[tuple[str, str], int] = {}
    for record in kept:
        value = trainable(record)
        if is_lora8(record.case) and value is not None:
            lora[record.case.kind, record.case.subject] = value
    rows: dict[tuple[Cell, ...], Row] = {}
    for record in kept:
        case = record.case
        predicted = record.predicted.parameters if record.predicted else None
        counted = record.counted.parameters if record.counted else None
        mine, theirs = trainable(record), lora.get((case.kind, case.subject))
        row: Row = {
            "setting": clean(record.label), "method": case.method, "kind": case.kind, "subject": clean(case.subject),
            "parameters, formula [count]": _or_missing(predicted),
            "parameters, counted [count]": _or_missing(counted),
            "counted − formula [count]": _difference(counted, predicted),
            "LoRA r=8 ÷ this [×]": theirs / mine if mine and theirs else "trains none" if mine == 0 else NOT_MEASURED,
            "optimiser state, formula [bytes]": _of(record.predicted, lambda p: p.optimizer_bytes),
        }  # fmt: skip
        rows[tuple(row.values())] = row
    columns = (
        "setting", "method", "kind", "subject", "parameters, formula [count]", "parameters, counted [count]",
        "counted − formula [count]", "LoRA r=8 ÷ this [×]", "optimiser state, formula [bytes]",
    )  # fmt: skip
    return _frame(list(rows.values()), columns)


def flops_table(records: Iterable[Record], convention: str = "flop") -> DataFrame:
    """FLOPs of every pass under one counting convention: formula, operator count and fvcore (forward alone).

    Raises:
        UserError: there is no such convention.
    """
    price = lookup(convention)
    unit = f"[{flops_unit(convention)}]"
    columns = [*IDENTITY, f"total, formula {unit}", f"adapter's share, formula {unit}", f"total, counted {unit}"]
    columns += [f"{pass_}, {what} {unit}" for pass_ in PASSES for what in ("formula", "counted", "counted − formula")]
    columns += [f"forward, fvcore {unit}", f"forward, fvcore − formula {unit}"]
    if convention == "mac":
        columns.append("forward, fvcore as shipped [MAC]")
    rows = []
    for record in _ok(records):
        row = _identity(record)
        predicted = dict(predicted_passes(record))
        counted = counted_passes(record)
        by_formula = {name: one.flops.get(convention) for name, one in predicted.items()}
        by_count = {name: counted_flops(one, price) if one else None for name, one in counted.items()}
        for name in PASSES:
            if name not in counted:
                row |= {f"{name}, {what} {unit}": NOT_IN_PASS for what in ("formula", "counted", "counted − formula")}
                continue
            row[f"{name}, formula {unit}"] = _or_missing(by_formula.get(name))
            row[f"{name}, counted {unit}"] = _priced(counted[name], by_count[name])
            row[f"{name}, counted − formula {unit}"] = _difference(by_count[name], by_formula.get(name))
        row[f"total, formula {unit}"] = _or_missing(total(by_formula.get(name) for name in counted))
        complete = all(counted.values()) or None
        row[f"total, counted {unit}"] = _priced(complete, total(by_count.values()))
        row[f"adapter's share, formula {unit}"] = _or_missing(adapter_flops(record, convention))
        fvcore = record.counted.fvcore if record.counted else None
        traced = counted_flops(fvcore, price) if fvcore else None
        row[f"forward, fvcore {unit}"] = _priced(fvcore, traced)
        row[f"forward, fvcore − formula {unit}"] = _difference(traced, by_formula.get("forward"))
        if convention == "mac":
            row["forward, fvcore as shipped [MAC]"] = fvcore.stock_macs if fvcore else NOT_MEASURED
        rows.append(row)
    return _frame(rows, columns)


def launches_table(records: Iterable[Record]) -> DataFrame:
    """Kernel launches: by formula, as dispatched, and as the profiler saw them."""
    columns = [*IDENTITY, "total, formula [launches]", "total, dispatched [launches]", "total, profiler [launches]"]
    columns += ["dispatched − formula [launches]", "profiler − dispatched [launches]"]
    columns += ["adapter's share, formula [launches]", "adapter's share, formula [%]"]
    columns += [f"{pass_}, {what} [launches]" for pass_ in PASSES for what in ("formula", "dispatched")]
    rows = []
    for record in _ok(records):
        row = _identity(record)
        predicted, counted = dict(predicted_passes(record)), counted_passes(record)
        for name in PASSES:
            one, other = predicted.get(name), counted.get(name)
            absent = NOT_MEASURED if name in counted else NOT_IN_PASS
            row[f"{name}, formula [launches]"] = one.launches if one and name in counted else absent
            row[f"{name}, dispatched [launches]"] = other.launches if other else absent
        formula, dispatched = predicted_launches(record), counted_launches(record)
        trace = record.timed.trace if record.timed else None
        adapter = sum(p.adapter_launches for p in predicted.values()) if predicted else None
        row["total, formula [launches]"] = _or_missing(formula)
        row["total, dispatched [launches]"] = _or_missing(dispatched)
        row["total, profiler [launches]"] = _of(trace, lambda t: t.launches)
        row["dispatched − formula [launches]"] = _difference(dispatched, formula)
        row["profiler − dispatched [launches]"] = _difference(trace.launches if trace else None, dispatched)
        row["adapter's share, formula [launches]"] = _or_missing(adapter)
        share = 100.0 * adapter / formula if adapter is not None and formula else None
        row["adapter's share, formula [%]"] = _or_missing(share)
        rows.append(row)
    return _frame(rows, columns)


def time_table(records: Iterable[Record]) -> DataFrame:
    """Wall-clock: median and quartiles of a call, and its ratios, paired by round, with 95 % intervals."""
    columns = [*IDENTITY]
    for name in ("frozen", "LoRA r=8"):
        columns += [f"ratio to {name} [×]", f"ratio to {name}, low [×]", f"ratio to {name}, high [×]"]
    columns += ["median [ms]", "first quartile [ms]", "third quartile [ms]", "interquartile range [ms]"]
    columns += ["rounds [count]", "clock", "CPU threads [count]", "device time in kernels [ms]", "warnings"]
    rows = []
    for record in _ok(records):
        row = _identity(record)
        timing = record.timed.timing if record.timed else None
        trace = record.timed.trace if record.timed else None
        mine = timing.samples[0] if timing and timing.samples else None
        feet = (
            ("frozen", ratio_to_frozen(record), is_frozen(record.case)),
            ("LoRA r=8", ratio_to_lora8(record), is_lora8(record.case)),
        )
        for name, value, itself in feet:
            row |= interval_cells(f"ratio to {name}", value, BASELINE if itself and timing else NOT_MEASURED)
        row["median [ms]"] = _of(mine, lambda s: 1e3 * s.median)
        row["first quartile [ms]"] = _of(mine, lambda s: 1e3 * s.q25)
        row["third quartile [ms]"] = _of(mine, lambda s: 1e3 * s.q75)
        row["interquartile range [ms]"] = _of(mine, lambda s: 1e3 * (s.q75 - s.q25))
        row["rounds [count]"] = _of(timing, lambda t: t.rounds)
        row["clock"] = _of(timing, lambda t: t.method)
        row["CPU threads [count]"] = _of(timing, lambda t: t.threads)
        on_device = 1e3 * trace.device_seconds if trace and trace.device != "cpu" else None
        row["device time in kernels [ms]"] = "no device" if trace and trace.device == "cpu" else _or_missing(on_device)
        row["warnings"] = _of(timing, lambda t: clean("; ".join(t.warnings)) or "none")
        rows.append(row)
    return _frame(rows, columns)


WITNESS_COLUMNS = (
    *IDENTITY[:6], "workload", "checked pass", "agreement", "what differs (formula → count)",
    "operators that differ (formula → count)", "operators without a price", "formula covers", *IDENTITY[-3:],
)  # fmt: skip


def witness_table(records: Iterable[Record]) -> DataFrame:
    """Whether formula and operator count agree, pass by pass, and by which operators they differ."""
    rows: list[Row] = []
    for record in _ok(records):
        predicted, counted = dict(predicted_passes(record)), counted_passes(record)
        names = (WHOLE, *counted)
        for name in names:
            differing = compare(record, name)
            operators = differing_operators(predicted.get(name), counted.get(name))
            missing = differing is None
            row = {k: v for k, v in _identity(record).items() if k in WITNESS_COLUMNS}
            unpriced = unpriced_operators(record, name)
            row |= {
                "workload": workload(record.case).title,
                "checked pass": name,
                "agreement": NOT_MEASURED if missing else "differs" if differing or operators else EXACT,
                "what differs (formula → count)": NOT_MEASURED if missing else "; ".join(differing or ()) or "nothing",
                "operators that differ (formula → count)": NOT_MEASURED if missing else operators or "none",
                "operators without a price": NOT_MEASURED if unpriced is None else unpriced or "none",
                "formula covers": clean(record.predicted.covers) if record.predicted else NOT_MEASURED,
            }
            rows.append(row)
    return _frame(rows, WITNESS_COLUMNS)


def memory_table(records: Iterable[Record]) -> DataFrame:
    """Bytes: activations saved for backward by formula and by count, optimiser state, traffic, measured peak."""
    columns = (
        *IDENTITY, "saved activations, formula [bytes]", "saved activations, counted [bytes]",
        "counted − formula [bytes]", "optimiser state, formula [bytes]", "read, formula [bytes]",
        "written, formula [bytes]", "peak of a call, measured [bytes]", "peak measured by",
    )  # fmt: skip
    rows = []
    for record in _ok(records):
        memory = record.timed.memory if record.timed else None
        saved = record.predicted.saved_bytes if record.predicted else None
        counted = record.counted.saved_bytes if record.counted else None
        passes = [one for _, one in predicted_passes(record)]
        rows.append(_identity(record) | {
            "saved activations, formula [bytes]": _or_missing(saved),
            "saved activations, counted [bytes]": _or_missing(counted),
            "counted − formula [bytes]": _difference(counted, saved),
            "optimiser state, formula [bytes]": _of(record.predicted, lambda p: p.optimizer_bytes),
            "read, formula [bytes]": _or_missing(total(one.read for one in passes)),
            "written, formula [bytes]": _or_missing(total(one.written for one in passes)),
            "peak of a call, measured [bytes]": _of(memory, lambda m: m.peak_bytes),
            "peak measured by": _of(memory, lambda m: clean(m.how)),
        })  # fmt: skip
    return _frame(rows, columns)


def failures_table(records: Iterable[Record]) -> DataFrame:
    """Cases that failed, with the cause as it was recorded."""
    rows = [_identity(r) | {"error": clean(r.error or "no cause recorded")} for r in records if r.status == "failed"]
    return _frame(rows, (*IDENTITY, "error"))


def notes_table(records: Iterable[Record]) -> DataFrame:
    """What counting and timing could not do, or want a reader to know."""
    rows: list[Row] = []
    for record in _ok(records):
        timing = record.timed.timing if record.timed else None
        said = (
            ("count", record.counted.notes if record.counted else ()),
            ("clock", record.timed.notes if record.timed else ()),
            ("clock, warning", timing.warnings if timing else ()),
        )
        rows += [_identity(record) | {"witness": who, "note": clean(note)} for who, notes in said for note in notes]
    return _frame(rows, (*IDENTITY, "witness", "note"))


def environment_table(environments: Mapping[str, object]) -> DataFrame:
    """One row a fact, one column a machine: versions, device, revision, as they were recorded.

    Args:
        environments: the fields (a mapping or a dataclass) of every environment, by its key.
    """
    facts = {key: _flatten(fields) for key, fields in sorted(environments.items())}
    names = list(dict.fromkeys(name for fields in facts.values() for name in fields))
    rows: list[Row] = []
    for name in names:
        row: Row = {"fact": name}
        rows.append(row | {clean(key): fields.get(name, "not recorded") for key, fields in facts.items()})
    return _frame(rows, ("fact", *(clean(key) for key in facts)))


def records_table(
    records: Iterable[Record],
    environments: Mapping[str, object],
    stores: Mapping[int, str],
    machine: Callable[[object, str], str],
    command: Callable[[Case], str],
) -> DataFrame:
    """Where every row is from: store, key, machine, date, and the command that measures it again.

    Args:
        records: rows. environments: by key. stores: the store's name by ``id`` of a record.
        machine: name of an environment and device. command: of a case.
    """
    columns = (*IDENTITY, "status", "store", "machine", "measured again by")
    rows = [
        _identity(r)
        | {
            "status": r.status,
            "store": clean(stores.get(id(r), "not recorded")),
            "machine": machine(environments.get(r.environment), r.case.device),
            "measured again by": command(r.case),
        }
        for r in records
    ]
    return _frame(rows, columns)


def all_tables(records: Sequence[Record], environments: Mapping[str, object]) -> dict[str, DataFrame]:
    """Every table by its file name, over all records."""
    flops = {f"flops-{name}": flops_table(records, name) for name in CONVENTIONS}
    return {
        "parameters": parameters_table(records),
        "time": time_table(records),
        "launches": launches_table(records),
        **flops,
        "witnesses": witness_table(records),
        "memory": memory_table(records),
        "failures": failures_table(records),
        "notes": notes_table(records),
        "environments": environment_table(environments),
    }


def flops_unit(convention: str) -> str:
    """``MAC`` or ``FLOP, convention "flop"``."""
    return "MAC" if convention == "mac" else f'FLOP, convention "{convention}"'


def _ok(records: Iterable[Record]) -> list[Record]:
    return [r for r in records if r.status == "ok"]


def _identity(record: Record) -> Row:
    case = record.case
    values: tuple[Cell, ...] = (
        clean(record.label), clean(case.method), case.kind, clean(case.subject), case.device, case.dtype, case.pass_,
        case.batch, case.sequence, case.seed, clean(record.environment), case.key, clean(record.created),
    )  # fmt: skip
    return dict(zip(IDENTITY, values, strict=True))


def _or_missing(value: Cell | None) -> Cell:
    return NOT_MEASURED if value is None or (isinstance(value, float) and not math.isfinite(value)) else value


def _of(witness: T | None, read: Callable[[T], Cell]) -> Cell:
    return NOT_MEASURED if witness is None else _or_missing(read(witness))


def _priced(count: object | None, value: float | None) -> Cell:
    return NOT_CONVERTIBLE if count is not None and value is None else _or_missing(value)


def _difference(value: float | None, foot: float | None) -> Cell:
    if value is None or foot is None:
        return NOT_MEASURED
    difference = value - foot
    return 0 if abs(difference) <= 1e-9 * max(abs(value), abs(foot)) else difference


def interval_cells(name: str, value: Interval | None, absent: str) -> Row:
    """A ratio's three cells: value, low end and high end; ``absent`` where there is no ratio."""
    if value is None:
        return {f"{name} [×]": absent, f"{name}, low [×]": absent, f"{name}, high [×]": absent}
    low, high = (NOT_MEASURED if bound is None else bound for bound in (value.low, value.high))
    return {f"{name} [×]": value.value, f"{name}, low [×]": low, f"{name}, high [×]": high}


def _flatten(value: object, prefix: str = "") -> dict[str, str]:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        flat: dict[str, str] = {}
        for name, inner in value.items():
            flat |= _flatten(inner, f"{prefix}, {clean(name)}" if prefix else clean(name))
        return flat
    if value is None or value == "":
        return {prefix: "not recorded"}
    if isinstance(value, list | tuple):
        return {prefix: clean("; ".join(str(item) for item in value)) or "none"}
    return {prefix: clean(value)}


def _frame(rows: Sequence[Row], columns: Iterable[str]) -> DataFrame:
    import pandas as pd

    return pd.DataFrame([dict(row) for row in rows], columns=list(columns), dtype=object)
