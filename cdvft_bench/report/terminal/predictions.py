"""What the predictor's commands print: every figure says whether it is predicted or measured."""

from collections.abc import Sequence

from cdvft_bench.core.interval import Interval
from cdvft_bench.core.text import integer, significant
from cdvft_bench.predictor.answering.table import bytes_, columns_of, rows_of, seconds, seconds_range, title_of
from cdvft_bench.predictor.results import Answer, Choice, Evaluation, PublishedComparison
from cdvft_bench.report.terminal.console import notes, open_console, say, show_table, table
from cdvft_bench.report.terminal.networks import ITEMS


def show_answer(answer: Answer, details: bool = False) -> None:
    """Print one table and one sentence; with ``details`` also memory, scaling and serving of the first, and sources."""
    shown_as = table(title_of(answer), columns_of(answer, details), text=(1, 7, 8))
    shown = (*answer.choices, *answer.too_large)
    for choice, row, following in zip(shown, rows_of(answer, details), (*shown[1:], None), strict=True):
        shown_as.add_row(*row)
        if following is not None and following.rank != choice.rank:
            shown_as.add_section()
    open_console().print(shown_as)
    say(answer.sentence)
    tied = len({c.rank for c in answer.choices}) < len(answer.choices)
    shared = f"steps within {answer.tie:.0%} of a rank's first share it; " if tied else ""
    notes(f"{shared}error", [answer.error])
    if details:
        for choice in shown[:1]:
            _show_budget(choice)
            _show_scaling(choice)
            _show_serving(choice)
        say(f"frozen model, forward and backward: {seconds_range(answer.frozen_step_s)}")
        notes("rates", answer.sources)
        notes("assumed", answer.assumptions)
    notes("left out", (f"{label}: {reason}" for label, reason in answer.left_out))


def _show_budget(choice: Choice) -> None:
    rows = [(name, bytes_(getattr(choice.memory, name))) for name in (*ITEMS, "capacity")]
    show_table(f"predicted memory of one GPU: {choice.label}", ("part", "bytes"), rows)


def _show_scaling(choice: Choice) -> None:
    title = f"predicted on more GPUs ({choice.scaling[0].strategy}): {choice.label}"
    columns = ("GPUs", "step", "tokens/s", "efficiency", "reduced", "sent by each", "network", "memory")
    rows = [
        (
            integer(s.gpus),
            seconds(s.step_s.value),
            significant(s.tokens_per_s.value, 3),
            f"{s.efficiency:.1%}",
            bytes_(s.payload_bytes if s.gpus > 1 else 0),
            bytes_(s.sent_bytes),
            "none" if s.algorithm == "none" else f"{seconds(s.communication_s)} ({s.algorithm})",
            bytes_(s.memory.total),
        )
        for s in sorted(choice.scaling, key=lambda s: s.gpus)
    ]
    show_table(title, columns, rows)


def _show_serving(choice: Choice) -> None:
    s = choice.serving
    if s is None:
        return
    after = "never" if s.break_even_tokens is None else f"after {integer(s.break_even_tokens + 0.5)} tokens a sequence"
    rows = (
        ("one adapter", bytes_(s.adapter_bytes)),
        ("1,000 adapters", bytes_(1000 * s.adapter_bytes)),
        ("adapters beside the base and the cache", "not known" if s.resident is None else integer(s.resident)),
        ("to bring one in over PCIe", "not known" if s.swap_s is None else seconds(s.swap_s)),
        ("to merge one", seconds(s.merge_s)),
        ("a token a sequence, merged", seconds(s.token_s_merged)),
        ("a token a sequence, unmerged", seconds(s.token_s_unmerged)),
        ("merging and unmerging pays", after),
    )
    show_table(f"predicted, many adapters on one base: {choice.label}", ("serving", "figure"), rows)


def show_evaluation(evaluation: Evaluation | None, published: Sequence[PublishedComparison]) -> None:
    """Print errors by device and pass, efficiencies, the predictions farthest from the truth, and others' times."""
    if evaluation is not None:
        _show_errors(evaluation)
    for one in published:
        _show_published(one)
    if evaluation is not None:
        notes("rates", (f"{device}: {source}" for device, source in evaluation.rates.items()))
        notes("note", evaluation.notes)
        notes("left out", (f"{label}: {reason}" for label, reason in evaluation.left_out))


def _show_errors(evaluation: Evaluation) -> None:
    kinds = ("median", "p90", "FLOPs: median", "p90", "no launches: median", "p90")
    columns = ("device", "of", "pass", "left out", "cases", "groups", *kinds, "in 95 %")
    rows = []
    for e in evaluation.errors:
        errors = (e.median, e.p90, e.flops_median, e.flops_p90, e.bytes_median, e.bytes_p90)
        covered = "no interval" if e.covered is None else f"{e.covered:.0%}"
        counts = (integer(e.cases), integer(e.groups))
        rows.append((e.device, e.kind, e.pass_, e.split, *counts, *(f"{x:.0%}" for x in errors), covered))
    show_table("errors of predicted times, cases left out", columns, rows, numeric_from=4)
    fits = [
        (
            f.device,
            f.kind,
            f"{f.value.value:.2f}",
            f"{f.value.low:.2f}–{f.value.high:.2f}",
            f"{f.share:.0%}",
            f"{f.prior:.0%}",
        )
        for f in evaluation.efficiencies
    ]
    names = ("device", "kind", "efficiency", "95 %", "share of time", "prior's weight")
    show_table("fitted efficiencies: share of the rate that is reached", names, fits, numeric_from=2)
    far = [
        (
            p.label,
            f"{p.subject}, {p.tokens} tokens",
            p.pass_,
            seconds(p.measured_s),
            seconds(p.predicted_s.value),
            one.cause,
            one.evidence,
        )
        for one in evaluation.farthest
        for p in (one.prediction,)
    ]
    titles = ("method", "subject", "pass", "measured", "predicted", "cause", "evidence")
    show_table("farthest from the truth", titles, far, numeric_from=3, text=(5, 6))


def _show_published(found: PublishedComparison) -> None:
    ratios = ("ratio published", "predicted", "by FLOPs")
    columns = ("run", "as", "published", "predicted", *ratios, "memory published", "predicted")
    rows = [
        (
            p.experiment,
            p.label,
            *(f"{time:,.0f} s" for time in (p.published_s, p.predicted_s)),
            *(f"{ratio:.2f}" for ratio in (p.published_ratio, p.predicted_ratio, p.flops_ratio)),
            bytes_(p.published_bytes),
            bytes_(p.predicted_bytes),
        )
        for p in found.runs
    ]
    title = f"training times as published, {found.device}; ratios to {found.reference}"
    show_table(title, columns, rows, numeric_from=2)
    ours, theirs = found.rank_correlation, found.flops_rank_correlation
    notes(
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
    notes("far", (f"{p.experiment}: {p.reason}" for p in found.runs if p.reason))
    notes("not predicted", (f"{experiment}: {reason}" for experiment, reason in found.left_out))


def _order(value: Interval) -> str:
    if value.low is None or value.high is None:
        return "not defined: all take as long"
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"
