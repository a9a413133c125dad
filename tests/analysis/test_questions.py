"""The answers to the reviewers' questions follow from the records, and from nothing else."""

from dataclasses import replace

import pytest

from cdvft_bench.accuracy.training.trial import Split, Trial, TrialResult, unpacked
from cdvft_bench.analysis.frame import records_frame
from cdvft_bench.analysis.questions.answers import answers
from cdvft_bench.analysis.questions.evidence import Evidence, Given
from cdvft_bench.analysis.questions.gains import against
from cdvft_bench.core.case import LORA
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.timed import Replays
from cdvft_bench.expressivity.findings.finding import Finding, Label
from cdvft_bench.sweep.grid import presets
from tests.made_records import HOSTILE, failed, make_records, with_ratios


def answer(name: str, records: list[Record], findings: tuple[Finding, ...] = ()) -> tuple[str, str]:
    found = {a.id: a for a in answers(Given(records_frame(records), (), findings))}
    assert list(found) == ["R1", "R2", "R3", "R4", "R5", "R6"]
    return found[name].word, found[name].plain


def finding(label: Label, holds: bool | None) -> Finding:
    return Finding("some", "Some statement.", label, {}, "none", holds)


def timed(records: list[Record], value: float) -> list[Record]:
    """The records with CDVFT's ratio to LoRA set."""
    ratio = Interval(value, value - 0.01, value + 0.01)
    return [with_ratios(r, frozen=ratio, lora=ratio) if r.case.method == "cdvft" else r for r in records]


def test_without_evidence_nothing_is_answered() -> None:
    frozen = [r for r in make_records("64x64", 64) if r.case.method == "frozen"]
    words = {a.id: a.word for a in answers(Given(records_frame(frozen)))}
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


def test_what_fft_methods_were_not_tried_on_is_open_with_the_command_that_measures_it() -> None:
    def open_(records: list[Record]) -> str:
        (found,) = (a for a in answers(Given(records_frame(records))) if a.id == "R2")
        return "; ".join(found.open)

    here = open_(make_records("96x96", 96))
    for what in ("dtype bfloat16", "widths: a power of two", "layers: not square", "base weights: quantised to int8"):
        assert what in here
    assert "measured by cdvft-bench sweep fft-limits" in here
    assert "device cuda; measured on a GPU by cdvft-bench sweep paper-layers" in here
    assert "quantised" not in open_(make_records("64x64-int8", 64))
    assert {"fft-limits", "paper-layers"} <= {*presets()}


def test_fft_methods_that_ran_everywhere_are_not_limited() -> None:
    tried = [
        (f"{d}x{o}{kind}", dtype, device)
        for d, o, kind in ((64, 64, ""), (96, 64, ""), (64, 64, "-int8"))
        for dtype in ("float32", "bfloat16", "float16")
        for device in ("cpu", "cuda")
    ]
    records = [r for subject, dtype, device in tried for r in make_records(subject, 64, dtype=dtype, device=device)]
    ran = sum(r.case.method in ("cdvft", "block_circulant") for r in records)
    word, plain = answer("R2", records)
    assert (word, plain.split(";")[0]) == ("no", f"All {ran} cases of CDVFT and BCA ran")
    gone = [r for r in records if not r.case.subject.endswith("-int8")]
    assert answer("R2", gone)[0] == "in part"


def test_a_failure_of_every_method_says_nothing_of_ffts() -> None:
    records = make_records("96x96", 96)
    assert answer("R2", [failed(r, "no torchao") for r in records])[0] == "not measured"
    lora = [r if r.case.method == "lora" else failed(r, "no FFT") for r in records]
    assert answer("R2", lora)[0] == "yes"


def test_hostile_subjects_are_cleaned_and_are_no_layers() -> None:
    records = make_records(HOSTILE, 64)
    records = [failed(r, HOSTILE) if r.case.method == "cdvft" else r for r in records]
    (found,) = (a for a in answers(Given(records_frame(records))) if a.id == "R2")
    assert found.word == "yes"
    text = found.plain + "".join(e.text for e in found.evidence)
    assert "\x00" not in text
    assert "\u202e" not in text


