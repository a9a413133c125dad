"""Records as one data frame: a row a record, a column a quantity, every column documented in ``COLUMNS``.

A figure that was not recorded is NaN, never a zero; a text, "". Ratios are paired by round and come with their 95 %
intervals as ``<name>_low`` and ``<name>_high``; a baseline's ratio to itself is 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cdvft_bench.analysis import agreement as sources
from cdvft_bench.analysis import cases
from cdvft_bench.analytic.conventions import CONVENTIONS
from cdvft_bench.core.case import FROZEN, LORA
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.io.reading import packaged, parse_toml
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import clean
from cdvft_bench.core.timed import Timed, Timing, missed_precision
from cdvft_bench.timing.statistics import median_interval

if TYPE_CHECKING:
    from pandas import DataFrame

Entry = dict[str, Any]
"""A row of the frame by column, with its index under "record"."""

Kind = Literal["text", "count", "ratio", "seconds", "bytes", "flops", "number"]
Trust = Literal["firm", "fair", "doubtful", "no interval", "not measured"]

CONVENTION = "flop"
"""The counting convention that is shown; the others are in the frame beside it."""

REPLAYED = "replayed CUDA graphs"
"""How a case is timed where its kernels alone are to be compared: Python and launches are left out."""

COMPARABLE = ("environment", "kind", "subject", "device", "dtype", "pass", "batch", "sequence")
"""Columns that records share which may be compared with each other."""

PROCESSES = 3
"""Fewest processes for which an interval is called firm: it then holds in the next one, too."""


@dataclass(frozen=True)
class Column:
    """One column: its name in the frame; title and unit for readers; how a value is written; what it is."""

    name: str
    title: str
    unit: str
    kind: Kind
    doc: str


def _listed(group: str) -> Iterator[Column]:
    return (Column(*row) for row in parse_toml(packaged("cdvft_bench.analysis", "columns.toml"))[group])


def _ratio(name: str, title: str, how: str = "") -> Iterator[Column]:
    doc = f"Median over rounds of the time of a call over that of {title} in the same round{how and f', both {how}'}"
    for end, words in (("", ""), ("_low", ", low end of its 95 % interval"), ("_high", ", high end of it")):
        yield Column(f"{name}{end}", f"time ÷ {title}{how and f', {how}'}{words}", "×", "ratio", f"{doc}{words}.")


def _flops(convention: str) -> Iterator[Column]:
    unit, said = "MAC" if convention == "mac" else "FLOP", "" if convention == CONVENTION else f", {convention}"
    doc = f"counting convention {convention}: {CONVENTIONS[convention].statement}."
    for name, title, what in (
        ("flops", "FLOPs, formula", "Of the passes that the case runs, by formula"),
        ("flops_counted", "FLOPs, counted", "Of the passes that the case runs, counted"),
        ("adapter_flops", "adapter's FLOPs", "What the method adds to the frozen base, by formula"),
    ):
        yield Column(_priced(name, convention), f"{title}{said}", unit, "flops", f"{what}; {doc}")


def _priced(name: str, convention: str) -> str:
    return name if convention == CONVENTION else f"{name}_{convention}"


COLUMNS: tuple[Column, ...] = (
    *_listed("case"),
    *_ratio("lora", "LoRA r=8"),
    *_ratio("frozen", "frozen"),
    *_ratio("graph_lora", "LoRA r=8", REPLAYED),
    *_ratio("graph_narrow", "LoRA r=8 in the base's 16 bits", REPLAYED),
    *_ratio("graph_frozen", "frozen", REPLAYED),
    *_listed("measured"),
    *(
        column
        for convention in (CONVENTION, *(c for c in CONVENTIONS if c != CONVENTION))
        for column in _flops(convention)
    ),
    *_listed("record"),
)
"""Columns of :func:`records_frame`, in order."""


def records_frame(
    records: Sequence[Record],
    environments: Mapping[str, object] | None = None,
    stores: Mapping[int, str] | None = None,
) -> DataFrame:
    """One row a record, in the order given; columns as ``COLUMNS`` documents them.

    Args:
        records: of any machines and campaigns.
        environments: environment fields (a mapping or a dataclass) by key, for the machines' names.
        stores: the store's name by ``id`` of a record.
    """
    import pandas as pd

    known, named, widths = environments or {}, stores or {}, cases.widths(records)
    places = {(r.environment, r.case.device) for r in records}
    machines = {place: cases.machine(known.get(place[0]), place[1]) for place in places}
    rows = []
    for record in records:
        row = _identity(record, widths.get((record.case.kind, record.case.subject)))
        row |= _measured(record, record.timed) | _counted(record)
        row["machine"] = machines[record.environment, record.case.device]
        row["store"] = clean(named.get(id(record), "not recorded"))
        rows.append(row)
    data = {column.name: [_value(column, row[column.name]) for row in rows] for column in COLUMNS}
    return pd.DataFrame(data, index=pd.RangeIndex(len(rows)))


def _value(column: Column, value: object) -> object:
    if column.kind == "text":
        return "" if value is None else str(value)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def _identity(record: Record, width: int | None) -> dict[str, object]:
    case = record.case
    return {
        "setting": cases.setting(record, width),
        "path": clean(cases.path_of(case)),
        "label": cases.label(record, width),
        "hyperparameters": cases.arguments(case),
        "method": clean(case.method),
        "kind": clean(case.kind),
        "subject": clean(case.subject),
        "pass": clean(case.pass_),
        "batch": case.batch,
        "sequence": case.sequence,
        "tokens": case.tokens,
        "dtype": clean(case.dtype),
        "device": clean(case.device),
        "environment": clean(record.environment),
        "m": cases.hyperparameter(case, "m", 2) if case.method == "cdvft" else None,
        "p": cases.block_size(case, width),
        "seed": case.seed,
        "status": clean(record.status),
        "error": clean(record.error or ""),
        "key": clean(case.key),
        "recorded": clean(record.created[:10]),
    }


def _measured(record: Record, timed: Timed | None) -> dict[str, object]:
    timing = timed.timing if timed else None
    trace = timed.trace if timed else None
    first = timing.samples[0] if timing and timing.samples else None
    graph = _graph(record)
    found = {
        "lora": ratio_to(record, LORA),
        "frozen": ratio_to(record, FROZEN),
        "graph_saves": launch_share(timed),
        "graph_lora": graph_ratio(record, LORA),
        "graph_narrow": graph_ratio(record, f"{LORA} {record.case.dtype}"),
        "graph_frozen": graph_ratio(record, FROZEN),
    }
    ratios = {
        f"{name}{end}": getattr(ratio, which, None)
        for name, ratio in found.items()
        for end, which in (("", "value"), ("_low", "low"), ("_high", "high"))
    }
    return ratios | {
        "graph_seconds": graph.samples[0].median if graph and graph.samples else None,
        "graph_trust": trust_of(record, graph=True),
        "graph_warnings": clean("; ".join(warnings_of(graph, _graph_ratio(graph)))) if graph else "",
        "gpu_clock": _middle(timing.clocks_mhz if timing else ()),
        "gpu_watts": _middle(timing.watts if timing else ()),
        "seconds": sources.median_seconds(record),
        "seconds_q25": first.q25 if first else None,
        "seconds_q75": first.q75 if first else None,
        "rounds": timing.rounds if timing else None,
        "processes": processes(timing) if timing else None,
        "correlation": getattr(timing, "correlation", None),
        "group": clean(getattr(timing, "group", None) or ""),
        "threads": timing.threads if timing else None,
        "trust": trust_of(record),
        "warnings": clean("; ".join(warnings_of(timing, _eager_ratio(record)))) if timing else "",
        "launches_profiler": trace.launches if trace else None,
        "launches_adapter": trace.parts["adapter"].launches if trace and "adapter" in trace.parts else None,
        "busy": trace.busy_fraction if trace else None,
        "verdict": clean(trace.verdict) if trace else "",
        "peak_bytes": timed.memory.peak_bytes if timed and timed.memory else None,
        "joules": timed.energy.joules if timed and timed.energy else None,
    }


def _counted(record: Record) -> dict[str, object]:
    predicted, counted = record.predicted, record.counted
    passes = sources.counted_passes(record).values()
    row: dict[str, object] = {
        "parameters": sources.trainable(record),
        "parameters_formula": predicted.parameters if predicted else None,
        "launches": sources.counted_launches(record),
        "launches_formula": sources.predicted_launches(record),
        "saved_bytes": counted.saved_bytes if counted else None,
        "saved_bytes_formula": predicted.saved_bytes if predicted else None,
        "optimizer_bytes": predicted.optimizer_bytes if predicted else None,
        "traffic": sources.total(one.read + one.written for _, one in sources.predicted_passes(record)),
        "agreement": sources.agreement(record),
    }
    for name, price in CONVENTIONS.items():
        row[_priced("flops", name)] = sources.predicted_flops(record, name)
        row[_priced("adapter_flops", name)] = sources.adapter_flops(record, name)
        counts = [sources.counted_flops(one, price) if one else None for one in passes]
        row[_priced("flops_counted", name)] = sources.total(counts)
    return row


# --- what a row says -------------------------------------------------------------------------


def ratio_to(record: Record, baseline: str) -> Interval | None:
    """Time over a baseline's, ``frozen`` or ``lora r=8``; 1 for the baseline itself where it was timed."""
    itself = cases.is_frozen(record.case) if baseline == FROZEN else cases.is_lora8(record.case)
    if itself:
        return Interval(1.0, 1.0, 1.0) if sources.median_seconds(record) is not None else None
    return sources.ratio_to_frozen(record) if baseline == FROZEN else sources.ratio_to_lora8(record)


