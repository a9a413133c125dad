"""PEFT's comparison of image generation as it comes with the suite, against the formulas."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from cdvft_bench.accuracy.published import formula_of
from cdvft_bench.accuracy.training.imagegen import ImageRun, image_formula, image_linears, image_parameters, image_runs
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import method_names

NOT_HERE = {"ADALORA", "DEFT", "FROD", "GLORA", "LILY", "LN_TUNING", "PEANUT", "PSOFT", "PVERA", "SHIRA", "VBLORA"}


def by_name() -> dict[str, ImageRun]:
    return {run.experiment: run for run in image_runs()}


def test_the_file_holds_31_runs_on_one_device() -> None:
    runs = image_runs()
    assert len(runs) == len(by_name()) == 31
    assert {run.device for run in runs} == {"NVIDIA L40S"}
    assert sorted(run.steps for run in runs) == [300] + [750] * 30
    assert [run.experiment for run in runs if run.drift is None] == ["full-finetuning-default"]


def test_the_layers_give_the_model_s_published_size() -> None:
    """Every parameter of the transformer was trained in one run: its count checks the layers that are written out."""
    assert image_parameters() == by_name()["full-finetuning-default"].trainable_params == 3_875_544_576
    adapted = [x for x in image_linears() if x.name.rsplit(".", 1)[-1] in ("to_qkv_mlp_proj", "linear_in", "to_q")]
    assert len(adapted) == 20 + 10 + 5


def test_every_published_count_is_given_exactly_or_named() -> None:
    """Of each run the formula gives the number to the last parameter, or the suite has no such method and says so."""
    found = {run.experiment: (run, image_formula(run)) for run in image_runs()}
    without = {name for name, (run, formula) in found.items() if formula.parameters is None}
    assert {found[name][0].method for name in without} == NOT_HERE
    assert all("is not in the suite" in found[name][1].reason for name in without)
    assert not {m.lower() for m in NOT_HERE} & set(method_names())
    for name in found.keys() - without:
        run, formula = found[name]
        assert formula.parameters == run.trainable_params, name
        assert formula.label
    assert len(found) - len(without) == 19
    assert {name for name, (_, formula) in found.items() if formula.reason} - without == {
        "boft-default",
        "full-finetuning-default",
    }


def test_a_formula_may_differ() -> None:
    """The match is no tautology: other hyperparameters and other layers give other counts."""
    lora = by_name()["lora-default"]
    assert image_formula(lora).parameters == 38_338_560
    assert image_formula(replace(lora, hyperparameters={**lora.hyperparameters, "r": 31})).parameters != 38_338_560
    fewer = [x for x in image_linears() if not x.name.startswith("transformer_blocks.4.")]
    assert formula_of(lora, fewer).parameters != 38_338_560
    ia3 = by_name()["ia3-default"]
    assert image_formula(replace(ia3, hyperparameters={})).parameters == 890_880  # outputs in place of inputs
    flops = {name: image_formula(by_name()[name]).flops for name in ("lora-default", "lora-rank64")}
    assert flops["lora-rank64"] == pytest.approx(2 * (flops["lora-default"] or 0), rel=0.02)
    assert image_formula(replace(lora, target_modules="all-linear")).reason == (
        "the run names no linear layer by its ending"
    )


def test_bad_files(tmp_path: Path) -> None:
    text = (resources.files("cdvft_bench.accuracy") / "data" / "peft_imagegen_flux2-klein-4b.csv").read_text()
    path = tmp_path / "runs.csv"
    for old, new, message in (
        ("test_dino_similarity,drift", "test_dino_similarity,drifts", "lacks the column 'drift'"),
        ("0.682426", "1.682426", r"line 2: test_dino_similarity = 1\.682426 is not between -1 and 1"),
        ("0.266711", "far", "line 2, column drift: 'far'"),
    ):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(UserError, match=message):
            image_runs(path)
