"""What the predictor's commands print: every figure says whether it is predicted or measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from cdvft_bench.core.text import clean, integer, prefixed, significant
from cdvft_bench.predictor.answering.sentence import fit_text
from cdvft_bench.report.terminal.console import open_console

if TYPE_CHECKING:
    from cdvft_bench.predictor.results import Answer, Choice, Evaluation, PublishedComparison, Range


def show_answer(answer: Answer, details: bool = False) -> None:
    """Print one table and one sentence; with ``details`` also memory, scaling and serving of the first, and sources."""
    console = open_console()
    where = "" if answer.gpus == 1 else f" on {answer.gpus:,} GPUs ({answer.strategy})"
    title = (
        f"{clean(answer.model)}, {answer.device}{where}, batch {answer.batch} × {answer.sequence} tokens a GPU, "
        f"{answer.dtype}"
    )
    columns = ["", "method", "step", "× LoRA r=8", "tokens/s", "memory", "trained", "known by"]
    shown = (*answer.choices, *answer.too_large)
    table = _table(
        title, [*columns, "why" if details else "fit"] if details or answer.too_large else columns, (1, 7, 8)
    )
    ranks = Counter(c.rank for c in answer.choices)
    for choice, following in zip(shown, (*shown[1:], None), strict=True):
        table.add_row(*_row(choice, ranks, details)[: len(table.columns)])
        if following is not None and following.rank != choice.rank:
            table.add_section()
    console.print(table)
    console.print(clean(answer.sentence), highlight=False, markup=False)
    tied = f"steps within {answer.tie:.0%} of a rank's first share it; " if any(n > 1 for n in ranks.values()) else ""
    console.print(f"{tied}error: {clean(answer.error)}", highlight=False, markup=False)
    if details:
        for choice in shown[:1]:
            _show_budget(choice)
            _show_scaling(choice)
            _show_serving(choice)
        console.print(f"frozen model, forward and backward: {_range(answer.frozen_step_s)}", highlight=False)
        _lines("rates", answer.sources)
        _lines("assumed", answer.assumptions)
    _lines("left out", (f"{label}: {reason}" for label, reason in answer.left_out))


def _row(choice: Choice, ranks: Mapping[int, int], details: bool) -> list[str]:
    told = fit_text(choice.fit)
    if details:
        told = "; ".join(filter(None, (told, choice.why)))
    ratio = choice.over_lora
    return [
        (f"{choice.rank}=" if ranks[choice.rank] > 1 else str(choice.rank)) if choice.rank else "",
        clean(choice.label),
        f"≥ {_seconds(choice.step_s.value)}" if choice.at_least else _range(choice.step_s),
        significant(ratio.value, 3) + ("" if ratio.low is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"),
        ("≤ " if choice.at_least else "") + integer(float(significant(choice.tokens_per_s.value, 3).replace(",", ""))),
        _bytes(choice.memory.total),
        integer(choice.parameters),
        choice.known,
        clean(told),
    ]


def _show_budget(choice: Choice) -> None:
    m = choice.memory
    table = _table(f"predicted memory of one GPU: {clean(choice.label)}", ["part", "bytes"])
    parts = ("weights", "gradients", "optimizer", "activations", "workspace", "overhead", "total")
    for name in parts:
        table.add_row(name, _bytes(getattr(m, name)))
    table.add_row("capacity", _bytes(m.capacity))
    open_console().print(table)


def _show_scaling(choice: Choice) -> None:
    first = choice.scaling[0]
    title = f"predicted on more GPUs ({first.strategy}): {clean(choice.label)}"
    table = _table(title, ["GPUs", "step", "tokens/s", "efficiency", "reduced", "sent by each", "network", "memory"])
    for s in sorted(choice.scaling, key=lambda s: s.gpus):
        network = "none" if s.algorithm == "none" else f"{_seconds(s.communication_s)} ({s.algorithm})"
        table.add_row(
            integer(s.gpus),
            _seconds(s.step_s.value),
            significant(s.tokens_per_s.value, 3),
            f"{s.efficiency:.1%}",
            _bytes(s.payload_bytes if s.gpus > 1 else 0),
            _bytes(s.sent_bytes),
            network,
            _bytes(s.memory.total),
        )
    open_console().print(table)


def _show_serving(choice: Choice) -> None:
    s = choice.serving
    table = _table(f"predicted, many adapters on one base: {clean(choice.label)}", ["serving", "figure"])
    after = "never" if s.break_even_tokens is None else f"after {integer(s.break_even_tokens + 0.5)} tokens a sequence"
    for name, text in (
        ("one adapter", _bytes(s.adapter_bytes)),
        ("1,000 adapters", _bytes(1000 * s.adapter_bytes)),
        ("adapters beside the base and the cache", "not known" if s.resident is None else integer(s.resident)),
        ("to bring one in over PCIe", "not known" if s.swap_s is None else _seconds(s.swap_s)),
        ("to merge one", _seconds(s.merge_s)),
        ("a token a sequence, merged", _seconds(s.token_s_merged)),
        ("a token a sequence, unmerged", _seconds(s.token_s_unmerged)),
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
            _seconds(p.measured_s),
            _seconds(p.predicted_s.value),
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
            _bytes(p.published_bytes),
            _bytes(p.predicted_bytes),
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
    _lines("not predicted", (f"{experiment}: {reason}" for experiment, reason in found.left_out))


def _order(value: Range) -> str:
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


def _seconds(value: float) -> str:
    return f"{significant(value * 1e3, 3)} ms"


def _range(value: Range) -> str:
    if value.low is None or value.high is None:
        return _seconds(value.value)
    low, high = (significant(v * 1e3, 3) for v in (value.low, value.high))
    return f"{_seconds(value.value)} [{low}, {high}]"


def _bytes(value: float | None) -> str:
    if value is None:
        return "not known"
    text = prefixed(value)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"
