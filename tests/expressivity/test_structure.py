"""Dimension formula against exact and numerical ranks, and the redundancies themselves."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cdvft_bench.expressivity import structure
from cdvft_bench.expressivity.factors import Product
from cdvft_reference.cdvft import FactorShapes

SQUARE = [(n, m, p) for n in range(1, 9) for m in range(1, n // 2 + 3) for p in range(1, n + 1) if n % p == 0]


@pytest.mark.parametrize(("n", "m", "p"), SQUARE)
def test_dimension_of_square_layers(n, m, p):
    shapes = FactorShapes(n, n, m, p)
    assert structure.exact_dimension(shapes) == structure.dimension_bound(shapes)


@pytest.mark.parametrize("shape", [(4, 6, 2, 2), (6, 4, 2, 2), (3, 6, 2, 3), (8, 4, 2, 4), (2, 6, 3, 2), (6, 3, 1, 3)])
def test_dimension_of_other_layers(shape):
    shapes = FactorShapes(*shape)
    assert structure.exact_dimension(shapes) == structure.dimension_bound(shapes)


def test_paper_setting_by_hand():
    assert structure.parameter_count(FactorShapes(6, 6, 2, 6)) == 18
    assert structure.continuous_redundancy(FactorShapes(6, 6, 2, 6)) == 2
    assert structure.dimension_bound(FactorShapes(6, 6, 2, 6)) == 16
    assert structure.dimension_bound(FactorShapes(6, 6, 4, 6)) == 36


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 4), st.integers(1, 7), st.integers(0, 5))
def test_bound_holds_for_every_shape_and_both_fields(d_in, d_out, m, p, seed):
    shapes = FactorShapes(d_in, d_out, m, p)
    exact = structure.exact_dimension(shapes, seed)
    assert exact <= structure.dimension_bound(shapes)
    generator = torch.Generator().manual_seed(seed)
    theta = Product(shapes).random(1, torch.float64, generator)[0]
    assert structure.jacobian_spectrum(shapes, theta, 1e-13).rank <= exact


@pytest.mark.parametrize("n", range(2, 30))
def test_full_m_is_the_first_that_fills(n):
    m = structure.generic_full_m(n)
    assert structure.dimension_bound(FactorShapes(n, n, m, n)) == n * n
    assert structure.dimension_bound(FactorShapes(n, n, m - 1, n)) < n * n


def test_modular_rank_against_numpy():
    g = np.random.default_rng(0)
    for rank in range(5):
        matrix = g.integers(-5, 6, (7, rank)) @ g.integers(-5, 6, (rank, 6))
        assert structure.rank_modulo_prime(torch.from_numpy(matrix)) == np.linalg.matrix_rank(matrix)
    assert all(structure.PRIME % k for k in range(2, math.isqrt(structure.PRIME) + 1))


def test_redundant_moves_leave_the_change_as_it_is():
    n, m = 6, 3
    product = Product(FactorShapes(n, n, m, n))
    theta = product.random(1, torch.complex128, torch.Generator().manual_seed(1))
    diagonals, circulants = product.split(theta[0])
    before = product.dense(theta)[0]
    scaled = [diagonals[0] * 3, diagonals[1], diagonals[2]], [circulants[0] / 3, circulants[1]]
    # A shift moves through the middle diagonal, a root of unity through a circulant.
    shifted = (
        [diagonals[0], torch.roll(diagonals[1], 2), diagonals[2]],
        [torch.roll(circulants[0], 2), torch.roll(circulants[1], -2)],
    )
    w = torch.exp(2j * math.pi / n * torch.arange(n, dtype=torch.float64))
    turned = [diagonals[0] * w, diagonals[1] / w, diagonals[2]], [circulants[0] * w, circulants[1]]
    for moved in (scaled, shifted, turned):
        torch.testing.assert_close(product.dense(product.join(*moved)[None])[0], before)
