"""What the commands print of one case, a machine: rich tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.text import Text

from cdvft_bench.analysis.cases import title_of
from cdvft_bench.core.case import Case
from cdvft_bench.core.counted import Counted
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Predicted
from cdvft_bench.core.text import NOT_MEASURED, clean, integer, interval, prefixed, significant
from cdvft_bench.core.timed import SelfTest, Timed
from cdvft_bench.report.terminal.console import notes, say, show_table
from cdvft_bench.report.terminal.networks import pass_rows

if TYPE_CHECKING:
    from cdvft_bench.analytic.roofline import Rates
    from cdvft_bench.counting.hardware import Executed
    from cdvft_bench.execution.planner import Estimate, Problem
    from cdvft_bench.sweep.doctor import Finding


def _title(case: Case) -> str:
    settings = " ".join(f"{k}={v}" for k, v in case.hyperparameters)
    workload = f"{case.batch} × {case.sequence} tokens, {case.dtype}, {case.device}"
    return clean(f"{' '.join(filter(None, (title_of(case.method), settings)))} on {case.subject}: {workload}")


def _seconds(value: float) -> str:
    return f"{significant(value * 1e3)} ms"


def _interval(value: Interval | None) -> str:
    return NOT_MEASURED if value is None else interval(value.value, value.low, value.high)


def show_predicted(case: Case, predicted: Predicted) -> None:
    """Print the closed form of one case."""
    passes = {"forward": predicted.forward, "backward": predicted.backward, "update": predicted.update}
    show_table(_title(case), ("closed form", *passes), pass_rows(tuple(passes.values()), transforms=True))
    saved = "not in the formula" if predicted.saved_bytes is None else f"{integer(predicted.saved_bytes)} bytes"
    say(
        f"trainable parameters {integer(predicted.parameters)}; activations kept for backward {saved}; "
        f"optimiser state {integer(predicted.optimizer_bytes)} bytes; covers: {predicted.covers}"
    )


def show_counted(case: Case, predicted: Predicted, counted: Counted, executed: Executed | None = None) -> None:
    """Print formula against count of one case, and what the processor's own counters read, if they were asked."""
    rows: list[tuple[str, ...]] = []

    def row(name: str, formula: float | None, count: float | None) -> None:
        difference = NOT_MEASURED
        if formula is not None and count is not None:
            difference = "exact" if abs(formula - count) <= 1e-9 * abs(count) else f"{count - formula:+,.0f}"
        said = "not in the formula" if formula is None else f"{formula:,.0f}"
        rows.append((name, said, NOT_MEASURED if count is None else f"{count:,.0f}", difference))

    row("trainable parameters", predicted.parameters, counted.parameters)
    row("forward multiply-adds, fvcore", predicted.forward.macs, counted.fvcore.macs if counted.fvcore else None)
    passes = [
        ("forward", predicted.forward, counted.forward),
        ("backward", predicted.backward, counted.backward),
        ("update", predicted.update, counted.update),
    ]
    for name, formula, count in passes:
        if count is None:
            continue
        row(f"{name}: multiply-adds, dispatched", formula.macs, count.macs)
        row(f"{name}: FFT FLOPs, convention flop", formula.fft_flops["flop"], count.fft_flops)
        row(f"{name}: element-wise FLOPs", formula.elementwise_flops, count.elementwise_flops)
        row(f"{name}: kernel launches", formula.launches, count.launches)
    row("activations kept for backward, bytes", predicted.saved_bytes, counted.saved_bytes)
    show_table(_title(case), ("quantity", "closed form", "counted", "difference"), rows)
    notes("note", counted.notes)
    for name, _, count in passes:
        if count is not None and count.unpriced:
            unknown, share = sum(count.unpriced.values()), sum(count.unpriced.values()) / max(count.launches, 1)
            names = ", ".join(f"{k} × {v}" for k, v in count.unpriced.items())
            moved = count.unpriced_bytes / max(count.read + count.written, 1)
            told = f"{name}: {unknown} of {count.launches} launches ({share:.0%}) have no price: {names}; they are "
            told += f"{moved:.2%} of the bytes" if count.unpriced_bytes else "an unknown share of the bytes"
            say(told)
    if counted.fvcore and counted.fvcore.unsupported:
        names = ", ".join(f"{k} × {v}" for k, v in sorted(counted.fvcore.unsupported.items()))
        say(f"fvcore has no price for: {names}")
    if executed is not None:
        read = "not available" if executed.flops is None else f"{integer(executed.flops)} a {case.pass_}"
        say(f"{executed.counter}: {read}; {executed.reason}")


