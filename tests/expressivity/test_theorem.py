"""The constructive factorisation, and the 2 x 2 case that can be solved by hand."""

import pytest
import torch

from cdvft_bench.expressivity import theorem
from cdvft_bench.expressivity.factors import Product
from cdvft_bench.expressivity.fitting.solver import SolverOptions, fit_cdvft
from cdvft_reference.cdvft import FactorShapes
from cdvft_reference.circulant import dense_circulant


def normal(*shape, seed=0, dtype=torch.complex128):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def shift_polynomial(d):
    n = d.shape[1]
    shift = torch.roll(torch.eye(n, dtype=d.dtype), 1, 0)
    return sum(torch.diag(row) @ torch.linalg.matrix_power(shift, k) for k, row in enumerate(d))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_wrapped_diagonals_and_division(n):
    a = normal(n, n)
    d = theorem.diagonals_of(a)
    torch.testing.assert_close(shift_polynomial(d), a)
    divisor = normal(n, seed=1)
    q, rest = theorem.divide_right(d, divisor)
    linear = torch.roll(torch.eye(n, dtype=a.dtype), 1, 0) - torch.diag(divisor)
    torch.testing.assert_close(shift_polynomial(q) @ linear + torch.diag(rest), a)
    left, c, right = theorem.split_linear(divisor)
    torch.testing.assert_close(torch.diag(left) @ dense_circulant(c) @ torch.diag(right), linear)


@pytest.mark.parametrize("n", [2, 3, 4, 6, 8])
def test_generic_matrices_are_factorised(n):
    for seed in range(3):
        a = normal(n, n, seed=seed)
        theta = theorem.factorise(a)
        assert theta.shape == (Product(FactorShapes(n, n, n, n)).parameters,)
        assert theorem.factorisation_residual(a, theta) < 1e-7


def test_identity_is_not_generic():
    with pytest.raises(theorem.NotGenericError, match="leading wrapped diagonal"):
        theorem.factorise(torch.eye(3))


def test_a_matrix_that_three_factors_approach_but_do_not_reach():
    target = torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.complex128)
    with pytest.raises(theorem.NotGenericError):
        theorem.factorise(target)
    sizes = []
    for gap in (1e-2, 1e-4, 1e-6):
        near = target.clone()
        near[0, 0] = gap
        theta = theorem.factorise(near)
        assert theorem.factorisation_residual(near, theta) < 1e-9
        sizes.append(float(theta.abs().max() / theta.abs()[theta.abs() > 0].min()))
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("seed", range(6))
def test_real_two_by_two_has_a_closed_form(seed):
    target = normal(2, 2, seed=seed, dtype=torch.float64)
    exact = theorem.real_error_2x2(target)
    found = float(fit_cdvft(target[None], 2, 2, SolverOptions(restarts=12)).error[0])
    assert found == pytest.approx(exact, abs=2e-4)


def test_the_hadamard_matrix_is_at_one_half():
    target = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    assert theorem.real_error_2x2(target) == pytest.approx(0.5)
    assert float(fit_cdvft(target[None].to(torch.complex128), 2, 2).error[0]) < 1e-9
