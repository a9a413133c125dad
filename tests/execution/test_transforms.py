"""torch.func over adapted layers: "fft" and "auto" work, a backward written by hand says that it cannot."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap

from cdvft_bench.core.errors import UserError
from cdvft_bench.execution.paths import PATHS, FastBlockCirculantLinear, FastCDVFTLinear
from cdvft_reference import CDVFTLinear
from tests.execution.test_paths import relative

F64 = {"dtype": torch.float64}
HANDMADE = [p for p in PATHS if p != "fft"]


def layer_on(path: str, m: int) -> Any:
    torch.manual_seed(0)
    base = nn.Linear(16, 24, **F64)
    if m:
        return FastCDVFTLinear(base, path, m=m, block_size=8, init="random")
    layer = FastBlockCirculantLinear(base, path, block_size=8)
    nn.init.normal_(layer.circulant)
    return layer


def trained(layer: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in layer.named_parameters() if p.requires_grad}


def loss_of(layer: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    return lambda parameters, x: functional_call(layer, parameters, (x,)).square().sum()


@pytest.mark.parametrize("m", [0, 1, 2, 3])
@pytest.mark.parametrize("path", ["fft", "auto"])
def test_gradients_of_each_sample_equal_those_taken_one_by_one(path: str, m: int) -> None:
    layer = layer_on(path, m)
    x = torch.randn(5, 16, **F64)
    each = vmap(grad(loss_of(layer)), (None, 0))(trained(layer), x)
    names = [name for name, p in layer.named_parameters() if p.requires_grad]
    for i, row in enumerate(x):
        alone = torch.autograd.grad(layer(row).square().sum(), [layer.get_parameter(name) for name in names])
        assert all(relative(each[name][i], g) < 1e-12 for name, g in zip(names, alone, strict=True))
    whole = grad(loss_of(layer))(trained(layer), x)
    assert all(relative(whole[name], each[name].sum(0)) < 1e-12 for name in names)
    assert not any(g.count_nonzero() for g in grad(loss_of(layer))(trained(layer), x[:0]).values())


@pytest.mark.parametrize("m", [0, 2])
@pytest.mark.parametrize("path", ["fft", "auto"])
def test_other_transforms(path: str, m: int) -> None:
    layer = layer_on(path, m)
    x, along = torch.randn(3, 16, **F64), torch.randn(3, 16, **F64)
    whole = layer.base.weight + layer.delta_weight()
    assert relative(vmap(layer)(x), layer(x)) < 1e-12
    assert relative(jvp(layer, (x,), (along,))[1], along @ whole.T) < 1e-12
    assert relative(jacrev(layer)(x[0]), whole) < 1e-12
    assert relative(hessian(lambda row: layer(row).square().sum())(x[0]), 2 * whole.T @ whole) < 1e-12


@pytest.mark.parametrize("m", [0, 2])
@pytest.mark.parametrize("path", HANDMADE)
def test_a_backward_written_by_hand_says_that_it_is_opaque(path: str, m: int) -> None:
    layer = layer_on(path, m)
    said = f"path '{path}' has a backward written by hand, .* torch.func's transforms .*; use 'fft' or 'auto' there"
    for call in (
        lambda: grad(loss_of(layer))(trained(layer), torch.randn(3, 16, **F64)),
        lambda: vmap(layer)(torch.randn(3, 16, **F64)),
        lambda: grad(loss_of(layer))(trained(layer), torch.randn(0, 16, **F64)),
    ):
        with pytest.raises(UserError, match=said):
            call()
    assert layer_on("fft", m)(torch.randn(3, 16, **F64)).shape == (3, 24)  # and outside again


def test_so_does_the_reference() -> None:
    layer = CDVFTLinear(nn.Linear(16, 16), path="handwritten")
    with pytest.raises(RuntimeError, match=r"opaque to torch\.func's transforms .*; use path 'fft' there"):
        vmap(layer)(torch.randn(3, 16))
