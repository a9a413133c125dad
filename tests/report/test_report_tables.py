"""Tables: units in every name, no empty cell, differences that are the differences."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pandas as pd
import pytest

from cdvft_bench.analysis import tables
from cdvft_bench.analysis.agreement import counted_flops, ratio_to_frozen, ratio_to_lora8
from cdvft_bench.analytic.conventions import CONVENTIONS
from cdvft_bench.core.case import FROZEN, LORA
from cdvft_bench.core.counted import FvcoreCount, PassCount
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import NOT_CONVERTIBLE, NOT_IN_PASS, NOT_MEASURED
from tests.report.report_records import ENVIRONMENT, ENVIRONMENTS, failed, make_records

RECORDS = make_records(workloads=((8, 128, "step"), (2, 64, "forward")))


def by_label(frame: pd.DataFrame, label: str, pass_: str = "step") -> pd.Series:
    rows = frame[(frame["setting"] == label) & (frame.get("pass", pass_) == pass_)]
    assert len(rows) == 1
    return rows.iloc[0]


def without(record: Record, *witnesses: str) -> Record:
    return replace(record, **dict.fromkeys(witnesses))


def every_gap() -> list[Record]:
    """Records with every combination of missing witnesses, and with parts of witnesses missing."""
    found = []
    for record, n in zip(RECORDS, itertools.cycle(range(9)), strict=False):
        assert record.timed is not None
        assert record.counted is not None
        gaps = [w for bit, w in ((1, "predicted"), (2, "counted"), (4, "timed")) if n & bit]
        if n == 8:
            record = replace(
                record,
                timed=replace(record.timed, timing=None, memory=None, trace=None),
                counted=replace(record.counted, fvcore=None, backward=None, update=None),
            )
        found.append(without(record, *gaps))
    return [*found, failed(RECORDS[3], "it broke")]


@pytest.mark.parametrize("records", [RECORDS, every_gap(), []], ids=["all", "gaps", "none"])
def test_no_cell_is_empty_or_nan(records: list[Record]) -> None:
    for name, frame in tables.all_tables(records, ENVIRONMENTS).items():
        for column in frame.columns:
            for value in frame[column]:
                assert isinstance(value, int | float | str), (name, column)
                assert value != "", (name, column)
                assert not (isinstance(value, float) and not math.isfinite(value)), (name, column)


def test_missing_witness_is_said_in_words() -> None:
    record = without(RECORDS[1], "predicted", "counted", "timed")
    for frame in (tables.flops_table([record]), tables.launches_table([record]), tables.time_table([record])):
        row = frame.iloc[0]
        values = {row[column] for column in frame.columns if column not in tables.IDENTITY}
        assert values == {NOT_MEASURED}


def test_every_number_column_names_its_unit() -> None:
    for name, frame in tables.all_tables(RECORDS, ENVIRONMENTS).items():
        for column in frame.columns:
            if any(isinstance(v, int | float) for v in frame[column]) and column != "seed":
                assert column.endswith("]"), (name, column)
    for convention in CONVENTIONS:
        for column in tables.flops_table(RECORDS, convention).columns:
            if "FLOP" in column:
                assert f'convention "{convention}"' in column


def test_one_row_a_record_that_did_not_fail() -> None:
    records = [*RECORDS, failed(RECORDS[0], "out of memory")]
    for name, frame in tables.all_tables(records, ENVIRONMENTS).items():
        if name.startswith("flops") or name in ("time", "launches", "memory"):
            assert len(frame) == len(RECORDS), name
    assert list(tables.failures_table(records)["error"]) == ["out of memory"]


def test_flops_are_the_witnesses_own() -> None:
    record = next(r for r in RECORDS if r.label == "LoRA r=8" and r.case.pass_ == "step")
    assert record.predicted is not None
    row = by_label(tables.flops_table(RECORDS, "mac"), "LoRA r=8")
    p = record.predicted
    assert row["total, formula [MAC]"] == p.forward.macs + p.backward.macs + p.update.macs
    assert row["total, counted [MAC]"] == row["total, formula [MAC]"]
    assert row["forward, counted − formula [MAC]"] == 0
    adapter = p.forward.adapter_flops["mac"] + p.backward.adapter_flops["mac"] + p.update.adapter_flops["mac"]
    assert row["adapter's share, formula [MAC]"] == adapter


def test_a_miscount_shows_as_difference_and_names_its_operator() -> None:
    record = next(r for r in RECORDS if r.label == "CDVFT m=2 p=d" and r.case.pass_ == "step")
    assert record.counted is not None
    forward = record.counted.forward
    wrong = replace(
        forward,
        launches=forward.launches + 2,
        macs=forward.macs + 5,
        operators=forward.operators | {"mul": forward.operators["mul"] + 1, "roll": 1},
    )
    record = replace(record, counted=replace(record.counted, forward=wrong, parameters=record.counted.parameters - 1))
    assert by_label(tables.flops_table([record], "mac"), record.label)["forward, counted − formula [MAC]"] == 5
    assert by_label(tables.launches_table([record]), record.label)["dispatched − formula [launches]"] == 2
    frame = tables.witness_table([record]).set_index("checked pass")
    assert frame.loc["forward", "agreement"] == "differs"
    assert frame.loc["forward", "operators that differ (formula → count)"] == "mul 3 → 4; roll 0 → 1"
    assert "launches 11 → 13" in str(frame.loc["forward", "what differs (formula → count)"])
    assert frame.loc["backward", "agreement"] == tables.EXACT
    assert frame.loc["parameters and saved activations", "agreement"] == "differs"
    assert "2,304 → 2,303" in str(frame.loc["parameters and saved activations", "what differs (formula → count)"])


def test_operator_swap_with_equal_totals_is_no_agreement() -> None:
    record = next(r for r in RECORDS if r.label == "LoRA r=8" and r.case.pass_ == "forward")
    assert record.counted is not None
    forward = record.counted.forward
    operators = dict(forward.operators)
    operators["sub"] = operators.pop("add")
    record = replace(record, counted=replace(record.counted, forward=replace(forward, operators=operators)))
    frame = tables.witness_table([record]).set_index("checked pass")
    assert frame.loc["forward", "agreement"] == "differs"
    assert frame.loc["forward", "what differs (formula → count)"] == "nothing"


def test_forward_case_has_no_backward() -> None:
    row = by_label(tables.launches_table(RECORDS), "LoRA r=8", "forward")
    assert row["backward, formula [launches]"] == row["update, dispatched [launches]"] == NOT_IN_PASS
    assert row["total, dispatched [launches]"] == row["forward, dispatched [launches]"]


def test_time_columns() -> None:
    record = next(r for r in RECORDS if r.label == "CDVFT m=2 p=d" and r.case.pass_ == "step")
    assert record.timed is not None
    assert record.timed.timing is not None
    row = by_label(tables.time_table(RECORDS), record.label)
    mine = record.timed.timing.samples[0]
    assert row["median [ms]"] == pytest.approx(1e3 * mine.median)
    assert row["interquartile range [ms]"] == pytest.approx(1e3 * (mine.q75 - mine.q25))
    ratio = record.timed.timing.ratios["frozen"]
    names = ("ratio to frozen [×]", "ratio to frozen, low [×]", "ratio to frozen, high [×]")
    assert [row[name] for name in names] == [ratio.value, ratio.low, ratio.high]
    assert by_label(tables.time_table(RECORDS), "frozen")["ratio to frozen [×]"] == tables.BASELINE
    assert by_label(tables.time_table(RECORDS), "LoRA r=8")["ratio to LoRA r=8 [×]"] == tables.BASELINE


def test_feet_are_not_taken_for_their_likes() -> None:
    record = RECORDS[5]
    assert record.timed is not None
    assert record.timed.timing is not None
    likes = {"lora r=80": Interval(9.0, 8.0, 10.0), "dora r=8": Interval(7.0, 6.0, 8.0)}
    feet = {FROZEN: Interval(2.0, 1.9, 2.1), LORA: Interval(1.5, 1.4, 1.6)}
    for ratios, expected in ((likes | feet, (feet[FROZEN], feet[LORA])), (likes, (None, None))):
        timing = replace(record.timed.timing, ratios=ratios)
        one = replace(record, timed=replace(record.timed, timing=timing))
        assert (ratio_to_frozen(one), ratio_to_lora8(one)) == expected


def test_ratio_that_is_no_number_is_not_measured() -> None:
    record = RECORDS[5]
    assert record.timed is not None
    assert record.timed.timing is not None
    timing = replace(record.timed.timing, ratios={"frozen": Interval(math.nan, math.nan, math.nan)})
    record = replace(record, timed=replace(record.timed, timing=timing))
    assert tables.time_table([record]).iloc[0]["ratio to frozen [×]"] == NOT_MEASURED


def test_parameters_against_lora() -> None:
    frame = tables.parameters_table(RECORDS).set_index("setting")
    assert frame.loc["CDVFT m=2 p=d", "LoRA r=8 ÷ this [×]"] == pytest.approx(2 * 768 * 8 / (3 * 768))
    assert frame.loc["LoRA r=8", "LoRA r=8 ÷ this [×]"] == 1
    assert frame.index.is_unique, "one row a setting, whatever its workloads"


def test_counts_convert_between_conventions() -> None:
    fft = 2.5 * 768 * math.log2(768) * 100
    real = PassCount(10, 7, 100, fft, 3, {"_fft_r2c": 2, "_fft_c2r": 1})
    whole = replace(real, operators={"_fft_c2c": 3})
    mixed = replace(real, operators={"_fft_r2c": 1, "_fft_c2c": 1})
    paper, flop, mac = CONVENTIONS["paper"], CONVENTIONS["flop"], CONVENTIONS["mac"]
    assert counted_flops(real, flop) == 2 * 10 + 7 + fft
    assert counted_flops(mixed, flop) == 2 * 10 + 7 + fft
    assert counted_flops(mixed, mac) == 10
    assert counted_flops(real, paper) == pytest.approx(10 + fft / 2.5)
    assert counted_flops(whole, paper) == pytest.approx(10 + fft / 5)
    assert counted_flops(mixed, paper) is None
    traced = FvcoreCount(10, fft, 7, {"fft_rfft": fft / 2, "fft_irfft": fft / 2})
    assert counted_flops(traced, paper) == pytest.approx(10 + fft / 2.5)
    assert counted_flops(replace(traced, by_operator={"fft_fft": fft}), paper) is None


def test_mixed_ffts_are_not_convertible_rather_than_wrong() -> None:
    record = next(r for r in RECORDS if r.label == "CDVFT m=2 p=d" and r.case.pass_ == "step")
    assert record.counted is not None
    assert record.counted.backward is not None
    backward = replace(record.counted.backward, operators=record.counted.backward.operators | {"_fft_c2c": 1})
    record = replace(record, counted=replace(record.counted, backward=backward))
    row = tables.flops_table([record], "paper").iloc[0]
    assert row['backward, counted [FLOP, convention "paper"]'] == NOT_CONVERTIBLE
    assert row['total, counted [FLOP, convention "paper"]'] == NOT_CONVERTIBLE
    assert row['backward, counted − formula [FLOP, convention "paper"]'] == NOT_MEASURED


def test_unknown_convention_is_refused() -> None:
    with pytest.raises(UserError, match="fma"):
        tables.flops_table(RECORDS, "fma")


def test_environments_side_by_side() -> None:
    frame = tables.environment_table(
        {**ENVIRONMENTS, "b": {"versions": {"torch": "2.6.0"}, "extra": ("x", "y"), "gpus": ()}}
    )
    frame = frame.set_index("fact")
    assert frame.loc["versions, torch", ENVIRONMENT] == "2.13.0"
    assert frame.loc["versions, torch", "b"] == "2.6.0"
    assert frame.loc["machine, gpu", ENVIRONMENT] == "not recorded"
    assert frame.loc["git_revision", "b"] == "not recorded"
    assert frame.loc["extra", "b"] == "x; y"
    assert frame.loc["gpus", "b"] == "none"


def test_notes_carry_every_witness() -> None:
    record = RECORDS[1]
    assert record.counted is not None
    assert record.timed is not None
    assert record.timed.timing is not None
    record = replace(
        record,
        counted=replace(record.counted, notes=("no trace",)),
        timed=replace(record.timed, notes=("no energy",), timing=replace(record.timed.timing, warnings=("drift",))),
    )
    assert list(tables.notes_table([record])["note"]) == ["no trace", "no energy", "drift"]
