"""The compiled kernels against the dense oracle: values, all gradients, threads, what is kept and what is refused."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.count import saved_bytes
from cdvft_bench.execution import native
from cdvft_bench.execution.native import kernels, pool
from cdvft_bench.execution.paths import FastBlockCirculantLinear, FastCDVFTLinear, adapted_linear, change
from cdvft_bench.execution.planner import Problem
from cdvft_bench.execution.scratch import release_buffers
from cdvft_bench.timing.clock import fixed_threads
from cdvft_reference import CDVFTLinear
from tests.execution.test_paths import factors, hold_to_the_oracle, relative

pytestmark = pytest.mark.skipif(
    bool(native.missing(torch.float32)), reason=f"no compiled kernels: {native.missing(torch.float32)}"
)
DOUBLE = {"dtype": torch.float64}


def compare(d_in: int, d_out: int, m: int, p: int, tokens: int, row: bool, bias: bool, alpha: float, seed: int) -> None:
    hold_to_the_oracle("native", d_in, d_out, m, p, tokens, row, bias, alpha, seed)


@settings(max_examples=80, deadline=None)
@given(
    d_in=st.integers(1, 130),
    d_out=st.integers(1, 130),
    m=st.sampled_from([0, 2, 2, 3, 4]),
    p=st.sampled_from([2, 4, 6, 8, 10, 14, 16, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 120, 128, 160]),
    tokens=st.integers(1, 5),
    row=st.booleans(),
    bias=st.booleans(),
    alpha=st.sampled_from([1.0, -0.3]),
    seed=st.integers(0, 2**31),
)
def test_it_equals_the_oracle(d_in, d_out, m, p, tokens, row, bias, alpha, seed) -> None:
    compare(d_in, d_out, m, p, tokens, row, bias, alpha, seed)


@pytest.mark.parametrize(("p", "m"), [(2048, 2), (2016, 3), (1680, 0), (8192, 2), (12288, 0)])
def test_signals_larger_than_the_first_cache(p, m) -> None:
    """They are transformed part by part. Path "fft", which is held to dense matrices elsewhere, is the oracle."""
    torch.manual_seed(p)
    diagonals, circulants = factors(p, p - 5, m, p, requires_grad=True, **DOUBLE)
    x, g = torch.randn(3, p, requires_grad=True, **DOUBLE), torch.randn(3, p - 5, **DOUBLE)
    inputs = [x, *diagonals, *circulants]
    ours, theirs = (change(x, diagonals, circulants, p - 5, alpha=0.5, path=path) for path in ("native", "fft"))
    for a, b in zip(
        [ours, *torch.autograd.grad(ours, inputs, g)], [theirs, *torch.autograd.grad(theirs, inputs, g)], strict=True
    ):
        assert relative(a, b) < 1e-12


@pytest.mark.parametrize("p", [4, 12, 16, 24, 80, 96, 224, 768, 1008, 4096, 5120, 8192])
@pytest.mark.parametrize("m", [0, 2])
def test_float32(p, m) -> None:
    torch.manual_seed(p)
    diagonals, circulants = factors(p, p, m, p)
    x, g = torch.randn(3, p), torch.randn(3, p)
    wide = [[t.double() for t in group] for group in (diagonals, circulants)]
    out = native.forward(x, None, diagonals, circulants, p, 0.7, False)
    assert relative(out.double(), native.forward(x.double(), None, *wide, p, 0.7, False)) < 1e-6
    ours = native.backward(x, g, diagonals, circulants, 0.7, False, True)
    theirs = native.backward(x.double(), g.double(), *wide, 0.7, False, True)
    assert all(relative(a.double(), b) < 3e-6 for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("rows", [1, 2, 3, 64, 65])
def test_threads_share_the_rows(rows) -> None:
    torch.manual_seed(0)
    diagonals, circulants = factors(48, 48, 3, 48, **DOUBLE)
    x, g = torch.randn(rows, 48, **DOUBLE), torch.randn(rows, 48, **DOUBLE)
    found = []
    for threads in (1, 2, 3):
        with fixed_threads(threads):
            one = [native.forward(x, None, diagonals, circulants, 48, 1.0, False)]
            one += native.backward(x, g, diagonals, circulants, 1.0, False, True)
            again = native.backward(x, g, diagonals, circulants, 1.0, False, True)
        assert all(torch.equal(a, b) for a, b in zip(one[1:], again, strict=True))  # the same sums at every call
        found.append(one)
    for other in found[1:]:
        assert torch.equal(other[0], found[0][0])  # the rows themselves do not depend on it
        assert all(relative(a, b) < 1e-14 for a, b in zip(other, found[0], strict=True))


@pytest.mark.parametrize("large", [1e-9, 1e6, float("inf"), float("nan")])
@pytest.mark.parametrize("m", [0, 2, 3])
def test_a_row_does_not_reach_its_neighbour(m, large) -> None:
    """Two rows share a signal: unless what one rounds away or spoils would show in the other."""
    torch.manual_seed(0)
    diagonals, circulants = factors(64, 64, m, 64)
    x, g = torch.randn(6, 64), torch.randn(6, 64)
    alone = native.forward(x[2:3], None, diagonals, circulants, 64, 1.0, False)
    alone_grad = native.backward(x[2:3], g[2:3], diagonals, circulants, 1.0, False, True)[0]
    x[3] *= large
    g[5] *= large
    h = native.forward(x, None, diagonals, circulants, 64, 1.0, False)
    grad_x = native.backward(x, g, diagonals, circulants, 1.0, False, True)[0]
    assert relative(h[2:3], alone) < 1e-6
    assert relative(grad_x[2:3], alone_grad) < 1e-6
    assert bool(torch.isfinite(grad_x[:5].sum()))
    assert bool(torch.isfinite(h[3]).all()) == (abs(large) < float("inf"))
    exact = native.backward(
        x.double(), g.double(), *([t.double() for t in f] for f in (diagonals, circulants)), 1.0, False, True
    )[0]
    rows = range(6 if abs(large) < float("inf") else 5)
    assert all(relative(grad_x[i].double(), exact[i]) < 1e-6 for i in rows)


@pytest.mark.parametrize("m", [0, 2])
def test_tokens_that_a_loss_leaves_out_get_no_gradient(m) -> None:
    torch.manual_seed(0)
    diagonals, circulants = factors(32, 32, m, 32, **DOUBLE)
    x, g = torch.randn(9, 32, **DOUBLE), torch.randn(9, 32, **DOUBLE)
    kept = [0, 5, 7, 8]
    g[[i for i in range(9) if i not in kept]] = 0
    found = native.backward(x, g, diagonals, circulants, 1.0, False, True)
    few = native.backward(x[kept], g[kept], diagonals, circulants, 1.0, False, True)
    assert relative(found[0][kept], few[0]) < 1e-14
    assert found[0].count_nonzero(dim=1).tolist() == [32 * (i in kept) for i in range(9)]
    assert all(relative(a, b) < 1e-14 for a, b in zip(found[1:], few[1:], strict=True))


def test_rows_are_judged_as_the_first_diagonal_leaves_them() -> None:
    """Of like size before it, of very different size after it."""
    torch.manual_seed(0)
    diagonals, circulants = factors(64, 64, 2, 64)
    diagonals[0][:32] *= 1e4
    diagonals[0][32:] *= 0.1
    x = torch.randn(2, 64)
    x[0, 32:], x[1, :32] = 0, 0
    both = native.forward(x, None, diagonals, circulants, 64, 1.0, False)
    assert relative(both[1:], native.forward(x[1:], None, diagonals, circulants, 64, 1.0, False)) < 1e-6


def test_a_pool_with_fewer_threads_than_asked_for_computes_all_rows() -> None:
    script = (
        "import torch\nfrom cdvft_bench.execution.paths import change\ntorch.set_num_threads(4)\ntorch.manual_seed(0)\n"
        "x, a, b, c = torch.randn(64, 32), torch.randn(32), torch.randn(32), torch.randn(1, 1, 32)\n"
        "f = [t.requires_grad_() for t in (x, a, b, c)]\n"
        "h, r = (change(x, [a, b], [c], 32, path=p) for p in ('native', 'fft'))\n"
        "g = torch.randn(64, 32)\n"
        "for s, t in zip((h, *torch.autograd.grad(h, f, g)), (r, *torch.autograd.grad(r, f, g))):\n"
        "    assert (s - t).norm() < 1e-5 * t.norm()\n"
    )
    environment = {**os.environ, "OMP_THREAD_LIMIT": "2", "OMP_DYNAMIC": "true"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=120)


def test_the_operators_take_what_layers_never_give_them() -> None:
    diagonals, circulants = factors(48, 32, 2, 16)
    x, bias = torch.randn(3, 48), torch.randn(32, 2)[:, 0]
    expected = native.forward(x, None, diagonals, circulants, 32, 1.0, False)
    shifted = native.forward(x.T.contiguous().T, bias, diagonals, circulants, 32, 1.0, False)
    assert relative(shifted, expected + bias) < 1e-6
    empty = native.backward(x[:0], torch.randn(0, 32), diagonals, circulants, 1.0, False, True)
    assert [t.shape for t in empty] == [(0, 48), (48,), (32,), (2, 3, 16)]
    assert not any(t.count_nonzero() for t in empty)
    with pytest.raises(ValueError, match="0 diagonals and 2 circulants"):
        native.forward(x, None, [], circulants * 2, 32, 1.0, False)
    with pytest.raises(TypeError, match="one dtype"):
        native.forward(x.double(), None, diagonals, circulants, 32, 1.0, False)


def test_the_pool_is_the_one_of_torch() -> None:
    if not torch.backends.openmp.is_available():
        pytest.skip("this torch has no OpenMP")
    assert pool.address() is not None


def test_gradcheck() -> None:
    torch.manual_seed(0)
    diagonals, circulants = factors(9, 12, 2, 8, requires_grad=True, **DOUBLE)
    weight, bias = torch.randn(12, 9, **DOUBLE), torch.randn(12, **DOUBLE)
    x = torch.randn(4, 9, requires_grad=True, **DOUBLE)

    def layer(x: Tensor, *f: Tensor) -> Tensor:
        return adapted_linear(x, weight, bias, f[:2], f[2:], alpha=0.5, path="native")

    assert torch.autograd.gradcheck(layer, (x, *diagonals, *circulants))


@pytest.mark.parametrize("m", [0, 2])
def test_a_gradient_that_nobody_wants(m) -> None:
    torch.manual_seed(1)
    diagonals, circulants = factors(32, 32, m, 16, requires_grad=True)
    trained, weight = [*diagonals, *circulants], torch.randn(32, 32)
    x, g = torch.randn(6, 32), torch.randn(6, 32)
    without = torch.autograd.grad(adapted_linear(x, weight, None, diagonals, circulants, path="native"), trained, g)
    x.requires_grad_(True)
    with_x = torch.autograd.grad(adapted_linear(x, weight, None, diagonals, circulants, path="native"), trained, g)
    assert all(relative(a, b) < 1e-6 for a, b in zip(without, with_x, strict=True))


def test_backward_again_and_twice() -> None:
    torch.manual_seed(2)
    diagonals, circulants = factors(16, 16, 2, 16, requires_grad=True)
    x, g = torch.randn(5, 16, requires_grad=True), torch.randn(5, 16)
    h = adapted_linear(x, torch.randn(16, 16), torch.randn(16), diagonals, circulants, path="native")
    first = torch.autograd.grad(h, [x, *diagonals, *circulants], g, retain_graph=True)
    second = torch.autograd.grad(h, [x, *diagonals, *circulants], g)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    h = adapted_linear(x, torch.randn(16, 16), None, diagonals, circulants, path="native")
    (gradient,) = torch.autograd.grad(h.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()


@pytest.mark.parametrize("m", [0, 2, 3])
def test_it_keeps_the_input_alone(m) -> None:
    base = nn.Linear(32, 32)
    layer = FastCDVFTLinear(base, "native", m=m) if m else FastBlockCirculantLinear(base, "native")
    x = torch.randn(50, 32, requires_grad=True)
    kept, _ = saved_bytes(layer, lambda: layer(x))
    assert kept == 50 * 32 * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_worse_than_twice_the_dense_product(dtype) -> None:
    torch.manual_seed(3)
    layer = FastCDVFTLinear(nn.Linear(96, 96).to(dtype), "native", init="random")
    x, g = torch.randn(40, 96).to(dtype).requires_grad_(True), torch.randn(40, 96).to(dtype)
    weight = layer.base.weight.double() + layer.delta_weight().double()
    exact, in_half = (
        nn.functional.linear(x.to(w.dtype), w, layer.base.bias.to(w.dtype)) for w in (weight, weight.to(dtype))
    )
    h = layer(x)
    h.backward(g)
    assert h.dtype == dtype
    assert x.grad is not None
    assert relative(h.double(), exact) <= 2 * relative(in_half.double(), exact)
    assert relative(x.grad.double(), g.double() @ weight) <= 2 * relative(
        (g @ weight.to(dtype)).double(), g.double() @ weight
    )
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in (*layer.diagonals, *layer.circulants))


def test_autocast() -> None:
    torch.manual_seed(4)
    layer = FastCDVFTLinear(nn.Linear(32, 32), "native", init="random")
    x = torch.randn(10, 32, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = layer(x)
    assert h.dtype == torch.bfloat16
    h.backward(torch.randn(10, 32).bfloat16())
    assert x.grad is not None
    assert x.grad.dtype == torch.float32
    assert relative(h.float(), layer(x)) < 2e-2


def test_layers_of_any_memory_format_equal_the_reference() -> None:
    torch.manual_seed(5)
    reference = CDVFTLinear(nn.Linear(48, 32), m=2, block_size=16, alpha=0.7, init="random")
    layer = FastCDVFTLinear(copy.deepcopy(reference.base), "native", m=2, block_size=16, alpha=0.7, init="random")
    layer.load_state_dict(reference.state_dict())
    x = torch.randn(3, 48, 2).transpose(1, 2).requires_grad_(True)
    assert not x.is_contiguous()
    g = torch.randn(1, 1, 32).expand(3, 2, 32)
    trained = [x, *(p for p in layer.parameters() if p.requires_grad)]
    ours = torch.autograd.grad(layer(x), trained, g)
    theirs = torch.autograd.grad(reference(x), [x, *(p for p in reference.parameters() if p.requires_grad)], g)
    assert all(relative(a, b) < 2e-6 for a, b in zip(ours, theirs, strict=True))
    assert layer(torch.empty(0, 3, 48)).shape == (0, 3, 32)
    strided = [torch.randn(n, 2)[:, 0] for n in (48, 32)]
    circulant = torch.randn(2, 3, 16, 2)[..., 0]
    expected = change(x, [t.contiguous() for t in strided], [circulant.contiguous()], 32, path="fft")
    assert relative(change(x, strided, [circulant], 32, path="native"), expected) < 1e-6


@pytest.mark.slow
def test_compiled_graphs_hold_one_operator_a_pass() -> None:
    torch.manual_seed(6)
    layer = FastCDVFTLinear(nn.Linear(32, 32), "native", init="random")
    x, g = torch.randn(10, 32, requires_grad=True), torch.randn(10, 32)
    trained = [x, *(p for p in layer.parameters() if p.requires_grad)]
    plain = [layer(x), *torch.autograd.grad(layer(x), trained, g)]
    compiled = torch.compile(layer, fullgraph=True)
    found = [compiled(x), *torch.autograd.grad(compiled(x), trained, g)]
    assert all(relative(a, b) < 1e-6 for a, b in zip(found, plain, strict=True))


def test_what_it_cannot_execute() -> None:
    x = torch.randn(2, 48)
    for p in (2, 6, 22, 44, 176):
        with pytest.raises(UserError, match=f"p = {p} is not 4 times powers of 2, 3, 5 and 7; use 'auto'"):
            change(torch.randn(2, 176), *factors(176, 176, 2, p), 176, path="native")
    with pytest.raises(UserError, match="p = 3 is not 2 times"):
        change(x.double(), *factors(48, 48, 2, 3, **DOUBLE), 48, path="native")
    assert "float32 or float64, not bfloat16" in native.missing(torch.bfloat16)
    with pytest.raises(UserError, match="fewer than 16 circulant factors, not 16"):
        change(x, *factors(48, 48, 17, 16), 48, path="native")
    assert "native" in Problem(48, 48, 12).paths
    assert "native" not in Problem(48, 48, 22).paths
    assert "native" not in Problem(48, 48, 16, device="cuda").paths


def test_the_widest_vector_that_a_block_is_made_of() -> None:
    widest = kernels.lanes_for(torch.float32, 768)
    assert widest in (4, 8, 16)
    assert [kernels.lanes_for(torch.float32, p) for p in (16, 24, 20, 22)] == [widest, min(widest, 8), 4, 0]
    assert kernels.lanes_for(torch.float64, 768) == widest // 2


def test_memory_is_given_back() -> None:
    diagonals, circulants = factors(64, 64, 2, 64)
    x = torch.randn(4, 64)
    before = native.forward(x, None, diagonals, circulants, 64, 1.0, False)
    release_buffers()
    assert torch.equal(native.forward(x, None, diagonals, circulants, 64, 1.0, False), before)
