"""What the predictor's commands print: every figure says whether it is predicted or measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from cdvft_bench.core.text import clean, integer, significant
from cdvft_bench.predictor.answering.table import bytes_, columns_of, rows_of, seconds, seconds_range, title_of
from cdvft_bench.report.terminal.console import open_console

if TYPE_CHECKING:
    from cdvft_bench.core.interval import Interval
    from cdvft_bench.predictor.results import Answer, Choice, Evaluation, PublishedComparison


def show_answer(answer: Answer, details: bool = False) -> None:
    """Print one table and one sentence; with ``details`` also memory, scaling and serving of the first, and sources."""
    console = open_console()
    table = _table(clean(title_of(answer)), columns_of(answer, details), text=(1, 7, 8))
    shown = (*answer.choices, *answer.too_large)
    for choice, row, following in zip(shown, rows_of(answer, details), (*shown[1:], None), strict=True):
        table.add_row(*row)
        if following is not None and following.rank != choice.rank:
            table.add_section()
    console.print(table)
    console.print(clean(answer.sentence), highlight=False, markup=False)
    tied = len({c.rank for c in answer.choices}) < len(answer.choices)
    shared = f"steps within {answer.tie:.0%} of a rank's first share it; " if tied else ""
    console.print(f"{shared}error: {clean(answer.error)}", highlight=False, markup=False)
    if details:
        for choice in shown[:1]:
            _show_budget(choice)
            _show_scaling(choice)
            _show_serving(choice)
        console.print(f"frozen model, forward and backward: {seconds_range(answer.frozen_step_s)}", highlight=False)
        _lines("rates", answer.sources)
        _lines("assumed", answer.assumptions)
    _lines("left out", (f"{label}: {reason}" for label, reason in answer.left_out))


def _show_budget(choice: Choice) -> None:
    m = choice.memory
    table = _table(f"predicted memory of one GPU: {clean(choice.label)}", ["part", "bytes"])
    parts = ("weights", "gradients", "optimizer", "activations", "workspace", "overhead", "total")
    for name in parts:
        table.add_row(name, bytes_(getattr(m, name)))
    table.add_row("capacity", bytes_(m.capacity))
    open_console().print(table)


def _show_scaling(choice: Choice) -> None:
    first = choice.scaling[0]
    title = f"predicted on more GPUs ({first.strategy}): {clean(choice.label)}"
    table = _table(title, ["GPUs", "step", "tokens/s", "efficiency", "reduced", "sent by each", "network", "memory"])
    for s in sorted(choice.scaling, key=lambda s: s.gpus):
        network = "none" if s.algorithm == "none" else f"{seconds(s.communication_s)} ({s.algorithm})"
        table.add_row(
            integer(s.gpus),
            seconds(s.step_s.value),
            significant(s.tokens_per_s.value, 3),
            f"{s.efficiency:.1%}",
            bytes_(s.payload_bytes if s.gpus > 1 else 0),
            bytes_(s.sent_bytes),
            network,
            bytes_(s.memory.total),
        )
    open_console().print(table)


def _show_serving(choice: Choice) -> None:
    s = choice.serving
    if s is None:
        return
    table = _table(f"predicted, many adapters on one base: {clean(choice.label)}", ["serving", "figure"])
    after = "never" if s.break_even_tokens is None else f"after {integer(s.break_even_tokens + 0.5)} tokens a sequence"
    for name, text in (
        ("one adapter", bytes_(s.adapter_bytes)),
        ("1,000 adapters", bytes_(1000 * s.adapter_bytes)),
        ("adapters beside the base and the cache", "not known" if s.resident is None else integer(s.resident)),
        ("to bring one in over PCIe", "not known" if s.swap_s is None else seconds(s.swap_s)),
        ("to merge one", seconds(s.merge_s)),
        ("a token a sequence, merged", seconds(s.token_s_merged)),
        ("a token a sequence, unmerged", seconds(s.token_s_unmerged)),
        ("merging and unmerging pays", after),
    ):
        table.add_row(name, text)
    open_console().print(table)


def show_evaluation(evaluation: Evaluation | None, published: Sequence[PublishedComparison]) -> None:
    """Print errors by device and pass, efficiencies, the predictions farthest from the truth, and others' times."""
    if evaluation is not None:
        _show_errors(evaluation)
    for one in published:
        _show_published(one)
    if evaluation is not None:
        _lines("rates", (f"{device}: {source}" for device, source in evaluation.rates.items()))
        _lines("note", evaluation.notes)
        _lines("left out", (f"{label}: {reason}" for label, reason in evaluation.left_out))


