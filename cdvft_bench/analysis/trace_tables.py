"""What a trace's analysis says as tables of text, which the terminal prints and the page shows."""

from collections.abc import Sequence
from dataclasses import dataclass

from cdvft_bench.core.text import NOT_MEASURED, integer, plural, prefixed, significant
from cdvft_bench.core.timed import TraceSummary
from cdvft_bench.timing.traces.analysis import Change, Comparison
from cdvft_bench.timing.traces.summary.result import Detail, KernelTimes, StepTimes

_NAMES = {
    "launch": "next kernel launched only just",
    "host stall": "host did something else for long",
    "input": "next data fetched or copied",
    "profiler": "profiler at work",
    "waiting": "launched, but waiting",
    "untold": "launch not in the trace",
}


@dataclass(frozen=True)
class Shown:
    """A table: its title, columns (those from ``numeric_from`` on are numbers), rows, and shares for bars.

    ``left_out``: how many rows more there are.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric_from: int = 1
    shares: tuple[float, ...] = ()
    left_out: int = 0
    caption: str = ""


def time(seconds: float) -> str:
    """Seconds in milliseconds."""
    return f"{significant(seconds * 1e3)} ms"


def share(value: float | None) -> str:
    """A share in per cent; small ones in full."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.1%}" if 0 < value < 0.1 else f"{value:.0%}"


def facts(summary: TraceSummary, detail: Detail) -> Shown:
    """What a trace says in a dozen lines."""
    on_device = summary.device != "cpu"
    rows = [
        ("verdict", f"{summary.verdict}: {summary.reason}"),
        ("ATen operators", integer(summary.operators)),
        ("launches", integer(summary.launches)),
        ("host time in operators", time(summary.host_seconds)),
        *([("device time", time(summary.device_seconds))] if on_device else []),
        ("span", time(summary.span_seconds)),
        ("busy share of " + _window(detail), share(summary.busy_fraction)),
        ("bytes moved", NOT_MEASURED if summary.moved_bytes is None else f"{prefixed(summary.moved_bytes)}B"),
        ("bandwidth", NOT_MEASURED if summary.bytes_per_second is None else f"{prefixed(summary.bytes_per_second)}B/s"),
        ("shapes recorded for", f"{share(summary.evidence)} of {'device time' if on_device else 'operator time'}"),
    ]
    if detail.flops_per_byte is not None:
        rows.append(("intensity of matrix products", f"{significant(detail.flops_per_byte, 3)} FLOPs a byte"))
    if on_device:
        rows += _launching(summary)
    elif summary.host_working is not None:
        rows.append(("the host worked", share(summary.host_working)))
    return Shown(f"trace ({summary.device})", ("quantity", "value"), tuple(rows), numeric_from=2)


def _window(detail: Detail) -> str:
    kept = sum(not step.warm_up for step in detail.steps)
    return plural(kept, "step") if kept else "the span"


def _launching(summary: TraceSummary) -> list[tuple[str, str]]:
    delay, depth = summary.queue_delay_seconds, summary.queue_depth
    rows = [
        (
            "launching on the host",
            f"{integer(summary.launch_calls)} calls, {time(summary.launch_seconds)} but for copies",
        ),
        (
            "gaps",
            f"{integer(summary.gaps)}, {time(summary.gap_seconds)} in all, the longest "
            f"{time(summary.largest_gap_seconds)}; {time(summary.starved_seconds)} with nothing launched",
        ),
        ("launch to start, median", NOT_MEASURED if delay is None else time(delay)),
        ("kernels in the queue, median", NOT_MEASURED if depth is None else f"{depth:g}"),
    ]
    if summary.communication_seconds:
        alone = summary.exposed_seconds / summary.communication_seconds
        rows.append(
            ("communication", f"{time(summary.communication_seconds)}, of it {share(alone)} with no compute beside it")
        )
    return rows


def tables(summary: TraceSummary, detail: Detail, top: int) -> list[Shown]:
    """Everything else, in the order of its use; empty tables are left out."""
    found = [
        _families(summary, detail),
        _steps(detail, top),
        _kernels(summary, detail.kernels, top),
        _operators(summary, detail, top),
        *_gaps(summary, detail),
        _devices(detail),
        _streams(detail),
        _communication(detail, top),
        _graphs(detail),
        _runtime(detail),
        _parts(summary),
        _scopes(summary, top),
    ]
    return [one for one in found if one.rows]


