"""The method among PEFT's and transformers' own machinery: tables, loaders, status, the model's own adapter calls."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from peft.utils import constants
from torch import Tensor, nn

from cdvft_bench.execution.scratch import release_buffers
from cdvft_bench.tuner import CdvftConfig, CdvftLinear, load_adapter
from cdvft_bench.tuner.model import DEFAULT_TARGETS, SAVES_BIASES
from tests.tuner.models import KINDS, Net

TABLES = {
    name: table
    for name, table in vars(constants).items()
    if name.startswith("TRANSFORMERS_MODELS_TO_") and name.endswith("_TARGET_MODULES_MAPPING")
}


def logits(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return model.eval()(**inputs).logits


def trained(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def test_every_architecture_of_pefts_tables_has_a_default() -> None:
    assert len(TABLES) > 5
    assert {kind for table in TABLES.values() for kind in table} <= set(DEFAULT_TARGETS)
    lora = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    assert {kind: DEFAULT_TARGETS[kind] for kind in lora} == lora


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(DEFAULT_TARGETS))
def test_the_default_targets_are_layers_that_can_be_adapted(kind: str) -> None:
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.for_model(kind)
    except ValueError:
        pytest.skip(f"transformers has no model {kind}: its code comes with its weights")
    for name in ("num_hidden_layers", "n_layer", "num_layers", "n_layers"):
        if hasattr(config, name):
            setattr(config, name, 2)
    with torch.device("meta"):
        model = get_peft_model(AutoModel.from_config(config), CdvftConfig())
    assert sum(isinstance(m, CdvftLinear) for m in model.modules()) > 0


def test_unknown_architectures_ask_for_targets() -> None:
    with pytest.raises(ValueError, match="specify `target_modules`"):
        get_peft_model(Net(), CdvftConfig())


@pytest.mark.parametrize("changes", [{"modules_to_save": ["classifier"]}, {"bias": "all"}, {"bias": "cdvft_only"}])
def test_modules_to_save_and_biases_come_back(changes: dict[str, Any], tmp_path: Path) -> None:
    base = KINDS["encoder"].make().eval()
    inputs = KINDS["encoder"].inputs()
    before = copy.deepcopy(base)
    if "bias" in changes and not SAVES_BIASES:
        with pytest.warns(UserWarning, match="does not save trained biases"):
            get_peft_model(base, CdvftConfig(**changes))
        return
    model = trained(get_peft_model(base, CdvftConfig(**changes)))
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(load_adapter(before, tmp_path), inputs), logits(model, inputs))


def test_a_second_adapter_is_loaded_beside_the_first(tmp_path: Path) -> None:
    kind = KINDS["decoder"]
    model = trained(get_peft_model(kind.make(), CdvftConfig()))
    inputs = kind.inputs()
    model.save_pretrained(tmp_path)
    first = logits(model, inputs)
    model.load_adapter(str(tmp_path), adapter_name="other")
    model.set_adapter("other")
    torch.testing.assert_close(logits(model, inputs), first)
    model.save_pretrained(tmp_path / "both", selected_adapters=["other"])
    assert (tmp_path / "both" / "other" / "adapter_model.safetensors").is_file()
    model.set_adapter("default")
    merged = model.merge_and_unload(adapter_names=["other"])
    torch.testing.assert_close(logits(merged, inputs), first, rtol=1e-4, atol=1e-5)


def test_direct_injection_and_the_state_dict_round_trip() -> None:
    kind = KINDS["conv1d"]
    base, inputs = kind.make(), kind.inputs()
    other = copy.deepcopy(base)
    model = trained(inject_adapter_in_model(CdvftConfig(target_modules=["c_attn"]), base))
    state = get_peft_model_state_dict(model)
    again = inject_adapter_in_model(CdvftConfig(target_modules=["c_attn"]), other, state_dict=state)
    result = set_peft_model_state_dict(again, state)
    assert not result.unexpected_keys
    torch.testing.assert_close(logits(again, inputs), logits(model, inputs))


def test_transformers_own_adapter_calls(tmp_path: Path) -> None:
    kind = KINDS["decoder"]
    base, inputs = kind.make(), kind.inputs()
    clean = copy.deepcopy(base)
    before = logits(base, inputs)
    base.add_adapter(CdvftConfig(target_modules=["q_proj", "v_proj"]))
    changed = logits(trained(base), inputs)
    assert not torch.allclose(changed, before)
    base.save_pretrained(tmp_path)
    base.disable_adapters()
    torch.testing.assert_close(logits(base, inputs), before)
    clean.load_adapter(str(tmp_path))
    torch.testing.assert_close(logits(clean, inputs), changed)


def test_auto_classes_find_the_base_model(tmp_path: Path) -> None:
    kind = KINDS["decoder"]
    base, inputs = kind.make(), kind.inputs()
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    model = trained(get_peft_model(base, CdvftConfig(task_type="CAUSAL_LM")))
    model.save_pretrained(tmp_path / "adapter")
    again = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(again, inputs), logits(model, inputs))
    assert isinstance(PeftConfig.from_pretrained(str(tmp_path / "adapter")), CdvftConfig)


def test_status_and_parameter_counts(capsys: pytest.CaptureFixture[str]) -> None:
    model = get_peft_model(KINDS["encoder"].make(), CdvftConfig(m=2))
    model.print_trainable_parameters()
    assert f"trainable params: {4 * 3 * 32} ||" in capsys.readouterr().out
    status = model.get_model_status()
    assert (status.adapter_model_type, status.num_adapter_layers, status.merged_adapters) == ("CdvftModel", 4, [])
    model.merge_adapter()
    assert model.get_model_status().merged_adapters == ["default"]


def test_adapters_are_mixed_in_generation() -> None:
    kind = KINDS["decoder"]
    model = trained(get_peft_model(kind.make(), CdvftConfig(init="random", task_type="CAUSAL_LM"))).eval()
    model.add_adapter("other", CdvftConfig(init="random", m=3, block_size=8))
    ids = kind.inputs()["input_ids"]
    options: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    names = ["other", "default", "__base__"]
    mixed = model.generate(input_ids=ids, adapter_names=names, **options)
    for row, name in enumerate(names):
        if name == "__base__":
            with model.disable_adapter():
                alone = model.generate(input_ids=ids, **options)
        else:
            model.set_adapter(name)
            alone = model.generate(input_ids=ids, **options)
        assert torch.equal(mixed[row], alone[row])


@pytest.mark.parametrize("path", ["auto", "fft", "handwritten", "fused", "stored", "merged", "merged_dense"])
def test_every_path_trains_after_an_evaluation_in_inference_mode(path: str) -> None:
    release_buffers()  # so that the evaluation is the first to ask for scratch memory
    torch.manual_seed(0)
    net = Net()
    model = get_peft_model(net, CdvftConfig(target_modules=["first", "second"], path=path, init="random"))
    x = torch.randn(4, 20)
    with torch.inference_mode():
        evaluated = model(x).clone()
    output = model(x)
    torch.testing.assert_close(output, evaluated)
    output.square().mean().backward()
    factors = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in factors)
    settings = model.base_model.model.first.cdvft_settings["default"]
    assert settings.path == path


def test_adapters_load_onto_a_16_bit_and_a_meta_made_model(tmp_path: Path) -> None:
    kind = KINDS["decoder"]
    base, inputs = kind.make(), kind.inputs()
    clean = copy.deepcopy(base)
    model = trained(get_peft_model(base, CdvftConfig(target_modules="all-linear")))
    model.save_pretrained(tmp_path)
    half = PeftModel.from_pretrained(copy.deepcopy(clean).bfloat16(), tmp_path)
    assert {p.dtype for n, p in half.named_parameters() if "cdvft_" in n} == {torch.float32}
    made = get_peft_model(clean, CdvftConfig(target_modules="all-linear"), low_cpu_mem_usage=True)
    assert any(p.is_meta for p in made.parameters())
    set_peft_model_state_dict(made, get_peft_model_state_dict(model), low_cpu_mem_usage=True)
    assert not any(p.is_meta for p in made.parameters())
    torch.testing.assert_close(logits(made, inputs), logits(model, inputs))
