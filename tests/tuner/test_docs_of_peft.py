"""What docs/peft.md says of loading without the import, of serving and of trainers."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model

from cdvft_bench.tuner import CdvftConfig, load_adapter
from tests.fresh import Fresh
from tests.tuner.models import KINDS

DOCS = Path(__file__).parents[2] / "docs"

LOADERS = """
import sys
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

base, adapter, word = sys.argv[1:]
if word == "imported":
    import cdvft_bench.tuner

def model():
    return AutoModelForCausalLM.from_pretrained(base)

for load in (
    lambda: PeftConfig.from_pretrained(adapter),
    lambda: PeftModel.from_pretrained(model(), adapter),
    lambda: AutoPeftModelForCausalLM.from_pretrained(adapter),
    lambda: get_peft_model(model(), LoraConfig()).load_adapter(adapter, "other"),
    lambda: AutoModelForCausalLM.from_pretrained(adapter),
    lambda: model().load_adapter(adapter),
):
    try:
        load()
        print("loaded")
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


def test_loading_without_the_import_ends_as_the_guide_says(tmp_path: Path, fresh: Fresh) -> None:
    base: Any = KINDS["decoder"].make()
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    get_peft_model(base, CdvftConfig(task_type="CAUSAL_LM")).save_pretrained(tmp_path / "adapter")

    def tried(word: str) -> list[str]:
        return fresh.run(LOADERS, str(tmp_path / "base"), str(tmp_path / "adapter"), word).stdout.splitlines()

    (message,) = set(tried("unknown"))
    assert f"```text\n{message}\n```" in (DOCS / "peft.md").read_text()
    # PEFT itself refuses adapters of two methods in one model.
    assert tried("imported").count("loaded") == 5


def test_the_table_of_errors_is_what_the_example_prints(tmp_path: Path, fresh: Fresh) -> None:
    options = ["--width", "64", "--steps", "3", "--ranks", "4", "16"]
    examples = DOCS / "examples"
    script = (examples / "serve.py").read_text()
    done = fresh.run(script, "--output", str(tmp_path), *options, path=str(examples))
    found = re.findall(r"LoRA of rank (\d+): weight change off by (\S+), its effect on logits by (\S+)", done.stdout)
    assert [int(rank) for rank, _, _ in found] == [4, 16, 64]
    weights, logits = ([float(row[i]) for row in found] for i in (1, 2))
    assert weights[0] > weights[1] > 0.1
    assert max(weights[2], logits[2]) < 1e-4
    (merged,) = re.findall(r"merged: logits off by (\S+)", done.stdout)
    assert float(merged) < 1e-5
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_sft_trainer(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the package trl is not installed")
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = Tokenizer(models.WordLevel({f"<{i}>": i for i in range(60)}, unk_token="<2>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>", unk_token="<2>")
    torch.manual_seed(0)
    base: Any = KINDS["decoder"].make()
    clean = copy.deepcopy(base)
    rows = torch.randint(3, 60, (16, 6)).tolist()
    settings = SFTConfig(
        output_dir=str(tmp_path),
        max_steps=3,
        save_steps=3,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        bf16=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    given = CdvftConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=base,
        args=settings,
        train_dataset=datasets.Dataset.from_dict({"input_ids": rows, "labels": rows}),
        processing_class=tokenizer,
        peft_config=given,
    )
    trainer.train()
    ids = torch.tensor(rows[:2])
    with torch.no_grad():
        trained = trainer.model.eval()(ids).logits
        assert not torch.allclose(trained, clean(ids).logits)
        assert torch.equal(load_adapter(clean, tmp_path / "checkpoint-3").eval()(ids).logits, trained)


def test_sentence_transformers(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    library = pytest.importorskip("sentence_transformers", reason="the package sentence-transformers is not installed")
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    from cdvft_bench.accuracy.training.models import model_source

    try:
        model = library.SentenceTransformer(str(model_source("minilm")), device="cpu")
    except OSError:
        pytest.skip("MiniLM's weights are not installed")
    model.add_adapter(CdvftConfig(target_modules=["query", "value"]))
    before = model.encode(["a cat", "a dog"], convert_to_tensor=True)
    pairs = {"anchor": ["a cat sat", "the dog ran"] * 4, "positive": ["cat sits", "dog runs"] * 4}
    settings = library.SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
    )
    library.SentenceTransformerTrainer(
        model=model,
        args=settings,
        train_dataset=datasets.Dataset.from_dict(pairs),
        loss=MultipleNegativesRankingLoss(model),
    ).train()
    trained = model.encode(["a cat", "a dog"], convert_to_tensor=True)
    assert not torch.allclose(trained, before)
    model.save_pretrained(str(tmp_path / "saved"))
    again = library.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert torch.equal(again.encode(["a cat", "a dog"], convert_to_tensor=True), trained)
