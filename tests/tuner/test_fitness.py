"""What an adapter is put on, under which name and how it runs is checked before the model is touched."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model, inject_adapter_in_model
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from cdvft_bench.core.errors import UserError
from cdvft_bench.execution import native
from cdvft_bench.execution.native import kernels
from cdvft_bench.tuner import CdvftConfig, CdvftLinear, check_adapter, load_adapter
from cdvft_bench.tuner.model import DEFAULT_TARGETS, TELLS_FACTORS
from tests.tuner.models import Net


class Named(nn.Module):
    """Parts that are called as the factors begin, and a part ``mlp``."""

    def __init__(self) -> None:
        super().__init__()
        self.cdvft_block = nn.ModuleDict({"inner": nn.Linear(16, 16)})
        self.mlp = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16))
        self.scale = nn.Parameter(torch.ones(16))
        self.cdvft_head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.cdvft_head(self.mlp(self.cdvft_block["inner"](x)) * self.scale)


TARGETS = ["inner", "0"]


def perturb(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return float((a - b).detach().norm()) <= tolerance * float(b.detach().norm())


by_structure = pytest.mark.skipif(not TELLS_FACTORS, reason="this version of PEFT goes by the prefix of names")


@by_structure
def test_a_module_to_save_may_be_called_as_the_factors_begin(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = Named().eval()
    clean = copy.deepcopy(base)
    given = CdvftConfig(target_modules=TARGETS, init="random", modules_to_save=["cdvft_head"])
    model = get_peft_model(base, given)
    perturb(model)
    model.eval().save_pretrained(tmp_path)
    x = torch.randn(5, 16)
    check_adapter(clean, tmp_path)
    loaded: Any = load_adapter(copy.deepcopy(clean), tmp_path)
    assert torch.equal(loaded(x), model(x))
    assert torch.equal(PeftModel.from_pretrained(clean, tmp_path)(x), model(x))
    loaded.add_adapter("other", CdvftConfig(target_modules=TARGETS))
    loaded.delete_adapter("other")
    assert not any("other" in name for name in loaded.state_dict())
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("name", ["first", "last", "ast", "cdvft_first", "base_layer"])
def test_a_module_to_save_that_would_be_taken_for_a_factor(name: str) -> None:
    net = Net()
    with pytest.raises(UserError, match=rf"modules_to_save: PEFT would take .* for {name!r}, since it ends so"):
        get_peft_model(net, CdvftConfig(target_modules=["second"], modules_to_save=[name]))
    assert not any(isinstance(m, CdvftLinear) for m in net.modules())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mlp", "also the name of a part of the model"),
        ("0", "also the name of a part of the model"),
        ("cdvft_block", "also the name of a part of the model"),
        ("weight", "also the name of a part of the model"),
        ("scale", "also the name of a part of the model"),
        ("running_mean", "also the name of a part of the model"),
        ("a.b", "has a '.'"),
        ("a/b", "has a '/'"),
        ("..", "is no name"),
        ("", "is no name"),
        ("keys", "is taken by torch or PEFT"),
        ("items", "is taken by torch or PEFT"),
        ("type", "is taken by torch or PEFT"),
        ("training", "is taken by torch or PEFT"),
        ("base_layer", "is taken by torch or PEFT"),
        ("cdvft_last", "is taken by torch or PEFT"),
        ("__base__", "is taken by torch or PEFT"),
    ],
)
def test_names_of_adapters(name: str, message: str) -> None:
    base = Named()
    before = list(base.state_dict())
    given = CdvftConfig(target_modules=TARGETS)
    with pytest.raises(UserError, match=f"^adapter name {name!r} .*{message}"):
        get_peft_model(base, given, adapter_name=name)
    with pytest.raises(UserError, match=message):
        inject_adapter_in_model(given, base, adapter_name=name)
    assert list(base.state_dict()) == before
    model = get_peft_model(base, given)
    before = list(base.state_dict())
    with pytest.raises(UserError, match=message):
        model.add_adapter(name, CdvftConfig(target_modules=TARGETS))
    assert list(base.state_dict()) == before
    assert list(model.peft_config) == ["default"]


@pytest.mark.skipif(TELLS_FACTORS, reason="this version of PEFT tells modules of such names from factors")
def test_an_older_peft_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="takes 'cdvft_block' for a factor .* install peft 0.21, or rename it"):
        get_peft_model(Named(), CdvftConfig(target_modules=TARGETS))


@by_structure
def test_a_name_that_passes_loses_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = Named().eval()
    clean = copy.deepcopy(base)
    model = get_peft_model(base, CdvftConfig(target_modules=TARGETS, init="random"))
    model.add_adapter("mlp-2", CdvftConfig(target_modules=TARGETS, init="random"))
    model.save_pretrained(tmp_path)
    x = torch.randn(5, 16)
    for name, folder in (("default", tmp_path), ("mlp-2", tmp_path / "mlp-2")):
        model.set_adapter(name)
        assert torch.equal(load_adapter(copy.deepcopy(clean), folder)(x), model(x))
    inject_adapter_in_model(CdvftConfig(target_modules=["0"]), base, adapter_name="default")  # again, as PEFT allows


def encoder(**options: Any) -> nn.TransformerEncoder:
    settings = {"d_model": 16, "nhead": 2, "dim_feedforward": 24, "batch_first": True, "dropout": 0.0, **options}
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(**settings), 2)


@pytest.mark.parametrize("target", ["linear1", "linear2", "out_proj"])
def test_layers_whose_owner_reads_their_weight(target: str) -> None:
    model = encoder()
    with pytest.raises((UserError, TypeError), match=rf"{target}: .*(fast path|reads the weight).*exclude_modules"):
        get_peft_model(model, CdvftConfig(target_modules=[target], block_size=8))
    assert not any(isinstance(m, CdvftLinear) for m in model.modules())
    attention = nn.MultiheadAttention(16, 2)
    attention.out_proj = nn.Linear(16, 16)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"out_proj: torch\.nn\.MultiheadAttention reads the weight"):
        get_peft_model(attention, CdvftConfig(target_modules=["out_proj"]))


SLOW = {
    "batch second": {"batch_first": False},
    "norms differ": {},
    "no bias": {"bias": False},
    "own activation": {"activation": torch.tanh},
    "odd heads": {"d_model": 15, "nhead": 3},
    "switched off": {},
}


@pytest.mark.parametrize("case", SLOW)
def test_an_encoder_that_calls_its_layers_is_adapted(case: str) -> None:
    torch.manual_seed(0)
    model = encoder(**SLOW[case]).eval()
    if case == "norms differ":
        for layer in model.layers:
            layer.norm2.eps = 1e-3
    x = torch.randn(3, 5, 15 if case == "odd heads" else 16)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(case != "switched off")
    try:
        with torch.no_grad():
            plain = model(x)
        adapted = get_peft_model(model, CdvftConfig(target_modules=["linear1", "linear2"], block_size=8, init="random"))
        trained = adapted.train()(x)
        with torch.no_grad():
            evaluated = adapted.eval()(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    assert close(evaluated, trained)
    assert not close(evaluated, plain, 1e-2)


def test_a_named_path_is_checked_at_injection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    net = Net()
    before = list(net.state_dict())

    def refused(message: str, **options: Any) -> None:
        with pytest.raises(UserError, match=message):
            get_peft_model(net, CdvftConfig(target_modules=["first", "second"], **options))
        assert list(net.state_dict()) == before

    refused(
        r"^first: path 'native' cannot execute this layer: p = 5 is not 4 times .*; use 'auto'",
        path="native",
        block_size=5,
    )
    refused("fewer than 16 circulant factors", path="native", block_size=16, m=18)
    refused(r"^second: .* p = 11", path="native", block_size=16, block_size_pattern={"second": 11})
    refused("path 'triton' cannot execute this layer", path="triton", block_size=10)
    assert get_peft_model(Net(), CdvftConfig(target_modules=["first"], path="native", m=1, block_size=5))
    monkeypatch.setattr(kernels, "missing", lambda dtype: "there is no C compiler")
    refused("there is no C compiler; use 'auto'", path="native", block_size=16)
    monkeypatch.undo()
    if native.missing(torch.float32):
        pytest.skip(native.missing(torch.float32))
    model = get_peft_model(Net(), CdvftConfig(target_modules=["first"], path="native", block_size=16, init="random"))
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(kernels, "missing", lambda dtype: "there is no C compiler")
    base = copy.deepcopy(model).unload()
    with pytest.raises(UserError, match="no C compiler"):
        load_adapter(base, tmp_path)
    loaded = load_adapter(base, tmp_path, path="fused")
    monkeypatch.undo()
    x = torch.randn(3, 20)
    assert close(loaded(x), model.eval()(x))
    with pytest.raises(UserError, match="path 'quick' is not known"):
        load_adapter(copy.deepcopy(model).unload(), tmp_path, path="quick")


@pytest.mark.parametrize("empty", [[], (), set()])
def test_no_layers_to_transform(empty: Any) -> None:
    with pytest.raises(UserError, match="layers_to_transform is empty"):
        CdvftConfig(target_modules=["query"], layers_to_transform=empty)


def test_default_targets_follow_pefts_table(monkeypatch: pytest.MonkeyPatch) -> None:
    class Config:
        model_type = "mine"

        def to_dict(self) -> dict[str, Any]:
            return {"model_type": "mine"}

    def mine() -> nn.Module:
        net = Net()
        net.config = Config()  # type: ignore[assignment]
        return net

    with pytest.raises(ValueError, match="specify `target_modules`"):
        get_peft_model(mine(), CdvftConfig())
    monkeypatch.setitem(TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, "mine", ["second"])
    assert DEFAULT_TARGETS["mine"] == ["second"]
    model = get_peft_model(mine(), CdvftConfig())
    assert [n for n, m in model.named_modules() if isinstance(m, CdvftLinear)] == ["base_model.model.second"]
    with pytest.raises(TypeError):
        DEFAULT_TARGETS["mine"] = ["first"]  # type: ignore[index]


def test_conv1d_whose_weight_is_partitioned() -> None:
    """As DeepSpeed's ZeRO-3 leaves it: an empty weight that knows its shape."""
    base = nn.ModuleDict({"conv": Conv1D(24, 16)})
    weight: Any = nn.Parameter(torch.empty(0), requires_grad=False)
    weight.ds_shape = torch.Size((16, 24))
    base["conv"].weight = weight  # type: ignore[assignment]
    layer: Any = get_peft_model(base, CdvftConfig(target_modules=["conv"], block_size=8)).base_model.model["conv"]
    assert layer.cdvft_first["default"].shape == (16,)
    assert layer.cdvft_last["default"].shape == (1, 24)
    assert layer.cdvft_circulant["default"].shape == (3, 2, 8)
    with pytest.raises(TypeError, match="under ZeRO-3, which partitions it; gather it first"):
        layer.merge()


