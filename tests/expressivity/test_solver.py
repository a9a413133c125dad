"""The solver recovers what was planted, never lets an error grow, and refuses meaningless targets."""

from itertools import pairwise

import pytest
import torch

from cdvft_bench.expressivity.factors import Product
from cdvft_bench.expressivity.fitting.families import block_circulant_error
from cdvft_bench.expressivity.fitting.solver import (
    SolverOptions,
    als_sweep,
    als_sweep_m2,
    fit_cdvft,
    levenberg_marquardt,
)
from cdvft_bench.expressivity.fitting.targets import draw_targets
from cdvft_reference.cdvft import FactorShapes

OPTIONS = SolverOptions()


def planted(d_in, d_out, m, p, count=2, dtype=torch.float64, seed=1):
    product = Product(FactorShapes(d_in, d_out, m, p))
    return product.dense(product.random(count, dtype, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("n", [4, 9, 16])
def test_circulant_targets_are_recovered_by_m_2(n):
    assert fit_cdvft(draw_targets("circulant", n, 3, 0), 2, n, OPTIONS).error.max() < 1e-9


@pytest.mark.parametrize("shape", [(6, 6, 6), (6, 6, 3), (8, 4, 4), (4, 6, 2), (7, 5, 3), (16, 16, 16)])
def test_planted_m_2_is_recovered(shape):
    d_in, d_out, p = shape
    assert fit_cdvft(planted(d_in, d_out, 2, p), 2, p, OPTIONS).error.max() < 1e-9


@pytest.mark.parametrize(("k", "m"), [(1, 2), (1, 3), (2, 3), (2, 4), (3, 3)])
def test_k_factors_are_recovered_by_m_at_least_k(k, m):
    options = SolverOptions(relaxed=30 if k == 3 else 12)
    assert fit_cdvft(planted(5, 5, k, 5, seed=3), m, 5, options).error.max() < 1e-8


def test_planted_complex_m_3_is_recovered():
    assert fit_cdvft(planted(6, 6, 3, 6, dtype=torch.complex128), 3, 6, SolverOptions(restarts=40)).error.max() < 1e-8


def test_rank_one_is_reached_exactly():
    g = torch.Generator().manual_seed(4)
    target = torch.randn(2, 7, 1, dtype=torch.float64, generator=g) @ torch.randn(
        2, 1, 5, dtype=torch.float64, generator=g
    )
    assert fit_cdvft(target, 2, 5, OPTIONS).error.max() < 1e-9


@pytest.mark.parametrize("shape", [(8, 8, 2, 8), (7, 5, 2, 3), (6, 6, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_never_worse_than_what_it_contains(shape, dtype):
    d_in, d_out, m, p = shape
    target = torch.randn(3, d_out, d_in, dtype=dtype, generator=torch.Generator().manual_seed(9))
    error = fit_cdvft(target, m, p, SolverOptions(restarts=0, relaxed=0, sweeps=1, steps=0)).error
    values = torch.linalg.svdvals(target)
    rank_one = (values[:, 1:].square().sum(1) / values.square().sum(1)).sqrt()
    assert (error <= rank_one * (1 + 1e-9)).all()
    if dtype == torch.float64:
        assert (error <= block_circulant_error(target, p) * (1 + 1e-9)).all()


def test_m_1_keeps_the_diagonal_exactly():
    target = draw_targets("gaussian", 6, 3, 5)
    off = target - torch.diag_embed(target.diagonal(dim1=1, dim2=2))
    expected = off.flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)
    torch.testing.assert_close(fit_cdvft(target, 1, 6, OPTIONS).error, expected)


@pytest.mark.parametrize("shape", [(6, 6, 2, 6), (7, 5, 2, 3), (6, 6, 3, 2), (4, 6, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_no_step_lets_an_error_grow(shape, dtype):
    product = Product(FactorShapes(*shape))
    g = torch.Generator().manual_seed(6)
    theta = product.random(5, dtype, g)
    target = torch.randn(5, shape[1], shape[0], dtype=dtype, generator=g)

    def error(t):
        return (target - product.dense(t)).flatten(1).norm(dim=1)

    for sweep in [als_sweep] + ([als_sweep_m2] if shape[2] == 2 else []):
        now = theta
        for _ in range(5):
            after = sweep(product, now, target)
            assert (error(after) <= error(now) * (1 + 1e-9)).all()
            now = after
    assert (error(levenberg_marquardt(product, now, target, 20, 1e-12)) <= error(now) * (1 + 1e-9)).all()


def test_both_sweeps_of_m_2_agree():
    product = Product(FactorShapes(7, 5, 2, 3))
    g = torch.Generator().manual_seed(7)
    theta, target = product.random(3, torch.float64, g), torch.randn(3, 5, 7, dtype=torch.float64, generator=g)
    general, special = als_sweep(product, theta, target), als_sweep_m2(product, theta, target)
    torch.testing.assert_close(product.dense(general), product.dense(special), rtol=1e-6, atol=1e-8)


def test_errors_fall_with_m_when_each_starts_from_the_last():
    target = draw_targets("gaussian", 6, 3, 8)
    previous, errors = None, []
    for m in (1, 2, 3, 4):
        previous = fit_cdvft(target, m, 6, SolverOptions(restarts=4), previous)
        errors.append(previous.error)
        achieved = Product(FactorShapes(6, 6, m, 6)).dense(previous.theta)
        measured = (target - achieved).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)
        torch.testing.assert_close(measured, previous.error, rtol=1e-6, atol=1e-9)
    for before, after in pairwise(errors):
        assert (after <= before * (1 + 1e-9)).all()


def test_meaningless_targets_are_refused():
    with pytest.raises(ValueError, match="zero or not finite"):
        fit_cdvft(torch.zeros(1, 3, 3, dtype=torch.float64), 2, 3)
    with pytest.raises(ValueError, match="float64"):
        fit_cdvft(torch.ones(1, 3, 3), 2, 3)
