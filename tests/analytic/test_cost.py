"""The cost algebra: sums, scaling, conventions, and whole grids at once."""

import math
import time

import numpy as np
import pytest

from cdvft_bench.analytic.conventions import CONVENTIONS, convention
from cdvft_bench.analytic.cost import PASSES, Cost, flops
from cdvft_bench.analytic.kernels import addmm, bmm, copy, elementwise, fft, mm, reduction
from cdvft_bench.analytic.linear import LinearShape, frozen_backward, frozen_forward
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import make_method, method_names


def small() -> Cost:
    return Cost(7, 1, forward=(mm(2, 3, 5, "float32"),), backward=(elementwise("add", 4, "float32"),), saved_bytes=24)


def test_a_matrix_product_by_hand() -> None:
    kernel = mm(2, 3, 5, "float64")
    assert (kernel.macs, kernel.read, kernel.written, kernel.launches) == (30, (6 + 15) * 8, 10 * 8, 1)
    assert addmm(2, 3, 5, "float64").read == (6 + 15 + 5) * 8
    assert bmm(4, 2, 3, 5, "float32", complex_=True).macs == 4 * 4 * 30


def test_ffts_by_hand() -> None:
    real = fft("_fft_r2c", 8, 3, "float32")
    assert (real.read, real.written) == (3 * 8 * 4, 3 * 5 * 8)
    assert convention("flop").fft(8, 3, True) == 2.5 * 8 * 3 * 3
    assert convention("flop").fft(8, 3, False) == 5 * 8 * 3 * 3
    assert convention("paper").fft(8, 3, True) == 8 * 3 * 3
    assert convention("mac").fft(8, 3, True) == 0
    assert convention("flop").fft(1, 3, True) == 0
    assert convention("flop").fft(768, 1, True) == pytest.approx(2.5 * 768 * math.log2(768), rel=1e-12)


def test_an_fft_costs_the_same_alone_and_in_a_grid() -> None:
    """To the last bit, as operators are priced one by one where they are counted."""
    lengths = np.random.default_rng(0).integers(0, 5000, (20, 30))
    for real, factor in ((True, 2.5), (False, 5.0)):
        grid = convention("flop").fft(lengths, 3, real)
        alone = [convention("flop").fft(n, 3, real) for n in lengths.ravel().tolist()]
        assert np.asarray(grid).ravel().tolist() == alone
        assert alone == [factor * n * math.log2(max(n, 1)) * 3 for n in lengths.ravel().tolist()]


def test_prices_of_the_conventions() -> None:
    kernels = (mm(2, 3, 5, "float32"), elementwise("add", 7, "float32"))
    assert [flops(kernels, name) for name in ("mac", "flop", "paper")] == [30, 67, 30]
    complex_ = [convention(name).fft(16, 1, False) for name in ("mac", "flop", "paper")]
    real = [convention(name).fft(16, 1, True) for name in ("mac", "flop", "paper")]
    assert (complex_, real) == ([0, 320, 64], [0, 160, 64])


def test_elementwise_reductions_and_copies_by_hand() -> None:
    assert elementwise("mul", 10, "float32", flops=6, complex_=True).flops == 60
    assert elementwise("mul", 10, "float32", flops=6, complex_=True).written == 80
    assert reduction("sum", 10, 2, "float32", complex_=True).flops == 20
    assert copy("_to_copy", 10, "bfloat16", to="float32").written == 40


def test_addition_and_scaling() -> None:
    twice, both = small() * 2, small() + small()
    for pass_ in PASSES:
        assert twice.total(pass_) == both.total(pass_)
        for name in CONVENTIONS:
            assert twice.flops(pass_, name) == both.flops(pass_, name)
    assert twice.parameters == both.parameters == 14
    assert twice.saved_bytes == 48
    assert (2 * small()).parameters == 14
    # One fused optimiser updates both layers: its launches do not double, its arithmetic does.
    assert twice.total("step").launches == 2 * 2 + 2
    assert twice.optimizer_bytes == 2 * 14 * 4 + 4 * 2


def test_costs_of_different_dtypes_do_not_add() -> None:
    with pytest.raises(ValueError, match="float64"):
        _ = small() + Cost(1, 1, parameter_dtype="float64")


def test_kinds_and_scopes_partition_the_flops() -> None:
    cost = make_method("cdvft", {"m": 3, "block_size": 16}).cost(LinearShape(64, 48), 10, device="cpu")
    for pass_ in PASSES:
        for name in CONVENTIONS:
            whole = cost.flops(pass_, name)
            kinds = [cost.flops(pass_, name, kind=k) for k in ("matmul", "fft", "elementwise", "reduction", "copy")]
            scopes = [cost.flops(pass_, name, scope=s) for s in ("base", "adapter", "optimizer")]
            assert sum(kinds) == pytest.approx(whole)
            assert sum(scopes) == pytest.approx(whole)


def test_the_paper_setting_has_two_plus_one_transforms() -> None:
    cost = make_method("cdvft", {"path": "handwritten"}).cost(LinearShape(768, 768), 10, device="cpu")
    assert cost.total("forward", "adapter").ffts == 10 + 1 + 10  # FFT(x), FFT(c), inverse
    assert cost.total("backward", "adapter").ffts == 10 + 10 + 1  # FFT(g), inverse for x, inverse for c
    assert sum(k.kind == "fft" for k in cost.kernels("forward")) == 3
    assert sum(k.kind == "fft" for k in cost.kernels("backward")) == 3


def test_frozen_layer_by_hand() -> None:
    layer = LinearShape(3, 5)
    assert [k.macs for k in frozen_forward(layer, 2, "float32") + frozen_backward(layer, 2, "float32")] == [30, 30]
    assert layer.parameters == 20
    assert LinearShape(3, 5, bias=False).parameters == 15


def test_grids_of_a_million_cases_equal_the_scalar_formula() -> None:
    rng = np.random.default_rng(0)
    methods = [make_method(name) for name in method_names()]
    n = 1_000_000 // len(methods)
    widths = 64 * rng.integers(16, 64, (2, n))  # multiples of 64, >= 1024: every method fits
    tokens = rng.integers(2, 4096, n)
    grid = LinearShape(widths[0], widths[1])
    start = time.perf_counter()
    for method in methods:
        cost = method.cost(grid, tokens, device="cpu")
        totals = cost.total("step")
        flops = np.broadcast_to(cost.flops("step", "flop"), (n,))
        for i in rng.integers(0, n, 5):
            one = method.cost(LinearShape(int(widths[0][i]), int(widths[1][i])), int(tokens[i]), device="cpu")
            exact = one.total("step")
            for field in ("macs", "elementwise_flops", "ffts", "launches", "read", "written"):
                value = getattr(exact, field)
                assert isinstance(value, int), (method.name, field, type(value))
                assert int(np.broadcast_to(getattr(totals, field), (n,))[i]) == value, (method.name, field)
            assert flops[i] == pytest.approx(one.flops("step", "flop"), rel=1e-12)
            assert int(np.broadcast_to(cost.parameters, (n,))[i]) == one.parameters
    print(f"{n * len(methods):,} cases in {time.perf_counter() - start:.1f} s")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="'tflop' is not known; use one of mac, flop, paper"):
        small().flops("step", "tflop")
    with pytest.raises(UserError, match="pass 'fwd'"):
        small().total("fwd")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="d_in = 0"):
        LinearShape(0, 4)
    with pytest.raises(UserError, match=r"d_out = 1\.5"):
        LinearShape(4, 1.5)  # type: ignore[arg-type]
