"""Adapters on bases that accelerate offloads, and on bases whose call does more than the product of their weight."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook, disk_offload, dispatch_model
from accelerate.hooks import AlignDevicesHook, ModelHook, add_hook_to_module
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from cdvft_bench.core.errors import UserError
from cdvft_bench.execution import native
from cdvft_bench.execution.paths import PATHS
from cdvft_bench.tuner import CdvftConfig, CdvftLinear, load_adapter
from cdvft_bench.tuner.layer import PLAIN
from cdvft_bench.tuner.model import TELLS_FACTORS
from tests.execution.bases import OF_ALL_LAYERS, ON_THE_LAYER, of_all_layers
from tests.tuner.models import KINDS, Net

CPU = torch.device("cpu")
TARGETS = ["first", "second"]
RUNNABLE = [p for p in ("auto", *PATHS) if p != "triton" and not (p == "native" and native.missing(torch.float32))]


class Wide(nn.Module):
    """Widths that the compiled kernel takes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


def close(a: Tensor | None, b: Tensor | None, tolerance: float = 1e-6) -> bool:
    assert a is not None
    assert b is not None
    return float((a - b).detach().norm()) <= tolerance * float(b.detach().norm())


def config(path: str = "auto", **changes: Any) -> CdvftConfig:
    return CdvftConfig(**{"target_modules": TARGETS, "init": "random", "path": path, "block_size": 32, **changes})


def adapted(model: nn.Module, given: CdvftConfig) -> Any:
    torch.manual_seed(1)  # of the factors
    return get_peft_model(model, given)


def sequential(model: nn.Module, folder: Path) -> nn.Module:
    """As diffusers' ``enable_sequential_cpu_offload``: each weight is loaded for its own call."""
    return cpu_offload(model, CPU, offload_buffers=len(model._parameters) > 0)


def to_disk(model: nn.Module, folder: Path) -> nn.Module:
    return disk_offload(model, str(folder), CPU)


def dispatched(model: nn.Module, folder: Path) -> nn.Module:
    names = {name: name.rpartition(".")[2] for name, _ in model.named_modules()}
    places = {name: "cpu" if last == "first" else "disk" for name, last in names.items() if last in TARGETS}
    return dispatch_model(model, places, offload_dir=str(folder))


WAYS: dict[str, Callable[[nn.Module, Path], nn.Module]] = {
    "sequential": sequential,
    "disk": to_disk,
    "dispatched": dispatched,
}


def made(way: str, order: str, given: CdvftConfig, folder: Path) -> tuple[Any, Any]:
    """An adapted model that is offloaded, and the same one that is not."""
    torch.manual_seed(0)
    base = Wide().eval()
    whole = adapted(copy.deepcopy(base), given).eval()
    if order == "base":
        return adapted(WAYS[way](base, folder), given).eval(), whole
    return WAYS[way](adapted(base, given).eval(), folder), whole


class Counted(AlignDevicesHook):
    """accelerate's own hook, which counts its calls."""

    @classmethod
    def on(cls, layer: nn.Module) -> Counted:
        hook = layer._hf_hook
        assert type(hook) is AlignDevicesHook
        hook.__class__ = cls
        hook.calls = []
        return hook  # type: ignore[return-value]

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        self.calls.append("pre")
        return super().pre_forward(module, *args, **kwargs)

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        self.calls.append("post")
        return super().post_forward(module, output)


@pytest.mark.parametrize("path", RUNNABLE)
@pytest.mark.parametrize("order", ["base", "adapted"])
@pytest.mark.parametrize("way", WAYS)
def test_an_offloaded_model_computes_what_the_whole_one_does(way: str, order: str, path: str, tmp_path: Path) -> None:
    model, whole = made(way, order, config(path), tmp_path)
    offloaded = model.base_model.model.second.base_layer
    assert offloaded.weight.is_meta
    hook = Counted.on(offloaded)
    x = torch.randn(3, 5, 64)
    with torch.no_grad():
        expected = whole(x)
        assert close(model(x), expected)
        assert hook.calls == ["pre", "post"]
        if path in ("fft", "handwritten"):  # the whole model, too, calls the base and adds the change
            assert torch.equal(model(x), expected)
    assert offloaded.weight.is_meta


