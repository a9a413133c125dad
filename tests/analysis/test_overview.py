"""The first answer: what is shown is chosen by rule, and every sentence holds the records' own values."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.analysis.frame import records_frame
from cdvft_bench.analysis.overview import Overview, overview
from cdvft_bench.analysis.sentences import (
    headline,
    picture_title,
    three_sentences,
    trimmed,
    trust,
    with_bounds,
    word_of,
)
from cdvft_bench.core.case import SubjectKind
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import interval
from cdvft_bench.core.timed import Replays
from tests.made_records import ENVIRONMENTS, failed, make_records, with_ratios, with_timing

FOCUS = "CDVFT m=2 p=d"


def seen(records: list[Record]) -> Overview:
    return overview(records_frame(records, ENVIRONMENTS))


def timed(records: list[Record], value: float, half: float | None = 0.01) -> list[Record]:
    """The records with CDVFT's ratio to LoRA r = 8 set; without an interval where ``half`` is None."""
    ratio = Interval(value) if half is None else Interval(value, value - half, value + half)
    return [with_ratios(r, lora=ratio, frozen=ratio) if r.case.method == "cdvft" else r for r in records]


def on_auto(record: Record) -> Record:
    values = tuple(sorted({**dict(record.case.hyperparameters), "path": "auto"}.items()))
    return replace(record, label="CDVFT m=2 p=d auto", case=replace(record.case, hyperparameters=values))


def test_a_method_stands_at_its_setting_on_its_fastest_path() -> None:
    records = make_records()
    found = seen(records)
    assert found.focus == FOCUS
    (panel,) = found.panels
    assert set(panel.cells) == {
        "frozen",
        "LoRA r=8",
        "LoRA r=32",
        FOCUS,
        "BCA p=d",
        "C3A",
        "FourierFT n=1000",
        "VeRA r=256",
    }
    ratios = {
        r.label: r.timed.timing.ratios["lora r=8"]
        for r in records
        if r.label.startswith(FOCUS) and r.timed and r.timed.timing
    }
    fastest = min(ratios.values(), key=lambda ratio: ratio.value)
    assert panel.cells[FOCUS].time == fastest
    assert panel.cells["LoRA r=8"].time == Interval(1.0, 1.0, 1.0)


def test_auto_is_shown_even_where_another_path_is_faster() -> None:
    records = make_records()
    auto = with_ratios(on_auto(next(r for r in records if r.label == FOCUS)), lora=Interval(9.0, 8.9, 9.1))
    cell = seen([*records, auto]).panels[0].cells[FOCUS]
    assert (cell.label, cell.time.value) == (FOCUS, 9.0)


def test_a_layer_stands_at_one_workload_and_models_come_first() -> None:
    records = make_records(workloads=((1, 16, "step"), (8, 128, "step"), (32, 512, "forward")))
    model = [replace(r, case=replace(r.case, kind="model", subject="some-model")) for r in make_records()]
    found = seen([*records, *model])
    assert [(p.title, p.workload) for p in found.panels] == [
        ("some-model", "step, 8 × 128 tokens"),
        ("768x768", "step, 8 × 128 tokens"),
    ]


def on_gpu(record: Record, graph: Interval | None, **given: object) -> Record:
    """The record as a GPU's, eager and, with a ratio to LoRA r = 8, as replayed graphs."""
    assert record.timed is not None
    assert record.timed.timing is not None
    timing = replace(record.timed.timing, warnings=("eager drift",))
    ratios = {} if graph is None else {"lora r=8": graph, "frozen": graph}
    replays = None if graph is None else Replays(replace(timing, **{"ratios": ratios, "warnings": (), **given}), 3, {})
    case = replace(record.case, device="cuda")
    return replace(record, case=case, timed=replace(record.timed, timing=timing, replays=replays))


