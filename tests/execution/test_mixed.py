"""Batches whose rows have adapters of their own: each row as the dense matrix of its adapter has it, or refused."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from cdvft_bench.core.errors import UserError
from cdvft_bench.execution import native
from cdvft_bench.execution.mixed import mixed_change
from cdvft_bench.timing.clock import fixed_threads
from tests.execution.test_paths import dense, factors, relative

KERNELS = not native.missing(torch.float32)
needs_kernels = pytest.mark.skipif(not KERNELS, reason=f"no compiled kernels: {native.missing(torch.float32)}")
RUN = ["auto", "fft", *["native"] * KERNELS]
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
EXAMPLES = int(os.environ.get("CDVFT_FUZZ_EXAMPLES", "100"))
fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass
class Batch:
    """Operands of :func:`mixed_change`."""

    x: Any
    adapters: Any
    diagonals: list[Any]
    circulants: list[Any]
    d_out: int
    alpha: float = 0.7
    row: bool = False

    def change(self, path: str) -> Tensor:
        convention = "row" if self.row else "column"
        a, c = self.diagonals, self.circulants
        return mixed_change(self.x, self.adapters, a, c, self.d_out, alpha=self.alpha, path=path, convention=convention)

    def oracle(self, sizes: bool = False) -> Tensor:
        """By each row's dense matrix in float64, of the operands or of their sizes.

        A transform rounds relative to whole blocks: no entry of one has a size below its root mean square.
        """
        rows = list[Tensor]()
        convert = torch.abs if sizes else torch.clone
        for x, k in zip(convert(self.x.double()), self.adapters.tolist(), strict=True):
            a, c = ([convert(t[k].double()) for t in kind] for kind in (self.diagonals, self.circulants))
            c = [t.maximum(t.square().mean(-1, keepdim=True).sqrt()) for t in c] if sizes else c
            delta = dense(a, c, x.shape[-1], self.d_out, "row" if self.row else "column") * (k >= 0)
            rows.append(x @ delta.T)
        return torch.stack(rows) * convert(torch.tensor(self.alpha, dtype=torch.float64))

    def check(self, path: str, tolerance: float | None = None) -> None:
        found = self.change(path)
        assert found.dtype == self.x.dtype
        error, size = (found.double() - self.oracle()).norm(), self.oracle(sizes=True).norm()
        assert error <= (tolerance or TOLERANCE[self.x.dtype]) * size


def drawn(
    k: list[int],
    d_in: int,
    d_out: int,
    m: int,
    p: int,
    dtype: torch.dtype,
    lead: tuple[int, ...] = (),
    **rest: Any,
) -> Batch:
    own = dtype if dtype == torch.float64 else torch.float32
    each = [factors(d_in, d_out, m, p, dtype=own) for _ in range(max([*k, 0]) + 2)]
    a, c = ([torch.stack(t) for t in zip(*(one[kind] for one in each), strict=True)] for kind in (0, 1))
    return Batch(torch.randn(len(k), *lead, d_in).to(dtype), torch.tensor(k), a, c, d_out, **rest)


@fuzzed
@given(
    adapters=st.lists(st.integers(-1, 5), min_size=1, max_size=9),
    lead=st.sampled_from([(), (), (1,), (3,), (2, 2)]),
    d_in=st.integers(1, 80),
    d_out=st.integers(1, 80),
    m=st.sampled_from([0, 2, 2, 2, 3, 4]),
    p=st.sampled_from([4, 8, 12, 16, 24, 32, 40, 56, 64, 80, 96, 112]),
    dtype=st.sampled_from(list(TOLERANCE)),
    path=st.sampled_from(RUN),
    row=st.booleans(),
    alpha=st.sampled_from([1.0, -0.3, 0.0]),
    seed=st.integers(0, 2**31),
)
def test_each_row_is_its_adapters(adapters, lead, d_in, d_out, m, p, dtype, path, row, alpha, seed) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        drawn(adapters, d_in, d_out, m, p, dtype, lead, row=row, alpha=alpha).check(path)


@pytest.mark.parametrize("path", RUN)
@pytest.mark.parametrize(("d", "p"), [(768, 768), (1024, 256), (4096, 4096)])
def test_widths_of_models(path: str, d: int, p: int) -> None:
    """Path "fft" in float64, which is held to dense matrices above, is the oracle."""
    torch.manual_seed(d)
    one = drawn([3, 0, 1, -1, 3, 2, 0, 0], d, d, 2, p, torch.float32)
    wide = Batch(one.x.double(), one.adapters, *([t.double() for t in k] for k in (one.diagonals, one.circulants)), d)
    assert relative(one.change(path).double(), wide.change("fft")) < 1e-6


@needs_kernels
@pytest.mark.parametrize("m", [0, 2, 3])
@pytest.mark.parametrize("factor", [1e-12, 1e-25, 1e12, 0.0])
def test_sizes_of_row_and_adapter_may_differ(m: int, factor: float) -> None:
    """A row shares a signal with its circulant: the larger must not round the smaller away."""
    torch.manual_seed(0)
    one = drawn([0, 1, 2, 3], 64, 64, m, 64, torch.float32)
    one.check("native")
    one.x[1] *= factor
    one.circulants[0][2] *= factor
    exact, found, sizes = one.oracle(), one.change("native"), one.oracle(sizes=True)
    for i in range(4):
        assert (found[i].double() - exact[i]).norm() <= 3e-6 * sizes[i].norm()
    if factor == 0:
        assert not found[1].any()
        assert not found[2].any()


@needs_kernels
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_stays_in_its_row(value: float) -> None:
    torch.manual_seed(0)
    one = drawn([0, 1, 2, 2, 2], 64, 64, 2, 64, torch.float32)
    before = one.change("native")
    one.x[0, 3], one.x[3, 5], one.circulants[0][1, 0, 0, 7] = value, value, value
    after = one.change("native")
    assert torch.isfinite(after).all(1).tolist() == [False, False, True, False, True]
    for i in (2, 4):
        assert (after[i] - before[i]).norm() <= 1e-6 * before[i].norm()


@needs_kernels
def test_rows_do_not_depend_on_threads_or_order() -> None:
    torch.manual_seed(0)
    one = drawn([k % 7 for k in range(300)] + [6] * 150, 48, 48, 2, 48, torch.float64)
    with fixed_threads(1):
        alone = one.change("native")
    for threads in (2, 3, 5):
        with fixed_threads(threads):
            assert torch.equal(one.change("native"), alone)
    one.check("native")
    order = torch.randperm(450)
    one.x, one.adapters = one.x[order], one.adapters[order]
    shuffled = one.change("native")
    assert (shuffled - alone[order]).norm() <= 1e-14 * alone.norm()


def test_gradients_come_from_the_differentiable_path() -> None:
    torch.manual_seed(0)
    one = drawn([1, 0, -1, 1], 16, 16, 2, 16, torch.float64)
    trained = [t.requires_grad_() for t in (one.x, *one.diagonals, *one.circulants)]
    grads = torch.autograd.grad(one.change("auto").square().sum(), trained)
    wanted = torch.autograd.grad(one.oracle().square().sum(), trained)
    assert all(relative(a, b) < 1e-13 for a, b in zip(grads, wanted, strict=True))
    if KERNELS:
        with pytest.raises(UserError, match="no backward"):
            one.change("native")
        with torch.no_grad():
            one.check("native")


def short(t: Tensor) -> Tensor:
    return t[:-1]


WRONG: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "an index too large": ("adapters", lambda t: t.index_fill(0, torch.tensor([1]), len(t) + 9)),
    "an index below -1": ("adapters", lambda t: t.index_fill(0, torch.tensor([1]), -2)),
    "too few indices": ("adapters", short),
    "too many indices": ("adapters", lambda t: torch.cat([t, t])),
    "indices of int32": ("adapters", Tensor.int),
    "indices of float": ("adapters", Tensor.float),
    "indices of two axes": ("adapters", lambda t: t[:, None]),
    "one index": ("adapters", lambda t: t[0]),
    "indices elsewhere": ("adapters", lambda t: t.to("meta")),
    "a list": ("adapters", Tensor.tolist),
    "a bank too short": ("diagonals", short),
    "a circulant too few": ("circulants", short),
    "no adapters": ("circulants", lambda t: t[:0]),
    "a narrow diagonal": ("diagonals", lambda t: t[:, 1:]),
    "a wide diagonal": ("diagonals", lambda t: torch.cat([t, t], 1)),
    "one diagonal": ("diagonals", lambda t: t[0]),
    "one circulant": ("circulants", lambda t: t[0]),
    "another dtype": ("diagonals", Tensor.double),
    "integers": ("x", Tensor.int),
    "a wider x": ("x", Tensor.double),
    "a narrow x": ("x", lambda t: t[:, 1:]),
    "sparse": ("x", Tensor.to_sparse),
    "x elsewhere": ("x", lambda t: t.to("meta")),
    "one row": ("x", lambda t: t[0]),
    "x as a list": ("x", Tensor.tolist),
}


@pytest.mark.parametrize("path", RUN)
@pytest.mark.parametrize("case", WRONG)
def test_wrong_operands_are_refused(case: str, path: str) -> None:
    torch.manual_seed(0)
    one = drawn([1, 0, -1, 1], 16, 24, 2, 8, torch.float32)
    name, spoilt = WRONG[case]
    held = getattr(one, name)
    setattr(one, name, [*held[:-1], spoilt(held[-1])] if isinstance(held, list) else spoilt(held))
    with pytest.raises((ValueError, TypeError)):
        one.change(path)
    if KERNELS:
        for call in (native.mixed, torch.ops.cdvft.circulant_mixed):
            with pytest.raises((ValueError, TypeError, RuntimeError)):
                call(one.x, one.adapters, one.diagonals, one.circulants, one.d_out, 1.0, False)


def test_other_refusals() -> None:
    one = drawn([0, 1], 16, 16, 2, 16, torch.float32)
    with pytest.raises(UserError, match="'merged' does not mix adapters"):
        one.change("merged")
    one = drawn([0, 1], 22, 22, 2, 11, torch.float32)
    with pytest.raises(UserError, match=r"cannot execute this batch.*11"):
        one.change("native")
    one.check("auto")


@pytest.mark.parametrize("path", RUN)
def test_nothing_and_strided_and_under_autocast(path: str) -> None:
    torch.manual_seed(0)
    empty = drawn([0], 16, 24, 2, 8, torch.float32)
    empty.x, empty.adapters = empty.x[:0], empty.adapters[:0]
    assert empty.change(path).shape == (0, 24)
    one = drawn([0, 2, 1, 2], 16, 16, 2, 16, torch.float32)
    one.diagonals[0], one.x = one.diagonals[0].t().contiguous().t(), one.x.t().contiguous().t()
    one.circulants[0] = torch.cat([one.circulants[0]] * 2, -1)[..., ::2]
    one.adapters = one.adapters.repeat_interleave(2)[::2]
    one.check(path)
    with torch.autocast("cpu", torch.bfloat16):
        one.check(path)


def test_m_1_and_layers_of_16_bits() -> None:
    torch.manual_seed(0)
    one = Batch(torch.randn(3, 8), torch.tensor([1, -1, 0]), [torch.randn(2, 8)], [], 8, alpha=1.0)
    assert torch.allclose(one.change("auto"), one.x * one.diagonals[0][[1, 0, 0]] * torch.tensor([[1.0], [0], [1]]))
    cast = drawn([0, 1, 0], 16, 16, 2, 16, torch.bfloat16)
    cast.diagonals, cast.circulants = ([t.bfloat16() for t in kind] for kind in (cast.diagonals, cast.circulants))
    for path in RUN:
        cast.check(path)


@needs_kernels
def test_the_operator_has_shapes_without_values() -> None:
    one = drawn([0, 1], 16, 16, 2, 16, torch.float32)
    with FakeTensorMode() as mode:
        x, k, a, b, c = (mode.from_tensor(t) for t in (one.x, one.adapters, *one.diagonals, *one.circulants))
        assert torch.ops.cdvft.circulant_mixed(x, k, [a, b], [c], 16, 1.0, False).shape == (2, 16)
