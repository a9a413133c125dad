"""FFT path, dense oracle and hand-derived backward agree over random shapes, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cdvft_reference import (
    FactorShapes,
    block_circulant_fft,
    block_circulant_handwritten,
    block_circulant_shape,
    cdvft_dense,
    cdvft_fft,
    cdvft_handwritten,
    dense_block_circulant,
    dense_circulant,
)

TOLERANCE = 1e-12

widths = st.integers(1, 40)
conventions = st.sampled_from(["column", "row"])


def draw_factors(shapes: FactorShapes, seed: int) -> tuple[list[Tensor], list[Tensor], torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    draw = [
        [torch.randn(*s, dtype=torch.float64, generator=generator).requires_grad_() for s in group]
        for group in (shapes.diagonals, shapes.circulants)
    ]
    return draw[0], draw[1], generator


@settings(max_examples=150, deadline=None)
@given(
    d_in=widths, d_out=widths, m=st.integers(1, 5), p=st.integers(1, 50), convention=conventions, seed=st.integers(0)
)
def test_paths_agree_with_the_dense_oracle(d_in, d_out, m, p, convention, seed) -> None:
    shapes = FactorShapes(d_in, d_out, m, p)
    diagonals, circulants, generator = draw_factors(shapes, seed % 2**31)
    x = torch.randn(2, 3, d_in, dtype=torch.float64, generator=generator).requires_grad_()
    g = torch.randn(2, 3, d_out, dtype=torch.float64, generator=generator)
    leaves = [x, *diagonals, *circulants]

    def run(y: Tensor) -> list[Tensor]:
        gradients = torch.autograd.grad(y, leaves, g)
        return [y.detach(), *gradients]

    oracle = run(x @ cdvft_dense(diagonals, circulants, d_out, convention).T)
    for path in (cdvft_fft, cdvft_handwritten):
        for got, want in zip(run(path(x, diagonals, circulants, d_out, convention)), oracle, strict=True):
            # Norms of a cancelling sum may be tiny: errors are relative to the largest tensor of the case.
            scale = max(float(want.norm()), 1e-3 * max(float(t.norm()) for t in oracle))
            assert float((got - want).norm()) <= TOLERANCE * scale


@settings(max_examples=60, deadline=None)
@given(d_in=widths, d_out=widths, p=st.integers(1, 50), convention=conventions, seed=st.integers(0, 2**31))
def test_block_circulant_paths_agree(d_in, d_out, p, convention, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    c = torch.randn(*block_circulant_shape(d_in, d_out, p), dtype=torch.float64, generator=generator)
    x = torch.randn(5, d_in, dtype=torch.float64, generator=generator)
    want = x @ dense_block_circulant(c, d_in, d_out, convention).T
    # A sum may cancel: errors are relative to the sizes of its terms.
    sizes = c.norm(dim=-1, keepdim=True).expand_as(c)  # of whole vectors, which are transformed
    allowed = TOLERANCE * float((x.abs() @ dense_block_circulant(sizes, d_in, d_out, convention).T).norm())
    assert float((block_circulant_fft(x, c, d_out, convention) - want).norm()) <= allowed
    with torch.enable_grad():
        c.requires_grad_()
        assert float((block_circulant_handwritten(x, c, d_out, convention).detach() - want).norm()) <= allowed


def test_first_column_and_first_row_conventions() -> None:
    c = torch.randn(7, dtype=torch.float64)
    column, row = dense_circulant(c, "column"), dense_circulant(c, "row")
    assert torch.equal(column[:, 0], c)
    assert torch.equal(row[0], c)
    assert torch.equal(row, column.T)
    # They differ by a reversal of c that keeps its first entry.
    assert torch.equal(row, dense_circulant(c.flip(0).roll(1), "column"))


@pytest.mark.parametrize("convention", ["column", "row"])
@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize(("d_in", "d_out", "p"), [(6, 6, 6), (5, 7, 3), (8, 4, 4)])
def test_gradcheck(m, d_in, d_out, p, convention) -> None:
    diagonals, circulants, _ = draw_factors(FactorShapes(d_in, d_out, m, p), 3)
    x = torch.randn(3, d_in, dtype=torch.float64, requires_grad=True)

    def call(x: Tensor, *factors: Tensor) -> Tensor:
        return cdvft_handwritten(x, factors[:m], factors[m:], d_out, convention)

    assert torch.autograd.gradcheck(call, (x, *diagonals, *circulants))


def test_double_backward_is_refused() -> None:
    diagonals, circulants, _ = draw_factors(FactorShapes(4, 4, 2, 4), 0)
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(cdvft_handwritten(x, diagonals, circulants, 4).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


def test_m_factors_of_a_planted_square_case_have_the_papers_parameter_count() -> None:
    for m in (1, 2, 3, 4):
        shapes = FactorShapes(768, 768, m, 768)
        entries = sum(torch.Size(s).numel() for s in shapes.diagonals + shapes.circulants)
        assert entries == (2 * m - 1) * 768


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 2, 2), "d_in = 0"),
        ((4, 4, 0, 2), "m = 0"),
        ((4, 4, 2, 0), "block_size = 0"),
        ((4, 4, 2, -3), "block_size = -3"),
    ],
)
def test_bad_shapes_name_the_value(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        FactorShapes(*arguments)


def test_wrong_factor_shapes_are_refused() -> None:
    x = torch.randn(2, 6)
    with pytest.raises(ValueError, match=r"need \(q_out, q_in, p\) = \(2, 2, 4\)"):
        block_circulant_fft(x, torch.randn(1, 2, 4), 8)
    with pytest.raises(ValueError, match="must be"):
        block_circulant_fft(x, torch.randn(4), 6)
    with pytest.raises(ValueError, match="m - 1 circulants"):
        cdvft_fft(x, [torch.ones(6)], [torch.ones(1, 1, 6)], 6)
    with pytest.raises(ValueError, match="'column'"):
        dense_circulant(torch.ones(3), "diagonal")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"block_size = 2\.0"):
        FactorShapes(4, 4, 2, 2.0)  # type: ignore[arg-type]
