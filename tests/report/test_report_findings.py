"""Sentences hold the records' own values, and say so where there is none."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.analysis.agreement import ratio_to_frozen
from cdvft_bench.analysis.findings import (
    agreement_finding,
    correlation_finding,
    cost_finding,
    failure_finding,
    headlines,
    spearman,
    time_finding,
)
from cdvft_bench.analysis.groups import sections
from cdvft_bench.core.case import LORA
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import interval
from tests.report.report_records import failed, make_records


def with_ratio(record: Record, **ratios: Interval) -> Record:
    assert record.timed is not None
    assert record.timed.timing is not None
    named = {name.replace("lora8", LORA): value for name, value in ratios.items()}
    return replace(record, timed=replace(record.timed, timing=replace(record.timed.timing, ratios=named)))


def test_time_finding_quotes_the_records() -> None:
    (section,) = sections(make_records())
    sentence = time_finding(section, section.records)
    for record in section.records:
        ratio = ratio_to_frozen(record)
        if record.label in ("CDVFT m=2 p=d", "CDVFT m=2 p=d handwritten", "LoRA r=8"):
            assert ratio is not None
            assert f"{record.label}" in sentence
            assert interval(ratio.value, ratio.low, ratio.high) in sentence


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.02, 1.1, "slower"),
        (0.8, 0.9, "faster"),
        (0.99, 1.01, "no difference shown"),
        (None, None, "nothing is concluded"),
    ],
)
def test_verdict_follows_the_interval(low: float | None, high: float | None, verdict: str) -> None:
    (section,) = sections(make_records())
    records = [
        with_ratio(r, frozen=Interval(1.3, 1.2, 1.4), lora8=Interval(1.0, low, high)) if r.case.method == "cdvft" else r
        for r in section.records
    ]
    assert verdict in time_finding(section, records)


def test_without_an_interval_nothing_is_ranked() -> None:
    (section,) = sections(make_records())
    bare = [with_ratio(r, frozen=Interval(1.1, None, None)) for r in section.records]
    assert "no interval" in time_finding(section, bare)
    assert "Fastest" not in time_finding(section, bare)
    assert correlation_finding(bare) == ""
    assert "Fastest" in time_finding(section, section.records)
    assert "Spearman" in correlation_finding(section.records)


def test_absence_is_said() -> None:
    (section,) = sections(make_records())
    untimed = [replace(r, timed=None) for r in section.records]
    assert time_finding(section, untimed) == (
        "time of CDVFT m=2 p=d and CDVFT m=2 p=d handwritten not measured; LoRA r=8 not measured."
    )
    others = [r for r in section.records if r.case.method not in ("cdvft", "lora")]
    assert time_finding(section, others).startswith("CDVFT with m = 2 was not recorded; LoRA r=8 was not recorded.")
    assert "not measured" in agreement_finding([replace(r, counted=None) for r in section.records])
    assert cost_finding(others) == correlation_finding(untimed) == ""


def test_warnings_of_the_clock_are_not_hidden() -> None:
    (section,) = sections(make_records())
    calm, nervous = [], []
    for record in section.records:
        assert record.timed is not None
        assert record.timed.timing is not None
        for records, warnings in ((calm, ()), (nervous, ("drift",))):
            timing = replace(record.timed.timing, warnings=warnings)
            records.append(replace(record, timed=replace(record.timed, timing=timing)))
    assert "warns" not in time_finding(section, calm)
    assert f"The clock warns of {len(nervous)} of {len(nervous)} settings" in time_finding(section, nervous)
    assert "The clock warns of frozen:" in time_finding(section, [nervous[0], *calm[1:]])


def test_cost_finding_has_the_papers_ratio() -> None:
    sentence = cost_finding(make_records())
    assert "2,304 trainable parameters (5.33× fewer than LoRA r=8)" in sentence
    assert 'convention "flop"' in sentence


def test_agreement_counts_checks_and_names_operators() -> None:
    records = make_records()
    c3a = sum(r.case.method == "c3a" for r in records)
    sentence = agreement_finding(records)
    assert f"{2 * c3a} differ" in sentence
    assert f"copy_ ({2 * c3a})" in sentence
    agreeing = [r for r in records if r.case.method != "c3a"]
    assert "differ" not in agreement_finding(agreeing)


def test_failures_are_counted() -> None:
    records = make_records()
    assert failure_finding(records) == "No case failed."
    assert failure_finding([*records, failed(records[0], "x")]).startswith(f"1 of {len(records) + 1} cases failed")


def test_headlines_are_limited_and_say_so() -> None:
    workloads = tuple((b, 16, "step") for b in (1, 2, 4, 8))
    records = make_records("64x64", 64, workloads)  # type: ignore[arg-type]
    found = headlines(sections(records), records, limit=2)
    assert [f.where for f in found][2:] == ["More", "Formula against count", "Failures"]
    assert "2 further workloads" in found[2].sentences[0]


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), max_size=30))
def test_spearman_is_pearson_of_pandas_ranks(pairs: list[tuple[int, int]]) -> None:
    import pandas as pd

    found = spearman(pairs)
    frame = pd.DataFrame(pairs, columns=["x", "y"])
    if found is None:
        assert not len(frame) or frame["x"].nunique() == 1 or frame["y"].nunique() == 1
    else:
        assert found == pytest.approx(frame["x"].rank().corr(frame["y"].rank()))


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=2, max_size=12), st.randoms())
def test_what_differs_by_rounding_errors_shares_a_rank(pairs: list[tuple[int, int]], draw: random.Random) -> None:
    """FLOPs of one amount, added up in another order."""

    def noisy(value: int) -> float:
        return value * 7.3e9 * (1 + draw.randint(-3, 3) * 2.2e-16)

    found, exact = spearman([(noisy(x), noisy(y)) for x, y in pairs]), spearman(pairs)
    assert found == (None if exact is None else pytest.approx(exact))
