"""Closed-form optima against brute force."""

import numpy as np
import pytest
import torch

from cdvft_bench.core.errors import UserError
from cdvft_bench.expressivity.fitting import families
from cdvft_bench.expressivity.fitting.targets import ENSEMBLES, draw_targets, read_changes
from cdvft_reference.circulant import block_circulant_shape, dense_block_circulant, dense_circulant


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def least_squares_error(target, atoms):
    """Relative error of the best combination of atoms (k, d_out, d_in), by a general solver."""
    matrix = atoms.reshape(len(atoms), -1).T.numpy()
    goal = target.reshape(-1).numpy()
    solution = np.linalg.lstsq(matrix, goal, rcond=1e-10)[0]
    return np.linalg.norm(goal - matrix @ solution) / np.linalg.norm(goal)


def test_lora_is_eckart_young():
    target = normal(3, 7, 5, seed=1)
    u, s, vh = torch.linalg.svd(target, full_matrices=False)
    for rank in (1, 2, 4):
        truncated = u[:, :, :rank] * s[:, None, :rank] @ vh[:, :rank]
        expected = families.relative_error(target, truncated)
        torch.testing.assert_close(families.lora_errors(target)[:, rank], expected, rtol=1e-10, atol=1e-12)
        other = normal(3, 7, rank, seed=2)  # no pair of factors does better: best right factor for a random left
        fitted = other @ torch.linalg.lstsq(other, target).solution
        assert (families.lora_errors(target)[:, rank] <= families.relative_error(target, fitted)).all()
    assert families.lora_errors(target)[:, 5].max() < 1e-12


@pytest.mark.parametrize("shape", [(6, 6, 3), (6, 4, 2), (7, 5, 3), (5, 8, 4), (4, 4, 4), (3, 3, 1), (2, 7, 5)])
def test_block_circulant_projection_is_least_squares(shape):
    d_out, d_in, p = shape
    target = normal(2, d_out, d_in, seed=3)
    blocks = block_circulant_shape(d_in, d_out, p)
    units = torch.eye(int(np.prod(blocks)), dtype=torch.float64).reshape(-1, *blocks)
    atoms = torch.stack([dense_block_circulant(unit, d_in, d_out) for unit in units])
    expected = [least_squares_error(one, atoms) for one in target]
    np.testing.assert_allclose(families.block_circulant_error(target, p), expected, rtol=1e-9, atol=1e-12)
    projection, vectors = families.block_circulant_projection(target, p)
    for one, vector in zip(projection, vectors, strict=True):
        torch.testing.assert_close(one, dense_block_circulant(vector, d_in, d_out))


def cosine_atoms(d_out, d_in, positions):
    atoms = []
    for u, v in positions:
        spectrum = torch.zeros(d_out, d_in, dtype=torch.float64)
        spectrum[u, v] = 1
        atoms.append(torch.fft.ifft2(spectrum).real)  # as the method builds its weight change
    return torch.stack(atoms)


@pytest.mark.parametrize("shape", [(4, 4), (5, 5), (4, 6), (3, 5)])
def test_fourierft_random_is_least_squares(shape):
    target = normal(1, *shape, seed=4)
    size = shape[0] * shape[1]
    for n in (1, 3, size // 2, size):
        for seed in range(3):
            positions = torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:n]
            pairs = [(int(k) // shape[1], int(k) % shape[1]) for k in positions]
            expected = least_squares_error(target[0], cosine_atoms(*shape, pairs))
            assert float(families.fourierft_random_error(target, n, seed)) == pytest.approx(expected, abs=1e-9)


def test_fourierft_best_is_the_best_of_all_position_sets():
    from itertools import combinations

    target = normal(1, 3, 3, seed=5)
    pairs = [(u, v) for u in range(3) for v in range(3)]
    for n in (1, 2, 3):
        brute = min(least_squares_error(target[0], cosine_atoms(3, 3, chosen)) for chosen in combinations(pairs, n))
        assert float(families.fourierft_best_error(target, n)) == pytest.approx(brute, abs=1e-9)


def test_fourierft_reaches_the_even_part_only():
    target = normal(1, 6, 6, seed=6)
    even = (target + torch.roll(target.flip(1, 2), (1, 1), (1, 2))) / 2
    floor = float(families.relative_error(target, even))
    assert float(families.fourierft_best_error(target, 36)) == pytest.approx(floor, rel=1e-9)
    assert floor > 0.3
    assert float(families.fourierft_best_error(even, 36)) < 1e-7


def test_vera_recovers_a_planted_change():
    # The frozen pair that vera_error draws from this seed, and a target inside its set.
    rank, seed = 3, 7
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, 5, dtype=torch.float64, generator=generator)
    b = torch.randn(6, rank, dtype=torch.float64, generator=generator)
    target = (normal(6, seed=8)[:, None] * b) @ (normal(rank, seed=9)[:, None] * a)
    assert float(families.vera_error(target[None], rank, seed, restarts=16, sweeps=300)) < 1e-6


def test_vera_cannot_beat_its_rank():
    target = normal(4, 8, 8, seed=10)
    for rank in (1, 2, 5):
        assert (families.vera_error(target, rank, 0) >= families.lora_errors(target)[:, rank] - 1e-12).all()


@pytest.mark.parametrize("name", ENSEMBLES)
def test_draws_do_not_depend_on_their_number(name):
    assert torch.equal(draw_targets(name, 8, 4, seed=2)[:2], draw_targets(name, 8, 2, seed=2))


def test_ensembles_are_what_they_say():
    eye = torch.eye(16, dtype=torch.float64)
    house = draw_targets("householder", 16, 1, 0)[0]
    torch.testing.assert_close(house @ house, eye)
    perm = draw_targets("permutation", 16, 1, 0)[0]
    assert torch.equal(perm @ perm.T, eye)
    assert int(torch.linalg.matrix_rank(draw_targets("low_rank", 16, 1, 0)[0])) == 2
    circ = draw_targets("circulant", 16, 1, 0)[0]
    assert torch.equal(circ, dense_circulant(circ[:, 0]))
    toep = draw_targets("toeplitz", 16, 1, 0)[0]
    assert torch.equal(toep[1:, 1:], toep[:-1, :-1])
    assert toep[0, 1] != toep[15, 0]


def test_changes_are_read_and_bad_ones_named(tmp_path):
    good = tmp_path / "good.npz"
    np.savez(good, query=np.float32([[1, 2], [3, 4], [5, 6]]))
    assert read_changes(good)["query"].shape == (3, 2)
    bad = tmp_path / "bad.npz"
    np.savez(bad, query=np.zeros((2, 2)))
    with pytest.raises(UserError, match="'query' is zero"):
        read_changes(bad)
    bad.write_text("not an archive")
    with pytest.raises(UserError, match="cannot be read"):
        read_changes(bad)
    with pytest.raises(UserError, match="are not there"):
        read_changes(tmp_path / "none.npz")
    np.save(tmp_path / "one.npy", np.ones((2, 2)))
    with pytest.raises(UserError, match=r"it is no \.npz"):
        read_changes(tmp_path / "one.npy")
