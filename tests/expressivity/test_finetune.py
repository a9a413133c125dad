"""Real weight changes from a tiny encoder that is built here."""

from __future__ import annotations

import pytest
import torch
import transformers

from cdvft_bench.errors import UserError
from cdvft_bench.expressivity.finetune import Recipe, changes_of, read_examples, save_changes
from cdvft_bench.expressivity.targets import read_changes, read_source


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "day"]))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "model")
    config = transformers.BertConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(tmp_path / "model")
    data = tmp_path / "data.csv"
    data.write_text("label,text\n" + "good,good day\nbad,bad day\n" * 8)
    return Recipe(str(tmp_path / "model"), data, steps=60, batch=4, learning_rate=1e-2)


def test_changes_are_those_of_a_training_that_learns(recipe, tmp_path):
    changes, losses = changes_of(recipe)
    assert set(changes) == {"encoder.layer.0.attention.self.query", "encoder.layer.0.attention.self.value"}
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    save_changes(tmp_path / "out" / "changes.npz", changes, "a tiny encoder")
    read = read_changes(tmp_path / "out" / "changes.npz")
    torch.testing.assert_close({k: v.float() for k, v in read.items()}, changes)
    assert read_source(tmp_path / "out" / "changes.npz") == "a tiny encoder"


def test_mistakes_are_named(recipe, tmp_path):
    with pytest.raises(UserError, match="no column 'mood'; it has label, text"):
        read_examples(recipe.data, "mood", "text")
    with pytest.raises(UserError, match="does not exist"):
        read_examples(tmp_path / "none.csv", "label", "text")
    one = tmp_path / "one.csv"
    one.write_text("label,text\ngood,day\n")
    with pytest.raises(UserError, match="1 class"):
        read_examples(one, "label", "text")
    with pytest.raises(UserError, match="no linear layer"):
        changes_of(Recipe(recipe.model, recipe.data, layers="nothing"))
