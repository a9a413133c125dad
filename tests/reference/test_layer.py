"""CDVFTLinear and BlockCirculantLinear as a user meets them."""

import copy

import pytest
import torch
from torch import nn

from cdvft_reference import AdaptedLinear, BlockCirculantLinear, CDVFTLinear, Init

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def make(kind: str, d_in: int = 12, d_out: int = 20, dtype: torch.dtype = torch.float64, **options) -> AdaptedLinear:
    base = nn.Linear(d_in, d_out, dtype=dtype)
    if kind == "cdvft":
        return CDVFTLinear(base, **options)
    return BlockCirculantLinear(base, **options)


def randomise(layer: AdaptedLinear) -> AdaptedLinear:
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
    return layer


@pytest.mark.parametrize("kind", ["cdvft", "block_circulant"])
def test_base_is_frozen_and_only_factors_train(kind) -> None:
    layer = make(kind)
    assert not any(p.requires_grad for p in layer.base.parameters())
    trained = [name for name, p in layer.named_parameters() if p.requires_grad]
    assert trained
    assert not any(name.startswith("base") for name in trained)


@pytest.mark.parametrize("path", ["fft", "handwritten", "dense"])
@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("init", ["zero_diagonal", "zero_circulant"])
def test_starts_at_exactly_zero_change_with_a_gradient(m, init: Init, path) -> None:
    if init == "zero_circulant" and m == 1:
        pytest.skip("m = 1 has no circulant")
    layer = make("cdvft", m=m, init=init, path=path, block_size=5)
    x = torch.randn(3, 12, dtype=torch.float64)
    assert torch.equal(layer(x), layer.base(x))
    layer(x).square().sum().backward()
    gradients = [p.grad for p in layer.parameters() if p.requires_grad]
    assert all(g is not None for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients if g is not None)


def test_random_init_starts_away_from_zero() -> None:
    layer = make("cdvft", init="random")
    assert layer.delta_weight().abs().max() > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("path", ["fft", "handwritten", "dense"])
@pytest.mark.parametrize("kind", ["cdvft", "block_circulant"])
def test_dtypes_against_float64(kind, path, dtype) -> None:
    layer = randomise(make(kind, 24, 16, dtype, path=path, block_size=8))
    x = torch.randn(2, 5, 24, dtype=dtype)
    wide = copy.deepcopy(layer).double()
    y = layer(x)
    assert y.dtype == dtype
    assert layer.factor_dtype == (torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype)
    want = wide(x.double())
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}[dtype]
    assert float(((y.double() - want).norm() / want.norm()).detach()) <= tolerance


@pytest.mark.parametrize("to", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("path", ["fft", "handwritten", "dense"])
@pytest.mark.parametrize("kind", ["cdvft", "block_circulant"])
def test_a_layer_that_was_cast_as_a_whole(kind, path, to) -> None:
    layer = randomise(make(kind, 24, 16, torch.float32, path=path, block_size=8)).to(to)
    x = torch.randn(2, 5, 24, dtype=to)
    want = copy.deepcopy(layer).double()(x.double())
    h = layer(x)
    assert h.dtype == to
    assert layer.factor_dtype == (torch.float64 if to == torch.float64 else torch.float32)
    assert float(((h.double() - want).norm() / want.norm()).detach()) <= 3e-2
    h.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == to for p in layer.parameters() if p.requires_grad)


@pytest.mark.parametrize("keep_base", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["cdvft", "block_circulant"])
def test_merge_and_unmerge(kind, dtype, keep_base) -> None:
    layer = randomise(make(kind, 18, 18, dtype))
    x = torch.randn(4, 18, dtype=dtype)
    before, weight = layer(x), layer.base.weight.clone()
    layer.merge(keep_base)
    layer.merge(keep_base)  # idempotent
    assert layer.merged
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}[dtype]
    assert float(((layer(x) - before).norm() / before.norm()).detach()) <= tolerance
    layer.unmerge()
    layer.unmerge()
    assert not layer.merged
    if keep_base:
        assert torch.equal(layer.base.weight, weight)  # bit for bit
    else:  # W + dW - dW is rounded twice: not W, but near
        assert float((layer.base.weight - weight).norm() / weight.norm()) <= tolerance


def test_autocast_matches_plain_float32_to_bfloat16_rounding() -> None:
    layer = randomise(make("cdvft", 32, 32, torch.float32))
    x = torch.randn(4, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)
    assert float(((y.float() - layer(x)).norm() / layer(x).norm()).detach()) < 2e-2


@pytest.mark.parametrize("path", ["fft", "handwritten"])
def test_torch_compile_traces_the_layer(path) -> None:
    layer = randomise(make("cdvft", 12, 20, torch.float32, m=3, block_size=5, path=path))
    x = torch.randn(4, 12, requires_grad=True)
    want = layer(x)
    want.sum().backward()
    gradients = [p.grad.clone() for p in layer.parameters() if p.requires_grad]
    layer.zero_grad()
    got = torch.compile(layer, backend="aot_eager")(x)
    got.sum().backward()
    torch.testing.assert_close(got, want)
    for p, g in zip((p for p in layer.parameters() if p.requires_grad), gradients, strict=True):
        torch.testing.assert_close(p.grad, g)