def test_replayed_graphs_are_evidence_beside_eager_times() -> None:
    records = timed(make_records("96x96", 96), 1.25)
    i = next(i for i, r in enumerate(records) if r.case.method == "cdvft")
    one = records[i].timed
    assert one is not None
    assert one.timing is not None
    assert not any("replayed" in e.text for e in answers(Given(records_frame(records)))[4].evidence)
    ratios = {LORA: Interval(0.75, 0.7, 0.8), f"{LORA} {records[i].case.dtype}": Interval(1.5, 1.4, 1.6)}
    records[i] = replace(records[i], timed=replace(one, replays=Replays(replace(one.timing, ratios=ratios), 3, {})))
    (found,) = (e.text for e in answers(Given(records_frame(records)))[4].evidence if "replayed" in e.text)
    assert "takes 0.75× [0.70, 0.80] the time of LoRA r=8, 1.50× [1.40, 1.60] where its factors have 16 bits" in found
    assert found.endswith("eagerly 1.25× [1.24, 1.26].")


def test_a_gpus_answer_leads_and_sets_the_paths_of_ffts_apart() -> None:
    def graph(record: Record, value: float, path: str) -> Record:
        assert record.timed is not None
        assert record.timed.timing is not None
        timing = replace(record.timed.timing, ratios={LORA: Interval(value, value - 0.01, value + 0.01)})
        hyper = tuple(sorted({**dict(record.case.hyperparameters), "path": path}.items()))
        case = replace(record.case, device="cuda", hyperparameters=hyper)
        return replace(record, case=case, timed=replace(record.timed, replays=Replays(timing, 3, {})))

    records = timed(make_records("96x96", 96), 1.25)
    i = next(i for i, r in enumerate(records) if r.label.startswith("CDVFT m=2 p=d"))
    records += [graph(records[i], 0.5, "auto"), graph(records[i], 2.0, "fused"), graph(records[i], 2.5, "stored")]
    environments = {records[0].environment: {"cpu": "Example CPU", "cores": 2, "gpus": ["Example GPU"]}}
    found = answers(Given(records_frame(records, environments)))[4]
    assert found.plain.startswith(
        "On Example GPU, 1 layer workload: as replayed CUDA graphs, where no launch is waited for, a step takes 0.50× "
        "the time of LoRA r=8, by FFTs of the activations 2.00× to 2.50×; eagerly 1.25×. "
    )
    assert found.evidence[0].text.startswith("96x96, Example GPU, step")  # machines that are none's own are named


def test_fewer_flops_are_cheaper_only_where_the_whole_interval_says_so() -> None:
    records = make_records("768x768", 768)
    slow, fast = timed(records, 1.5), timed(records, 0.5)
    fewer = [one for one in against(Given(records_frame(slow))) if one.flops is not None and one.flops < 1]
    assert fewer
    assert {one.other for one in fewer} == {"FourierFT n=1000"}
    assert answer("R5", fast)[0] == "in part"  # a GPU and whole models are not among them
    assert "faster on 1, slower on 0" in answer("R5", fast)[1]
    assert "slower on 1" in answer("R5", slow)[1]
    assert answer("R5", timed(fewer_flops(slow), 1.5))[0] == "no"


def fewer_flops(records: list[Record]) -> list[Record]:
    return [r for r in records if r.case.method != "fourierft"]


def test_of_a_workload_recorded_twice_the_path_that_users_get_counts_and_then_the_later_record() -> None:
    def recorded(value: float, path: str, day: int) -> list[Record]:
        made = timed(make_records("768x768", 768, environment=f"{path} on day {day}"), value)
        dated = [replace(r, created=f"2026-01-0{day}T03:04:05Z") for r in made]
        return [with_path(r, path) if r.case.method == "cdvft" else r for r in dated]

    def with_path(record: Record, path: str) -> Record:
        return replace(record, case=replace(record.case, hyperparameters=(("m", 2), ("path", path))))

    def said(*groups: list[Record]) -> str:
        return answer("R5", [r for some in groups for r in some])[1]

    fast, slow = recorded(0.5, "auto", 2), recorded(1.5, "auto", 1)
    for groups in ((fast, slow), (slow, fast)):
        assert "Beside LoRA r=8, on 1 workload, a step of CDVFT (m = 2, largest p) takes" in said(*groups)
        assert "faster on 1, slower on 0" in said(*groups)
    named = recorded(1.5, "fft", 3)
    assert "faster on 1, slower on 0" in said(named, fast)
    assert "named path" not in said(named, fast)
    assert "where only a named path was timed, as torch's FFTs) takes" in said(named)


def test_settings_recent_models_and_worth_are_read_off_the_records() -> None:
    records = make_records("llama-3-8b:q_proj", 64)
    assert answer("R3", records) == (
        "in part",
        "Recorded at several values: m and p. Not measured: learning rate, initialisation and seeds.",
    )
    assert answer("R4", records)[0] == "in part"
    assert answer("R4", make_records("64x64", 64))[0] == "not measured"
    assert answer("R6", records)[0] == "in part"


