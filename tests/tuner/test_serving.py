"""The benchmark of a layer with many adapters: every contender computes what its adapters are; the table tells it."""

import pytest
import torch
from peft import get_peft_model
from torch import nn

from cdvft_bench.execution import native
from cdvft_bench.tuner import CdvftConfig
from cdvft_bench.tuner.serving import ROWS, Found, Row, contenders, measure, table

pytestmark = pytest.mark.skipif(bool(native.missing(torch.float32)), reason="no compiled kernels")


def test_the_paths_agree_and_each_adapter_counts() -> None:
    with torch.no_grad():
        made = {name: call() for name, call in contenders(Row(32, 9, 5)).items()}
    assert (made["cdvft native"] - made["cdvft fft"]).norm() <= 1e-5 * made["cdvft fft"].norm()
    for name, output in made.items():
        assert output.shape == (9, 32)
        assert name == "frozen" or (output - made["frozen"]).norm() > 0.1 * made["frozen"].norm()


def test_a_row_is_measured_and_told() -> None:
    (found,) = measure([Row(32, 4, 2)], 0.05, 1)
    assert min(found.seconds.values()) > 0
    assert (found.cdvft_bytes, found.lora_bytes) == (2 * 3 * 32 * 4, 2 * 16 * 32 * 4)
    many = Found(32, 4, 1000, {"cdvft native": 0.002, "frozen": 0.001}, 384_000, 2_048_000, 1, ())
    lines = table([many, found]).splitlines()
    assert lines[2] == (
        "| 32 | 4 | 1,000 | 0.384, 2.05 | 2.0 | 4.0 | not measured | not measured | not measured | not measured |"
    )
    assert len({len(line.split("|")) for line in lines}) == 1


def test_rows_are_told_apart() -> None:
    assert len(set(ROWS)) == len(ROWS)


@pytest.mark.parametrize("gradients", [False, True])
def test_samples_of_several_kinds_of_adapters(gradients: bool) -> None:
    """Adapters of like settings go through one call, those of others through their own; a name of none is the base."""
    torch.manual_seed(0)
    kinds = [{"m": 2}, {"m": 3}, {"m": 1}, {"diagonals": False, "block_size": 8}, {"m": 2, "convention": "row"}]
    configs = [CdvftConfig(target_modules=["linear"], init="random", **kind) for kind in [*kinds, *kinds]]
    model = get_peft_model(nn.ModuleDict({"linear": nn.Linear(16, 24)}), configs[0], adapter_name="0")
    for i, config in enumerate(configs[1:], 1):
        model.add_adapter(str(i), config)
    layer = model.base_model.model["linear"].eval()
    names = ["__base__", *map(str, torch.randint(10, (20,)).tolist()), "3", "8"]
    x = torch.randn(len(names), 5, 16)
    with torch.set_grad_enabled(gradients):
        mixed = layer(x, adapter_names=names)
        for i, name in enumerate(names):
            layer.enable_adapters(name != "__base__")
            if name != "__base__":
                layer.set_adapter(name)
            assert (mixed[i] - layer(x[i])).norm() <= 1e-5 * mixed[i].norm()
