"""CDVFT beside its peers, and paths beside each other: where the ratios were put, there they are found."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdvft_bench.analysis.frame import records_frame
from cdvft_bench.analysis.peers import crossover, crossover_said, regret_said, ways
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from tests.made_records import make_records, with_ratios

PATHS = ("fft", "stored", "fused", "auto")


def executed(path: str, ratio: float) -> Record:
    """A CDVFT step on a layer, executed by ``path``, ``ratio`` times as long as the frozen layer."""
    record = next(r for r in make_records() if r.label == "CDVFT m=2 p=384")
    values = tuple(sorted({**dict(record.case.hyperparameters), "path": path}.items()))
    label = f"CDVFT m=2 p=384 {path}"
    record = replace(record, label=label, case=replace(record.case, hyperparameters=values))
    return with_ratios(record, frozen=Interval(ratio, ratio - 0.01, ratio + 0.01))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.6, 4), min_size=4, max_size=4))
def test_regret_is_what_the_pick_loses(ratios: list[float]) -> None:
    found = ways(records_frame([executed(path, ratio) for path, ratio in zip(PATHS, ratios, strict=True)]))
    assert list(found["frozen"]) == sorted(ratios)
    (regret,) = found["regret"].dropna()
    assert regret == pytest.approx(ratios[3] / min(ratios[:3]) - 1)
    assert f"{100 * regret:.1f} % longer than the fastest path in the median over 1 setting" in regret_said(found)


def test_two_paths_are_no_comparison_and_no_plan_has_no_regret() -> None:
    assert not len(ways(records_frame([executed("fft", 1.6), executed("stored", 1.2)])))
    found = ways(records_frame([executed(path, 1.5) for path in PATHS[:3]]))
    assert list(found["way"]) == ["torch.fft", "stored", "fused"]
    assert regret_said(found) == ""


def test_every_setting_stands_beside_the_fastest_of_its_peer() -> None:
    records = make_records(workloads=((8, 128, "step"), (2, 64, "step")))
    slow = [with_ratios(r, frozen=Interval(9.0, 8.9, 9.1)) for r in records if r.case.method == "c3a"]
    slow = [replace(r, label="C3A p=48", case=replace(r.case, hyperparameters=(("block_size", 48),))) for r in slow]
    frame = records_frame([*records, *slow])
    for peer, label in (("lora", "LoRA r=8"), ("c3a", "C3A")):
        found = crossover(frame, peer)
        assert len(found) == sum(r.case.method == "cdvft" for r in records)
        assert set(found["peer"]) == {label}
    ours = frame[frame["method"] == "cdvft"].set_index(["label", "tokens"])["lora"]
    for row in crossover(frame, "lora").itertuples():
        assert row.ratio == ours[row.label, row.tokens]


def test_the_sentence_counts_what_the_frame_holds() -> None:
    records = [
        with_ratios(r, lora=Interval(0.8, 0.7, 0.9), frozen=Interval(1.0, 0.9, 1.1)) if "m=3" in r.label else r
        for r in make_records()
    ]
    found = crossover(records_frame(records), "lora")
    said = crossover_said(found, "lora")
    faster = int((found["word"] == "faster").sum())
    assert faster == sum("m=3" in r.label for r in records)
    assert said.startswith(f"CDVFT beside LoRA of rank 8: faster in {faster} of {len(found)} measured settings")
    assert "Lowest is CDVFT m=3 p=d" in said
    assert crossover_said(crossover(records_frame(records[:2]), "c3a"), "c3a") == "CDVFT beside C3A: not measured."
