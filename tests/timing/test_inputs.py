"""Inputs that are never zero, and their rotation."""

from __future__ import annotations

import pytest
import torch

from cdvft_bench.core.errors import UserError
from cdvft_bench.timing import inputs
from cdvft_bench.timing.inputs import Rotation, l2_bytes, random_inputs, rotated


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.complex64,
        torch.complex128,
        torch.int64,
        torch.int8,
    ],
)
def test_inputs_are_random_and_repeatable(dtype) -> None:
    first, second = random_inputs((40, 30), dtype, seed=1, copies=2)
    assert first.dtype == dtype
    assert first.shape == (40, 30)
    assert (first != 0).float().mean() > 0.99
    assert torch.view_as_real(first).unique().numel() > 50 if dtype.is_complex else first.unique().numel() > 50
    assert not torch.equal(first, second)
    again = random_inputs((40, 30), dtype, seed=1, copies=2)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, random_inputs((40, 30), dtype, seed=2)[0])


def test_inputs_may_take_a_gradient() -> None:
    (x,) = random_inputs((3,), requires_grad=True)
    assert x.requires_grad
    assert x.is_leaf


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    random_inputs((5,), copies=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_copies_exceed_the_cache_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    assert l2_bytes("cpu") == 0
    assert len(random_inputs((8,), copies=None)) == 1
    monkeypatch.setattr("cdvft_bench.timing.inputs.l2_bytes", lambda device: 1000)
    inputs = random_inputs((25,), copies=None)  # 100 bytes each
    assert sum(t.numel() * t.element_size() for t in inputs) > 2000
    assert len(inputs) == 21


@pytest.mark.parametrize("copies", [0, -1])
def test_too_few_copies_are_refused(copies) -> None:
    with pytest.raises(UserError, match="copies"):
        random_inputs((3,), copies=copies)


def test_booleans_are_refused() -> None:
    with pytest.raises(UserError, match="booleans"):
        random_inputs((3,), torch.bool)


def test_a_rotation_goes_round() -> None:
    rotation = Rotation("abc")
    seen = []
    for _ in range(7):
        seen.append(rotation.current)
        rotation.advance()
    assert "".join(seen) == "abcabca"
    assert len(rotation) == 3
    with pytest.raises(UserError, match="no inputs"):
        Rotation([])


def test_rotated_inputs_exceed_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(8, 16, requires_grad=True)
    assert len(rotated(x)) == 1  # a CPU's caches are not asked for
    monkeypatch.setattr(inputs, "l2_bytes", lambda device: 1000)
    rotation = rotated(x)
    assert rotation.current is x
    assert len(rotation) * x.numel() * 4 > 2000
    seen = []
    for _ in range(len(rotation)):
        seen.append(rotation.current)
        rotation.advance()
    assert len({t.data_ptr() for t in seen}) == len(rotation)
    assert all(t.requires_grad and t.any() and t.shape == x.shape for t in seen)