@pytest.mark.slow
def test_torch_compile_with_inductor() -> None:
    layer = randomise(make("cdvft", 12, 20, torch.float32, m=2, block_size=5, path="handwritten"))
    x = torch.randn(4, 12, requires_grad=True)
    torch.testing.assert_close(torch.compile(layer)(x), layer(x))


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    layer = randomise(make("cdvft", 64, 48, torch.float32, block_size=16))
    x = torch.randn(4, 64)
    want = layer(x)
    torch.testing.assert_close(layer.cuda()(x.cuda()).cpu(), want, rtol=1e-4, atol=1e-4)


def test_state_dict_round_trip_and_deepcopy() -> None:
    layer = randomise(make("cdvft", m=3, block_size=4))
    twin = make("cdvft", m=3, block_size=4)
    twin.load_state_dict(layer.state_dict())
    x = torch.randn(2, 12, dtype=torch.float64)
    assert torch.equal(twin(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert "m=3, block_size=4" in repr(layer)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("keep_base", [True, False])
@pytest.mark.parametrize("kind", ["cdvft", "block_circulant"])
def test_a_merged_layer_is_saved_as_weight_and_factors(kind, keep_base, inside) -> None:
    """Loaded into a fresh layer, merged or not, the change counts once."""
    layer, fresh, other = (randomise(make(kind, block_size=4)) for _ in range(3))
    models = [nn.Sequential(nn.Identity(), one) if inside else one for one in (layer, fresh, other)]
    x = torch.randn(3, 12, dtype=torch.float64)
    want, plain = layer(x), copy.deepcopy(models[0].state_dict())
    weight = layer.base.weight.clone()
    layer.merge(keep_base)
    state = models[0].state_dict()
    assert list(state) == list(plain)
    torch.testing.assert_close(dict(state), dict(plain))
    assert layer.merged
    torch.testing.assert_close(layer(x), want)
    models[1].load_state_dict(state)
    torch.testing.assert_close(fresh(x), want)
    other.merge(keep_base)
    models[2].load_state_dict(state)
    assert not other.merged
    torch.testing.assert_close(other(x), want)
    layer.merge()
    layer.unmerge()
    torch.testing.assert_close(layer.base.weight, weight)
    state[next(key for key in state if key.endswith("base.weight"))].zero_()  # a copy: of no layer's memory
    torch.testing.assert_close(layer(x), want)


def test_factors_loaded_into_a_merged_layer_meet_the_plain_weight() -> None:
    layer, other = randomise(make("cdvft")), randomise(make("cdvft"))
    factors = {name: t for name, t in other.state_dict().items() if not name.startswith("base")}
    want = layer.base.weight + other.delta_weight()
    layer.merge()
    layer.load_state_dict(factors, strict=False)
    torch.testing.assert_close(layer(torch.eye(12, dtype=torch.float64)) - layer.base.bias, want.T)


@pytest.mark.parametrize("path", ["fft", "handwritten", "dense"])
@pytest.mark.parametrize("kind", ["cdvft", "block_circulant"])
def test_an_empty_batch_has_zero_gradients(kind, path) -> None:
    layer = randomise(make(kind, block_size=5, path=path))
    h = layer(torch.empty(0, 12, dtype=torch.float64))
    assert h.shape == (0, 20)
    h.sum().backward()
    for p in layer.parameters():
        assert p.grad is None if not p.requires_grad else torch.equal(p.grad, torch.zeros_like(p))


def test_alpha_scales_the_change() -> None:
    torch.manual_seed(0)
    one = randomise(make("cdvft"))
    two = copy.deepcopy(one)
    two.alpha = 2.0
    x = torch.randn(3, 12, dtype=torch.float64)
    torch.testing.assert_close(two(x) - two.base(x), 2 * (one(x) - one.base(x)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"m": 0}, ValueError, "m = 0"),
        ({"block_size": 0}, ValueError, "block_size = 0"),
        ({"alpha": float("nan")}, ValueError, "alpha = nan"),
        ({"path": "quick"}, ValueError, "path 'quick'"),
        ({"init": "ones"}, ValueError, "init 'ones'"),
        ({"convention": "up"}, ValueError, "convention 'up'"),
        ({"m": 1, "init": "zero_circulant"}, ValueError, "m = 1 has no circulant"),
        ({"m": 1.5}, TypeError, "m = 1.5"),
    ],
)
def test_bad_options(options, error, message) -> None:
    with pytest.raises(error, match=message):
        make("cdvft", **options)


def test_bad_base_and_input() -> None:
    with pytest.raises(TypeError, match="Conv1d"):
        CDVFTLinear(nn.Conv1d(1, 1, 1))  # type: ignore[arg-type]
    integer = nn.Linear(4, 4)
    integer.weight = nn.Parameter(torch.ones(4, 4, dtype=torch.int32), requires_grad=False)
    with pytest.raises(TypeError, match=r"torch\.int32"):
        CDVFTLinear(integer)
    layer = make("cdvft")
    with pytest.raises(ValueError, match="width 11"):
        layer(torch.randn(2, 11, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"torch\.int64"):
        layer(torch.ones(2, 12, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"x of torch\.float64 and factors of torch\.float32"):
        make("cdvft", dtype=torch.float32)(torch.randn(2, 12, dtype=torch.float64))
