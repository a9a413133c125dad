"""Answer: ranked, within memory, with its reasons; every wrong question gets one line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdvft_bench.analytic.cost import total
from cdvft_bench.cli import main
from cdvft_bench.core.errors import UserError
from cdvft_bench.execution.planner import BUILT_IN
from cdvft_bench.methods import make_method
from cdvft_bench.predictor.answering.answer import answer
from cdvft_bench.predictor.answering.network import GPUS
from cdvft_bench.predictor.answering.serving import cache_bytes, serve, token_kernels
from cdvft_bench.predictor.answering.subject import TableModel
from cdvft_bench.predictor.answering.table import fit_text
from cdvft_bench.predictor.evaluation import read_profiles
from cdvft_bench.predictor.pricing import RATIO_ERROR, WORST, Pricer
from cdvft_bench.predictor.published_times import compare_published
from cdvft_bench.predictor.results import Answer
from cdvft_bench.predictor.transformer import find_model
from cdvft_bench.sweep.model_cost import model_cost

STORE = Path(__file__).parents[2] / "profiles" / "cpu-quick" / "records.jsonl.gz"
SMALL = {"batch": 4, "sequence": 64, "dtype": "float32"}


@pytest.fixture(scope="module")
def found() -> Answer:
    return answer("minilm", "h200", everything=True, **SMALL)  # type: ignore[arg-type]


def test_choices_are_ranked_and_told_apart(found: Answer) -> None:
    seconds = [c.step_s.value for c in found.choices]
    assert seconds == sorted(seconds)
    assert len({c.label for c in found.choices}) == len(found.choices)
    labels = {c.label for c in found.choices}
    settings = {"CDVFT m=2 p=d", "CDVFT m=2 p=64", "CDVFT m=3 p=256", "BCA p=d"}
    assert {"LoRA r=8", "LoRA r=64", "Full fine-tuning"} <= labels
    assert settings <= {label.rsplit(" ", 1)[0] for label in labels} | labels
    assert all(c.over_frozen > 1 and c.why for c in found.choices)
    assert not found.too_large
    assert found.error.startswith("not measured on this device")
    assert found.frozen_step_s.value < seconds[0]
    assert found.frozen_step_s.high == pytest.approx(WORST * found.frozen_step_s.value)


def test_a_choice_is_the_sum_of_its_closed_forms(found: Answer) -> None:
    choice = next(c for c in found.choices if c.label == "CDVFT m=2 p=64 merged")
    assert dict(choice.hyperparameters)["path"] == "merged"
    method = make_method("cdvft", {"m": 2, "block_size": 64, "path": "merged"})
    model = find_model("minilm")
    cost = model_cost(model.shape, method, 4, 64, "float32", device="cuda")
    assert choice.parameters == cost.parameters == 12 * (384 + 384 + 6 * 6 * 64)
    assert choice.checkpoint_bytes == 4 * choice.parameters
    assert choice.tokens_per_s.value == pytest.approx(4 * 64 / choice.step_s.value)
    launches = total(cost.kernels("step")).launches
    assert choice.step_s.value > float(launches) * BUILT_IN["cuda"].launch_s
    assert choice.memory.gradients == choice.checkpoint_bytes
    assert choice.memory.optimizer == cost.optimizer_bytes


def test_one_to_4096_gpus(found: Answer) -> None:
    scaling = found.choices[0].scaling
    assert [s.gpus for s in scaling] == list(GPUS)
    assert scaling[0].step_s == found.choices[0].step_s
    many = answer("minilm", "h200", gpus=64, strategy="fsdp", methods=["lora"], **SMALL)  # type: ignore[arg-type]
    first = many.choices[0].scaling[0]
    assert (first.gpus, first.strategy) == (64, "fsdp")
    assert many.choices[0].memory == first.memory
    assert first.memory.weights < found.choices[0].memory.weights
    assert many.choices[0].tokens_per_s.value == pytest.approx(64 * 256 / many.choices[0].step_s.value)


def test_what_does_not_fit_is_listed_apart() -> None:
    found = answer("llama-3-8b", "l40s", batch=1, sequence=512, methods=["lora", "full", "vera"])
    assert {c.label for c in found.too_large} == {"Full fine-tuning"}
    assert found.too_large[0].memory.total > 48e9
    assert all(c.memory.fits for c in found.choices)
    sharded = answer("llama-3-8b", "l40s", batch=1, sequence=512, methods=["full"], gpus=8, strategy="fsdp")
    assert not sharded.too_large


def test_profiles_of_the_device_give_the_error(tmp_path: Path) -> None:
    profile = read_profiles([STORE])
    path = tmp_path / "rates.json"
    path.write_text(json.dumps(BUILT_IN["cpu"].to_json()))
    layers = [r for r in profile.records if r.case.subject == "roberta-base:query"]
    given = {"methods": ["lora"], "records": layers, "environments": profile.environments, **SMALL}
    found = answer("minilm", str(path), **given)  # type: ignore[arg-type]
    assert found.error.startswith(f"{len(layers)} records of this device, each left out: median error")
    choice = found.choices[0]
    assert choice.memory.fits is None  # a CPU's memory is not in its rates
    assert choice.serving is not None
    assert choice.serving.swap_s is None
    assert choice.step_s.low is not None
    assert choice.step_s.high is not None
    assert choice.step_s.low < choice.step_s.value < choice.step_s.high
    other = answer("minilm", "h200", **given)  # type: ignore[arg-type]
    assert other.error.startswith("not measured")


def test_serving_many_adapters() -> None:
    model, method = find_model("llama-3.2-3b"), make_method("lora", {"rank": 8})
    pricer = Pricer(BUILT_IN["cuda"], "bfloat16")
    decoding = TableModel(model, 8, 1024, "bfloat16", "cuda").decoding(method)
    assert decoding is not None
    found = serve(decoding, 2_293_760, "bfloat16", pricer.seconds, pcie=64e9, capacity=int(141e9), reserved=0)
    assert found.adapter_bytes == 2 * 2_293_760
    assert found.swap_s == pytest.approx(found.adapter_bytes / 64e9)
    cache = cache_bytes(model, 8, 1024, "bfloat16")
    assert cache == 2 * 28 * 8 * 1024 * 8 * 128 * 2
    assert found.resident == (int(141e9) - 2 * model.shape.total_parameters - cache) // found.adapter_bytes
    assert found.token_s_unmerged > found.token_s_merged > 2 * model.shape.total_parameters / 4.8e12
    saved = found.token_s_unmerged - found.token_s_merged
    assert found.break_even_tokens == pytest.approx(2 * found.merge_s / saved)
    kernels = token_kernels(model, None, 1, 1024, "bfloat16", device="cuda")
    assert kernels[-1].read == cache_bytes(model, 1, 1024, "bfloat16")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gpu": "h300"}, "GPU 'h300' is neither in the table"),
        ({"model": "lama"}, "model 'lama' is neither in the table"),
        ({"batch": 0}, "batch = 0 is too small"),
        ({"sequence": 513}, "sequence = 513 is longer than minilm's 512 positions"),
        ({"model": "vit-base", "sequence": 64}, "makes 197 tokens of an image, not 64"),
        ({"gpus": 8192}, "at most 4096"),
        ({"strategy": "tp"}, "use ddp or fsdp"),
        ({"dtype": "float8"}, "has no rate for dtype 'float8'; use one of float32, bfloat16, float16"),
        ({"gpu": "v100", "dtype": "bfloat16"}, "use one of float32, float16"),
        ({"methods": ["lorra"]}, "method 'lorra' is not known"),
        ({"targets": ["nothing"]}, "match no linear layer"),
    ],
)
def test_a_wrong_question_gets_one_line(change: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as error:
        answer(**{"model": "minilm", "gpu": "h200", **SMALL, **change})  # type: ignore[arg-type]
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_commands_print_and_emit_json(tmp_path: Path) -> None:
    ask = ["answer", "--model", "minilm", "--gpu", "h200", "--batch", "4", "--seq", "64", "--method", "lora"]
    printed = CliRunner().invoke(main, ask)
    assert printed.exit_code == 0, printed.output
    for text in ("LoRA r=8", "error: not measured", "× LoRA", "≥"):
        assert text in printed.output
    assert "assumed" not in printed.output
    detailed = CliRunner().invoke(main, [*ask, "--details"])
    for text in ("assumed: network", "4,096", "1,000 adapters"):
        assert text in detailed.output
    emitted = CliRunner().invoke(main, [*ask, "--json"])
    assert json.loads(emitted.output)["choices"][0]["method"] == "lora"
    wrong = CliRunner().invoke(main, ["answer", "--model", "minilm", "--gpu", "h300"])
    assert wrong.exit_code == 2
    assert "Traceback" not in wrong.output


def test_what_is_named_is_answered_in_one_table_and_one_sentence() -> None:
    asked = "lora:8,LoRA:16,dora,c3a,fourierft,CDVFT"
    found = answer("roberta-base", "a100", methods=[asked])
    assert sorted(c.label.split(" p=")[0] for c in found.choices) == [
        "C3A",
        "CDVFT m=2",
        "DoRA r=8" if "DoRA r=8" in {c.label for c in found.choices} else "DoRA rank=8",
        "FourierFT n=1000",
        "LoRA r=16",
        "LoRA r=8",
    ]
    assert found.sequence == 512  # the model's longest
    assert found.dtype == "bfloat16"
    assert all(c.at_least and c.known == "predicted" for c in found.choices)
    by_label = {c.label: c for c in found.choices}
    lora = by_label["LoRA r=8"]
    assert lora.over_lora.value == 1
    assert by_label["LoRA r=16"].rank == lora.rank  # 16 ranks more are no difference that a prediction can tell
    for choice in found.choices:
        assert choice.over_lora.value == pytest.approx(choice.step_s.value / lora.step_s.value)
        first = next(c for c in found.choices if c.rank == choice.rank)
        assert choice.step_s.value <= (1 + found.tie) * first.step_s.value
    assert found.sentence.count(".") >= 1
    assert found.choices[0].label in found.sentence
    assert found.lora_parameters == 24 * 8 * 2 * 768


def test_a_path_that_another_path_of_its_setting_beats_is_never_told(found: Answer) -> None:
    groups: dict[object, list[tuple[float, int]]] = {}
    for c in (*found.choices, *found.too_large):
        setting = (c.method, tuple(pair for pair in c.hyperparameters if pair[0] != "path"))
        groups.setdefault(setting, []).append((c.step_s.value, c.memory.total))
    assert any(len(paths) > 1 for paths in groups.values())
    for paths in groups.values():
        for one in paths:
            assert not any(a <= one[0] and b <= one[1] for a, b in paths if (a, b) != one)
    plain = answer("minilm", "h200", methods=["cdvft:m=2", "bca"], **SMALL)  # type: ignore[arg-type]
    assert len(plain.choices) == 2  # the fastest path of each
    for choice in plain.choices:
        others = [c for c in found.choices if c.method == choice.method and c.label.rsplit(" ", 1)[0] in choice.label]
        assert all(choice.step_s.value <= c.step_s.value for c in others)


def test_the_tie_is_the_median_error_of_published_ratios() -> None:
    assert compare_published().ratio_median == pytest.approx(RATIO_ERROR, abs=0.005)


def test_what_does_not_fit_says_how_it_would() -> None:
    asked = {"sequence": 2048, "batch": 8}
    found = answer("llama-3-8b", "l40s", methods=["lora", "full"], **asked)  # type: ignore[arg-type]
    assert not found.choices
    lora = next(c for c in found.too_large if c.method == "lora")
    assert lora.fit is not None
    assert lora.fit.batch == 2
    assert lora.fit.checkpointed == 6
    fits = [answer("llama-3-8b", "l40s", methods=["lora"], sequence=2048, batch=b).choices for b in (2, 3)]
    assert [len(c) for c in fits] == [1, 0]
    assert fit_text(lora.fit) == "fits at batch 2 or at batch 6 with checkpointing"
    full = next(c for c in found.too_large if c.method == "full")
    assert (full.fit.batch, full.fit.checkpointed, full.fit.gpus) == (None, None, 16)  # type: ignore[union-attr]
    assert fit_text(full.fit) == "fits on 16 GPUs with fsdp and checkpointing"
    assert found.sentence.startswith("Nothing of it fits; LoRA r=8 comes nearest: fits at batch 2")


def test_a_record_of_the_same_step_stands_in_the_place_of_its_prediction(tmp_path: Path) -> None:
    profile = read_profiles([STORE])
    record = next(r for r in profile.records if (r.case.kind, r.case.method, r.case.pass_) == ("model", "dora", "step"))
    assert record.timed is not None
    assert record.timed.timing is not None
    threads = profile.environments[record.environment].threads
    path = tmp_path / "rates.json"
    path.write_text(json.dumps({**BUILT_IN["cpu"].to_json(), "threads": threads}))
    case = record.case
    asked = {"batch": case.batch, "sequence": case.sequence, "dtype": case.dtype, "methods": ["dora", "lora:3"]}
    given = {"records": [record], "environments": profile.environments}
    found = answer(case.subject, str(path), **asked, **given)  # type: ignore[arg-type]
    by_method = {c.method: c for c in found.choices}
    dora, lora = by_method["dora"], by_method["lora"]
    assert (dora.known, lora.known) == ("measured", "predicted")
    assert dora.step_s.value == record.timed.timing.samples[0].median
    ratio = record.timed.timing.ratios["lora r=8"]
    assert (dora.over_lora.value, dora.over_lora.low, dora.over_lora.high) == (ratio.value, ratio.low, ratio.high)
    assert not dora.at_least
    longer = answer(case.subject, str(path), **{**asked, "batch": case.batch + 1}, **given)  # type: ignore[arg-type]
    assert {c.known for c in longer.choices} == {"predicted"}


OWN = """
[mine]
name = "Accelerator of ours"
source = "its datasheet"
memory = 100e9
bandwidth = 1e12
link = 5e10
pcie = 3e10
flops = { float32 = 2e13, float16 = 2e14 }
"""


def test_a_table_of_ones_own_gpus(tmp_path: Path) -> None:
    path = tmp_path / "gpus.toml"
    path.write_text(OWN)
    found = answer("minilm", "MINE", methods=["lora"], devices=path)
    assert (found.device, found.dtype) == ("Accelerator of ours", "float16")
    assert answer("minilm", "accelerator of ours", methods=["lora"], devices=path) == found
    assert answer("minilm", "a100", methods=["lora"], devices=path).device == "NVIDIA A100-SXM4-80GB"
    with pytest.raises(UserError, match="GPU 'mine' is neither in the table"):
        answer("minilm", "mine", methods=["lora"])
    for text, said in (("", "names no GPU"), ("a = 1", "is not a table"), (OWN + "x = 1", "unknown key 'x'")):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            answer("minilm", "mine", devices=path)


@pytest.mark.slow
def test_evaluate_prints_and_writes(tmp_path: Path) -> None:
    output = tmp_path / "evaluation.json"
    done = CliRunner().invoke(main, ["evaluate", str(STORE), "--output", str(output)])
    assert done.exit_code == 0, done.output
    for text in ("farthest from the truth", "rank correlation", "GPUs: not measured"):
        assert text in done.output
    written = json.loads(output.read_text())
    assert len(written["evaluation"]["farthest"]) == 10
    assert written["published"]["reference"] == "lora-rank32"
