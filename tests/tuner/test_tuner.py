"""What PEFT's users expect of a method, over linear layers, Conv1D, an encoder, a decoder and a ViT."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn

from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.dispatch import count_dispatch
from cdvft_bench.tuner import CdvftConfig, CdvftLinear, cdvft_param_groups, load_adapter
from tests.tuner.models import KINDS, Kind, Net

CONFIGS: dict[str, dict[str, Any]] = {
    "cdvft": {"m": 2},
    "blocks": {"m": 3, "block_size": 8, "alpha": 0.5, "convention": "row"},
    "one diagonal": {"m": 1},
    "bca": {"diagonals": False, "block_size": 16},
    "fused": {"m": 2, "path": "fused"},
    "merged": {"m": 2, "path": "merged", "init": "zero_circulant"},
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    torch.manual_seed(0)
    return KINDS[request.param]


def config(kind: Kind, name: str = "cdvft", **changes: Any) -> CdvftConfig:
    return CdvftConfig(**{**CONFIGS[name], "target_modules": kind.targets, **changes})


def perturb(model: nn.Module, scale: float = 0.2) -> None:
    """Stand-in for training: the change is no longer zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * scale)


def adapted(kind: Kind, name: str = "cdvft", **changes: Any) -> tuple[PeftModel, Callable[[], Tensor], Tensor]:
    """An adapted model in eval mode, a call of it on fixed inputs, and the base model's output on them."""
    base = kind.make().eval()
    inputs = kind.inputs()
    with torch.no_grad():
        before = kind.output(base(**inputs))
    model = get_peft_model(base, config(kind, name, **changes)).eval()
    return model, lambda: kind.output(model(**inputs)), before


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return float((a - b).detach().norm()) <= tolerance * float(b.detach().norm())


@pytest.mark.parametrize("name", CONFIGS)
def test_starts_at_no_change_and_trains(kind: Kind, name: str) -> None:
    model, call, before = adapted(kind, name)
    assert close(call(), before, 1e-6)
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        call().square().mean().backward()
        optimizer.step()
    model.eval()
    assert not close(call(), before, 1e-6)
    frozen = [p for n, p in model.named_parameters() if "cdvft_" not in n]
    assert all(p.grad is None for p in frozen)
    assert "cdvft." in repr(model)


@pytest.mark.parametrize("name", CONFIGS)
def test_merge_unmerge_disable_unload(kind: Kind, name: str) -> None:
    model, call, before = adapted(kind, name)
    perturb(model)
    changed = call()
    assert not close(changed, before, 1e-4)
    with model.disable_adapter():
        assert close(call(), before)
    model.merge_adapter(safe_merge=True)
    assert close(call(), changed, 1e-4)
    with model.disable_adapter():  # unmerges
        assert close(call(), before, 1e-4)
    model.unmerge_adapter() if any(getattr(m, "merged", False) for m in model.modules()) else None
    assert close(call(), changed, 1e-4)
    inputs = kind.inputs()
    expected = kind.output(model(**inputs))
    whole = model.merge_and_unload()
    assert not any(isinstance(m, CdvftLinear) for m in whole.modules())
    assert close(kind.output(whole(**inputs)), expected, 1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_save_and_load(kind: Kind, name: str, tmp_path: Path) -> None:
    model, call, _ = adapted(kind, name)
    perturb(model)
    expected = call()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file()
    base = copy.deepcopy(model).unload().eval()
    again = load_adapter(base, tmp_path).eval()
    inputs = kind.inputs()
    with torch.no_grad():
        assert close(kind.output(again(**inputs)), kind.output(model(**inputs)), 1e-6)
    saved, loaded = (get_peft_model_state_dict(m) for m in (model, again))
    assert set(saved) == set(loaded)
    assert all(torch.equal(saved[k], loaded[k]) for k in saved)
    assert call().equal(expected)


def test_low_cpu_mem_usage(tmp_path: Path) -> None:
    kind = KINDS["encoder"]
    model, _, _ = adapted(kind)
    perturb(model)
    model.save_pretrained(tmp_path)
    base = copy.deepcopy(model).unload().eval()
    again = PeftModel.from_pretrained(base, tmp_path, low_cpu_mem_usage=True).eval()
    assert not any(p.is_meta for p in again.parameters())
    inputs = kind.inputs()
    assert close(kind.output(again(**inputs)), kind.output(model(**inputs)), 1e-6)


def test_several_adapters(kind: Kind) -> None:
    model, call, before = adapted(kind)
    perturb(model)
    first = call()
    model.add_adapter("other", config(kind, "bca", init="random"))
    assert close(call(), first)
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".other" in n)
    model.set_adapter("other")
    second = call()
    assert not close(second, first, 1e-4)
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".default" in n)
    model.base_model.set_adapter(["default", "other"])
    both = call()
    assert not close(both, first, 1e-4)
    model.base_model.merge_adapter()
    assert close(call(), both, 1e-4)
    model.base_model.unmerge_adapter()
    model.set_adapter("default")
    model.delete_adapter("other")
    assert not any(".other" in n for n, _ in model.named_parameters())
    assert close(call(), first, 1e-4)
    assert not close(call(), before, 1e-4)