def _families(summary: TraceSummary, detail: Detail) -> Shown:
    total = sum(summary.families.values())
    rows = sorted(summary.families.items(), key=lambda item: (-item[1], item[0]))
    shares = tuple(seconds / total if total else 0.0 for _, seconds in rows)
    return Shown(
        "by family",
        ("family", "launches", "time", "share"),
        tuple(
            (name, integer(summary.family_launches.get(name, 0)), time(seconds), share(part))
            for (name, seconds), part in zip(rows, shares, strict=True)
        ),
        shares=shares,
        caption="Device time" if summary.device != "cpu" else "Self time of operators on the host",
    )


def _steps(detail: Detail, top: int) -> Shown:
    longest = max((step.seconds for step in detail.steps), default=0.0)
    return Shown(
        "by step",
        ("step", "", "on the host", "device time", "busy", "communication", "alone", "launches"),
        tuple(_step(step) for step in detail.steps[:top]),
        numeric_from=2,
        shares=tuple(step.seconds / longest if longest else 0.0 for step in detail.steps[:top]),
        left_out=max(0, len(detail.steps) - top),
    )


def _step(step: StepTimes) -> tuple[str, ...]:
    busy = step.busy_seconds / step.seconds if step.seconds else None
    return (
        step.name,
        "warm-up, left out" if step.warm_up else "",
        time(step.seconds),
        time(step.device_seconds),
        share(busy),
        time(step.communication_seconds),
        time(step.exposed_seconds),
        integer(step.launches),
    )


def _kernels(summary: TraceSummary, kernels: Sequence[KernelTimes], top: int) -> Shown:
    return Shown(
        "top kernels" if summary.device != "cpu" else "top leaf operators",
        ("kernel", "family", "launches", "time", "each", "share"),
        tuple(
            (k.label, k.family, integer(k.launches), time(k.seconds), time(k.seconds / k.launches), share(k.share))
            for k in kernels[:top]
        ),
        numeric_from=2,
        shares=tuple(k.share for k in kernels[:top]),
        left_out=max(0, len(kernels) - top),
    )


def _operators(summary: TraceSummary, detail: Detail, top: int) -> Shown:
    on_device = summary.device != "cpu"
    rows = detail.operators if on_device else sorted(detail.operators, key=lambda r: (-r.host_seconds, r.name))
    total = sum(row.host_seconds for row in detail.operators)
    shares = [row.share if on_device else (row.host_seconds / total if total else 0.0) for row in rows[:top]]
    return Shown(
        "top operators",
        ("operator", "calls", "self time on the host", "launches", "device time", "share"),
        tuple(
            (r.name, integer(r.calls), time(r.host_seconds), integer(r.launches), time(r.device_seconds), share(part))
            for r, part in zip(rows[:top], shares, strict=True)
        ),
        shares=tuple(shares),
        left_out=max(0, len(rows) - top),
        caption="Launches and device time of what each operator launched itself",
    )


def _gaps(summary: TraceSummary, detail: Detail) -> list[Shown]:
    total = sum(summary.idle.values())
    causes = sorted(summary.idle.items(), key=lambda item: -item[1])
    shares = tuple(seconds / total if total else 0.0 for _, seconds in causes)
    idle = Shown(
        "idle, and why",
        ("cause", "time", "share of the idle time"),
        tuple((_NAMES.get(n, n), time(s), share(part)) for (n, s), part in zip(causes, shares, strict=True)),
        shares=shares,
    )
    longest = Shown(
        "the longest gaps",
        ("device", "at", "length", "not launched for", "why", "after", "before", "the host was in"),
        tuple(
            (
                g.device,
                time(g.start_seconds),
                time(g.seconds),
                time(g.starved_seconds),
                _NAMES.get(g.cause, g.cause),
                g.after or "(the beginning)",
                g.before or "(the end)",
                _host(g.host, g.host_share),
            )
            for g in detail.gaps
        ),
        numeric_from=99,
    )
    return [idle, longest]


def _host(path: Sequence[str], part: float) -> str:
    return f"{' > '.join(path)} ({share(part)} of it)" if path else "nothing recorded"


def _devices(detail: Detail) -> Shown:
    return Shown(
        "by device",
        ("device", "busy", "device time", "launches", "gaps", "idle between", "communication", "alone"),
        tuple(
            (
                d.name,
                share(d.busy_fraction),
                time(d.device_seconds),
                integer(d.launches),
                integer(d.gaps),
                time(d.gap_seconds),
                time(d.communication_seconds),
                time(d.exposed_seconds),
            )
            for d in detail.devices
        ),
        shares=tuple(d.busy_fraction or 0.0 for d in detail.devices),
    )


