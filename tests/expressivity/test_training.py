"""Gradients against autograd through the reference, and a training that can be foretold."""

import pytest
import torch
from torch import nn

from cdvft_bench.expressivity.fitting.families import block_circulant_projection
from cdvft_bench.expressivity.fitting.training import (
    Adapter,
    build,
    circulant_gradient,
    dense_gradient,
    gradient_scale,
    make_task,
    ranks,
    train,
)
from cdvft_reference import BlockCirculantLinear


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("d_in", "d_out", "p"), [(6, 6, 6), (6, 4, 2), (7, 5, 3), (4, 8, 4)])
def test_gradient_of_c_is_a_sum_of_dense_entries(d_in, d_out, p):
    layer = BlockCirculantLinear(nn.Linear(d_in, d_out, bias=False, dtype=torch.float64), p, path="handwritten")
    x, g = normal(9, d_in, seed=1), normal(9, d_out, seed=2)
    layer(x).backward(g)
    dense = g.T @ x
    torch.testing.assert_close(layer.circulant.grad, circulant_gradient(dense, p))
    by_hand = torch.zeros_like(layer.circulant)
    for r in range(d_out):
        for s in range(d_in):
            by_hand[r // p, s // p, (r - s) % p] += dense[r, s]
    torch.testing.assert_close(layer.circulant.grad, by_hand)


@pytest.mark.parametrize("p", [1, 2, 4, 8])
def test_one_step_on_c_is_p_times_the_projected_gradient(p):
    layer = BlockCirculantLinear(nn.Linear(8, 8, bias=False, dtype=torch.float64), p)
    dense = normal(8, 8, seed=3)
    (layer.delta_weight() * dense).sum().backward()
    with torch.no_grad():
        layer.circulant -= 0.1 * layer.circulant.grad
    projection = block_circulant_projection(dense[None], p)[0][0]
    torch.testing.assert_close(layer.delta_weight().detach(), -0.1 * p * projection)


@pytest.mark.parametrize("p", [2, 4, 16])
def test_scale_is_p_for_constant_and_root_p_for_independent_entries(p):
    assert gradient_scale(torch.ones(16, 16, dtype=torch.float64), p).ratio == pytest.approx(p)
    draws = [gradient_scale(normal(64, 64, seed=k), p).ratio for k in range(20)]
    assert sum(draws) / 20 == pytest.approx(p**0.5, rel=0.1)
    one = gradient_scale(normal(16, 16, seed=5), p)
    assert one.ratio == pytest.approx(p * one.coherence**0.5)


def test_ranks():
    assert ranks(torch.zeros(3, 3)) == (0, 0.0)
    assert ranks(torch.eye(4)) == (4, pytest.approx(4.0))
    rank, stable = ranks(torch.diag(torch.tensor([2.0, 1.0, 1e-5])))
    assert rank == 2
    assert stable == pytest.approx(1.25)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_zero_diagonal_start_moves_the_last_factor_only(m):
    task = make_task(8, 64, "gaussian", 0)
    first, second = train(task, Adapter("cdvft", m=m, block_size=8), 1e-2, [0, 1], 0)
    assert first.rank == 0
    assert first.loss == pytest.approx(1)
    assert first.gradient_norms[-1] > 0
    assert first.gradient_norms[:-1] == [0.0] * (2 * m - 2)
    assert all(size > 0 for size in second.gradient_norms)


def test_full_fine_tuning_starts_along_the_dense_gradient_and_learns():
    task = make_task(8, 64, "low_rank", 1)
    parameters, delta = build(Adapter("full"), task.weight, 0)
    task.loss(delta()).backward()
    torch.testing.assert_close(parameters[0].grad, dense_gradient(task))
    assert train(task, Adapter("full"), 1e-2, [200], 0)[0].loss < 0.05


def test_an_adapter_stays_inside_its_rank():
    task = make_task(8, 64, "gaussian", 2)
    assert train(task, Adapter("lora", rank=2), 1e-2, [50], 0)[0].rank == 2
    assert train(task, Adapter("cdvft", m=2, block_size=8), 1e-2, [50], 0)[0].rank > 2


def test_fourierft_and_vera_change_the_weight_as_their_sets_say():
    task = make_task(8, 64, "gaussian", 4)
    for adapter, count in ((Adapter("fourierft", rank=24), 24), (Adapter("vera", rank=16), 24)):
        parameters, delta = build(adapter, task.weight, 0)
        assert sum(p.numel() for p in parameters) == count
        assert not delta().any()
        assert train(task, adapter, 1e-2, [60], 0)[0].loss < 0.95
    with torch.no_grad():
        coefficients, delta = build(Adapter("fourierft", rank=64), task.weight, 0)
        coefficients[0].normal_(generator=torch.Generator().manual_seed(5))
        change = delta()
    torch.testing.assert_close(change, torch.roll(change.flip(0, 1), (1, 1), (0, 1)))
    with torch.no_grad():
        (d, b), delta = build(Adapter("vera", rank=3), task.weight, 0)
        b.fill_(1.0)
        d.copy_(torch.tensor([1.0, 2.0, 3.0]))
    assert ranks(delta().detach())[0] == 3


def test_runs_repeat():
    task = make_task(8, 32, "gaussian", 3)
    adapter = Adapter("cdvft", m=3, block_size=4, init="random")
    assert train(task, adapter, 1e-2, [5], 4) == train(task, adapter, 1e-2, [5], 4)
