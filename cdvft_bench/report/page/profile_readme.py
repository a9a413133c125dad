"""The README of a recorded profile, made from its records: machine, counts, warnings, crossovers.

The same records give the same bytes; nothing in it is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from itertools import groupby
from pathlib import Path

from cdvft_bench.analysis.crossover import PEERS, Point, crossover_points, fft_path, summary
from cdvft_bench.analysis.groups import latest, sections, title_of
from cdvft_bench.analysis.launches import COLUMNS, launch_rows
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.files import write_file
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import NOT_MEASURED, integer, interval, listed, markdown, plural
from cdvft_bench.core.timed import Timed
from cdvft_bench.timing.traces.analysis import analyse_file

NOT_IN_RECORDS = "a case that the records do not hold"
SHOWN = 20  # failed cases, kinds of warnings and of notes that are listed


def profile_readme(
    records: Iterable[Record],
    environments: Mapping[str, object],
    *,
    name: str,
    file: str,
    command: str,
    traces: Sequence[Path] = (),
) -> str:
    """Markdown of a profile's README.

    Args:
        records: of the profile; of a case that was run again on the same machine the newest counts.
        environments: fields (a mapping or a dataclass) by key.
        name: of the profile: its folder. file: of the records in it.
        command: makes this text again.
        traces: kept traces, named by the keys of their cases.

    Raises:
        UserError: there is no record, or a trace cannot be read.
    """
    kept, replaced = latest(records)
    if not kept:
        raise UserError(f"{file} holds no record, so there is nothing to write of it; run a grid first")
    lines = [
        f"# Profile {markdown(name)}",
        "",
        f"Made from `{file}` by `{command}`: do not edit it, make it again.",
        "",
        "## Machine",
        "",
        *_machines(kept, environments),
        "## What it holds",
        "",
        *_counts(kept, replaced),
        "## Warnings",
        "",
        *_warnings(kept),
        "## The clock against itself",
        "",
        *_selftests(kept),
        "## Where does CDVFT cost less time?",
        "",
        *_crossovers(kept),
        "## How much of the time is launches?",
        "",
        *_launches(kept),
        "## Traces",
        "",
        *_traces(kept, traces),
    ]
    return "\n".join(lines).rstrip() + "\n"


def write_profile_readme(store: Path, *, output: Path | None = None) -> Path:
    """Write the README of a store beside it, or to ``output``; returns where.

    Raises:
        UserError: the store cannot be read, holds nothing, or the README cannot be written.
    """
    from cdvft_bench.sweep.store import Store

    with Store(store) as opened:
        records, environments = list(opened.records()), opened.environments()
    target = output or store.parent / "README.md"
    name = target.resolve().parent.name
    command = f"cdvft-bench dev profile-readme profiles/{name}/{store.name}"
    traces = sorted((store.parent / "traces").glob("*.json.gz"))
    text = profile_readme(records, environments, name=name, file=store.name, command=command, traces=traces)
    write_file(target, text)
    return target


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return [*head, *("| " + " | ".join(markdown(cell) for cell in row) + " |" for row in rows), ""]


# --- machine ---------------------------------------------------------------------------------


def _machines(records: Sequence[Record], environments: Mapping[str, object]) -> list[str]:
    keys = sorted({r.environment for r in records})
    lines = []
    for number, key in enumerate(keys, 1):
        environment = environments.get(key)
        if len(keys) > 1:
            lines += [f"Machine {number}:", ""]
        if environment is None:
            lines += [f"Environment {markdown(key)}: not recorded.", ""]
            continue
        lines += _table(["", ""], ((name, _shown(value)) for name, value in _fields(environment).items()))
    return lines


def _fields(environment: object) -> dict[str, object]:
    if is_dataclass(environment) and not isinstance(environment, type):
        return asdict(environment)
    return dict(environment) if isinstance(environment, Mapping) else {"environment": environment}


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return listed([f"{k} {v}" for k, v in sorted(value.items())]) or "none"
    if isinstance(value, list | tuple):
        return listed([str(v) for v in value]) or "none"
    return "not known" if value in (None, "") else str(value)


# --- counts ----------------------------------------------------------------------------------


def _counts(records: Sequence[Record], replaced: int) -> list[str]:
    ok = [r for r in records if r.status == "ok"]
    failed = [r for r in records if r.status != "ok"]
    again = f", {plural(replaced, 'older row')} of the same cases aside" if replaced else ""
    lines = [f"{plural(len(records), 'case')}: {len(ok):,} done, {len(failed):,} failed{again}.", ""]
    first, last = min(r.created for r in records), max(r.created for r in records)
    subjects = [
        f"{s.subject} ({s.dtype}, {s.device}{', ' + s.machine if s.machine else ''})" for s in sections(records)
    ]
    axes: dict[str, Iterable[object]] = {
        "subjects": subjects,
        "passes": sorted({r.case.pass_ for r in records}),
        "tokens": [integer(n) for n in sorted({r.case.tokens for r in records})],
        "methods": [title_of(name) for name in sorted({r.case.method for r in records})],
        "measured": [f"{first[:10]} to {last[:10]}" if first[:10] != last[:10] else first[:10]],
        "time spent": [f"{sum(r.seconds for r in records):,.0f} s"],
    }
    lines += _table(["axis", "values"], ((name, listed([str(v) for v in values])) for name, values in axes.items()))
    witnesses: dict[str, Callable[[Record], object]] = {
        "formula": lambda r: r.predicted,
        "count": lambda r: r.counted,
        "time": lambda r: r.timed and r.timed.timing,
        "trace": lambda r: r.timed and r.timed.trace,
        "  adapter and base told apart": lambda r: r.timed and r.timed.trace and r.timed.trace.parts,
        "peak memory": lambda r: r.timed and r.timed.memory,
        "CUDA graph": lambda r: _mode(r.timed, "graph"),
        "compiled": lambda r: _mode(r.timed, "compile"),
        "energy": lambda r: r.timed and r.timed.energy and r.timed.energy.joules is not None,
    }
    shares = {name: sum(bool(spoke(r)) for r in ok) for name, spoke in witnesses.items()}
    lines += _table(
        ["witness", "cases"], ((name, f"{n:,} of {len(ok):,}" if n else NOT_MEASURED) for name, n in shares.items())
    )
    if failed:
        lines += ["Failed:", ""]
        shown = ((r.label, f"{r.case.subject}, {r.case.tokens:,} tokens, {r.case.dtype}, {r.case.pass_}", r.error or "")
                 for r in failed[:SHOWN])  # fmt: skip
        lines += _table(["method", "case", "cause"], shown)
        lines += [f"and {len(failed) - SHOWN:,} more.", ""] if len(failed) > SHOWN else []
    return lines


def _mode(timed: Timed | None, name: str) -> bool:
    return bool(timed and timed.modes and any(s.name == name for s in timed.modes.timing.samples))


def _warnings(records: Sequence[Record]) -> list[str]:
    timings = [r.timed.timing for r in records if r.timed and r.timed.timing]
    clock = [warning for timing in timings for warning in timing.warnings]
    notes = [note for r in records if r.timed for note in r.timed.notes]
    notes += [note for r in records if r.counted for note in r.counted.notes]
    notes += [note for r in records if r.timed and r.timed.modes for note in r.timed.modes.notes]
    warned = sum(bool(timing.warnings) for timing in timings)
    said = f"The clock warned in {warned:,} of {plural(len(timings), 'timed case')}."
    lines = [said if timings else f"Time: {NOT_MEASURED}.", ""]
    for title, texts in (("warning", clock), ("note", notes)):
        if texts:
            kinds: dict[str, list[str]] = {}
            for text in texts:
                kinds.setdefault(re.sub(r"[-+]?\d[\d.,]*(e-?\d+)?", "…", text), []).append(text)
            most = sorted(kinds.values(), key=lambda found: (-len(found), found[0]))
            lines += _table([title, "times"], ((f"{found[0]}", f"{len(found):,}") for found in most[:SHOWN]))
            lines += [f"and {len(most) - SHOWN:,} kinds more.", ""] if len(most) > SHOWN else []
    return lines


def _selftests(records: Sequence[Record]) -> list[str]:
    found = {(r.case.device, r.timed.selftest): None for r in records if r.timed and r.timed.selftest}
    if not found:
        return [f"False differences: {NOT_MEASURED}.", ""]
    rows = (
        (
            device,
            f"{t.comparisons:,}",
            f"{t.excluded:.0%}",
            f"{t.excluded_by_1_percent:.0%}",
            f"{t.largest_deviation:.2%}",
            _said(t.doubled),
        )
        for device, t in found
    )
    said = "The same call under two names, before the cases of a run; 5 % of the intervals may exclude 1 by chance."
    columns = ["device", "comparisons", "intervals without 1", "false by more than 1 %", "furthest from 1",
               "doubled work, 2 is right"]  # fmt: skip
    return [said, "", *_table(columns, rows)]


# --- crossovers ------------------------------------------------------------------------------


def _crossovers(records: Sequence[Record]) -> list[str]:
    lines = [
        "Ratio: CDVFT's time over the peer's, median with its 95 % bootstrap interval. Less or more is said where the "
        "whole interval lies on one side of 1; of many such statements some are due to chance, so a ratio close to 1 "
        "in a single row is no finding. m = 1 is a diagonal alone, without a circulant factor (p none): cheap, but not "
        "the paper's setting, which is m = 2 and p = d.",
        "",
    ]
    for peer in PEERS:
        lines += [f"### Against {title_of(peer)}{' of rank 8' if peer == 'lora' else ''}", ""]
        points = crossover_points(records, peer)
        if not points:
            lines += [summary((), peer), ""]
            continue
        points.sort(key=_group)  # stable: within a group the order stays
        groups = [(key, list(found)) for key, found in groupby(points, key=_group)]
        for key, found in groups:
            where = ", ".join(part for part in key[1:] if part)
            said = markdown(summary(found, peer))
            if (written := fft_path(found)) != found:  # there are other paths, too
                said = f"{markdown(summary(written, peer, 'CDVFT by torch.fft'))} By any path: {said}"
            lines.append(f"- {where}: {said}")
        rows = [_row(point) for _, found in groups for point in found]
        columns = ["subject", "batch × tokens", "pass, dtype", "less in", "best", "ratio", "m = 2, p = d", "ratio to"]
        lines += ["", *_table(columns, rows)]
    return lines


def _group(point: Point) -> tuple[str, ...]:
    case = point.case
    return (case.kind, point.machine, f"{case.kind}s", case.device, case.dtype, case.pass_)


def _row(point: Point) -> Sequence[object]:
    case, paper = point.case, point.paper
    where = f"{case.pass_}, {case.dtype}" + (f", {point.machine}" if point.machine else "")
    return (
        case.subject,
        f"{case.batch} × {case.sequence:,}",
        where,
        f"{len(point.having('less'))} of {len(point.pairs)}",
        point.best.cdvft.label,
        _said(point.best.ratio),
        NOT_MEASURED if paper is None else _said(paper.ratio),
        point.best.peer.label,
    )


def _said(ratio: Interval) -> str:
    return interval(ratio.value, ratio.low, ratio.high)


# --- launches and traces ---------------------------------------------------------------------


def _launches(records: Sequence[Record]) -> list[str]:
    rows = launch_rows(records)
    if not rows:
        return [f"Launches: {NOT_MEASURED}.", ""]
    said = (
        "On a GPU the cost of launching is what a replayed CUDA graph saves of an eager call, paired by round. On a "
        "CPU no such thing can be measured: there the trace says in how much of its span no operator ran, which is "
        "Python, dispatch, autograd and the profiler itself."
    )
    return [said, "", *_table(COLUMNS, rows)]


def _traces(records: Sequence[Record], traces: Sequence[Path]) -> list[str]:
    cases = {r.case.key: r for r in records}
    rows = []
    for path in traces:
        record, found = cases.get(path.name.removesuffix(".json.gz")[-16:]), analyse_file(path).summary
        what = NOT_IN_RECORDS
        if record is not None:
            case = record.case
            what = f"{record.label}, {case.subject}, {case.tokens:,} tokens, {case.dtype}, {case.pass_}"
        rows.append((what, integer(found.launches), found.verdict, f"{path.stat().st_size:,}", path.name))
    if not rows:
        return ["None is kept.", ""]
    said = "Read one with `cdvft-bench trace FILE`, or in Perfetto."
    return [said, "", *_table(["case", "launches", "verdict", "bytes", "file in traces/"], rows)]
