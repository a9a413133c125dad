"""The answers to the reviewers' questions follow from the records, and from nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_records import failed, make_records

from cdvft_bench.expressivity.finding import Finding, Label
from cdvft_bench.report.evidence import Given, against
from cdvft_bench.report.groups import sections
from cdvft_bench.report.questions import answers
from cdvft_bench.sweep.record import Record
from cdvft_bench.timing.result import Interval


def answer(name: str, records: list[Record], findings: tuple[Finding, ...] = ()) -> tuple[str, str]:
    found = {a.id: a for a in answers(Given(sections(records), (), findings))}
    assert list(found) == ["R1", "R2", "R3", "R4", "R5", "R6"]
    return found[name].word, found[name].plain


def finding(label: Label, holds: bool | None) -> Finding:
    return Finding("some", "Some statement.", label, {}, "none", holds)


def timed(records: list[Record], value: float) -> list[Record]:
    """The records with CDVFT's ratio to LoRA set."""
    changed = []
    for record in records:
        if record.case.method == "cdvft" and record.timed and record.timed.timing:
            ratios = {"frozen": Interval(value, value - 0.01, value + 0.01)}
            ratios |= {name: Interval(value, value - 0.01, value + 0.01) for name in record.timed.timing.ratios}
            timing = replace(record.timed.timing, ratios=ratios)
            record = replace(record, timed=replace(record.timed, timing=timing))
        changed.append(record)
    return changed


def test_without_evidence_nothing_is_answered() -> None:
    frozen = [r for r in make_records("64x64", 64) if r.case.method == "frozen"]
    words = {a.id: a.word for a in answers(Given(sections(frozen)))}
    assert set(words.values()) == {"not measured"}


@pytest.mark.parametrize(
    ("findings", "word"),
    [
        ((finding("proved", True),), "yes"),
        ((finding("proved", True), finding("checked numerically", False)), "in part"),
        ((finding("conjectured", None),), "in part"),
    ],
)
def test_expressivity_is_what_the_findings_say(findings: tuple[Finding, ...], word: str) -> None:
    assert answer("R1", make_records("64x64", 64), findings)[0] == word


def test_a_failure_of_an_fft_method_limits_it() -> None:
    records = make_records("96x96", 96)
    assert answer("R2", records)[0] == "in part"
    i = next(i for i, r in enumerate(records) if r.case.method == "cdvft")
    records[i] = failed(records[i], "no FFT for bfloat16")
    word, plain = answer("R2", records)
    assert word == "yes"
    assert "1 case of" in plain


def test_fewer_flops_are_cheaper_only_where_the_whole_interval_says_so() -> None:
    records = make_records("768x768", 768)
    slow, fast = timed(records, 1.5), timed(records, 0.5)
    fewer = [one for one in against(Given(sections(slow))) if one.flops is not None and one.flops < 1]
    assert fewer
    assert {one.foot for one in fewer} == {"FourierFT n=1000"}
    assert answer("R5", fast)[0] == "yes"
    assert "slower on 1" in answer("R5", slow)[1]


def test_settings_recent_models_and_worth_are_read_off_the_records() -> None:
    records = make_records("llama-3-8b:q_proj", 64)
    assert answer("R3", records) == (
        "in part",
        "Recorded at several values: m and p. Not measured: learning rate, initialisation and seeds.",
    )
    assert answer("R4", records)[0] == "in part"
    assert answer("R4", make_records("64x64", 64))[0] == "not measured"
    assert answer("R6", records)[0] == "in part"
