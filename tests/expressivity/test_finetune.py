"""Real weight changes, made by the accuracy room."""

from dataclasses import replace

import pytest
import torch

from cdvft_bench.accuracy.training.trial import Trial
from cdvft_bench.core.errors import UserError
from cdvft_bench.expressivity.fitting.finetune import changes_of, describe, save_changes
from cdvft_bench.expressivity.fitting.targets import read_changes, read_source

TRIAL = Trial("minilm", "tweets", "full", lr=1e-4, examples=16, epochs=1, batch=8, length=8, scored=8)
LAYER = "encoder.layer.0.attention.self.query"


def test_changes_are_those_of_the_trial(tmp_path):
    changes, result = changes_of(TRIAL, r"layer\.0\.attention\.self\.query$")
    assert set(changes) == {LAYER}
    assert changes[LAYER].shape == (384, 384)
    # AdamW moves every weight by about the learning rate a step: two steps, the second at nearly no rate.
    assert 0.5e-4 < float(changes[LAYER].abs().max()) < 3e-4
    save_changes(tmp_path / "out" / "changes.npz", changes, describe(TRIAL, result))
    read = read_changes(tmp_path / "out" / "changes.npz")
    torch.testing.assert_close({k: v.float() for k, v in read.items()}, changes)
    assert read_source(tmp_path / "out" / "changes.npz").startswith("minilm on tweets, full fine-tuning: 16 examples")


def test_mistakes_are_named():
    with pytest.raises(UserError, match="give 'full'"):
        changes_of(replace(TRIAL, method="lora"))
    with pytest.raises(UserError, match="no linear layer of minilm matches 'nothing'"):
        changes_of(TRIAL, "nothing")
    with pytest.raises(UserError, match="no regular expression"):
        changes_of(TRIAL, "(")
