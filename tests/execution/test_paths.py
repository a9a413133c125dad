"""Every path against the dense oracle: outputs, all gradients, what is kept, and what is refused."""

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.count import saved_bytes
from cdvft_bench.execution import native
from cdvft_bench.execution.fused import Plan
from cdvft_bench.execution.merged import circulant_view, fold, merged_weight
from cdvft_bench.execution.paths import PATHS as ALL_PATHS
from cdvft_bench.execution.paths import FastBlockCirculantLinear, FastCDVFTLinear, adapted_linear, change
from cdvft_bench.execution.scratch import release_buffers
from cdvft_bench.execution.spectral import column_dot
from cdvft_reference import CDVFTLinear
from cdvft_reference.cdvft import FactorShapes, cdvft_dense
from cdvft_reference.circulant import Convention, dense_block_circulant

PATHS = [p for p in ALL_PATHS if p not in ("native", "triton")]  # they take some p only: test_native, test_triton
FAST = [p for p in PATHS if p not in ("fft", "handwritten")]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().norm() / b.detach().norm().clamp_min(1e-300))


def factors(d_in: int, d_out: int, m: int, p: int, **kwargs: Any) -> tuple[list[Tensor], list[Tensor]]:
    """m diagonals and their circulants; m = 0 is the block-circulant adapter."""
    shapes = FactorShapes(d_in, d_out, m or 2, p)
    drawn = [[torch.randn(s, **kwargs) for s in group] for group in (shapes.diagonals if m else [], shapes.circulants)]
    return drawn[0], drawn[1]


def dense(diagonals: list[Tensor], circulants: list[Tensor], d_in: int, d_out: int, convention: Convention) -> Tensor:
    if diagonals:
        return cdvft_dense(diagonals, circulants, d_out, convention)
    return dense_block_circulant(circulants[0], d_in, d_out, convention)


def hold_to_the_oracle(
    path: str, d_in: int, d_out: int, m: int, p: int, tokens: int, row: bool, bias: bool, alpha: float, seed: int
) -> None:
    """Values and gradients of a layer and of its change alone, against dense matrices in float64."""
    torch.manual_seed(seed)
    f64 = {"dtype": torch.float64}
    convention: Convention = "row" if row else "column"
    diagonals, circulants = factors(d_in, d_out, m, p, requires_grad=True, **f64)
    weight, b = torch.randn(d_out, d_in, **f64), torch.randn(d_out, **f64) if bias else None
    x = torch.randn(2, tokens, d_in, requires_grad=True, **f64)
    g = torch.randn(2, tokens, d_out, **f64)
    h = adapted_linear(x, weight, b, diagonals, circulants, alpha=alpha, path=path, convention=convention)
    alone = change(x, diagonals, circulants, d_out, alpha=alpha, path=path, convention=convention)
    inputs = [x, *diagonals, *circulants]
    for found, base, offset in ((h, weight, b), (alone, torch.zeros_like(weight), None)):
        ours = [found, *torch.autograd.grad(found, inputs, g)]
        theirs = by_dense_matrices(x, base, offset, diagonals, circulants, g, alpha, convention)
        # A sum may cancel: its own size says nothing about the rounding of its terms, the sum of their sizes does.
        sizes = by_dense_matrices(x, base, offset, diagonals, circulants, g, alpha, convention, convert=term_sizes)
        for one, other, size in zip(ours, theirs, sizes, strict=True):
            assert one.shape == other.shape
            assert (one - other).norm() <= 1e-13 * size.norm()


def term_sizes(t: Tensor, transformed: bool = False) -> Tensor:
    """Sizes of an operand's entries; of vectors (last axis) where it is transformed: each entry gets their rounding."""
    return t.detach().norm(dim=-1, keepdim=True).expand_as(t) if transformed else t.detach().abs()


def keep(t: Tensor, transformed: bool = False) -> Tensor:
    """An operand as it is."""
    return t.detach().clone()


