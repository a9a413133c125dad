"""What the kernels do, as an instrumented build sees itself do it, beside the closed form: equal where that assumes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cdvft_bench.analytic.circulant import Factor
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.counting.count import count_layer
from cdvft_bench.counting.dispatch import count_dispatch
from cdvft_bench.execution import native, native_costs
from cdvft_bench.execution.native import Counts, kernels
from cdvft_bench.execution.paths import FastCDVFTLinear
from cdvft_bench.timing.clock import fixed_threads
from tests.execution.test_paths import factors

pytestmark = pytest.mark.skipif(
    not native.countable(torch.float32, 64), reason="no compiler that could make instrumented kernels"
)
NAMES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def alike(rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """Rows of like size, none of them zero."""
    return torch.randn(rows, width).sign().to(dtype) * (1 + torch.rand(rows, width).to(dtype))


def seen_of(
    rows: int, d_in: int, d_out: int, m: int, p: int, dtype: torch.dtype, own: torch.dtype, bias: bool
) -> tuple[Counts, Counts]:
    diagonals, circulants = factors(d_in, d_out, m, p, dtype=own)
    x, g, b = alike(rows, d_in, dtype), alike(rows, d_out, dtype), torch.randn(d_out).to(dtype)
    with native.counting() as seen:
        native.forward(x, b if bias else None, diagonals, circulants, d_out, 0.5, False)
        native.backward(x, g, diagonals, circulants, 0.5, False, True)
    forward, backward = seen
    return forward, backward


def compare(rows: int, d_in: int, d_out: int, m: int, p: int, dtype: torch.dtype, own: torch.dtype, bias: bool) -> None:
    """All that is counted, to the last addition and byte."""
    lanes = kernels.lanes_for(own, p)
    inside = 16 // kernels.ITEMSIZE[own]
    layer = LinearShape(d_in, d_out, bias)
    blocks = [Factor(d_in if i == 0 else d_out, d_out, p, rows, NAMES[own]) for i in range(max(m - 1, 1))]
    forms = [
        native_costs.circulant_forward(layer, rows, blocks, m, bias, NAMES[dtype]),
        native_costs.circulant_backward(layer, rows, blocks, m, NAMES[dtype]),
    ]
    works = [
        native_costs.forward_work(layer, rows, blocks, m, bias),
        native_costs.backward_work(layer, rows, blocks, m),
    ]
    for seen, form, work in zip(seen_of(rows, d_in, d_out, m, p, dtype, own, bias), forms, works, strict=True):
        assert seen.stray == 0
        assert (seen.additions, seen.multiplications) == native_costs.arithmetic(work, p, lanes, inside)
        assert seen.transforms == form.fft_batch
        assert seen.elementwise == form.flops
        assert (seen.read, seen.written) == (form.read, form.written)
        one = native_costs.transform_arithmetic(p, lanes, inside)
        assert (seen.fft_additions, seen.fft_multiplications) == tuple(n * seen.transforms for n in one)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    d_in=st.integers(1, 200),
    d_out=st.integers(1, 200),
    m=st.sampled_from([0, 2, 2, 3, 4]),
    p=st.sampled_from([4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 120, 128, 192, 240, 320]),
    dtype=st.sampled_from(list(NAMES)),
    bias=st.booleans(),
)
def test_the_closed_form_is_what_is_seen(rows, d_in, d_out, m, p, dtype, bias) -> None:
    """For blocks of every width of vectors that this CPU has: 4, 8 and 16 numbers, or 2, 4 and 8 of float64."""
    compare(rows, d_in, d_out, m, p, dtype, torch.float64 if dtype == torch.float64 else torch.float32, bias)


def compare_mixed(k: list[int], d_in: int, d_out: int, m: int, p: int, dtype: torch.dtype, own: torch.dtype) -> None:
    of_each = [factors(d_in, d_out, m, p, dtype=own) for _ in range(max(k) + 2)]
    banks = [[torch.stack(t) for t in zip(*(one[kind] for one in of_each), strict=True)] for kind in (0, 1)]
    with native.counting() as seen:
        native.mixed(alike(len(k), d_in, dtype), torch.tensor(k), *banks, d_out, 0.5, False)
    (counts,) = seen
    rows_of = [k.count(i) for i in sorted({*k} - {-1})]
    layer = LinearShape(d_in, d_out, False)
    blocks = [Factor(d_in if i == 0 else d_out, d_out, p, len(k), NAMES[own]) for i in range(max(m - 1, 1))]
    form = native_costs.circulant_mixed(layer, rows_of, k.count(-1), blocks, m, NAMES[dtype])
    work = native_costs.mixed_work(layer, rows_of, blocks, m)
    lanes, inside = kernels.lanes_for(own, p), 16 // kernels.ITEMSIZE[own]
    assert counts.stray == 0
    assert (counts.additions, counts.multiplications) == native_costs.arithmetic(work, p, lanes, inside)
    assert (counts.transforms, counts.elementwise) == (form.fft_batch, form.flops)
    assert (counts.read, counts.written) == (form.read, form.written)


@settings(max_examples=60, deadline=None)
@given(
    k=st.lists(st.integers(-1, 4), min_size=1, max_size=9),
    d_in=st.integers(1, 130),
    d_out=st.integers(1, 130),
    m=st.sampled_from([0, 2, 2, 3, 4]),
    p=st.sampled_from([4, 8, 12, 16, 24, 40, 56, 64, 96, 112, 128, 192]),
    dtype=st.sampled_from(list(NAMES)),
)
def test_so_it_is_of_mixed_batches(k, d_in, d_out, m, p, dtype) -> None:
    compare_mixed(k, d_in, d_out, m, p, dtype, torch.float64 if dtype == torch.float64 else torch.float32)


def test_many_rows_of_one_adapter_share_its_spectra_in_parts() -> None:
    compare_mixed([0] * 129 + [1] * 64 + [2, -1] * 3, 64, 64, 2, 64, torch.float32, torch.float32)


@pytest.mark.parametrize("p", [768, 1024, 2048, 4096])
def test_large_blocks(p) -> None:
    compare(3, p, p, 2, p, torch.float32, torch.float32, True)


@pytest.fixture
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("CDVFT_BENCH_TARGET", request.param)
    kernels.forget()
    yield request.param
    monkeypatch.undo()
    kernels.forget()


@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="targets are those of x86")
@pytest.mark.parametrize("target", ["avx2", "sse"], indirect=True)
@pytest.mark.parametrize("own", [torch.float32, torch.float64])
def test_other_targets(target: str, own: torch.dtype) -> None:
    assert kernels.lanes_for(own, 768) * kernels.ITEMSIZE[own] <= {"avx2": 32, "sse": 16}[target]
    for p in (16, 24, 64, 80, 112, 768, 4096):
        compare(5, p, 2 * p - 3, 3, p, own, own, True)
        compare_mixed([0, 2, -1, 0, 1], p, p, 2, p, own, own)


def test_rows_of_another_size_go_alone() -> None:
    torch.manual_seed(0)
    diagonals, circulants = factors(64, 64, 2, 64)
    x, g = torch.randn(16, 64), torch.randn(16, 64)
    with native.counting() as seen:
        native.forward(x, None, diagonals, circulants, 64, 1.0, False)
        x[::2] *= 1e4
        native.forward(x, None, diagonals, circulants, 64, 1.0, False)
    assert [counts.transforms for counts in seen] == [17, 33]
    x[::2] /= 1e4
    with native.counting() as seen:
        native.backward(x, g, diagonals, circulants, 1.0, False, True)
        g[2:] = 0
        native.backward(x, g, diagonals, circulants, 1.0, False, True)
    # One of c, one of its gradient; of a pair of rows one of x, back and forth and back again, and one of g.
    assert [counts.transforms for counts in seen] == [2 + 8 * 4, 2 + 4]


def test_the_scan_of_each_row_is_counted() -> None:
    """Squares that only compare the sizes of two rows that share a signal: an addition and a product a number."""
    for rows in (2, 8):
        counts, _ = seen_of(rows, 64, 64, 2, 64, torch.float32, torch.float32, False)
        entered = 3 * rows * 64  # multiplied, squared and added up
        spectra, left = 64 * 6 * (rows // 2), rows * 64
        assert counts.elementwise == 64 + 64 + entered + spectra + left


def test_the_dispatcher_reports_what_was_seen() -> None:
    torch.manual_seed(0)
    layer = FastCDVFTLinear(nn.Linear(64, 64), "native", init="random")
    x = torch.randn(16, 64, requires_grad=True)
    even = count_layer(layer, x)
    with torch.no_grad():
        x[::2] *= 1e4
    uneven = count_layer(layer, x)
    assert (even.forward.ffts, uneven.forward.ffts) == (17, 33)
    assert even.fvcore is not None
    assert uneven.fvcore is not None
    assert uneven.fvcore.fft_flops == uneven.forward.fft_flops > even.fvcore.fft_flops
    assert even.forward.compiled_additions < uneven.forward.compiled_additions
    assert even.backward is not None
    assert even.backward.operators["circulant_backward"] == 1


def test_counting_changes_no_result() -> None:
    torch.manual_seed(0)
    diagonals, circulants = factors(48, 40, 3, 16)
    x, g = torch.randn(9, 48), torch.randn(9, 40)
    with fixed_threads(1):
        plain = [native.forward(x, None, diagonals, circulants, 40, 0.5, True)]
        plain += native.backward(x, g, diagonals, circulants, 0.5, True, True)
        with native.counting() as seen:
            watched = [native.forward(x, None, diagonals, circulants, 40, 0.5, True)]
            watched += native.backward(x, g, diagonals, circulants, 0.5, True, True)
    assert len(seen) == 2
    assert all((a - b).norm() <= 1e-6 * b.norm() for a, b in zip(watched, plain, strict=True))


def test_without_instrumented_kernels_work_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator is seen, its work is named as not priced; nothing is made up from shapes."""
    layer = FastCDVFTLinear(nn.Linear(64, 64), "native", init="random")
    x = torch.randn(16, 64)
    monkeypatch.setattr(kernels, "countable", lambda dtype, p: False)
    with count_dispatch() as counter:
        layer(x)
    found = counter.result()
    assert found.unpriced == {"circulant_forward": 1}
    assert found.ffts == found.compiled_additions == 0
    counted = count_layer(layer, x.requires_grad_())
    assert counted.fvcore is not None
    assert counted.fvcore.unsupported == {"cdvft::circulant_forward": 1}
