"""The batched algebra against the reference's oracle, autograd and brute-force least squares."""

import pytest
import torch

from cdvft_bench.expressivity.factors import Product, normal_equations
from cdvft_reference.cdvft import FactorShapes, cdvft_dense

SHAPES = [(5, 5, 1, 5), (4, 6, 1, 2), (6, 4, 1, 2), (6, 6, 2, 6), (6, 4, 3, 2), (7, 5, 3, 3), (4, 4, 4, 1)]
DTYPES = [torch.float64, torch.complex128]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_equals_the_reference(shape, dtype):
    product = Product(FactorShapes(*shape))
    theta = product.random(3, dtype, torch.Generator().manual_seed(1))
    dense = product.dense(theta)
    for one, change in zip(theta, dense, strict=True):
        diagonals, circulants = product.split(one)
        torch.testing.assert_close(change, cdvft_dense(diagonals, circulants, shape[1]), rtol=1e-12, atol=1e-12)
        assert torch.equal(product.join(diagonals, circulants), one)


@pytest.mark.parametrize("shape", SHAPES)
def test_jacobian_equals_autograd(shape):
    product = Product(FactorShapes(*shape))
    theta = product.random(1, torch.float64, torch.Generator().manual_seed(2))[0]
    exact = torch.autograd.functional.jacobian(lambda t: cdvft_dense(*product.split(t), shape[1]).reshape(-1), theta)
    torch.testing.assert_close(product.jacobian(theta[None])[0], exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_equations_equal_those_of_the_jacobian(shape, dtype):
    product = Product(FactorShapes(*shape))
    generator = torch.Generator().manual_seed(3)
    theta = product.random(2, dtype, generator)
    target = torch.randn(2, shape[1], shape[0], dtype=dtype, generator=generator)
    jacobian = product.jacobian(theta)
    parts = zip(product.factors, product.left_parts(theta), product.right_parts(theta), strict=True)
    for factor, left, right in parts:
        columns = jacobian[..., factor.slice]
        gram, rhs = normal_equations(factor, left, right, target)
        torch.testing.assert_close(gram, columns.mH @ columns, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(rhs, (columns.mH @ target.reshape(2, -1, 1))[..., 0], rtol=1e-9, atol=1e-9)
