"""Predictions against recorded times as a section of the report: errors, the worst ten with their causes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdvft_bench.analysis.findings import Finding
from cdvft_bench.core.text import NOT_MEASURED, clean, listed, plural
from cdvft_bench.report.figures.style import Styles
from cdvft_bench.report.page.model import SectionView
from cdvft_bench.report.page.views import view

if TYPE_CHECKING:
    from pandas import DataFrame

    from cdvft_bench.predictor.results import Evaluation, PublishedComparison, Range

ERRORS = (
    "Errors of predictions that were made without the case (or without any case of its shape, method, campaign or "
    "machine): |factor - 1|, either way, so 0.25 is a factor of 1.25. Beside them the same of a fit that knows FLOPs "
    "alone, and of one that knows FLOPs and bytes but no launches: what the others add."
)
FARTHEST = (
    "The predictions farthest from the truth, worst first; the cause is found by rule, from the evidence beside it."
)


def prediction_section(
    evaluation: Evaluation | None, published: PublishedComparison | None, styles: Styles, unpredicted: str = ""
) -> SectionView | None:
    """The section; None where nothing was predicted, nor is it said why (``unpredicted``)."""
    tables: list[tuple[str, str, str, DataFrame]] = []
    findings: list[Finding] = []
    if evaluation is not None:
        tables += [
            ("Prediction errors", "prediction-errors", ERRORS, errors_table(evaluation)),
            ("Farthest from the truth", "prediction-farthest", FARTHEST, farthest_table(evaluation)),
            ("Fitted efficiencies", "prediction-efficiencies",
             "Share of its rate that a device reaches for one kind of kernel, with its 95 % interval.",
             efficiency_table(evaluation)),
        ]  # fmt: skip
        findings.append(Finding("How far to trust it", tuple(_sentences(evaluation))))
    elif unpredicted:
        findings.append(
            Finding("Predictions of these records", (f"{NOT_MEASURED.capitalize()}: {clean(unpredicted)}.",))
        )
    if published is not None:
        tables.append((
            "Training times published by others, predicted", "prediction-published",
            f"By datasheet rates of {clean(published.device)}, nothing fitted; ratios to {clean(published.reference)}. "
            f"Source: {clean(published.source)}.", published_table(published),
        ))  # fmt: skip
        findings.append(Finding("Against published times", (_published(published),)))
    shown = [view(frame, title, name, text, styles) for title, name, text, frame in tables if len(frame)]
    if not shown and not findings:
        return None
    return SectionView("prediction", "Predicted against measured", (), tuple(findings), (), (), tuple(shown))


def prediction_frames(evaluation: Evaluation | None, published: PublishedComparison | None) -> dict[str, DataFrame]:
    """The section's tables, and every prediction, by file name."""
    frames: dict[str, DataFrame] = {}
    if evaluation is not None:
        frames["prediction-errors"] = errors_table(evaluation)
        frames["prediction-farthest"] = farthest_table(evaluation)
        frames["prediction-efficiencies"] = efficiency_table(evaluation)
    if published is not None:
        frames["prediction-published"] = published_table(published)
    return {name: frame for name, frame in frames.items() if len(frame)}


def predicted_ms(evaluation: Evaluation | None) -> dict[tuple[str, str], float]:
    """Milliseconds by (case key, environment), of the fits that left out the case alone."""
    if evaluation is None:
        return {}
    return {(p.key, p.environment): 1e3 * p.predicted_s.value for p in evaluation.predictions if p.split == "case"}


def errors_table(evaluation: Evaluation) -> DataFrame:
    """One row a device, kind of subject, pass and split."""
    from pandas import DataFrame

    rows = [
        {
            "left out": f"the {e.split}", "device": clean(e.device), "kind": e.kind, "pass": e.pass_,
            "cases": e.cases, "groups": e.groups,
            "median error": _plain(e.median), "90th percentile": _plain(e.p90),
            "FLOPs alone, median": _plain(e.flops_median), "FLOPs alone, 90th percentile": _plain(e.flops_p90),
            "without launches, median": _plain(e.bytes_median),
            "without launches, 90th percentile": _plain(e.bytes_p90),
            "in the 95 % interval [%]": NOT_MEASURED if e.covered is None else 100 * e.covered,
        }
        for e in evaluation.errors
    ]  # fmt: skip
    return DataFrame(rows, dtype=object)