def test_what_is_not_supported_is_refused_by_name() -> None:
    for option, value in (("target_parameters", ["experts.weight"]), ("trainable_token_indices", [1, 2])):
        with pytest.raises(UserError, match=f"^{option} is not supported by CDVFT: .*(LoRA|modules_to_save)"):
            CdvftConfig(target_modules=["first"], **{option: value})
        later = CdvftConfig(target_modules=["first"])
        setattr(later, option, value)
        with pytest.raises(UserError, match=f"^{option} is not supported"):
            get_peft_model(Net(), later)
        assert option not in CdvftConfig(target_modules=["first"]).to_dict()
    model = get_peft_model(Net(), CdvftConfig(target_modules=["first"]))
    with pytest.raises(UserError, match=r"^add_weighted_adapter is not supported by CDVFT: .*convert_to_lora"):
        model.add_weighted_adapter(["default"], [1.0], "sum")


class Broken:
    """An adapted model with a good adapter "default" and one, "bad", whose last layer is not finite."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        config = CdvftConfig(target_modules=["first", "second"], block_size=4, init="random")
        self.model: Any = get_peft_model(Net(), config)
        self.model.add_adapter("bad", copy.deepcopy(config))
        with torch.no_grad():
            self.model.base_model.model.second.cdvft_circulant["bad"][0, 0, 0] = float("nan")
        self.before = {n: t.clone() for n, t in self.model.state_dict().items()}

    def is_untouched(self) -> bool:
        after = self.model.state_dict()
        layers = [m for m in self.model.modules() if isinstance(m, CdvftLinear)]
        same = set(after) == set(self.before)
        return (
            same
            and len(layers) == 2
            and not any(m.merged_adapters for m in layers)
            and all(torch.equal(after[n], t) or torch.isnan(t).any() for n, t in self.before.items())
        )


def test_safe_merge_is_all_or_nothing() -> None:
    broken = Broken()
    model = broken.model
    both = ["default", "bad"]
    with pytest.raises(ValueError, match=r"The adapter bad seems to be broken: .* not finite; nothing"):
        model.base_model.model.second.merge(safe_merge=True, adapter_names=both)
    assert broken.is_untouched()
    for names in (both, ["bad"], ["bad", "default"]):
        with pytest.raises(ValueError, match="not finite"):
            model.merge_adapter(adapter_names=names, safe_merge=True)
        assert broken.is_untouched()
        with pytest.raises(ValueError, match="not finite"):
            model.merge_and_unload(adapter_names=names, safe_merge=True)
        assert broken.is_untouched()
    x = torch.randn(3, 20)
    expected = model(x)
    model.merge_adapter(adapter_names=["default", "default"], safe_merge=True)  # once
    assert close(model(x), expected)


def test_a_merge_that_one_weight_refuses_leaves_all_alone() -> None:
    broken = Broken()
    layer = broken.model.base_model.model.second.base_layer
    nn.utils.parametrize.register_parametrization(layer, "weight", nn.Identity())
    broken.before = {n: t.clone() for n, t in broken.model.state_dict().items()}
    for merge in (broken.model.merge_adapter, broken.model.merge_and_unload):
        with pytest.raises(TypeError, match="computed from other parameters"):
            merge()
        assert broken.is_untouched()