def test_mixed_batches() -> None:
    kind = KINDS["encoder"]
    model, _, _ = adapted(kind)
    perturb(model)
    model.add_adapter("other", config(kind, "bca", init="random"))
    inputs = kind.inputs()
    alone = {}
    for name in ("default", "other"):
        model.set_adapter(name)
        alone[name] = kind.output(model(**inputs))
    with model.disable_adapter():
        alone["__base__"] = kind.output(model(**inputs))
    names = ["other", "__base__", "default"]
    mixed = kind.output(model(**inputs, adapter_names=names))
    for i, name in enumerate(names):
        assert close(mixed[i], alone[name][i])
    with pytest.raises(ValueError, match="adapter_names has typo"):
        model(**inputs, adapter_names=["typo", "default", "default"])
    with pytest.raises(ValueError, match="one a sample"):
        model(**inputs, adapter_names=["default"])
    with pytest.raises(ValueError, match=r"eval\(\) first"):
        model.train()(**inputs, adapter_names=names)


def test_safe_merge_finds_what_is_not_finite() -> None:
    model, call, before = adapted(KINDS["net"])
    perturb(model)
    with torch.no_grad():
        model.base_model.model.first.cdvft_circulant["default"][0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        model.merge_adapter(safe_merge=True)
    with model.disable_adapter():
        assert close(call(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(kind: Kind, dtype: torch.dtype) -> None:
    model = get_peft_model(kind.make().to(dtype), config(kind, init="random"))
    factors = [p for n, p in model.named_parameters() if "cdvft_" in n]
    assert {p.dtype for p in factors} == {torch.float32}
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in kind.inputs().items()}
    output = kind.output(model(**inputs))
    assert output.dtype == dtype
    output.float().square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in factors)


def test_autocast(kind: Kind) -> None:
    _, call, _ = adapted(kind, init="random")
    expected = call()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = call()
    assert close(output.float(), expected, 0.05)


def test_gradient_checkpointing() -> None:
    kind = KINDS["decoder"]
    model, call, _ = adapted(kind)
    perturb(model)
    model.train()
    call().square().mean().backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    call().square().mean().backward()
    assert all(close(p.grad, expected[n], 1e-4) for n, p in model.named_parameters() if p.grad is not None)


def test_deep_copy(kind: Kind) -> None:
    model, _, _ = adapted(kind)
    perturb(model)
    other = copy.deepcopy(model)
    inputs = kind.inputs()
    assert torch.equal(kind.output(other(**inputs)), kind.output(model(**inputs)))
    perturb(other)
    assert not close(kind.output(other(**inputs)), kind.output(model(**inputs)), 1e-4)


def test_a_merged_layer_costs_what_the_base_layer_costs() -> None:
    model, call, _ = adapted(KINDS["net"])
    perturb(model)

    def operators(run: Callable[[], object]) -> dict[str, int]:
        with torch.no_grad(), count_dispatch() as counter:
            run()
        return counter.result().operators

    base, inputs = KINDS["net"].make(), KINDS["net"].inputs()
    assert operators(call) != operators(lambda: base(**inputs))
    model.merge_adapter()
    assert operators(call) == operators(lambda: base(**inputs))


def test_patterns_and_selected_layers() -> None:
    kind = KINDS["encoder"]
    model = get_peft_model(
        kind.make(),
        CdvftConfig(
            m=2,
            target_modules=["query", "value"],
            exclude_modules=["value"],
            layers_to_transform=[1],
            block_size_pattern={"layer.1.attention.self.query": 4},
            m_pattern={"query": 3},
            modules_to_save=["classifier"],
            bias="cdvft_only",
        ),
    )
    layers = {n: m for n, m in model.named_modules() if isinstance(m, CdvftLinear)}
    assert len(layers) == 1
    ((name, layer),) = layers.items()
    assert "layer.1.attention.self.query" in name
    assert layer.cdvft_settings["default"].shapes.block_size == 4
    assert layer.cdvft_settings["default"].shapes.m == 3
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert any("classifier" in n for n in trained)
    assert any(n.endswith("query.base_layer.bias") for n in trained)


def test_trained_base_biases_get_their_gradient() -> None:
    model = get_peft_model(Net(), CdvftConfig(target_modules=["first"], bias="cdvft_only", init="random"))
    model(torch.randn(4, 20)).square().sum().backward()
    bias = model.base_model.model.first.base_layer.bias
    assert bias.grad is not None
    assert bias.grad.abs().sum() > 0


def test_all_linear() -> None:
    model = get_peft_model(KINDS["decoder"].make(), CdvftConfig(target_modules="all-linear"))
    assert sum(isinstance(m, CdvftLinear) for m in model.modules()) == 2 * 7


def test_trainable_parameters_are_the_formulas() -> None:
    model = get_peft_model(KINDS["encoder"].make(), CdvftConfig(m=3, target_modules=["query"]))
    trained, _ = model.get_nb_trainable_parameters()
    assert trained == 2 * 5 * 32


def test_conversion_to_lora() -> None:
    from peft import convert_to_lora

    model, _, _ = adapted(KINDS["net"])
    perturb(model)
    assert model.supports_lora_conversion()
    _, state = convert_to_lora(model, rank=12)
    first = {k: v for k, v in state.items() if "first" in k}
    low, high = (next(v for k, v in first.items() if part in k) for part in ("lora_A", "lora_B"))
    delta = model.base_model.model.first.get_delta_weight("default")
    left, values, right = torch.linalg.svd(delta.detach())
    best = (left[:, :12] * values[:12]) @ right[:12]
    assert close(high @ low, best, 1e-3)


def test_learning_rate_groups() -> None:
    model = get_peft_model(Net(), CdvftConfig(diagonals=False, block_size=4, target_modules=["first", "second"]))
    groups = {g["name"]: g for g in cdvft_param_groups(model, 0.1)}
    assert set(groups) == {"circulant, p = 4"}
    assert groups["circulant, p = 4"]["lr"] == pytest.approx(0.1 / 4)
    assert len(groups["circulant, p = 4"]["params"]) == 2
    torch.optim.AdamW(list(groups.values()))
    cdvft = get_peft_model(Net(), CdvftConfig(target_modules=["first"]))
    assert [g["name"] for g in cdvft_param_groups(cdvft, 0.1)] == ["all else"]
    divided = cdvft_param_groups(cdvft, 0.1, divide_by_block_size=True)
    assert [g["name"] for g in divided] == ["all else", "circulant, p = 20"]
    assert sum(len(g["params"]) for g in divided) == 3
    with pytest.raises(UserError, match="lr = 0"):
        cdvft_param_groups(cdvft, 0)
    with pytest.raises(UserError, match="no CDVFT adapter"):
        cdvft_param_groups(Net(), 0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"m": 0}, "m = 0 must be an integer >= 1"),
        ({"m": True}, "m = True"),
        ({"block_size": -3}, "block_size = -3"),
        ({"block_size_pattern": {"x": 0}}, r"block_size_pattern\['x'\] = 0"),
        ({"alpha": float("inf")}, "alpha = inf is not a finite number"),
        ({"alpha": "two"}, "alpha = 'two'"),
        ({"convention": "diagonal"}, "convention 'diagonal'"),
        ({"init": "ones"}, "init 'ones'"),
        ({"path": "quick"}, "path 'quick'"),
        ({"m": 3, "path": "merged_dense"}, "m must be 2"),
        ({"m": 1, "init": "zero_circulant"}, "no circulant factor"),
        ({"diagonals": False, "m": 3}, "m has no meaning"),
        ({"bias": "some"}, "bias 'some'"),
        ({"target_modules": "a.*", "layers_to_transform": 1}, "list of names"),
        ({"layers_pattern": "layer"}, "give both"),
    ],
)
def test_bad_configurations(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CdvftConfig(**options)