def generated(
    method: str, right: str, seed: int = 0, model: str = "smollm2-135m", task: str = "arithmetic-short"
) -> TrialResult:
    trial = Trial(model, task, method, seed=seed, evaluate="test")
    return TrialResult(trial, trial.label, unpacked(right, 8).count(True) / 8, scored=8, right=right)


def test_generation_is_what_the_runs_on_the_test_split_say() -> None:
    runs = [generated("base", "00"), *(generated("lora", "f0", seed) for seed in (0, 1, 2))]
    found = {a.id: a for a in answers(Given(records_frame([]), runs={"runs.jsonl": runs}))}
    assert found["R4"].word == "not measured"  # none of them is of CDVFT
    runs += [generated("cdvft", right, seed) for seed, right in enumerate(("e0", "f8", "f0"))]
    runs += [generated("cdvft", "ff", model="minilm", task="hub:glue/sst2")]  # to classify is not to generate
    found = {a.id: a for a in answers(Given(records_frame([]), runs={"runs.jsonl": runs}))}
    assert found["R4"].word == "in part"
    (evidence,) = found["R4"].evidence
    assert "smollm2-135m on arithmetic-short" in evidence.text
    assert "CDVFT m=2 p=d fft 50.0 % [" in evidence.text
    assert "LoRA r=8 50.0 %" in evidence.text
    assert "Untrained 0.0 % [0.0, " in evidence.text
    (left,) = found["R4"].open
    assert left.startswith("a whole recent model, measured on a GPU; cdvft-bench sweep paper-models ")


def started(init: str | None, right: str, seed: int, lr: float = 1e-3, split: Split = "test") -> TrialResult:
    """A run of CDVFT from one of its starts, None for the default without its name."""
    start = {} if init is None else {"init": init}
    trial = Trial("minilm", "tweets", "cdvft", tuple({**start, "m": 2}.items()), lr=lr, seed=seed, evaluate=split)
    return TrialResult(trial, trial.label, unpacked(right, 8).count(True) / 8, scored=8, right=right)


def settings_of(
    runs: list[TrialResult], files: dict[str, list[TrialResult]] | None = None
) -> tuple[str, list[Evidence]]:
    (found,) = (a for a in answers(Given(records_frame([]), runs=files or {"runs.jsonl": runs})) if a.id == "R3")
    return found.plain, [e for e in found.evidence if "each start tuned by itself" in e.text]


def test_the_start_is_answered_by_runs_that_differ_by_it_alone() -> None:
    zero = [started("zero_diagonal", right, seed) for seed, right in enumerate(("ff", "fe", "fe"))]
    assert settings_of(zero) == (
        "Recorded at several values: seeds. Not measured: m, p, learning rate and initialisation.",
        [],
    )
    random = [started("random", right, seed) for seed, right in enumerate(("f0", "e0", "e0"))]
    random += [started("random", "ff", 1000, split="validation"), started("random", "00", 1000, 1e-2, "validation")]
    unnamed = [started(None, "00", seed) for seed in (0, 1)]  # the default again, in another study: counts once
    runs = [*unnamed, *random, *zero]
    plain, (evidence,) = settings_of(runs, {"starts.jsonl": [*random, *zero], "other.jsonl": unnamed})
    assert plain == "Recorded at several values: learning rate, initialisation and seeds. Not measured: m and p."
    assert evidence.source == "fine-tuning runs: starts.jsonl"
    assert "zero_diagonal 91.7 % [" in evidence.text
    assert "random 41.7 % [" in evidence.text
    assert "(3 seeds, rate 0.001, the edge of those tried)" in evidence.text
    assert "Against zero_diagonal: random is " in evidence.text
    assert "-50.0 points" in evidence.text


def test_runs_that_were_trained_in_another_way_are_another_workload() -> None:
    runs = [started(init, "ff", seed) for init in ("random", "zero_diagonal") for seed in (0, 1)]
    other = [replace(r, trial=replace(r.trial, examples=7)) for r in runs if r.trial.start == "random"]
    assert list(Given(records_frame([]), runs={"runs.jsonl": runs}).workloads()) == ["minilm on tweets"]
    both = Given(records_frame([]), runs={"runs.jsonl": [*runs, *other]}).workloads()
    assert [len(rows) for rows in both.values()] == [4, 2]
    assert any("(7 examples x 2" in name for name in both)