def _show_errors(evaluation: Evaluation) -> None:
    console = open_console()
    columns = [
        "device",
        "of",
        "pass",
        "left out",
        "cases",
        "groups",
        "median",
        "p90",
        "FLOPs: median",
        "p90",
        "no launches: median",
        "p90",
        "in 95 %",
    ]
    table = _table("errors of predicted times, cases left out", columns, text=(0, 1, 2, 3))
    for e in evaluation.errors:
        errors = (e.median, e.p90, e.flops_median, e.flops_p90, e.bytes_median, e.bytes_p90)
        covered = "no interval" if e.covered is None else f"{e.covered:.0%}"
        table.add_row(
            clean(e.device),
            e.kind,
            e.pass_,
            e.split,
            integer(e.cases),
            integer(e.groups),
            *(f"{x:.0%}" for x in errors),
            covered,
        )
    console.print(table)
    table = _table(
        "fitted efficiencies: share of the rate that is reached",
        ["device", "kind", "efficiency", "95 %", "share of time", "prior's weight"],
        text=(0, 1),
    )
    for f in evaluation.efficiencies:
        table.add_row(
            clean(f.device),
            clean(f.kind),
            f"{f.value.value:.2f}",
            f"{f.value.low:.2f}–{f.value.high:.2f}",
            f"{f.share:.0%}",
            f"{f.prior:.0%}",
        )
    console.print(table)
    columns = ["method", "subject", "pass", "measured", "predicted", "cause", "evidence"]
    table = _table("farthest from the truth", columns, text=(0, 1, 2, 5, 6))
    for one in evaluation.farthest:
        p = one.prediction
        table.add_row(
            clean(p.label),
            clean(f"{p.subject}, {p.tokens} tokens"),
            p.pass_,
            seconds(p.measured_s),
            seconds(p.predicted_s.value),
            clean(one.cause),
            clean(one.evidence),
        )
    console.print(table)


def _show_published(found: PublishedComparison) -> None:
    columns = [
        "run",
        "as",
        "published",
        "predicted",
        "ratio published",
        "predicted",
        "by FLOPs",
        "memory published",
        "predicted",
    ]
    title = f"training times as published, {clean(found.device)}; ratios to {clean(found.reference)}"
    table = _table(title, columns, text=(0, 1))
    for p in found.runs:
        table.add_row(
            clean(p.experiment),
            clean(p.label),
            f"{p.published_s:,.0f} s",
            f"{p.predicted_s:,.0f} s",
            f"{p.published_ratio:.2f}",
            f"{p.predicted_ratio:.2f}",
            f"{p.flops_ratio:.2f}",
            bytes_(p.published_bytes),
            bytes_(p.predicted_bytes),
        )
    open_console().print(table)
    ours, theirs = found.rank_correlation, found.flops_rank_correlation
    _lines(
        "published",
        (
            f"rank correlation {_order(ours)}, by FLOPs {_order(theirs)} ({len(found.runs)} runs; "
            f"{len(found.left_out)} left out)",
            f"error of ratios: median {found.ratio_median:.0%}, p90 {found.ratio_p90:.0%}; by FLOPs "
            f"{found.flops_ratio_median:.0%}, {found.flops_ratio_p90:.0%}",
            "peak memory: not given"
            if found.memory_median is None or found.memory_p90 is None
            else f"error of peak memory: median {found.memory_median:.1%}, p90 {found.memory_p90:.1%}",
            *found.assumptions,
        ),
    )
    _lines("far", (f"{p.experiment}: {p.reason}" for p in found.runs if p.reason))
    _lines("not predicted", (f"{experiment}: {reason}" for experiment, reason in found.left_out))


def _order(value: Interval) -> str:
    if value.low is None or value.high is None:
        return "not defined: all take as long"
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _lines(name: str, texts: Iterable[str]) -> None:
    for text in texts:
        open_console().print(f"{name}: {clean(text)}", highlight=False, markup=False)


def _table(title: str, columns: Iterable[str], text: Sequence[int] = (0,)) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i in text else "right", overflow="fold")
    return table