def _graph(record: Record) -> Timing | None:
    """A record's times as replayed graphs."""
    return record.timed.replays.timing if record.timed and record.timed.replays else None


def graph_ratio(record: Record, baseline: str) -> Interval | None:
    """As :func:`ratio_to`, both as replayed graphs."""
    graph = _graph(record)
    itself = {FROZEN: cases.is_frozen, LORA: cases.is_lora8}.get(baseline)
    if graph is None or itself is None or not itself(record.case):
        return graph.ratios.get(baseline) if graph else None
    return Interval(1.0, 1.0, 1.0)


def replayed(frame: DataFrame) -> DataFrame:
    """The rows that were timed as replayed graphs, with those times in the columns of eager ones."""
    found = frame[frame["graph_lora"].notna() | frame["graph_frozen"].notna()]
    ratios = [f"{name}{end}" for name in ("lora", "frozen") for end in ("", "_low", "_high")]
    return found.assign(**{name: found[f"graph_{name}"] for name in (*ratios, "seconds", "trust", "warnings")})


def trust_of(record: Record, graph: bool = False) -> Trust:
    """How far a record's ratio may be trusted, or with ``graph`` that of its replays.

    "firm": an interval over several processes, and no warning; "fair": an interval of one process, and no warning;
    "doubtful": the clock warned; "no interval": too few rounds for one.
    """
    if graph:
        timing = _graph(record)
        ratio = _graph_ratio(timing) if timing else None
    else:
        timing = record.timed.timing if record.timed else None
        ratio = _eager_ratio(record)
    if timing is None or ratio is None:
        return "not measured"
    if ratio.bounds is None:
        return "no interval"
    if warnings_of(timing, ratio):
        return "doubtful"
    return "firm" if processes(timing) >= PROCESSES else "fair"