def _streams(detail: Detail) -> Shown:
    def queue(values: tuple[float, ...] | None) -> tuple[str, ...]:
        return (NOT_MEASURED,) * 3 if values is None else tuple(f"{v:.3g}" for v in values)

    return Shown(
        "by stream",
        ("device", "stream", "launches", "device time", "busy", "queue, mean", "median", "longest"),
        tuple(
            (
                s.device,
                s.stream or "(none)",
                integer(s.launches),
                time(s.device_seconds),
                time(s.busy_seconds),
                *queue((s.queue.mean, s.queue.median, s.queue.maximum) if s.queue else None),
            )
            for s in detail.streams
        ),
        numeric_from=2,
        caption="Queue: operations launched and not begun, at each moment at which their number changes",
    )


def _communication(detail: Detail, top: int) -> Shown:
    found = detail.communication
    alone = "" if found.overlapped is None else f"{share(found.overlapped)} of it overlaps with compute"
    return Shown(
        "communication",
        ("kernel", "launches", "time", "each"),
        tuple(
            (k.label, integer(k.launches), time(k.seconds), time(k.seconds / k.launches)) for k in found.kernels[:top]
        ),
        left_out=max(0, len(found.kernels) - top),
        caption=alone,
    )


def _graphs(detail: Detail) -> Shown:
    g = detail.graphs
    rows = (
        ("replays", integer(g.replays)),
        ("launches in them", integer(g.launches)),
        ("their device time", time(g.device_seconds)),
        ("host time in replaying", time(g.host_seconds)),
        ("recordings", integer(g.captures)),
        ("launch calls that were recorded, not launched", integer(g.recorded)),
    )
    return Shown("graphs", ("", "figure"), rows if g.replays or g.captures or g.launches else ())


def _runtime(detail: Detail) -> Shown:
    rows = sorted(detail.runtime.items(), key=lambda item: (-item[1].seconds, item[0]))
    return Shown(
        "calls into the runtime",
        ("kind", "calls", "host time"),
        tuple((kind, integer(c.calls), time(c.seconds)) for kind, c in rows),
    )


def _parts(summary: TraceSummary) -> Shown:
    return Shown(
        "by part",
        ("part", "launches", "of them backward", "time"),
        tuple(
            (name, integer(p.launches), integer(p.backward_launches), time(p.seconds))
            for name, p in summary.parts.items()
        ),
    )


def _scopes(summary: TraceSummary, top: int) -> Shown:
    if summary.parts or not set(summary.scopes) - {"unscoped"}:
        return Shown("by range", (), ())
    rows = sorted(summary.scopes.items(), key=lambda item: (-summary.scope_seconds.get(item[0], 0.0), item[0]))
    return Shown(
        "by range",
        ("range", "launches", "time"),
        tuple((name, integer(n), time(summary.scope_seconds.get(name, 0.0))) for name, n in rows[:top]),
        left_out=max(0, len(rows) - top),
    )


# --- two traces -----------------------------------------------------------------------------


def comparison_tables(found: Comparison, names: tuple[str, str], top: int) -> list[Shown]:
    """This trace against another: what changed."""
    before, after = "before", "now"
    overview = Shown(
        f"{names[0]} against {names[1]}, for {found.basis}",
        ("quantity", before, after, "difference", "ratio"),
        (
            ("verdict", found.verdicts[0], found.verdicts[1], "", ""),
            ("busy share", share(found.busy[0]), share(found.busy[1]), "", ""),
            *[(row.name, *_times(row)) for row in found.times if row.before or row.after],
        ),
    )
    families = [row for row in found.families if row.before or row.after]
    kernels = [row for row in found.kernels if row.difference or row.launches_before != row.launches_after]
    return [
        overview,
        Shown(
            "by family, largest change first",
            ("family", before, after, "difference", "ratio", "launches before", "launches now"),
            tuple((r.name, *_times(r), *_launches(r)) for r in families),
        ),
        Shown(
            "by kernel, largest change first",
            ("kernel", "family", before, after, "difference", "ratio", "launches before", "launches now"),
            tuple((r.name, r.family, *_times(r), *_launches(r)) for r in kernels[:top]),
            numeric_from=2,
            left_out=max(0, len(kernels) - top),
        ),
    ]


def _times(row: Change) -> tuple[str, str, str, str]:
    ratio = "new" if not row.before else "gone" if not row.after else f"{row.after / row.before:.2f}×"
    sign = "+" if row.difference > 0 else ""
    return time(row.before), time(row.after), f"{sign}{time(row.difference)}", ratio


def _launches(row: Change) -> tuple[str, str]:
    return f"{row.launches_before:,.4g}", f"{row.launches_after:,.4g}"
