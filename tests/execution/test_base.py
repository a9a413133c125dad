"""A base that does more at its call than the product of its weight is called itself, on every path."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cdvft_bench.execution import native
from cdvft_bench.execution.base import is_plain
from cdvft_bench.execution.paths import PATHS, FastBlockCirculantLinear, FastCDVFTLinear
from cdvft_reference import BlockCirculantLinear, CDVFTLinear
from tests.execution.bases import OF_ALL_LAYERS, ON_THE_LAYER, of_all_layers

RUNNABLE = [
    path for path in ("auto", *PATHS) if path != "triton" and not (path == "native" and native.missing(torch.float64))
]


def close(a: Tensor | None, b: Tensor | None, tolerance: float = 1e-12) -> bool:
    assert a is not None
    assert b is not None
    return float((a - b).detach().norm()) <= tolerance * float(b.detach().norm())


def gradients(layer: nn.Module, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor | None]:
    x = x.clone().requires_grad_()
    h = layer(x)
    h.backward(g)
    return h, x.grad


@pytest.mark.parametrize("path", RUNNABLE)
@pytest.mark.parametrize("kind", [*ON_THE_LAYER, *OF_ALL_LAYERS])
def test_the_base_is_called_as_it_is(kind: str, path: str) -> None:
    torch.manual_seed(len(kind))
    plain = nn.Linear(32, 24, dtype=torch.float64)
    plain.weight.requires_grad_(False)
    made = [ON_THE_LAYER[kind](copy.deepcopy(plain)) if kind in ON_THE_LAYER else copy.deepcopy(plain) for _ in "ab"]
    own, alone = made
    if path in ("native", "auto"):  # what the compiled kernel takes
        options = {"m": 2, "block_size": 32}
    else:
        options = {"m": 2 if path == "merged_dense" else 3, "block_size": 8}
    layer = FastCDVFTLinear(own, path, init="random", **options)  # type: ignore[arg-type]
    alone.requires_grad_(False)
    delta = layer.delta_weight().detach()
    x, g = torch.randn(2, 5, 32, dtype=torch.float64), torch.randn(2, 5, 24, dtype=torch.float64)
    with of_all_layers(kind) if kind in OF_ALL_LAYERS else nullcontext():
        assert not is_plain(own, x)
        h, grad = gradients(layer, x, g)
        base, base_grad = gradients(alone, x, g)
    assert close(h, base + x @ delta.T)
    assert base_grad is not None
    assert close(grad, base_grad + g @ delta)
    assert "backward" in kind or not close(h, plain(x) + x @ delta.T, 1e-6)  # what is attached is no matter of rounding
    assert "backward" not in kind or not close(grad, g @ (plain.weight + delta), 1e-6)


@pytest.mark.parametrize("kind", ["forward_replaced", "forward_hook", "parametrised"])
def test_the_block_circulant_layer_calls_it_too(kind: str) -> None:
    torch.manual_seed(3)
    base = ON_THE_LAYER[kind](nn.Linear(32, 32, dtype=torch.float64))
    layer = FastBlockCirculantLinear(base, "merged", block_size=16)
    nn.init.normal_(layer.circulant)
    x = torch.randn(7, 32, dtype=torch.float64)
    assert close(layer(x), base(x) + x @ layer.delta_weight().T)


def test_only_a_frozen_weight_where_the_input_is_will_do() -> None:
    base, x = nn.Linear(4, 4).requires_grad_(False), torch.randn(2, 4)
    assert is_plain(base, x)
    assert not is_plain(base, x.to("meta"))
    assert not is_plain(base, x.double())
    assert is_plain(base.to("meta"), x.to("meta"))
    assert not is_plain(base, x)
    for trained in ("weight", "bias"):
        base = nn.Linear(4, 4).requires_grad_(False)
        getattr(base, trained).requires_grad_(True)
        assert not is_plain(base, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert is_plain(nn.Linear(4, 4, dtype=torch.bfloat16).requires_grad_(False), x)
    assert is_plain(nn.Linear(4, 4, bias=False).requires_grad_(False), x)
    assert not is_plain(nn.Conv1d(4, 4, 1).requires_grad_(False), x)


def test_counters_leave_the_path_alone() -> None:
    """Their hooks only watch; a count of another path would be of something that never runs."""
    layer = FastCDVFTLinear(nn.Linear(16, 16), "merged")
    x = torch.randn(4, 16)
    with FlopCounterMode(display=False):
        assert is_plain(layer.base, x)


def test_a_trained_base_gets_its_gradient() -> None:
    torch.manual_seed(0)
    layer = FastCDVFTLinear(nn.Linear(16, 16), "merged", init="random")
    layer.base.weight.requires_grad_(True)
    x = torch.randn(4, 16)
    layer(x).sum().backward()
    grad = layer.base.weight.grad
    assert close(grad, x.sum(0).expand(16, 16), 1e-6)


@pytest.mark.parametrize("make", [CDVFTLinear, FastCDVFTLinear, BlockCirculantLinear, FastBlockCirculantLinear])
@pytest.mark.parametrize("way", ["cpu", "disk"])
def test_offloaded_layers(make: type[CDVFTLinear], way: str, tmp_path: object) -> None:
    accelerate = pytest.importorskip("accelerate")
    torch.manual_seed(0)
    layers = nn.Sequential(make(nn.Linear(32, 32)), nn.Tanh(), make(nn.Linear(32, 16))).eval()
    for parameter in layers.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 32)
    expected = layers(x)
    device = torch.device("cpu")
    if way == "cpu":
        layers = accelerate.cpu_offload(layers, device)
    else:
        layers = accelerate.disk_offload(layers, str(tmp_path), device)
    assert all(p.is_meta for p in layers.parameters())
    with torch.no_grad():
        assert close(layers(x), expected, 1e-6)
    assert all(p.is_meta for p in layers.parameters())
    with pytest.raises(TypeError, match="on the meta device"):
        layers[0].merge()


def test_what_is_computed_takes_no_change() -> None:
    for kind in ("parametrised", "old_weight_norm", "pruned"):
        layer = CDVFTLinear(ON_THE_LAYER[kind](nn.Linear(8, 8)), init="random")
        with pytest.raises(TypeError, match="computed from other parameters"):
            layer.merge()
        assert not layer.merged
    with pytest.raises(TypeError, match=r"quantised weight \(Doubled\)"):
        CDVFTLinear(ON_THE_LAYER["subclass_weight"](nn.Linear(8, 8))).merge()