@pytest.mark.parametrize("path", RUNNABLE)
@pytest.mark.parametrize("way", WAYS)
def test_an_adapter_on_an_offloaded_base_trains(way: str, path: str, tmp_path: Path) -> None:
    model, whole = made(way, "base", config(path), tmp_path)
    fired = []
    for layer in (model.base_model.model.first.base_layer, model.base_model.model.second.base_layer):
        layer.register_full_backward_pre_hook(lambda module, g: fired.append(module))
        layer.register_full_backward_hook(lambda module, given, g: fired.append(module))
    x = torch.randn(6, 64)
    found = []
    for each in (model, whole):
        given = x.clone().requires_grad_()
        each.train()(given).square().sum().backward()
        found.append({"x": given.grad, **{n: p.grad for n, p in each.named_parameters() if p.requires_grad}})
    assert len(fired) == 4
    assert set(found[0]) == set(found[1])
    assert len(found[0]) == 7
    for name, gradient in found[1].items():
        assert close(found[0][name], gradient), name
    trained = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    torch.optim.AdamW(trained, lr=0.1).step()
    assert all(not torch.equal(old, new) for old, new in zip(before, trained, strict=True))


def test_gradients_of_offloaded_factors_are_lost_with_a_warning(tmp_path: Path) -> None:
    """As LoRA's, which loses them without one."""
    model, whole = made("sequential", "adapted", config(), tmp_path)
    x = torch.randn(6, 64, requires_grad=True)
    with pytest.warns(UserWarning, match="the factors of an adapter are offloaded, so their gradients are lost"):
        model(x).sum().backward()
    given = x.grad
    x.grad = None
    whole(x).sum().backward()
    assert close(given, x.grad)


@pytest.mark.parametrize("order", ["base", "adapted"])
@pytest.mark.parametrize("way", WAYS)
def test_offloaded_bases_take_changes_and_give_them_back(way: str, order: str, tmp_path: Path) -> None:
    model, whole = made(way, order, config("fused"), tmp_path)
    x = torch.randn(6, 64)
    with torch.no_grad():
        expected = whole(x)
        with whole.disable_adapter():
            before = whole(x)
        model.merge_adapter(safe_merge=True)
        assert model.base_model.model.second.base_layer.weight.is_meta
        assert close(model(x), expected)
        model.unmerge_adapter()
        assert close(model(x), expected)
        for layer in (m for m in model.modules() if isinstance(m, CdvftLinear)):
            layer.merge()
        assert close(model(x), expected)
        with model.disable_adapter():  # takes the change out
            assert close(model(x), before)
        assert close(model(x), expected)
        merged = model.merge_and_unload()
        assert close(merged(x), expected)


@pytest.mark.parametrize("order", ["base", "adapted"])
def test_a_further_adapter_and_mixed_batches(order: str, tmp_path: Path) -> None:
    model, whole = made("dispatched", order, config(), tmp_path)
    for each in (model, whole):
        torch.manual_seed(2)
        each.add_adapter("other", config("fused", m=3))
    x = torch.randn(4, 64)
    with torch.no_grad():
        for name in ("other", "default"):
            model.set_adapter(name)
            whole.set_adapter(name)
            assert close(model(x), whole(x))
        names = ["other", "__base__", "default", "other"]
        assert close(model(x, adapter_names=names), whole(x, adapter_names=names))
        both = ["default", "other"]
        model.base_model.set_adapter(both)
        whole.base_model.set_adapter(both)
        assert close(model(x), whole(x))


def test_a_model_that_is_offloaded_as_a_whole() -> None:
    torch.manual_seed(0)
    base = Wide().eval()
    whole = adapted(copy.deepcopy(base), config())
    model, hook = cpu_offload_with_hook(adapted(base, config()), CPU)
    x = torch.randn(3, 64)
    assert torch.equal(model(x), whole(x))
    hook.offload()
    assert torch.equal(model(x), whole(x))