def farthest_table(evaluation: Evaluation) -> DataFrame:
    """The worst ten, with the cause found."""
    from pandas import DataFrame

    rows = [
        {
            "setting": clean(f.prediction.label), "method": clean(f.prediction.method),
            "layer or model": clean(f.prediction.subject), "tokens": f.prediction.tokens, "pass": f.prediction.pass_,
            "device": clean(f.prediction.device), "predicted ÷ measured": f"{f.prediction.ratio:.2f}",
            "measured [ms]": 1e3 * f.prediction.measured_s, "predicted [ms]": 1e3 * f.prediction.predicted_s.value,
            "bound by": f.prediction.bound, "cause": clean(f.cause), "evidence": clean(f.evidence),
            "case key": f.prediction.key, "environment": clean(f.prediction.environment),
        }
        for f in evaluation.farthest
    ]  # fmt: skip
    return DataFrame(rows, dtype=object)


def efficiency_table(evaluation: Evaluation) -> DataFrame:
    """One row a device and kind of kernel."""
    from pandas import DataFrame

    rows = [
        {
            "device": clean(e.device), "kind of kernel": clean(e.kind), "efficiency": _range(e.value),
            "share of predicted time [%]": 100 * e.share, "the prior's weight [%]": 100 * e.prior,
        }
        for e in evaluation.efficiencies
    ]  # fmt: skip
    return DataFrame(rows, dtype=object)


def published_table(published: PublishedComparison) -> DataFrame:
    """One row a run of others."""
    from pandas import DataFrame

    rows = [
        {
            "experiment": clean(r.experiment), "setting": clean(r.label), "published [s]": r.published_s,
            "predicted [s]": r.predicted_s, "ratio, published": f"{r.published_ratio:.2f}",
            "ratio, predicted": f"{r.predicted_ratio:.2f}", "ratio of FLOPs": f"{r.flops_ratio:.2f}",
        }
        for r in published.runs
    ]  # fmt: skip
    return DataFrame(rows, dtype=object)


def _sentences(evaluation: Evaluation) -> Sequence[str]:
    said = []
    for device in dict.fromkeys(e.device for e in evaluation.errors):
        rows = [e for e in evaluation.errors if e.device == device and e.split == "case"]
        parts = [
            f"{e.pass_} of a {e.kind}: {_plain(e.median)} (FLOPs alone {_plain(e.flops_median)}), 90th percentile "
            f"{_plain(e.p90)} ({_plain(e.flops_p90)})"
            for e in rows
        ]
        if parts:
            said.append(f"{clean(device)}, median error of cases left out: {'; '.join(parts)}.")
    said += [f"{clean(note).rstrip('.')}." for note in evaluation.notes]
    if evaluation.left_out:
        reasons = sorted({clean(reason) for _, reason in evaluation.left_out})
        said.append(f"{plural(len(evaluation.left_out), 'record')} could not be used: {listed(reasons[:3])}.")
    return said or ["No record could be predicted."]


def _published(published: PublishedComparison) -> str:
    return (
        f"Of {plural(len(published.runs), 'run')} the predicted order of training times ranks with the published one "
        f"at {_range(published.rank_correlation)} (FLOPs alone: {_range(published.flops_rank_correlation)}; 1 is the "
        f"same order); ratios are off by {_plain(published.ratio_median)} in the median "
        f"({_plain(published.flops_ratio_median)})."
    )


def _plain(value: float) -> str:
    return f"{value:.2f}"


def _range(value: Range) -> str:
    if value.low is None or value.high is None:
        return f"{value.value:.2f}"
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"
