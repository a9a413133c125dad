"""Shapes of real models against their published sizes, and subjects as users write them."""

import json
from pathlib import Path

import pytest

from cdvft_bench.analytic.configs import config_values, make_config, shape_from_config
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.models import (
    MODELS,
    known_model,
    layer_shape,
    model_config,
    model_shape,
    model_spec,
    target_linears,
)
from cdvft_bench.core.errors import UserError
from cdvft_bench.sweep.grid import make_case

PUBLISHED = {
    "roberta-base": 124_645_632,
    "roberta-large": 355_359_744,
    "vit-base": 86_389_248,
    "gpt2-medium": 354_823_168,
    "mpnet-base": 109_486_464,
    "minilm": 22_713_216,
    "smollm2-135m": 134_515_008,
    "llama-2-7b": 6_738_415_616,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_total_parameters(name) -> None:
    assert model_shape(name).total_parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", MODELS)
def test_kept_shapes_are_those_that_transformers_builds(name) -> None:
    spec = model_spec(name)
    config = make_config(spec)
    assert model_shape(name) == shape_from_config(config, name, spec.auto, spec.targets)
    assert model_config(name) == config_values(config)


@pytest.mark.parametrize("name", MODELS)
def test_default_targets_are_two_projections_a_layer(name) -> None:
    shape = model_shape(name)
    each = len(target_linears(shape)) / shape.attention.layers
    assert each == (1 if name == "gpt2-medium" else 2)  # GPT-2 has query, key and value in one


def test_targets_follow_pefts_rule() -> None:
    shape = model_shape("roberta-base")
    assert len(target_linears(shape, ["attention.self.query"])) == 12
    assert [x.name for x in target_linears(shape, ["pooler.dense"])] == ["pooler.dense"]
    with pytest.raises(UserError, match=r"targets 'uery' match no linear layer of roberta-base; did you mean query\?"):
        target_linears(shape, ["uery"])


def test_subjects() -> None:
    assert layer_shape("768x3072") == LinearShape(768, 3072, True)
    assert layer_shape("768x3072-nobias") == LinearShape(768, 3072, False)
    assert layer_shape("768x3072-int8") == LinearShape(768, 3072, False, quantised=True)
    assert layer_shape("llama-3-8b:k_proj") == LinearShape(4096, 1024, False)
    assert layer_shape("roberta-base:query") == LinearShape(768, 768, True)
    assert layer_shape("gpt2-medium:c_attn") == LinearShape(1024, 3072, True)


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ("768", "neither d_in x d_out"),
        ("768x", "neither d_in x d_out"),
        ("0x5", "d_in = 0"),
        ("²x5", "neither d_in x d_out"),
        ("5x5x5", "neither d_in x d_out"),
        (f"{'9' * 5000}x5", "9… is neither d_in x d_out"),
        ("5x5-bias", "neither d_in x d_out"),
        ("5x5-int4", "neither d_in x d_out"),
        ("roberta-tiny:query", "'roberta-tiny' is not in the table; did you mean roberta"),
        ("roberta-base:q_proj", "match no linear layer"),
    ],
)
def test_bad_subjects(subject, message) -> None:
    with pytest.raises(UserError, match=message):
        layer_shape(subject)


def test_any_config_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(make_config(model_spec("minilm")).to_dict()))
    assert shape_from_config(path).linears == model_shape("minilm").linears
    for text, said in (
        ("{", r"cannot be read: it is no JSON.*; give a transformers config\.json"),
        ('{"model_type": "no-such-model"}', "is none of transformers: .*no-such-model"),
        ("[]", r"names no model_type; give a transformers config\.json"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=said) as told:
            shape_from_config(path)
        assert len(str(told.value)) < 600
    with pytest.raises(UserError, match=r"cannot be read: No such file.*; give a transformers config\.json"):
        shape_from_config(tmp_path / "none.json")


def test_models_by_other_spellings_and_hub_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, spec in MODELS.items():
        for text in (name, name.upper(), name.replace("-", "_"), name.title().replace("-", " ")):
            assert known_model(text) == name
        if "/" in spec.hub_id:
            assert known_model(spec.hub_id) == name
    assert known_model("nobody/else") == "nobody/else"
    (tmp_path / "Llama_3_8B").mkdir()
    assert known_model("Llama_3_8B") == "Llama_3_8B", "a folder that is there is meant"
    assert layer_shape("RoBERTa_base:query") == layer_shape("roberta-base:query")
    assert make_case("lora", {}, "model", "MiniLM") == make_case("lora", {}, "model", "minilm")
    assert make_case("lora", {}, "layer", "MiniLM:query").subject == "minilm:query"
