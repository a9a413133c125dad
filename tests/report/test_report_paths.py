"""Paths beside each other: grouped by setting, ranked by time, regret of the planner's pick, claims' section."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cdvft_bench.analysis.agreement import median_seconds
from cdvft_bench.analysis.groups import is_lora8
from cdvft_bench.analysis.paths import Setting, over_floor, paths_table, regret_sentence, settings, target_sentence
from cdvft_bench.analytic.models import layer_shape
from cdvft_bench.claims.table import VerdictRow
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import NOT_MEASURED
from cdvft_bench.execution.floors import layer_floor
from cdvft_bench.execution.planner import BUILT_IN, Problem
from cdvft_bench.report.page.report import Source, write_report
from tests.report.report_records import ENVIRONMENTS, make_records


def executed(path: str, ratio: float) -> Record:
    """A CDVFT step on a layer, executed by ``path``, ``ratio`` times as long as the frozen layer."""
    record = next(r for r in make_records() if r.case.method == "cdvft" and r.case.pass_ == "step" and r.timed)
    assert record.timed is not None
    assert record.timed.timing is not None
    values = {**dict(record.case.hyperparameters), "path": path}
    if path == "fft":
        del values["path"]
    case = replace(record.case, hyperparameters=tuple(sorted(values.items())))
    ratios = {**record.timed.timing.ratios, "frozen": Interval(ratio, ratio - 0.01, ratio + 0.01)}
    timed = replace(record.timed, timing=replace(record.timed.timing, ratios=ratios))
    label = "CDVFT m=2 p=8" + ("" if path == "fft" else f" {path}")
    return replace(record, case=case, label=label, timed=timed)


def test_paths_are_ranked_and_set_against_the_naive_one() -> None:
    found = settings([executed("fft", 1.6), executed("stored", 1.2), executed("fused", 1.3)])
    assert len(found) == 1
    table = paths_table(found)
    assert list(table["path"]) == ["stored", "fused", "fft"]
    assert list(table["times less overhead than fft"]) == ["3.00", "2.00", "1.00"]
    assert regret_sentence(found) == ""


def test_regret_is_what_the_pick_loses() -> None:
    found = settings([executed("fft", 1.6), executed("stored", 1.2), executed("fused", 1.3), executed("auto", 1.26)])
    assert found[0].regret == pytest.approx(0.05)
    assert "5.0 % longer than the fastest path in the median over 1 settings" in regret_sentence(found)


def test_time_stands_over_the_floor_of_a_calibrated_machine() -> None:
    record = executed("fft", 1.6)
    rates = BUILT_IN["cpu"]
    assert over_floor(record, {}) == NOT_MEASURED
    said = float(over_floor(record, {record.environment: rates}))
    shape = layer_shape(record.case.subject)
    p = dict(record.case.hyperparameters).get("block_size") or min(shape.d_in, shape.d_out)
    problem = Problem(int(shape.d_in), int(shape.d_out), int(p), 2, record.case.tokens, bias=shape.bias)
    seconds = median_seconds(record)
    assert seconds is not None
    assert said == pytest.approx(seconds / layer_floor(problem, rates), abs=0.01)
    model = replace(record, case=replace(record.case, kind="model"))
    assert over_floor(model, {record.environment: rates}) == "layers only"


def beside_lora(ratio: float) -> list[Setting]:
    """Three paths and the planner's pick, which takes ``ratio`` of LoRA's time."""
    pick = executed("auto", 1.3)
    assert pick.timed is not None
    assert pick.timed.timing is not None
    ratios = {**pick.timed.timing.ratios, "lora r=8": Interval(ratio, ratio - 0.02, ratio + 0.02)}
    assert set(ratios) == set(pick.timed.timing.ratios)
    pick = replace(pick, timed=replace(pick.timed, timing=replace(pick.timed.timing, ratios=ratios)))
    lora = next(r for r in make_records() if is_lora8(r.case) and r.case.pass_ == "step")
    lora = replace(lora, case=replace(pick.case, method="lora", hyperparameters=lora.case.hyperparameters))
    return settings([executed("fft", 1.6), executed("stored", 1.2), executed("fused", 1.3), pick, lora])


def test_a_missed_target_says_what_is_done_more() -> None:
    assert target_sentence(beside_lora(0.99)).startswith("The planner's pick costs no more than LoRA r = 8 within its")
    assert "in 1 of 1 steps." in target_sentence(beside_lora(1.01))
    missed = target_sentence(beside_lora(1.16))
    assert "in 0 of 1 steps. It costs more: CDVFT m=2 p=8 on" in missed
    assert "1.16× [1.14, 1.18] (" in missed
    assert target_sentence(settings([executed("fft", 1.6), executed("stored", 1.2), executed("fused", 1.3)])) == ""


def test_no_overhead_is_no_gain() -> None:
    found = settings([executed("fft", 1.6), executed("stored", 0.99), executed("fused", 1.3)])
    assert next(iter(paths_table(found)["times less overhead than fft"])) == NOT_MEASURED


def test_two_paths_are_no_comparison() -> None:
    assert settings([executed("fft", 1.6), executed("stored", 1.2)]) == []


def test_sections_of_the_report(tmp_path: Path) -> None:
    records = [executed("fft", 1.6), executed("stored", 1.2), executed("fused", 1.3)]
    verdicts = [VerdictRow("a-claim", "<b>It is so.</b>", "a paper, 3", "holds", "", "formula: 3", True, "")]
    made = write_report([Source("s", records, {**ENVIRONMENTS})], tmp_path / "r", command="make", verdicts=verdicts)
    page, text = made.html.read_text(), made.markdown.read_text()
    assert 'id="claims"' in page
    assert 'id="paths"' in page
    assert "<b>It is so.</b>" not in page
    assert "Ways of executing CDVFT" in text
    assert {p.name for p in made.tables} >= {"claims.csv", "paths.csv"}