def show_timed(case: Case, timed: Timed) -> None:
    """Print the clock's figures of one case."""
    if timed.timing is not None:
        columns = ("contender", "median", "quartiles", "this case / contender, 95 % interval")
        rows = []
        for sample in timed.timing.samples:
            ratio = timed.timing.ratios.get(sample.name)
            quartiles = f"{_seconds(sample.q25)} … {_seconds(sample.q75)}"
            name = re.sub(r"^lora (?=r=)", "LoRA ", clean(sample.name))
            rows.append((name, _seconds(sample.median), quartiles, _interval(ratio) if ratio else "—"))
        show_table(f"{_title(case)}, {case.pass_}", columns, rows)
        say(f"{timed.timing.rounds} interleaved rounds, {timed.timing.threads} threads, read by {timed.timing.method}")
        notes("warning", timed.timing.warnings)
    if timed.trace is not None:
        families = ", ".join(f"{k} {_seconds(v)}" for k, v in sorted(timed.trace.families.items(), key=lambda x: -x[1]))
        say(f"trace ({timed.trace.device}): {timed.trace.launches} launches; {families}")
    if timed.memory is not None:
        say(f"peak memory above the start: {integer(timed.memory.peak_bytes)} bytes ({timed.memory.how})")
        if timed.memory.kept_bytes is not None:
            say(f"kept beyond the frozen subject: {integer(timed.memory.kept_bytes)} bytes")
    notes("note", timed.notes)


def show_selftest(result: SelfTest) -> None:
    """Print how the clock does against itself."""
    width = result.widest_half_width
    rows = (
        ("comparisons of a call with itself", integer(result.comparisons)),
        ("intervals that exclude 1 (some 5 % are due)", f"{result.excluded:.0%}"),
        ("intervals more than 1 % away from 1 (false differences)", f"{result.excluded_by_1_percent:.0%}"),
        ("largest deviation of a ratio from 1", f"{result.largest_deviation:.1%}"),
        ("widest half-width of an interval", NOT_MEASURED if width is None else f"{width:.1%}"),
        ("a contender that does the work twice (2 is right)", _interval(result.doubled)),
        ("one call", _seconds(result.seconds)),
    )
    show_table("the clock against itself", ("", "figure"), rows)
    notes("warning", result.warnings)


def show_plan(problem: Problem, estimates: Iterable[Estimate], rates: Rates) -> None:
    """Print the predicted time and memory of every path, fastest first, and what the prediction rests on."""
    what = "forward and backward" if problem.training else "forward"
    title = (
        f"{problem.d_in} x {problem.d_out}, p = {problem.p}, m = {problem.m}, {problem.tokens:,} tokens, "
        f"{problem.dtype}, {problem.device}: {what}"
    )
    columns = ("path", "predicted", "beyond the frozen layer", "launches", "kept for backward", "bytes moved")
    rows = [
        (
            e.path,
            *map(_seconds, (e.seconds, e.overhead_s)),
            integer(e.launches),
            *(f"{prefixed(b)}B" for b in (e.saved_bytes, e.read_written)),
        )
        for e in estimates
    ]
    show_table(title, columns, rows)
    say(
        "Predicted, not measured: each kernel takes the longest of arithmetic, traffic and launch, at the rates of "
        f"{rates.device} ({rates.source}). To measure this machine's: cdvft-bench calibrate --device {problem.device}"
    )
    for path, why in problem.kernels.items():
        if why:
            say(f"Path {path} is not available: {why}")


def show_doctor(findings: Iterable[Finding]) -> None:
    """Print what this machine can and cannot measure."""
    words = {True: Text("yes", "green"), False: Text("no", "red")}
    rows = ((finding.what, words[finding.available], finding.detail) for finding in findings)
    show_table("this machine", ("what", "", "detail"), rows, numeric_from=3)