def test_a_conv1d_and_an_architecture(tmp_path: Path) -> None:
    for name, targets in (("conv1d", ["c_attn", "c_proj"]), ("decoder", ["q_proj", "down_proj"])):
        kind = KINDS[name]
        torch.manual_seed(0)
        base, inputs = kind.make().eval(), kind.inputs()
        given = CdvftConfig(target_modules=targets, init="random")
        whole = adapted(copy.deepcopy(base), given).eval()
        model = adapted(disk_offload(base, str(tmp_path / name), CPU), given).eval()
        with torch.no_grad():
            assert close(kind.output(model(**inputs)), kind.output(whole(**inputs)))


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("how", ["ours", "PEFT", "second"])
def test_saved_adapters_on_a_model_dispatched_from_its_files(
    how: str, low: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "PEFT" and not TELLS_FACTORS:
        pytest.skip("this version of PEFT finds no module of its own model that stands beside the first block")
    monkeypatch.chdir(tmp_path)  # PEFT writes the files that it dispatches from below the folder it runs in
    kind = KINDS["decoder"]
    torch.manual_seed(0)
    base, inputs = kind.make().eval(), kind.inputs()
    base.save_pretrained(tmp_path / "models--base")
    given = CdvftConfig(target_modules=["q_proj", "down_proj"], init="random", m=3, block_size=8)
    whole = adapted(copy.deepcopy(base), given).eval()
    whole.save_pretrained(tmp_path / "adapter")
    places: dict[str, Any] = {
        "model.embed_tokens": "cpu",
        "model.layers.0": "cpu",
        "model.layers.1": "disk",
        "model.norm": "disk",
        "model.rotary_emb": "cpu",
        "lm_head": "disk",
    }
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path / "models--base", device_map=places, offload_folder=str(tmp_path / "offload")
    )
    adapter = str(tmp_path / "adapter")
    if how == "ours":
        model: Any = load_adapter(loaded, adapter, low_cpu_mem_usage=low)
    elif how == "PEFT":
        inside = {f"base_model.model.{name}": place for name, place in places.items()}
        folder = str(tmp_path / "again")
        model = PeftModel.from_pretrained(
            loaded, adapter, device_map=inside, offload_folder=folder, low_cpu_mem_usage=low
        )
    else:
        model = get_peft_model(loaded, copy.deepcopy(given))
        model.load_adapter(adapter, "other", low_cpu_mem_usage=low)
        model.set_adapter("other")
    with torch.no_grad():
        found, expected = (m.eval()(**inputs).logits for m in (model, whole))
    assert close(found, expected)
    assert model.base_model.model.model.layers[1].self_attn.q_proj.base_layer.weight.is_meta
    assert not any(p.is_meta for n, p in model.named_parameters() if "cdvft_" in n)


def test_weights_loaded_by_a_module_above_are_refused() -> None:
    base = nn.ModuleDict({"block": Wide()})
    cpu_offload(base, CPU, preload_module_classes=["Wide"])
    before = list(base.state_dict())
    with pytest.raises(UserError, match=r"block\.first: its weight is offloaded together with block.* before offload"):
        get_peft_model(base, config())
    assert list(base.state_dict()) == before
    model = adapted(nn.ModuleDict({"block": Wide()}), config())
    whole = copy.deepcopy(model)
    cpu_offload(model, CPU, preload_module_classes=["Wide"])
    x = torch.randn(3, 64)
    with torch.no_grad():
        assert close(model.base_model.model["block"](x), whole.base_model.model["block"](x))


@pytest.mark.parametrize("path", ["auto", "merged", "fused", "fft"])
@pytest.mark.parametrize("kind", [*ON_THE_LAYER, *OF_ALL_LAYERS])
def test_the_base_is_called_as_lora_calls_it(kind: str, path: str) -> None:
    def made() -> nn.ModuleDict:
        torch.manual_seed(len(kind))
        layer = nn.Linear(32, 32, dtype=torch.float64)
        return nn.ModuleDict({"layer": ON_THE_LAYER[kind](layer) if kind in ON_THE_LAYER else layer})

    base, whole = made(), made()
    lora: Any = get_peft_model(made(), LoraConfig(target_modules=["layer"], r=32, lora_alpha=32)).base_model.model
    model = get_peft_model(base, config(path, target_modules=["layer"])).base_model.model.double()
    delta = model["layer"].get_delta_weight("default").detach()
    with torch.no_grad():
        lora["layer"].lora_A["default"].weight = nn.Parameter(torch.eye(32, dtype=torch.float64))
        lora["layer"].lora_B["default"].weight = nn.Parameter(delta.clone())
    x, g = torch.randn(5, 32, dtype=torch.float64), torch.randn(5, 32, dtype=torch.float64)
    found = []
    with of_all_layers(kind) if kind in OF_ALL_LAYERS else nullcontext():
        calls = whole["layer"](x)
        for layer in (model["layer"], lora["layer"]):
            given = x.clone().requires_grad_()
            h = layer(given)
            h.backward(g)
            found.append((h, given.grad))
    if kind in ON_THE_LAYER:  # LoRA's own factors are linear layers, too
        assert close(found[0][0], found[1][0], 1e-10)
        assert close(found[0][1], found[1][1], 1e-10)
    assert close(found[0][0], calls + x @ delta.T, 1e-10)


def test_hooks_of_accelerate_that_offload_nothing_run_too() -> None:
    class Scaled(ModelHook):
        def post_forward(self, module: nn.Module, output: Tensor) -> Tensor:
            return output * 7

    torch.manual_seed(0)
    net = Net()
    x = torch.randn(4, 20)
    expected = net.first(x)
    add_hook_to_module(net.first, Scaled())
    layer = get_peft_model(net, config(block_size=4)).base_model.model.first
    delta = layer.get_delta_weight("default")
    assert close(layer(x), 7 * expected + x @ delta.T)


def test_the_classes_that_may_be_plain() -> None:
    assert {kind.__name__ for kind in PLAIN} == {"Linear", "Conv1D"}