def by_dense_matrices(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    diagonals: list[Tensor],
    circulants: list[Tensor],
    g: Tensor,
    alpha: float,
    convention: Convention,
    convert: Callable[..., Tensor] = keep,
) -> list[Tensor]:
    """h of the adapted layer and the gradients of x, diagonals and circulants, of the operands after ``convert``."""
    x, weight, g, scale = (convert(t) for t in (x, weight, g, torch.tensor(alpha, dtype=torch.float64)))
    diagonals = [convert(t).requires_grad_() for t in diagonals]
    circulants = [convert(t, transformed=True).requires_grad_() for t in circulants]
    x.requires_grad_()
    delta = scale * dense(diagonals, circulants, weight.shape[1], weight.shape[0], convention)
    h = nn.functional.linear(x, weight + delta, None if bias is None else convert(bias))
    return [h, *torch.autograd.grad(h, [x, *diagonals, *circulants], g)]


@settings(max_examples=150, deadline=None)
@given(
    d_in=st.integers(1, 24),
    d_out=st.integers(1, 24),
    m=st.integers(0, 4),
    p=st.integers(1, 26),
    tokens=st.integers(1, 7),
    path=st.sampled_from(PATHS),
    row=st.booleans(),
    bias=st.booleans(),
    alpha=st.sampled_from([1.0, -0.3]),
    seed=st.integers(0, 2**31),
)
def test_every_path_equals_the_oracle(d_in, d_out, m, p, tokens, path, row, bias, alpha, seed) -> None:
    m = min(m, 2) if path == "merged_dense" else m
    hold_to_the_oracle(path, d_in, d_out, m, p, tokens, row, bias, alpha, seed)


@pytest.mark.parametrize("path", FAST)
def test_gradcheck(path) -> None:
    torch.manual_seed(0)
    diagonals, circulants = factors(7, 5, 2, 3, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    x = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)

    def layer(x: Tensor, *f: Tensor) -> Tensor:
        return adapted_linear(x, weight, bias, f[:2], f[2:], alpha=0.5, path=path)

    assert torch.autograd.gradcheck(layer, (x, *diagonals, *circulants))


@pytest.mark.parametrize("path", FAST)
def test_a_gradient_that_nobody_wants_is_not_computed_and_changes_nothing(path) -> None:
    torch.manual_seed(1)
    diagonals, circulants = factors(12, 12, 2, 4, requires_grad=True)
    weight, x = torch.randn(12, 12), torch.randn(6, 12)
    g = torch.randn(6, 12)
    without = torch.autograd.grad(
        adapted_linear(x, weight, None, diagonals, circulants, path=path), [*diagonals, *circulants], g
    )
    x.requires_grad_(True)
    with_x = torch.autograd.grad(
        adapted_linear(x, weight, None, diagonals, circulants, path=path), [*diagonals, *circulants], g
    )
    for a, b in zip(without, with_x, strict=True):
        assert relative(a, b) < 1e-6


@pytest.mark.parametrize("path", FAST)
def test_backward_twice_through_one_graph(path) -> None:
    torch.manual_seed(2)
    diagonals, circulants = factors(10, 10, 2, 10, requires_grad=True)
    x = torch.randn(5, 10, requires_grad=True)
    h = adapted_linear(x, torch.randn(10, 10), torch.randn(10), diagonals, circulants, path=path)
    g = torch.randn(5, 10)
    first = torch.autograd.grad(h, [x, *diagonals, *circulants], g, retain_graph=True)
    second = torch.autograd.grad(h, [x, *diagonals, *circulants], g)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("path", FAST)