def test_on_a_gpu_what_is_said_rests_on_replayed_graphs_and_eager_calls_stand_apart() -> None:
    """A peer that could not be captured is in the eager panel alone."""
    graphs = {"lora": Interval(3.0, 2.9, 3.1), "cdvft": Interval(0.8, 0.75, 0.85), "vera": Interval(0.9, 0.7, 1.2)}
    records = [on_gpu(r, graphs.get(r.case.method)) for r in timed(make_records(), 1.7)]
    found = seen(records)
    first, second = found.panels
    assert (first.workload, second.workload) == ("step as a graph, 8 × 128 tokens", "step, eager, 8 × 128 tokens")
    assert (first.graph, first.again, second.graph, second.again) == (True, False, False, True)
    assert (first.cells[FOCUS].time, second.cells[FOCUS].time.value) == (graphs["cdvft"], 1.7)
    assert (first.cells["LoRA r=8"].time, first.cells["VeRA r=256"].rank) == (Interval(1, 1, 1), "tied")
    assert "FourierFT n=1000" not in first.cells
    assert "FourierFT n=1000" in second.cells
    assert (first.cells[FOCUS].trust, second.cells[FOCUS].trust) == ("fair", "doubtful")
    assert "a training step, as a replayed CUDA graph, with CDVFT m=2 p=d, torch.fft takes 0.80" in headline(found).text
    assert picture_title(found) == f"{FOCUS} beside LoRA r=8, as replayed graphs: faster on 1, of 1 layer"
    assert f"{FOCUS} on 768x768 (0.80)" in three_sentences(found)[0]
    frame = records_frame(records, ENVIRONMENTS)
    assert "The clock warns of 0 of them." in trust(found, frame).facts
    warned = [on_gpu(r, graphs.get(r.case.method), warnings=("throttled",)) for r in timed(make_records(), 1.7)]
    frame = records_frame(warned, ENVIRONMENTS)
    assert trust(overview(frame), frame).level == "low"


def test_machines_take_turns_each_beginning_with_a_whole_model_that_the_clock_trusts() -> None:
    def of(subject: str, kind: SubjectKind, gpu: bool, warnings: tuple[str, ...] = ()) -> list[Record]:
        made = [replace(r, case=replace(r.case, subject=subject, kind=kind)) for r in timed(make_records(), 0.9)]
        if not gpu:
            return [with_timing(r, warnings=()) for r in made]
        graph = Interval(0.5, 0.4, 0.6)
        return [replace(on_gpu(r, graph, warnings=warnings), environment="gpu") for r in made]

    records = [*of("bert", "model", False), *of("64x64", "layer", False), *of("96x96", "layer", False)]
    records += [*of("32x32", "layer", True), *of("large", "model", True), *of("hot", "model", True, ("throttled",))]
    machine = {"cpu": "Example CPU", "cores": 2}
    environments = {records[0].environment: machine, "gpu": {**machine, "gpus": ["Example GPU"]}}
    frame = records_frame(records, environments)
    found = overview(frame)
    first = [(panel.title, panel.machine) for panel in found.panels if not panel.again]
    cpu, gpu = "Example CPU, 2 cores", "Example GPU"
    assert found.machines == (cpu, gpu)
    # Of the whole models on the GPU the one of which the clock did not warn leads, and takes its turn after the CPU's.
    assert first[:4] == [("bert", cpu), ("large", gpu), ("64x64", cpu), ("32x32", gpu)]
    assert sorted(title for title, _ in first[4:]) == ["96x96", "hot"]
    assert all(panel.again for panel in found.panels[6:])
    assert headline(found).more.endswith("On Example GPU: 0.50 [0.40, 0.60] on large, as a replayed CUDA graph.")
    assert picture_title(found).endswith("faster on 3, of 3 models on 2 machines")


def test_a_gpu_without_replays_says_that_its_times_are_eager() -> None:
    found = seen([on_gpu(r, None) for r in make_records()])
    assert [(panel.workload, panel.again) for panel in found.panels] == [("step, eager, 8 × 128 tokens", False)]
    assert "graph" not in headline(found).text + picture_title(found)


def test_costs_are_over_the_baselines() -> None:
    cell = seen(make_records()).panels[0].cells[FOCUS]
    assert cell.costs["parameters"] == pytest.approx(3 * 768 / (2 * 768 * 8))
    assert cell.costs["launches"] > 1


def test_the_lowest_and_those_that_its_interval_reaches_are_marked() -> None:
    records = [with_ratios(r, lora=Interval(2.0, 1.9, 2.1)) for r in make_records() if r.case.method != "lora"]
    records = [r if r.label != FOCUS else with_ratios(r, lora=Interval(1.5, 1.3, 1.95)) for r in records]
    records = [r if r.label != "BCA p=d" else with_ratios(r, lora=Interval(2.2, 2.1, 2.3)) for r in records]
    ranks = {name: cell.rank for name, cell in seen(records).panels[0].cells.items()}
    assert ranks[FOCUS] == "best"
    assert ranks["VeRA r=256"] == "tied"
    assert ranks["BCA p=d"] == ""
    assert ranks["frozen"] == ""  # no method of fine-tuning


