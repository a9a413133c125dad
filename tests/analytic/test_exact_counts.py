"""Closed forms never wrap: Python's integers, or arrays that hold what the products of large sizes need."""

import numpy as np
import pytest

from cdvft_bench.analytic.circulant import Factor
from cdvft_bench.analytic.cost import PASSES, total
from cdvft_bench.analytic.kernels import Kernel, countable, fft, mm, times
from cdvft_bench.analytic.linear import LinearShape, frozen_forward
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import make_method, method_names

LARGE = {"cdvft": {"path": "fused", "block_size": 1024}, "block_circulant": {"path": "merged", "block_size": 1024}}


@pytest.mark.parametrize("name", method_names())
def test_grids_of_large_sizes_do_not_wrap(name) -> None:
    """2^21 wide, 2^22 tokens: more than 64 bits hold. One by one and in a grid, in numpy's integers or in Python's."""
    method = make_method(name, LARGE.get(name))
    d, tokens = 2**21, 2**22
    one = method.cost(LinearShape(d, d), tokens, device="cpu")
    assert int(one.total("forward").macs) >= 2**64
    second = 1024
    small = method.cost(LinearShape(second, second), 3, device="cpu")
    wide, narrow = np.array([d, second]), np.array([tokens, 3])
    for widths, rows in (
        (wide, narrow),
        (wide, tokens),
        (d, narrow),
        (wide.astype(object), narrow),
        (wide, narrow.astype(np.uint32)),
    ):
        cost = method.cost(LinearShape(widths, widths), rows, device="cpu")
        for pass_ in PASSES:
            ours, theirs = cost.total(pass_), one.total(pass_)
            for field in ("macs", "elementwise_flops", "ffts", "launches", "read", "written"):
                found = np.broadcast_to(np.asarray(getattr(ours, field), dtype=object), (2,))
                assert int(found[0]) == getattr(theirs, field), (pass_, field)
                if np.ndim(widths) and np.ndim(rows):
                    assert int(found[1]) == getattr(small.total(pass_), field), (pass_, field)
            assert np.broadcast_to(cost.flops(pass_, "flop"), (2,))[0] == pytest.approx(one.flops(pass_, "flop"))
        for field in ("parameters", "saved_bytes", "optimizer_bytes"):
            found = np.broadcast_to(np.asarray(getattr(cost, field), dtype=object), (2,))
            assert int(found[0]) == getattr(one, field)
    many = (one * 10**6).total("step")
    assert many.read == one.total("step").read * 10**6
    grid = method.cost(LinearShape(np.array([2048]), np.array([2048])), 2**14, device="cpu") * 10**9
    alone = method.cost(LinearShape(2048, 2048), 2**14, device="cpu")
    for field in ("read", "macs"):
        found = np.ravel(getattr(grid.total("step"), field))[0]
        assert int(found) == getattr(alone.total("step"), field) * 10**9


def test_a_hyperparameter_that_is_large_does_not_wrap() -> None:
    rank = 10**15
    one = make_method("lora", {"rank": rank}).cost(LinearShape(768, 768), 1024, device="cpu")
    grid = make_method("lora", {"rank": rank}).cost(
        LinearShape(np.array([768, 8]), np.array([768, 8])), 1024, device="cpu"
    )
    assert np.ravel(grid.parameters)[0] == one.parameters == 2 * 768 * rank
    assert np.ravel(grid.total("step").macs)[0] == one.total("step").macs


def test_the_atoms_of_closed_forms_do_not_wrap() -> None:
    big, small = np.array([2**40]), np.array([3])
    assert mm(big, big, big, "float32").macs[0] == 2**120  # type: ignore[index]
    assert mm(np.int64(2**40), 2**40, np.int64(2**40), "float32").macs == 2**120
    assert fft("_fft_r2c", big, big, "float32").read[0] == 2**82  # type: ignore[index]
    kernel = Kernel("mul", "elementwise", launches=big, read=big, macs=small)
    assert total((kernel, kernel)).read[0] == 2**81  # type: ignore[index]
    assert total(times((kernel,), 2**40)).macs[0] == 3 * 2**80  # type: ignore[index]
    assert frozen_forward(LinearShape(2**21, 2**21), np.array([2**22]), "float32")[0].macs[0] == 2**64  # type: ignore[index]
    assert Factor(big, big, 2**20, big, "float32").forward()[-1].written[0] == 2**82  # type: ignore[index]
    assert countable(np.array([5, 6]), 7)[0].dtype == np.int64  # type: ignore[union-attr]
    assert countable(np.array([5, 6]), 2**15)[0].dtype == object  # type: ignore[union-attr]
    assert type(countable(np.int32(5))[0]) is int
    with pytest.raises(UserError, match=r"tokens = 1\.5 is not an integer"):
        make_method("lora").cost(LinearShape(8, 8), 1.5, device="cpu")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="d_in = True"):
        LinearShape(True, 8)
    assert LinearShape(10**30, 8).weights == 8 * 10**30


def test_a_closed_form_writes_out_so_many_factors_and_no_more() -> None:
    assert make_method("cdvft", {"m": 256}).cost(LinearShape(8, 8), 2, device="cpu").tensors == 511
    with pytest.raises(UserError, match="m = 257 is too large"):
        make_method("cdvft", {"m": 257})
    for rank in (1, 5, 10**12):
        one = make_method("hra", {"rank": rank}).cost(LinearShape(8, 8), 2, device="cpu")
        assert one.parameters == 8 * rank
        assert sum(k.launches for k in one.backward if k.op == "select_backward") == rank