def test_double_backward_is_refused(path) -> None:
    diagonals, circulants = factors(6, 6, 2, 6, requires_grad=True)
    x = torch.randn(3, 6, requires_grad=True)
    h = adapted_linear(x, torch.randn(6, 6), None, diagonals, circulants, path=path)
    (gradient,) = torch.autograd.grad(h.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()


@pytest.mark.parametrize("m", [0, 2, 3])
def test_what_each_path_keeps(m) -> None:
    """fused and merged keep x and no activation's spectrum; stored keeps what saves its transforms."""
    tokens, d = 50, 32
    base = nn.Linear(d, d)
    kept = {}
    for path in ("fft", "fused", "stored", "merged"):
        layer: nn.Module = (
            FastCDVFTLinear(copy.deepcopy(base), path, m=m)
            if m
            else FastBlockCirculantLinear(copy.deepcopy(base), path)
        )
        x = torch.randn(tokens, d, requires_grad=True)
        kept[path], _ = saved_bytes(layer, lambda layer=layer, x=x: layer(x))
    x_bytes = tokens * d * 4
    assert kept["merged"] == x_bytes
    factor_spectra = max(m - 1, 1) * (d // 2 + 1) * 8
    assert kept["fused"] == x_bytes + factor_spectra
    assert kept["fused"] < kept["stored"] < kept["fft"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("path", PATHS)
def test_half_precision_is_no_worse_than_twice_the_dense_product(path, dtype) -> None:
    torch.manual_seed(3)
    d, tokens = 96, 40
    base = nn.Linear(d, d)
    layer = FastCDVFTLinear(base.to(dtype), path, init="random")
    x, g = torch.randn(tokens, d).to(dtype), torch.randn(tokens, d).to(dtype)
    f64 = torch.float64
    weight = layer.base.weight.to(f64) + layer.delta_weight().to(f64)
    exact = nn.functional.linear(x.to(f64), weight, layer.base.bias.to(f64))
    in_half = nn.functional.linear(x, weight.to(dtype), layer.base.bias)
    xr = x.clone().requires_grad_(True)
    h = layer(xr)
    h.backward(g)
    assert h.dtype == dtype
    assert relative(h.to(f64), exact) <= 2 * relative(in_half.to(f64), exact)
    exact_grad, half_grad = g.to(f64) @ weight, g @ weight.to(dtype)
    assert xr.grad is not None
    assert relative(xr.grad.to(f64), exact_grad) <= 2 * relative(half_grad.to(f64), exact_grad)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in (*layer.diagonals, *layer.circulants))


@pytest.mark.parametrize("path", PATHS)
def test_autocast_gives_the_base_layers_dtype(path) -> None:
    torch.manual_seed(4)
    layer = FastCDVFTLinear(nn.Linear(24, 24), path, init="random")
    x = torch.randn(10, 24, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = layer(x)
    assert h.dtype == torch.bfloat16
    h.backward(torch.randn(10, 24).bfloat16())
    assert x.grad is not None
    assert x.grad.dtype == torch.float32
    assert relative(h.float(), layer(x)) < 2e-2


@pytest.mark.parametrize("path", [*PATHS, "auto"])
def test_layers_equal_the_reference(path) -> None:
    torch.manual_seed(5)
    base = nn.Linear(20, 12)
    reference = CDVFTLinear(copy.deepcopy(base), m=2, block_size=4, alpha=0.7, init="random")
    layer = FastCDVFTLinear(copy.deepcopy(base), path, m=2, block_size=4, alpha=0.7, init="random")
    layer.load_state_dict(reference.state_dict())
    x = torch.randn(2, 3, 20)
    assert relative(layer(x), reference(x)) < 1e-6
    with torch.no_grad():
        assert relative(layer(x), reference(x)) < 1e-6
    layer.merge()
    assert relative(layer(x), reference(x)) < 1e-5
    layer.unmerge()
    assert torch.equal(layer.base.weight, base.weight)
    assert f"path={path}" in repr(layer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("m", [0, 1, 2, 3])
@pytest.mark.parametrize("path", [*PATHS, "native", "auto"])
def test_an_empty_batch_has_zero_gradients_as_one_of_a_linear_layer(path, m, dtype) -> None:
    """As an expert without tokens meets it: an optimiser, or a reduction over processes, wants a gradient of each."""
    if path == "native" and native.missing(torch.float32):
        pytest.skip(native.missing(torch.float32))
    m = min(m, 2) if path == "merged_dense" else m
    base = nn.Linear(32, 48).to(dtype)
    layer: nn.Module = FastCDVFTLinear(base, path, m=m, block_size=16) if m else FastBlockCirculantLinear(base, path)
    x = torch.empty(0, 3, 32, dtype=dtype, requires_grad=True)
    h = layer(x)
    assert (h.shape, h.dtype) == ((0, 3, 48), dtype)
    h.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    for p in layer.parameters():
        assert (p.grad is not None) == p.requires_grad
        assert p.grad is None or (p.grad.shape == p.shape and not p.grad.count_nonzero())


@pytest.mark.parametrize("path", PATHS)
def test_deep_networks_share_one_buffer(path) -> None:
    """A later layer's merged weight must not leak into an earlier layer's backward."""
    torch.manual_seed(6)
    layers = nn.Sequential(*(FastCDVFTLinear(nn.Linear(16, 16), path, init="random") for _ in range(4))).double()
    x = torch.randn(5, 16, dtype=torch.float64, requires_grad=True)
    h = layers(x)
    oracle = x
    for layer in layers:
        oracle = nn.functional.linear(oracle, layer.base.weight + layer.delta_weight(), layer.base.bias)
    g = torch.randn_like(h)
    parameters = [p for p in layers.parameters() if p.requires_grad]
    found = torch.autograd.grad(h, [x, *parameters], g)
    for ours, theirs in zip(found, torch.autograd.grad(oracle, [x, *parameters], g), strict=True):
        assert relative(ours, theirs) < 1e-11


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.booleans(), st.integers(0, 2**31))
def test_fold_is_the_transpose_of_the_circulant_view(q_out, q_in, p, row, seed) -> None:
    torch.manual_seed(seed)
    c = torch.randn(q_out, q_in, p, dtype=torch.float64)
    convention: Convention = "row" if row else "column"
    expected = dense_block_circulant(c, q_in * p, q_out * p, convention)
    assert torch.equal(circulant_view(c, row).reshape(q_out * p, q_in * p), expected)
    other = torch.randn(q_out * p, q_in * p, dtype=torch.float64)
    assert torch.isclose((fold(other, p, row) * c).sum(), (other * expected).sum())


@pytest.mark.parametrize("m", [0, 2, 3])
def test_merged_weight_is_the_weight_plus_the_change(m) -> None:
    torch.manual_seed(7)
    diagonals, circulants = factors(20, 600, m, 16, dtype=torch.float64)
    weight = torch.randn(600, 20, dtype=torch.float64)
    expected = weight + 0.5 * dense(diagonals, circulants, 20, 600, "column")
    merged = merged_weight(weight, diagonals, circulants, Plan(600, 0.5, diagonals=len(diagonals)))
    assert relative(merged, expected) < 1e-13
    release_buffers()


def test_column_dot() -> None:
    for _ in range(20):
        rows, n = random.randint(1, 40), random.randint(1, 40)
        a, b = torch.randn(rows, n, dtype=torch.float64), torch.randn(rows, n, dtype=torch.float64)
        assert relative(column_dot(a, b), (a * b).sum(0)) < 1e-13


def test_bad_input_is_refused() -> None:
    diagonals, circulants = factors(6, 6, 2, 6)
    weight = torch.randn(6, 6)
    with pytest.raises(UserError, match=r"path 'quick' is not known; use one of auto, fft"):
        adapted_linear(torch.randn(2, 6), weight, None, diagonals, circulants, path="quick")
    with pytest.raises(UserError, match="m must be 2, not 3"):
        FastCDVFTLinear(nn.Linear(6, 6), "merged_dense", m=3)
    with pytest.raises(ValueError, match="input has width 5"):
        adapted_linear(torch.randn(2, 5), weight, None, diagonals, circulants)
    with pytest.raises(TypeError, match="not floating-point"):
        adapted_linear(torch.ones(2, 6, dtype=torch.int64), weight, None, diagonals, circulants)
    with pytest.raises(ValueError, match="2 diagonals and 2 circulants"):
        change(torch.randn(2, 6), diagonals, circulants * 2, 6)
    with pytest.raises(ValueError, match="does not map to 13 outputs"):
        change(torch.randn(2, 6), diagonals, circulants, 13)
    with pytest.raises(ValueError, match="must be frozen"):
        adapted_linear(torch.randn(2, 6), weight.requires_grad_(), None, diagonals, circulants)
    with pytest.raises(ValueError, match="does not take 13 inputs"):
        change(torch.randn(2, 13), [], circulants, 6)


@pytest.mark.parametrize("path", [*PATHS, "native", "auto"])
def test_under_a_quantised_weight_the_change_runs_for_itself(path: str) -> None:
    quantization = pytest.importorskip("torchao.quantization", reason="pip install cdvft-bench[quantised]")
    torch.manual_seed(0)
    base = nn.Linear(32, 32, bias=False).requires_grad_(False)
    quantization.quantize_(base, quantization.Int8WeightOnlyConfig())
    a, b, c = (torch.randn(s, requires_grad=True) for s in (32, 32, (1, 1, 32)))
    x, g = torch.randn(5, 32, requires_grad=True), torch.randn(5, 32)
    h = adapted_linear(x, base.weight, None, [a, b], [c], path=path)
    ours = [h, *torch.autograd.grad(h, [x, a, b, c], g)]
    plain = base(x) + change(x, [a, b], [c], 32, path="fft")
    for one, other in zip(ours, [plain, *torch.autograd.grad(plain, [x, a, b, c], g)], strict=True):
        assert float((one - other).detach().norm() / other.detach().norm()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("m", [0, 1, 2, 3])
@pytest.mark.parametrize("path", [*PATHS, "native", "auto"])
def test_a_layer_that_was_cast_as_a_whole(path, m, dtype) -> None:
    """Its factors are of 16 bits then: computed in float32, with gradients in the dtype in which they are held."""
    if path == "native" and native.missing(torch.float32):
        pytest.skip(native.missing(torch.float32))
    torch.manual_seed(0)
    m = min(m, 2) if path == "merged_dense" else m
    base, options = nn.Linear(32, 48), {"block_size": 16, "alpha": 0.7}
    layer: Any = (
        FastCDVFTLinear(base, path, m=m, init="random", **options)
        if m
        else FastBlockCirculantLinear(base, path, **options)
    )
    if not m:
        nn.init.normal_(layer.circulant)
    layer.to(dtype)
    wide = copy.deepcopy(layer).double()
    x = torch.randn(5, 32).to(dtype).requires_grad_(True)
    g = torch.randn(5, 48).to(dtype)
    h = layer(x)
    assert h.dtype == dtype
    trained = [p for p in layer.parameters() if p.requires_grad]
    ours = torch.autograd.grad(h, [x, *trained], g)
    wide.execution_path = "fft"
    exact_x = x.detach().double().requires_grad_(True)
    exact = wide(exact_x)
    theirs = torch.autograd.grad(exact, [exact_x, *(p for p in wide.parameters() if p.requires_grad)], g.double())
    for one, other in zip((h, *ours), (exact, *theirs), strict=True):
        assert one.dtype == dtype
        assert relative(one.double(), other) < 3e-2
    layer.merge()
    assert relative(layer(x).double(), exact) < 3e-2
    layer.unmerge()
    assert torch.equal(layer(x), h)