def test_without_lora_times_are_over_the_frozen_layer() -> None:
    ratio = Interval(1.3, 1.2, 1.4)
    records = [with_ratios(r, frozen=ratio) for r in make_records() if r.case.method != "lora"]
    found = seen([with_timing(r, ratios={}) if r.case.method == "frozen" else r for r in records])
    assert found.baseline == "frozen"
    assert found.panels[0].cells[FOCUS].time == ratio
    assert "the frozen layer’s time" in headline(found).text


def test_a_store_without_cdvft_is_about_what_it_holds() -> None:
    records = [r for r in make_records() if r.case.method in ("frozen", "lora", "vera")]
    assert seen(records).focus == "VeRA r=256"


@pytest.mark.parametrize(
    ("value", "half", "word"),
    [(0.8, 0.05, "faster"), (1.3, 0.05, "slower"), (1.0, 0.05, "not told apart"), (2.0, None, "no interval")],
)
def test_the_sentence_has_number_interval_machine_and_word(value: float, half: float | None, word: str) -> None:
    records = [replace(r, environment="e") for r in timed(make_records(), value, half)]
    found = overview(records_frame(records, {"e": {"cpu": "Example CPU", "cores": 2}}))
    said = headline(found)
    assert said.value == f"{with_bounds(found.panels[0].cells[FOCUS].time)} times"
    assert said.text.endswith(f"on Example CPU, 2 cores: {word}.")
    assert said.text.startswith("On 768x768, a training step with CDVFT m=2 p=d")
    assert "trains 0.19 × the parameters" in said.more
    assert f"{word} on 1" in picture_title(found)


def test_three_sentences_name_what_is_faster_smaller_and_open() -> None:
    faster, smaller, open_ = three_sentences(seen(timed(make_records(), 0.8)))
    assert f"{FOCUS} on 768x768 (0.80)" in faster
    assert f"{FOCUS} 0.19" in smaller
    assert FOCUS not in open_
    first = [replace(record, predicted=None, counted=None) for record in timed(make_records(), 0.8)]
    assert three_sentences(seen(first))[1].endswith(": not counted yet.")
    assert f"{FOCUS} on 768x768 (1.00)" in three_sentences(seen(timed(make_records(), 1.0)))[2]
    bare = three_sentences(seen(timed(make_records(), 0.8, None)))[2]
    assert f"Without an interval: {FOCUS} on 768x768 (0.80)" in bare


def test_nothing_timed_is_said() -> None:
    found = seen([replace(r, timed=None) for r in make_records()])
    assert not found.panels
    assert headline(found).value == ""
    assert trust(found, records_frame([])).level == "none"


def test_trust_is_low_where_most_rows_are_warned_and_fair_where_few_are() -> None:
    def level(share: float) -> str:
        records = make_records()
        last = share * len(records)
        warned = [with_timing(r, warnings=("drift",) if i < last else ()) for i, r in enumerate(records)]
        frame = records_frame(warned, ENVIRONMENTS)
        found = trust(overview(frame), frame)
        assert any("The clock warns of" in fact for fact in found.facts)
        return found.level

    assert (level(1.0), level(0.0)) == ("low", "fair")


def test_trust_is_high_over_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdvft_bench.analysis.frame.processes", lambda timing: 3)
    records = [with_timing(r, warnings=()) for r in make_records() if r.case.method != "c3a"]  # C3A's counts differ
    frame = records_frame(records, ENVIRONMENTS)
    assert trust(overview(frame), frame).level == "high"


def test_failed_cases_are_not_shown() -> None:
    records = make_records()
    gone = [failed(r, "no memory") if r.case.method == "cdvft" else r for r in records]
    assert FOCUS not in seen(gone).rows


@given(st.floats(0.05, 50), st.floats(1e-6, 1))
def test_digits_are_trimmed_to_the_noise(value: float, share: float) -> None:
    text = trimmed(Interval(value, value * (1 - share), value * (1 + share)))
    decimals = len(text.partition(".")[2])
    assert 1 <= decimals <= 2
    assert float(text) == pytest.approx(value, abs=0.51 * 10**-decimals)


def test_no_ratio_reads_as_nothing() -> None:
    assert trimmed(Interval(0.012, 0.01, 13.1)) == "0.01"
    assert with_bounds(Interval(0.12, 0.003, 4568.2)) == "0.12 [0.003, 4568]"
    assert interval(0.0021, 0.002, 130.4) == "0.002× [0.002, 130]"
    assert interval(1.316, 1.299, 1.352) == "1.32× [1.30, 1.35]"


def test_words_follow_the_whole_interval() -> None:
    assert word_of(Interval(1.1, 1.01, 1.2)) == "slower"
    assert word_of(Interval(1.1, 0.99, 1.2)) == "not told apart"
    assert word_of(Interval(0.5)) == "no interval"
