"""The README of a recorded profile, made from its records: machine, counts, warnings, crossovers, launches.

The same records give the same bytes; nothing in it is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cdvft_bench.analysis.cases import title_of
from cdvft_bench.analysis.frame import entries, replayed
from cdvft_bench.analysis.inputs import Campaign, read
from cdvft_bench.analysis.overview import representatives
from cdvft_bench.analysis.peers import PEERS, crossover, crossover_said
from cdvft_bench.analysis.sentences import with_bounds
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.io.files import write_file
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import NOT_MEASURED, integer, interval, listed, markdown, markdown_table, plural
from cdvft_bench.report.page.cards import environment_table

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN = 20  # failed cases, kinds of warnings and of notes that are listed
GROUP = ("machine", "kind", "device", "dtype", "pass")
PLACE = ("subject", "batch", "sequence", "pass", "dtype", "machine")


def profile_readme(campaign: Campaign, *, name: str, file: str, command: str, traces: Sequence[Path] = ()) -> str:
    """Markdown of a profile's README.

    Args:
        campaign: the profile's records. name: of the profile: its folder. file: of the records in it.
        command: makes this text again. traces: kept traces, named by the keys of their cases.

    Raises:
        UserError: there is no record.
    """
    if not campaign.records:
        raise UserError(f"{file} holds no record, so there is nothing to write of it; run a grid first")
    frame = campaign.frame
    used = {key: fields for key, fields in campaign.environments.items() if key in set(frame["environment"])}
    lines = [
        f"# Profile {markdown(name)}",
        "",
        f"Made from `{file}` by `{command}`: do not edit it, make it again.",
        "",
    ]
    lines += ["## Machine", "", *_table(*_of(used)), "## What it holds", "", *_holds(campaign, frame)]
    lines += ["## Warnings", "", *_warnings(campaign.records), "## The clock against itself", "", *_selftests(campaign)]
    lines += ["## Where does CDVFT cost less time?", "", *_crossovers(frame)]
    lines += _replays(frame)
    lines += ["## How much of the time is launches?", "", *_launches(frame), "## Traces", "", *_traces(frame, traces)]
    return "\n".join(lines).rstrip() + "\n"


def write_profile_readme(store: Path, *, output: Path | None = None) -> Path:
    """Write the README of a store beside it, or to ``output``; returns where.

    Raises:
        UserError: the store cannot be read, holds nothing, or the README cannot be written.
    """
    target = output or store.parent / "README.md"
    name = target.absolute().parent.name
    command = f"cdvft-bench dev profile-readme profiles/{name}/{store.name}"
    traces = sorted((store.parent / "traces").glob("*.json.gz"))
    write_file(target, profile_readme(read(store), name=name, file=store.name, command=command, traces=traces))
    return target


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    return [*markdown_table(map(markdown, columns), (map(markdown, row) for row in rows)), ""]


def _of(environments: dict[str, object]) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
    one = environment_table(environments)
    return one.columns, one.rows


def _holds(campaign: Campaign, frame: DataFrame) -> list[str]:
    done, failed = frame[frame["status"] == "ok"], frame[frame["status"] != "ok"]
    again = f", {plural(campaign.replaced, 'older row')} of the same cases aside" if campaign.replaced else ""
    days = sorted(set(frame["recorded"]))
    axes = {
        "layers and models": sorted({f"{s} ({d})" for s, d in zip(frame["subject"], frame["dtype"], strict=True)}),
        "passes": sorted(set(frame["pass"])),
        "tokens": [integer(n) for n in sorted(set(frame["tokens"]))],
        "methods": [title_of(method) for method in sorted(set(frame["method"]))],
        "measured": days if len(days) < 3 else [days[0], days[-1]],
        "time spent": [f"{sum(record.seconds for record in campaign.records):,.0f} s"],
    }
    shares = {
        "formula": done["parameters_formula"].notna(),
        "count": done["saved_bytes"].notna(),
        "time": done["seconds"].notna(),
        "trace": done["launches_profiler"].notna(),
        "peak memory": done["peak_bytes"].notna(),
        "CUDA graph": done["graph_saves"].notna(),
        "energy": done["joules"].notna(),
    }
    n = len(done)
    counts = ((what, f"{int(has.sum()):,} of {n:,}" if has.any() else NOT_MEASURED) for what, has in shares.items())
    lines = [f"{plural(len(frame), 'case')}: {n:,} done, {len(failed):,} failed{again}.", ""]
    lines += _table(["axis", "values"], ((what, listed([str(v) for v in values])) for what, values in axes.items()))
    lines += _table(["source", "cases"], counts)
    if len(failed):
        columns = ["label", "subject", "tokens", "dtype", "pass", "error"]
        rows = ([integer(row[c]) if c == "tokens" else row[c] for c in columns] for row in entries(failed.head(SHOWN)))
        lines += ["Failed:", "", *_table(columns, rows)]
        lines += [f"and {len(failed) - SHOWN:,} more.", ""] if len(failed) > SHOWN else []
    return lines


def _warnings(records: Sequence[Record]) -> list[str]:
    timings = [r.timed.timing for r in records if r.timed and r.timed.timing]
    clock = [warning for timing in timings for warning in timing.warnings]
    notes = [note for r in records if r.timed for note in r.timed.notes]
    notes += [note for r in records if r.counted for note in r.counted.notes]
    notes += [note for r in records if r.timed and r.timed.modes for note in r.timed.modes.notes]
    notes += [note for r in records if r.timed and r.timed.replays for note in r.timed.replays.notes]
    warned = sum(bool(timing.warnings) for timing in timings)
    said = f"The clock warned in {warned:,} of {plural(len(timings), 'timed case')}."
    lines = [said if timings else f"Time: {NOT_MEASURED}.", ""]
    for title, texts in (("warning", clock), ("note", notes)):
        if texts:
            kinds: dict[str, list[str]] = {}
            for text in texts:
                kinds.setdefault(re.sub(r"[-+]?\d[\d.,]*(e-?\d+)?", "…", text), []).append(text)
            most = sorted(kinds.values(), key=lambda found: (-len(found), found[0]))
            lines += _table([title, "times"], ((found[0], f"{len(found):,}") for found in most[:SHOWN]))
            lines += [f"and {len(most) - SHOWN:,} kinds more.", ""] if len(most) > SHOWN else []
    return lines


def _selftests(campaign: Campaign) -> list[str]:
    found = {(r.case.device, r.timed.selftest): None for r in campaign.records if r.timed and r.timed.selftest}
    if not found:
        return [f"False differences: {NOT_MEASURED}.", ""]
    rows = []
    for device, t in found:
        shares = (f"{t.excluded:.0%}", f"{t.excluded_by_1_percent:.0%}", f"{t.largest_deviation:.2%}")
        rows.append((device, f"{t.comparisons:,}", *shares, interval(t.doubled.value, t.doubled.low, t.doubled.high)))
    said = "The same call under two names, before the cases of a run; 5 % of the intervals may exclude 1 by chance."
    columns = ["device", "comparisons", "intervals without 1", "false by more than 1 %", "furthest from 1"]
    return [said, "", *_table([*columns, "doubled work, 2 is right"], rows)]


def _crossovers(frame: DataFrame) -> list[str]:
    import pandas as pd

    lines = [
        "Ratio: CDVFT's time over the peer's, with its 95 % interval: paired by round over LoRA, else the widest that "
        "the two ratios to the frozen layer allow. Faster or slower is said where the whole interval lies on one side "
        "of 1; of many such statements some are due to chance. m = 1 is a diagonal alone, without a circulant factor: "
        "not the paper's setting, which is m = 2 and p = d.",
        "",
    ]
    for peer in PEERS:
        lines += [f"### Against {title_of(peer)}{' of rank 8' if peer == 'lora' else ''}", ""]
        found = crossover(frame, peer)
        graphs = crossover(replayed(frame), peer)
        if len(graphs):
            found = pd.concat([found, graphs.assign(**{"pass": graphs["pass"] + ", as replayed graphs"})])
        for _, some in found.groupby(list(GROUP), sort=True):
            where = ", ".join(str(some[name].iloc[0]) for name in GROUP)
            lines.append(f"- {markdown(where)}: {markdown(crossover_said(some, peer))}")
        if not len(found):
            lines.append(crossover_said(found, peer))
        rows = []
        for _, some in found.groupby(list(PLACE), sort=True):
            best = min(entries(some), key=lambda row: row["ratio"])
            faster = f"{int((some['word'] == 'faster').sum())} of {len(some)}"
            place = (best["subject"], f"{best['batch']:.0f} × {best['sequence']:,.0f}", best["pass"], best["dtype"])
            rows.append((*place, faster, best["label"], _ratio(best), best["peer"]))
        columns = ["layer or model", "batch × tokens", "pass", "dtype", "faster in", "lowest", "ratio", "over"]
        lines += ["", *(_table(columns, rows) if rows else [])]
    return lines


def _replays(frame: DataFrame) -> list[str]:
    """Eager times beside those of replayed graphs; nothing where no graph was replayed."""
    found = frame[frame["graph_frozen"].notna() | frame["graph_lora"].notna()]
    if not len(found):
        return []
    names = ("lora", "graph_lora", "graph_narrow", "graph_frozen")
    rows = []
    for row in entries(found.sort_values([*PLACE, "label"], kind="stable")):
        place = (row["subject"], f"{row['batch']:.0f} × {row['sequence']:,.0f}", f"{row['pass']}, {row['dtype']}")
        ratios = (_ratio(row, name, f"{name}_low", f"{name}_high") if row[name] == row[name] else "" for name in names)
        rows.append((*place, row["label"], *ratios))
    said = (
        "The same settings as replayed CUDA graphs, in which no Python and no launch by the host is left: which "
        "adapter's kernels take less. PEFT keeps LoRA's factors in float32 on a base of 16 bits; beside it stands LoRA "
        "whose factors have the base's dtype. What could not be captured has no row; the notes say why."
    )
    columns = ["layer or model", "batch × tokens", "pass, dtype", "setting", "eager ÷ LoRA", "graph ÷ LoRA"]
    title = ["## Kernels alone: replayed CUDA graphs", "", said, ""]
    return [*title, *_table([*columns, "graph ÷ LoRA in 16 bits", "graph ÷ frozen"], rows)]


def _ratio(row: dict[str, object], *names: str) -> str:
    value, *bounds = (float(str(row[name])) for name in names or ("ratio", "low", "high"))
    low, high = (None if bound != bound else bound for bound in bounds)
    return with_bounds(Interval(value, low, high))


def _launches(frame: DataFrame) -> list[str]:
    rows = []
    done = frame[(frame["status"] == "ok") & (frame["launches_profiler"].notna() | frame["graph_saves"].notna())]
    for _, some in done.groupby(list(PLACE), sort=True):
        shown = [
            row for row in representatives(entries(some)) if row["method"] == "cdvft" or row["setting"] == "LoRA r=8"
        ]
        for row in shown:
            counts = (
                NOT_MEASURED if v != v else integer(v) for v in (row["launches_profiler"], row["launches_adapter"])
            )
            saved = NOT_MEASURED if row["graph_saves"] != row["graph_saves"] else f"{row['graph_saves']:.0%}"
            idle = NOT_MEASURED if row["busy"] != row["busy"] else f"{1 - row['busy']:.0%}"
            where = (row["subject"], f"{row['batch']:.0f} × {row['sequence']:,.0f}", f"{row['pass']}, {row['dtype']}")
            rows.append((*where, row["label"], *counts, saved, idle))
    if not rows:
        return [f"Launches: {NOT_MEASURED}.", ""]
    said = (
        "On a GPU the cost of launching is what a replayed CUDA graph saves of an eager call, paired by round. On a "
        "CPU no such thing can be measured: there the trace says in how much of its span no operator ran, which is "
        "Python, dispatch, autograd and the profiler itself."
    )
    columns = ["layer or model", "batch × tokens", "pass, dtype", "method", "launches", "of them the adapter's"]
    return [said, "", *_table([*columns, "a graph saves", "nothing running, of the trace"], rows)]


def _traces(frame: DataFrame, traces: Sequence[Path]) -> list[str]:
    cases = {row["key"]: row for row in entries(frame)}
    rows = []
    for path in traces:
        row = cases.get(path.name.removesuffix(".json.gz")[-16:])
        what, launches, verdict = "a case that the records do not hold", NOT_MEASURED, NOT_MEASURED
        if row is not None:
            what = f"{row['label']}, {row['subject']}, {row['tokens']:,.0f} tokens, {row['dtype']}, {row['pass']}"
            launches = (
                integer(row["launches_profiler"]) if row["launches_profiler"] == row["launches_profiler"] else launches
            )
            verdict = row["verdict"] or verdict
        rows.append((what, launches, verdict, f"{path.stat().st_size:,}", path.name))
    if not rows:
        return ["None is kept.", ""]
    said = "Read one with `cdvft-bench trace FILE`, or in Perfetto."
    return [said, "", *_table(["case", "launches", "verdict", "bytes", "file in traces/"], rows)]