def _eager_ratio(record: Record) -> Interval | None:
    return sources.ratio_to_lora8(record) or sources.ratio_to_frozen(record)


def _graph_ratio(graph: Timing) -> Interval | None:
    return graph.ratios.get(LORA) or graph.ratios.get(FROZEN)


def warnings_of(timing: Timing, ratio: Interval | None) -> tuple[str, ...]:
    """The clock's warnings that bear on a ratio: not that another of its run is less precise than was asked."""

    def concerns(warning: str) -> bool:
        asked = missed_precision(warning)
        return asked is None or ratio is None or ratio.half_width > asked

    return tuple(filter(concerns, timing.warnings))


def processes(timing: Timing) -> int:
    """Processes that the rounds come from; 1 in records of before they were counted."""
    return int(getattr(timing, "processes", 1) or 1)


def _middle(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def launch_share(timed: Timed | None) -> Interval | None:
    """Share of an eager call that a CUDA graph saves, paired by round; None where no graph was timed."""
    replays = timed.replays.timing if timed and timed.replays else None
    if replays is not None and replays.samples:
        seconds = {"graph": replays.samples[0].seconds} | {s.name: s.seconds for s in replays.samples}
    else:
        seconds = {s.name: s.seconds for s in timed.modes.timing.samples} if timed and timed.modes else {}
    if "eager" not in seconds or "graph" not in seconds:
        return None
    return median_interval(1 - np.array(seconds["graph"]) / np.array(seconds["eager"]))


def describe() -> DataFrame:
    """The columns of :func:`records_frame`: name, unit and what each is."""
    import pandas as pd

    return pd.DataFrame([(c.name, c.unit, c.doc) for c in COLUMNS], columns=["column", "unit", "what it is"])


def entries(frame: DataFrame) -> list[Entry]:
    """The rows of a frame as dictionaries."""
    rows = frame.to_dict("records")
    return [{"record": at} | {str(k): v for k, v in row.items()} for at, row in zip(frame.index, rows, strict=True)]


def interval_of(row: Mapping[str, object], name: str) -> Interval | None:
    """A ratio of a row of the frame, "lora" or "frozen", as an interval; None where it is missing."""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if not isinstance(value, int | float) or math.isnan(value):
        return None
    bounds = [float(b) if isinstance(b, int | float) and not math.isnan(b) else None for b in (low, high)]
    return Interval(float(value), bounds[0], bounds[1])


def between(ours: Mapping[str, object], theirs: Mapping[str, object]) -> Interval | None:
    """Time of one row over another's of the same group of ``COMPARABLE``; None where it is not known.

    Over LoRA r = 8 it is paired by round. Else both are taken over the frozen subject of their own run, as if
    the two were independent; on a GPU over LoRA r = 8, since a frozen layer's eager call is its host's alone.
    """
    paired = interval_of(ours, "lora")
    if paired is not None and theirs["setting"] == "LoRA r=8":
        return paired
    over_lora = ours.get("device", "cpu") != "cpu" and paired is not None and interval_of(theirs, "lora") is not None
    beside = "lora" if over_lora else "frozen"
    mine, other = interval_of(ours, beside), interval_of(theirs, beside)
    if mine is None or other is None or other.value <= 0:
        return None
    return mine.over(other)
