"""Records as a frame: the records' own values, nothing invented where one is missing, names as a reader knows them."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cdvft_bench.analysis import agreement, cases
from cdvft_bench.analysis.agreement import counted_flops, passes_frame, ratio_to_frozen, ratio_to_lora8
from cdvft_bench.analysis.frame import COLUMNS, between, describe, entries, interval_of, records_frame
from cdvft_bench.analytic.conventions import CONVENTIONS
from cdvft_bench.core.case import FROZEN, LORA
from cdvft_bench.core.counted import FvcoreCount, PassCount
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.timed import Modes, Samples, Timing
from tests.made_records import ENVIRONMENTS, HOSTILE, failed, make_records, with_ratios, with_timing

RECORDS = make_records(workloads=((8, 128, "step"), (2, 64, "forward")))


def every_gap() -> list[Record]:
    """Records with every combination of missing sources, and with parts of sources missing."""
    found = []
    for record, n in zip(RECORDS, itertools.cycle(range(9)), strict=False):
        assert record.timed is not None
        assert record.counted is not None
        gaps = [name for bit, name in ((1, "predicted"), (2, "counted"), (4, "timed")) if n & bit]
        if n == 8:
            record = replace(
                record,
                timed=replace(record.timed, timing=None, memory=None, trace=None),
                counted=replace(record.counted, fvcore=None, backward=None, update=None),
            )
        found.append(replace(record, **dict.fromkeys(gaps)))
    return [*found, failed(RECORDS[3], "it broke")]


def row_of(label: str, pass_: str = "step") -> pd.Series:
    frame = records_frame(RECORDS, ENVIRONMENTS)
    rows = frame[(frame["label"] == label) & (frame["pass"] == pass_)]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.mark.parametrize("records", [RECORDS, every_gap(), []], ids=["all", "gaps", "none"])
def test_every_column_is_there_and_documented(records: list[Record]) -> None:
    frame = records_frame(records, ENVIRONMENTS)
    assert list(frame.columns) == [column.name for column in COLUMNS] == list(describe()["column"])
    assert all(describe()["what it is"].str.endswith("."))
    assert len(frame) == len(records)
    for column in COLUMNS:
        values = frame[column.name]
        if column.kind == "text":
            assert all(isinstance(value, str) for value in values), column.name
        else:
            assert all(isinstance(value, float) and not math.isinf(value) for value in values), column.name


def test_what_is_missing_is_no_zero() -> None:
    bare = replace(RECORDS[1], predicted=None, counted=None, timed=None)
    (row,) = entries(records_frame([bare]))
    for name in ("lora", "seconds", "rounds", "parameters", "launches", "flops", "saved_bytes", "peak_bytes", "busy"):
        assert math.isnan(row[name]), name
    assert (row["trust"], row["agreement"], row["verdict"]) == ("not measured", "not measured", "")


def test_values_are_the_records_own() -> None:
    record = next(r for r in RECORDS if r.label == "CDVFT m=2 p=d" and r.case.pass_ == "step")
    assert record.timed is not None
    assert record.timed.timing is not None
    assert record.predicted is not None
    row = row_of("CDVFT m=2 p=d, torch.fft")
    for name, key in (("frozen", "frozen"), ("lora", LORA)):
        ratio = record.timed.timing.ratios[key]
        assert [row[f"{name}{end}"] for end in ("", "_low", "_high")] == [ratio.value, ratio.low, ratio.high]
        assert interval_of(row, name) == ratio
    assert row["seconds"] == record.timed.timing.samples[0].median
    passes = (record.predicted.forward, record.predicted.backward, record.predicted.update)
    assert row["flops_mac"] == sum(one.macs for one in passes) == row["flops_counted_mac"]
    assert row["adapter_flops"] == sum(one.adapter_flops["flop"] for one in passes)
    assert row["launches"] == row["launches_formula"] == sum(one.launches for one in passes)
    assert row["traffic"] == sum(one.read + one.written for one in passes)
    assert (row["m"], row["p"], row["tokens"]) == (2, 768, 1024)


def test_a_forward_pass_has_no_backward() -> None:
    record = next(r for r in RECORDS if r.label == "LoRA r=8" and r.case.pass_ == "forward")
    assert record.predicted is not None
    assert row_of("LoRA r=8", "forward")["launches"] == record.predicted.forward.launches


def test_a_baseline_is_one_of_itself() -> None:
    assert interval_of(row_of("LoRA r=8"), "lora") == Interval(1.0, 1.0, 1.0)
    assert interval_of(row_of("frozen"), "frozen") == Interval(1.0, 1.0, 1.0)
    assert row_of("LoRA r=32")["lora"] != 1.0


def test_baselines_are_not_taken_for_their_likes() -> None:
    likes = {"lora r=80": Interval(9.0, 8.0, 10.0), "dora r=8": Interval(7.0, 6.0, 8.0)}
    own = {FROZEN: Interval(2.0, 1.9, 2.1), LORA: Interval(1.5, 1.4, 1.6)}
    for ratios, expected in ((likes | own, (own[FROZEN], own[LORA])), (likes, (None, None))):
        one = with_timing(RECORDS[5], ratios=ratios)
        assert (ratio_to_frozen(one), ratio_to_lora8(one)) == expected


def test_a_ratio_that_is_no_number_is_not_measured() -> None:
    record = with_ratios(RECORDS[5], frozen=Interval(math.nan, math.nan, math.nan))
    assert interval_of(entries(records_frame([record]))[0], "frozen") is None


@pytest.mark.parametrize(
    ("low", "high", "warnings", "processes", "word"),
    [
        (0.9, 1.1, (), 1, "fair"),
        (0.9, 1.1, (), 3, "firm"),
        (0.9, 1.1, ("drift",), 3, "doubtful"),
        (0.9, 1.1, ("the asked precision of 2.0% was not reached, 12.0% was, in 9 rounds",), 3, "doubtful"),
        (0.985, 1.015, ("the asked precision of 2.0% was not reached, 12.0% was, in 9 rounds",), 3, "firm"),
        (None, None, (), 3, "no interval"),
    ],
)
def test_trust(
    low: float | None, high: float | None, warnings: tuple[str, ...], processes: int, word: str, monkeypatch
) -> None:
    monkeypatch.setattr("cdvft_bench.analysis.frame.processes", lambda timing: processes)
    record = with_timing(with_ratios(RECORDS[5], lora=Interval(1.0, low, high)), warnings=warnings)
    assert records_frame([record])["trust"].item() == word


def test_another_peer_is_compared_over_the_frozen_subject() -> None:
    ours = {"setting": "a", "frozen": 1.2, "frozen_low": 1.1, "frozen_high": 1.3} | dict.fromkeys(
        ("lora", "lora_low", "lora_high"), 0.9
    )
    theirs = {"setting": "b", "frozen": 1.5, "frozen_low": 1.4, "frozen_high": 1.6}
    found = between(ours, theirs)
    assert found is not None
    down, up = (
        math.hypot(math.log(1.2 / 1.1), math.log(1.6 / 1.5)),
        math.hypot(math.log(1.3 / 1.2), math.log(1.5 / 1.4)),
    )
    assert (found.value, found.low, found.high) == pytest.approx((0.8, 0.8 * math.exp(-down), 0.8 * math.exp(up)))
    assert between(ours, theirs | {"setting": "LoRA r=8"}) == Interval(0.9, 0.9, 0.9)
    assert between(ours | dict.fromkeys(("lora", "frozen"), math.nan), theirs) is None
    gpu = {"device": "cuda"}  # over LoRA, where both were timed beside it
    beside = theirs | dict.fromkeys(("lora", "lora_low", "lora_high"), 0.6)
    over_lora = between(ours | gpu, beside | gpu)
    assert over_lora is not None
    assert over_lora.value == pytest.approx(1.5)
    assert between(ours | gpu, beside | gpu | dict.fromkeys(("lora", "lora_low", "lora_high"), math.nan)) == found


def test_the_share_of_launches_is_what_a_graph_saves() -> None:
    rng = np.random.default_rng(0)
    seconds = rng.uniform(0.5, 2, 15) * 1e-3  # the machine's speed differs from round to round, and cancels
    runs = tuple(Samples(n, tuple(s), 1e-3, 1e-3, 1e-3) for n, s in (("eager", seconds), ("graph", 0.6 * seconds)))
    assert RECORDS[1].timed is not None
    modes = Modes(Timing(runs, {}, 15, "cuda_event", 1), None, {}, {})
    record = replace(RECORDS[1], timed=replace(RECORDS[1].timed, modes=modes))
    assert records_frame([record])["graph_saves"].item() == pytest.approx(0.4)
    assert math.isnan(records_frame([RECORDS[1]])["graph_saves"].item())


# --- names ------------------------------------------------------------------------------------


def made(label: str, method: str, subject: str = "768x768", **values: object) -> Record:
    case = replace(RECORDS[0].case, method=method, subject=subject, hyperparameters=tuple(sorted(values.items())))
    return replace(RECORDS[0], label=label, case=case)


@pytest.mark.parametrize(
    ("record", "label"),
    [
        (made("CDVFT m=2 p=768", "cdvft", m=2, block_size=768), "CDVFT m=2 p=d, torch.fft"),
        (made("CDVFT m=2 p=d auto", "cdvft", m=2, path="auto"), "CDVFT m=2 p=d"),
        (
            made("CDVFT m=2 p=192 handwritten", "cdvft", m=2, block_size=192, path="handwritten"),
            "CDVFT m=2 p=192, paper's backward",
        ),
        (made("CDVFT m=2 p=d merged_dense", "cdvft", m=2, path="merged_dense"), "CDVFT m=2 p=d, merged dense"),
        (made("CDVFT m=2 p=d", "cdvft", m=2, path="auto"), "CDVFT m=2 p=d"),
        (made("C3A p=gcd", "c3a"), "C3A p=d"),
        (made("C3A p=d", "c3a"), "C3A p=d"),
        (made("C3A p=128", "c3a", block_size=128), "C3A p=128"),
        (made("BOFT b=4", "boft", block_size=4), "BOFT b=4"),
        (made("BCA p=768", "block_circulant", "768x3072", block_size=768, path="auto"), "BCA p=d"),
        (made("LoRA r=8", "lora", rank=8), "LoRA r=8"),
    ],
)
def test_labels_are_as_a_reader_knows_them(record: Record, label: str) -> None:
    assert records_frame([record])["label"].item() == label


def test_a_named_layers_width_is_the_largest_block_that_was_recorded() -> None:
    sizes = [made(f"CDVFT m=2 p={p}", "cdvft", "some:layer", m=2, block_size=p, path="auto") for p in (128, 512)]
    assert list(records_frame(sizes)["setting"]) == ["CDVFT m=2 p=128", "CDVFT m=2 p=d"]


def test_a_machine_is_named_by_what_the_record_ran_on() -> None:
    fields = {"cpu": "A CPU", "cores": 2, "gpus": ("A GPU",)}
    assert cases.machine(fields, "cpu") == "A CPU, 2 cores"
    assert (cases.machine(fields, "cuda"), cases.machine(None, "cpu")) == ("A GPU", "not recorded")


def test_hyperparameters_are_quoted_for_a_shell() -> None:
    case = replace(RECORDS[0].case, hyperparameters=(("m", 2), ("path", "x; rm -rf ~")))
    assert cases.arguments(case) == "m=2 'path=x; rm -rf ~'"


def test_hostile_text_becomes_one_printable_line() -> None:
    record = failed(replace(made(HOSTILE, HOSTILE, HOSTILE), environment=HOSTILE, created=HOSTILE), HOSTILE)
    row = records_frame([record], {HOSTILE: {"cpu": HOSTILE}}, {id(record): HOSTILE}).iloc[0]
    for column in COLUMNS:
        if column.kind == "text":
            assert not set(row[column.name]) & set("\x00\u202e\n"), column.name


# --- formula beside count ----------------------------------------------------------------------


def test_a_miscount_names_its_operator() -> None:
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
    frame = passes_frame([record]).set_index("pass")
    assert frame.loc["forward", "agreement"] == "differs"
    assert frame.loc["forward", "differing operators (formula → count)"] == "mul 3 → 4; roll 0 → 1"
    assert "launches 11 → 13" in str(frame.loc["forward", "differing quantities (formula → count)"])
    assert frame.loc["forward", "macs, count"] - frame.loc["forward", "macs, formula"] == 5
    assert frame.loc["backward", "agreement"] == agreement.EXACT
    assert "2,304 → 2,303" in str(frame.loc[agreement.WHOLE, "differing quantities (formula → count)"])
    assert records_frame([record])["agreement"].item() == "differs"


def test_an_operator_swap_with_equal_totals_is_no_agreement() -> None:
    record = next(r for r in RECORDS if r.label == "LoRA r=8" and r.case.pass_ == "forward")
    assert record.counted is not None
    operators = dict(record.counted.forward.operators)
    operators["sub"] = operators.pop("add")
    swapped = replace(record.counted.forward, operators=operators)
    frame = passes_frame([replace(record, counted=replace(record.counted, forward=swapped))]).set_index("pass")
    assert frame.loc["forward", "agreement"] == "differs"
    assert frame.loc["forward", "differing quantities (formula → count)"] == ""


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
    assert counted_flops(mixed, paper) is None  # real and complex transforms cannot be told apart again
    traced = FvcoreCount(10, fft, 7, {"fft_rfft": fft / 2, "fft_irfft": fft / 2})
    assert counted_flops(traced, paper) == pytest.approx(10 + fft / 2.5)
    assert counted_flops(replace(traced, by_operator={"fft_fft": fft}), paper) is None
