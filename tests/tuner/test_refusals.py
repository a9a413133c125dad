"""What does not fit is refused with a clear error, and leaves the base model as it was."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from torch import Tensor, nn

from cdvft_bench.core.errors import UserError
from cdvft_bench.tuner import CdvftConfig, CdvftLinear, CdvftModel, load_adapter
from cdvft_bench.tuner.registration import peft_type, register, require_interface
from tests.fresh import Fresh
from tests.tuner.models import Net


def untouched(model: nn.Module, before: dict[str, Tensor]) -> bool:
    after = model.state_dict()
    return set(after) == set(before) and all(torch.equal(after[k], v) for k, v in before.items())


def test_what_does_not_fit_leaves_the_model_alone() -> None:
    net = Net()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(UserError, match=r"second: block_size = 40 is larger than a layer of 32 x 12"):
        get_peft_model(net, CdvftConfig(target_modules=["first", "second"], block_size_pattern={"second": 40}))
    assert untouched(net, before)
    with pytest.raises(ValueError, match="not found in the base model"):
        get_peft_model(net, CdvftConfig(target_modules=["third"]))
    assert untouched(net, before)
    mixed = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(4, 4, 1))
    with pytest.raises(TypeError, match=r"1: a Conv2d cannot be adapted"):
        get_peft_model(mixed, CdvftConfig(target_modules=["0", "1"]))
    assert not any(isinstance(m, CdvftLinear) for m in mixed.modules())


def test_bad_adapter_files_leave_the_model_alone(tmp_path: Path) -> None:
    model = get_peft_model(Net(), CdvftConfig(target_modules=["first", "second"]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    good = tmp_path / "good"
    model.save_pretrained(good)
    net = Net()
    before = copy.deepcopy(net.state_dict())

    def refused(name: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            load_adapter(net, tmp_path / name)
        assert untouched(net, before)

    def variant(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in good.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    refused("nothing", "no adapter_config.json")
    (variant("torn") / "adapter_model.safetensors").write_bytes(b"\x10\x00torn")
    refused("torn", "is damaged")
    (variant("garbled") / "adapter_config.json").write_text("{")
    refused("garbled", "cannot be read: it is no JSON")
    other = variant("other")
    text = (other / "adapter_config.json").read_text()
    (other / "adapter_config.json").write_text(text.replace('"CDVFT"', '"LORA"'))
    refused("other", "holds a LORA adapter")
    wrong = variant("wrong")
    (wrong / "adapter_config.json").write_text(text.replace('"block_size": null', '"block_size": 3'))
    refused("wrong", "do not fit")
    larger = get_peft_model(nn.Sequential(nn.Linear(4, 4)), CdvftConfig(target_modules=["0"]))
    larger.save_pretrained(tmp_path / "foreign")
    refused("foreign", "that the model lacks")
    assert load_adapter(net, good) is not None


def test_registration_happens_once() -> None:
    register(CdvftConfig, CdvftModel)
    assert PEFT_TYPE_TO_TUNER_MAPPING["CDVFT"] is CdvftModel


def test_another_package_with_the_name_is_refused() -> None:
    class Other(CdvftConfig):
        pass

    with pytest.raises(ImportError, match=r"cannot be extended by cdvft_bench.tuner: it has a method CDVFT already"):
        register(Other, CdvftModel)
    assert PEFT_TYPE_TO_TUNER_MAPPING[peft_type()] is CdvftModel


def test_an_unsuited_peft_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delattr("peft.utils.register_peft_method")
        with pytest.raises(
            ImportError, match=r"^peft .* its peft.utils has no register_peft_method; install peft 0.19"
        ):
            require_interface()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "peft.tuners.tuners_utils", None)
        with pytest.raises(ImportError, match=r"^peft .*peft.tuners.tuners_utils.*; install peft 0.19 to 0.21"):
            require_interface()
    require_interface()


def test_an_unsuited_peft_is_named_at_import(fresh: Fresh) -> None:
    code = "import peft.utils; del peft.utils.register_peft_method\nimport cdvft_bench.tuner"
    done = fresh.run(code, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: peft ")
    assert "install peft 0.19 to 0.21" in last
