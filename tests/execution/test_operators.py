"""The registered operators, called directly: they check for themselves, and so does what is called around torch."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cdvft_bench.execution import native
from cdvft_bench.execution.paths import FastCDVFTLinear, adapted_linear
from tests.execution.test_operands import WRONG, Operands, nested, of_shape
from tests.execution.test_paths import relative

pytestmark = pytest.mark.skipif(
    bool(native.missing(torch.float32)), reason=f"no compiled kernels: {native.missing(torch.float32)}"
)


def call_forward(some: Operands) -> Tensor:
    return torch.ops.cdvft.circulant_forward(some.x, some.bias, some.diagonals, some.circulants, some.d_out, 1.0, False)


def call_backward(some: Operands, g: Any = None) -> list[Tensor]:
    g = torch.randn(3, 48) if g is None else g
    return torch.ops.cdvft.circulant_backward(some.x, g, some.diagonals, some.circulants, 1.0, False, True)


@pytest.mark.parametrize("case", WRONG)
def test_the_operators_refuse_a_wrong_operand(case: str) -> None:
    where, i, made, _, _ = WRONG[case]
    wrong = Operands.drawn(3).but(where, made, i)
    # What no kernel is registered for (sparse tensors) the dispatcher refuses, what is no tensor its schema.
    for call in (call_forward, call_backward):
        with pytest.raises((ValueError, TypeError, NotImplementedError, RuntimeError)):
            call(wrong)
    if where == "x" or made not in (torch.Tensor.tolist, nested):
        with pytest.raises((ValueError, TypeError)):
            native.forward(wrong.x, wrong.bias, wrong.diagonals, wrong.circulants, 48, 1.0, False)


def test_the_operators_refuse_what_only_they_are_given() -> None:
    some = Operands.drawn(2)
    call_forward(some), call_backward(some)
    for made in (of_shape(8), of_shape(1), of_shape(1, 48), torch.Tensor.double, lambda t: t.to("meta")):
        with pytest.raises((ValueError, TypeError), match="bias"):
            call_forward(some.but("bias", made))
    for g in (
        torch.randn(2, 48),
        torch.randn(4, 48),
        torch.randn(3, 48).double(),
        torch.randn(48),
        torch.randn(3, 48, device="meta"),
    ):
        with pytest.raises((ValueError, TypeError), match="g "):
            call_backward(some, g)
    with pytest.raises(ValueError, match=r"diagonals\[1\]"):
        call_backward(some, torch.randn(3, 47))
    for x in (torch.randn(64), torch.randn(2, 3, 64), torch.randn(3, 64).double()):
        with pytest.raises((ValueError, TypeError), match="x "):
            call_forward(replace(some, x=x))
    for d_out in (47, 49, 0, -1, 2**40):
        with pytest.raises(ValueError, match=str(d_out).lstrip("-")):
            call_forward(replace(some, bias=None, d_out=d_out))
    with pytest.raises(ValueError, match="at least one circulant"):
        call_forward(replace(some, diagonals=some.diagonals[:1], circulants=[]))
    with pytest.raises(RuntimeError, match="fewer than 16 circulant factors"):
        call_forward(
            replace(
                some,
                diagonals=[*some.diagonals[:1], *some.diagonals[1:] * 17],
                circulants=[*some.circulants, *[torch.randn(3, 3, 16)] * 16],
            )
        )


def test_the_operators_do_not_mistake_one_layer_for_another() -> None:
    """The structures that wait for pointers are told apart by sizes: what fits one must not be read as the other."""
    some = Operands.drawn(2)
    call_forward(some), call_backward(some)
    for wrong in (
        some.but("diagonals", of_shape(8), 1),
        some.but("diagonals", torch.Tensor.double, 1),
        some.but("circulants", of_shape(3, 5, 16)),
        some.but("diagonals", lambda t: t.to("meta"), 0),
    ):
        for call in (call_forward, call_backward):
            with pytest.raises((ValueError, TypeError)):
                call(wrong)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_the_kernels_refuse_stand_ins_and_freed_memory() -> None:
    some = Operands.drawn(2)
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(t) for t in (some.x, *some.diagonals, *some.circulants)]
        assert torch.ops.cdvft.circulant_forward(fake[0], None, fake[1:3], fake[3:], 48, 1.0, False).shape == (3, 48)
    with pytest.raises((ValueError, RuntimeError)):
        native.forward(fake[0], None, fake[1:3], fake[3:], 48, 1.0, False)
    with pytest.raises(ValueError, match="on device meta"):
        native.forward(
            *(t.to("meta") for t in (some.x, some.bias)),
            [t.to("meta") for t in some.diagonals],
            [t.to("meta") for t in some.circulants],
            48,
            1.0,
            False,
        )
    freed = copy.deepcopy(some)
    freed.diagonals[1].untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="beyond its storage"):
        call_forward(freed)


@pytest.mark.parametrize("made", [of_shape(8), of_shape(1), torch.Tensor.double])
def test_what_hooks_give_back_to_backward_is_checked(made: Callable[[Tensor], Tensor]) -> None:
    """Saved tensors may come back from a hook, and parameters may be given other data, between the passes."""
    some = Operands.drawn(2)
    trained = [t.requires_grad_() for t in (some.x, *some.diagonals, *some.circulants)]
    last = some.diagonals[1]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: made(t) if t.shape == last.shape else t):
        h = some.change("native")
    with pytest.raises((ValueError, TypeError), match="diagonals"):
        torch.autograd.grad(h, trained, torch.randn(3, 48))
    h = some.change("native")
    last.data = torch.ones(8)
    with pytest.raises((ValueError, RuntimeError)):
        torch.autograd.grad(h, trained, torch.randn(3, 48))


def call_merged(some: Operands, diagonals: int | None = None) -> Tensor:
    m = len(some.diagonals) if diagonals is None else diagonals
    factors = [*some.diagonals, *some.circulants]
    return torch.ops.cdvft.merged_forward(some.x, some.weight, some.bias, factors, m, 0.7, False, None)


def call_merged_back(some: Operands, g: Any = None, dense: bool = False, diagonals: int | None = None) -> list[Tensor]:
    m = len(some.diagonals) if diagonals is None else diagonals
    factors, g = [*some.diagonals, *some.circulants], torch.randn(3, 48) if g is None else g
    return torch.ops.cdvft.merged_backward(some.x, g, some.weight, factors, m, 0.7, False, dense, True)


@pytest.mark.parametrize("case", WRONG)
def test_so_do_the_merged_paths(case: str) -> None:
    where, i, made, _, _ = WRONG[case]
    wrong = Operands.drawn(3).but(where, made, i)
    for call in (call_merged, call_merged_back):
        with pytest.raises((ValueError, TypeError, NotImplementedError, RuntimeError)):
            call(wrong)


def test_the_merged_paths_refuse_what_only_they_are_given() -> None:
    some, g = Operands.drawn(2), torch.randn(3, 48)
    h = call_merged(some)
    expected = adapted_linear(some.x, some.weight, some.bias, some.diagonals, some.circulants, alpha=0.7, path="fft")
    assert relative(h, expected) < 1e-5
    whole, folded = call_merged_back(some, g), call_merged_back(some, g, dense=True)
    assert all(relative(a, b) < 1e-5 for a, b in zip(whole, folded, strict=True))
    for made in (of_shape(8), of_shape(1), torch.Tensor.double, lambda t: t.to("meta")):
        with pytest.raises((ValueError, TypeError), match="bias"):
            call_merged(some.but("bias", made))
    for made in (of_shape(47, 64), of_shape(48, 63), torch.Tensor.double):
        for call in (call_merged, call_merged_back):
            with pytest.raises((ValueError, TypeError)):
                call(some.but("weight", made))
    for wrong in (g[:2], torch.randn(3, 47), torch.randn(3, 49), torch.randn(48), g.to("meta")):
        for dense in (False, True):
            with pytest.raises(ValueError, match="g "):
                call_merged_back(some, wrong, dense)
    for diagonals in (-1, 4, 3, 1, 0):
        with pytest.raises((ValueError, TypeError), match="diagonals"):
            call_merged(some, diagonals)
        with pytest.raises((ValueError, TypeError), match="diagonals"):
            call_merged_back(some, g, diagonals=diagonals)
    with pytest.raises(ValueError, match="2 circulants; the dense gradient"):
        call_merged_back(Operands.drawn(3), g, dense=True)
    with pytest.raises(ValueError, match=r"x has shape \(1, 3, 64\)"):
        call_merged_back(replace(some, x=some.x[None]), g)
    given = (some.x, some.weight, some.diagonals[0], torch.ones(8), some.circulants[0])
    with FakeTensorMode() as mode:
        x, weight, *factors = (mode.from_tensor(t) for t in given)
        with pytest.raises(ValueError, match=r"diagonals\[1\]"):
            torch.ops.cdvft.merged_forward(x, weight, None, factors, 2, 0.7, False, None)


class Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func.name()))
        return func(*args, **(kwargs or {}))


class SeenFunctions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, torch._ops.OpOverload):
            self.names.append(str(func.name()))
        return func(*args, **(kwargs or {}))


def test_whoever_looks_on_sees_one_operator_a_pass() -> None:
    """Elsewhere a layer calls the kernels without the dispatcher; what it computes is the same."""
    torch.manual_seed(0)
    layer = FastCDVFTLinear(nn.Linear(48, 48), "native", block_size=16, init="random")
    x, g = torch.randn(3, 48, requires_grad=True), torch.randn(3, 48)
    trained = [x, *(p for p in layer.parameters() if p.requires_grad)]

    def step() -> list[Tensor]:
        h = layer(x)
        return [h, *torch.autograd.grad(h, trained, g)]

    plain, wanted = step(), ["cdvft::circulant_forward", "cdvft::circulant_backward"]
    with Seen() as dispatched:
        found = step()
    assert [name for name in dispatched.names if name.startswith("cdvft")] == wanted
    assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))
    with SeenFunctions() as called:
        step()
    assert "cdvft::circulant_forward" in called.names
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        step()
    names = [event.name for event in profiled.events()]
    assert [names.count(name) for name in wanted] == [1, 1]
