"""A call that is like an earlier one goes a shorter way, and gives what the long way gives, bit for bit."""

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cdvft_bench.core.errors import UserError
from cdvft_bench.execution import native, paths, repeats
from cdvft_bench.execution.native import kernels
from cdvft_bench.execution.paths import FastBlockCirculantLinear, FastCDVFTLinear

pytestmark = pytest.mark.skipif(bool(native.missing(torch.float32)), reason="no compiled kernels")

Layer = FastCDVFTLinear | FastBlockCirculantLinear


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    kernels.of_thread.known.clear()
    yield
    kernels.of_thread.known.clear()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the calls so far went the shorter way, forward and backward."""
    went: list[str] = []

    def seen(name: str) -> None:
        real: Callable[..., object] = getattr(repeats, name)

        def watched(*given: object) -> object:
            found = real(*given)
            if found is not None:
                went.append(name)
            return found

        monkeypatch.setattr(repeats, name, watched)

    seen("forward")
    seen("backward")
    return went


def adapted(d_in: int = 48, d_out: int = 48, bias: bool = True, **options: object) -> FastCDVFTLinear:
    torch.manual_seed(0)
    return FastCDVFTLinear(nn.Linear(d_in, d_out, bias=bias), path="native", init="random", **options)  # type: ignore[arg-type]


def passes(layer: Layer, x: Tensor, g: Tensor) -> list[Tensor]:
    layer.zero_grad()
    x.grad = None
    h = layer(x)
    h.backward(g)
    found = [x.grad] if x.requires_grad else []
    return [h.detach(), *(t for t in (*found, *(p.grad for p in layer.parameters())) if t is not None)]


def the_long_way(layer: Layer, x: Tensor, g: Tensor) -> list[Tensor]:
    kernels.of_thread.known.clear()
    return passes(layer, x, g)


LAYERS: dict[str, Callable[[], Layer]] = {
    "square": adapted,
    "wide": lambda: adapted(32, 96, m=3, block_size=32, alpha=0.5),
    "narrow": lambda: adapted(96, 40, bias=False, block_size=16),
    "padded, row": lambda: adapted(50, 70, convention="row", block_size=32),
    "block-circulant": lambda: FastBlockCirculantLinear(nn.Linear(48, 96), block_size=16, path="native"),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("lead", [(5,), (2, 3), (), (1, 1)])
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_gives_what_the_long_way_gives(
    name: str, lead: tuple[int, ...], wanted: bool, dtype: torch.dtype, short: list[str]
) -> None:
    layer = LAYERS[name]()
    layer.base.to(dtype)
    d_out, d_in = layer.base.weight.shape
    x = torch.randn(*lead, d_in, dtype=dtype, requires_grad=wanted)
    g = torch.randn(*lead, d_out, dtype=dtype)
    long = the_long_way(layer, x, g)
    assert not short
    for given in (g, torch.stack([g, g], -1)[..., 0]):  # in memory, and with gaps
        for a, b in zip(passes(layer, x, given), long, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert short == ["forward", "backward"] * 2
    x = torch.randn(*lead, d_in, dtype=dtype, requires_grad=wanted)  # other values, the same shapes
    for a, b in zip(passes(layer, x, g), the_long_way(layer, x, g), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wanted", [True, False])
def test_so_it_does_under_autocast(name: str, given: torch.dtype, wanted: bool, short: list[str]) -> None:
    """A base that is held in autocast's dtype; x is cast where it is not."""
    layer = LAYERS[name]()
    layer.base.to(torch.bfloat16)
    d_out, d_in = layer.base.weight.shape
    x = torch.randn(2, 3, d_in, dtype=given, requires_grad=wanted)
    g = torch.randn(2, 3, d_out, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        long = the_long_way(layer, x, g)
        assert not short
        again = passes(layer, x, g)
    assert short == ["forward", "backward"]
    for a, b in zip(again, long, strict=True):
        assert a.dtype is b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    with torch.autocast("cpu", torch.float16):
        assert layer(x).dtype is torch.float16
    if given is torch.float32:
        with pytest.raises((TypeError, RuntimeError)):
            layer(x)
    assert short == ["forward", "backward"]


def test_a_base_that_autocast_casts_goes_the_long_way(short: list[str]) -> None:
    layer, x = adapted(), torch.randn(4, 48)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype is torch.bfloat16
        assert layer(x).dtype is torch.float32
    assert short == ["forward"]


def test_one_gradient_for_all_outputs_and_none_at_all(short: list[str]) -> None:
    layer, x = adapted(), torch.randn(4, 48, requires_grad=True)
    layer(x).sum().backward()
    long = x.grad
    x.grad = None
    layer(x).sum().backward()  # an expanded gradient: one number in memory
    assert short == ["forward", "backward"]
    torch.testing.assert_close(x.grad, long, rtol=0, atol=0)
    with torch.no_grad():
        layer(x)
        assert not layer(x).requires_grad
    with torch.inference_mode():
        assert layer(x).is_inference()


class Watching(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Tagged(torch.Tensor):
    pass


def test_who_looks_on_sees_the_operators(short: list[str]) -> None:
    layer, x = adapted(), torch.randn(4, 48)
    layer(x)
    layer(x)
    assert short == ["forward"]
    with Watching() as mode:
        layer(x)
    assert "cdvft.circulant_forward.default" in mode.seen
    with torch.profiler.profile() as profile:
        layer(x)
    assert any(event.key == "cdvft::circulant_forward" for event in profile.key_averages())
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype is torch.bfloat16
    with native.counting() as counts:
        layer(x)
    assert counts
    assert type(layer(x.as_subclass(Tagged))) is Tagged
    with pytest.raises(UserError, match="opaque to torch"):
        torch.func.grad(lambda one: layer(one).sum())(x)
    assert short == ["forward"]


def test_a_backward_that_is_not_like_its_forward_goes_the_long_way(short: list[str]) -> None:
    layer, x, g = adapted(), torch.randn(4, 48, requires_grad=True), torch.randn(4, 48)
    long = the_long_way(layer, x, g)

    def again(h: Tensor) -> list[Tensor]:
        return [*torch.autograd.grad(h, [x, *layer.diagonals, *layer.circulants], g)]

    h = layer(x)
    found: list[list[Tensor]] = []
    worker = threading.Thread(target=lambda: found.append(again(h)))
    worker.start()
    worker.join()
    h = layer(x)
    with torch.profiler.profile():
        found.append(again(h))
    h = layer(x)
    with native.counting() as counts:
        found.append(again(h))
    assert counts
    before = torch.get_num_threads()
    h = layer(x)
    torch.set_num_threads(before + 1)
    try:
        found.append(again(h))
    finally:
        torch.set_num_threads(before)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t.double() if t is x else t):
        h = layer(x)
    found.append(again(h))
    assert "backward" not in short
    for grads in found:
        for a, b in zip(grads, long[1:], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)  # threads add up in another order


def test_what_was_saved_may_be_another(short: list[str]) -> None:
    layer, x = adapted(), torch.randn(4, 5, 48, requires_grad=True)
    g = torch.randn(4, 5, 48)
    long = the_long_way(layer, x, g)[1:]
    swaps: list[Callable[[], object]] = [
        lambda: setattr(x, "data", x.detach().transpose(0, 1).contiguous().transpose(0, 1)),
        lambda: setattr(layer.base.weight, "data", layer.base.weight.detach().half()),
    ]
    for swap in swaps:  # between forward and backward
        x.data = x.detach().contiguous()
        h = layer(x)
        swap()
        found = torch.autograd.grad(h, [x, *layer.diagonals, *layer.circulants], g)
        for a, b in zip(found, long, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)
    assert short == ["forward", "forward"]


def test_a_compiled_backward_of_an_eager_forward(short: list[str]) -> None:
    layer, x = adapted(), torch.randn(4, 48, requires_grad=True)
    long = the_long_way(layer, x, torch.ones(4, 48))[1]
    h, x.grad = layer(x), None
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True)):
        h.sum().backward()
    assert short == ["forward"]
    torch.testing.assert_close(x.grad, long, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lead", [(2, 3), (), (4,)])
def test_an_output_may_be_changed_in_place(lead: tuple[int, ...]) -> None:
    layer, x = adapted(), torch.randn(*lead, 48, requires_grad=True)
    found = []
    for _ in range(2):  # the long way, and the shorter
        x.grad = None
        h = layer(x)
        h[..., :3] *= 2
        h.relu_().sum().backward()
        assert x.grad is not None
        found.append(x.grad)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["sparse weight", "zero gradient", "sparse gradient", "batched gradient"])
def test_odd_operands_are_told_as_ever(kind: str) -> None:
    layer, x = adapted(), torch.randn(4, 48, requires_grad=True)

    def told() -> str:
        g = torch.randn(4, 48)
        h = layer(x)
        try:
            if kind == "sparse weight":
                layer.base.weight = nn.Parameter(layer.base.weight.detach().to_sparse_csr(), requires_grad=False)
                layer(x)
            elif kind == "batched gradient":
                torch.autograd.grad(h, x, torch.stack([g, g]), is_grads_batched=True)
            else:
                h.backward(torch._efficientzerotensor((4, 48)) if kind == "zero gradient" else g.to_sparse())
        except (RuntimeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"

    dense = layer.base.weight
    first = told()
    layer.base.weight = dense
    assert told() == first


def test_memory_is_looked_at_at_every_call() -> None:
    layer, x = adapted(), torch.randn(4, 48)
    wanted = layer(x).detach()
    stretched = torch.randn(4, 96)[:, ::2].copy_(x)
    torch.testing.assert_close(layer(stretched), wanted, rtol=1e-6, atol=1e-6)
    moved = torch.cat([torch.zeros(7, 48), x])[7:]
    torch.testing.assert_close(layer(moved), wanted, rtol=0, atol=0)
    turned = torch.complex(torch.zeros(4, 48), -x).conj().imag  # its sign is a flag
    assert turned.is_neg()
    torch.testing.assert_close(layer(turned), wanted, rtol=0, atol=0)
    freed = x.clone()
    freed.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="beyond its storage"):
        layer(freed)
    part = torch.randn(8, 48)[4:]
    part.untyped_storage().resize_(5 * 48 * 4)
    with pytest.raises(ValueError, match="beyond its storage"):
        layer(part)
    layer.circulants()[0].untyped_storage().resize_(8)
    with pytest.raises(ValueError, match="beyond its storage"):
        layer(x)


def test_what_changes_between_calls_is_seen(short: list[str]) -> None:
    layer, x = adapted(), torch.randn(4, 48)
    before = layer(x)
    with torch.no_grad():
        layer.circulants()[0].mul_(2)
    assert not torch.equal(layer(x), before)
    layer.base.register_forward_hook(lambda module, given, output: output + 1)
    torch.testing.assert_close(layer(x), paths.change(x, layer.diagonals(), layer.circulants(), 48) + layer.base(x))
    assert short == ["forward"]
    fresh = adapted().double()
    assert fresh(x.double()).dtype is torch.float64
    for wrong in (x.double(), x[:, :47], x.to("meta")):
        with pytest.raises((RuntimeError, TypeError, ValueError)):
            adapted()(wrong)
    weight = layer.base.weight
    with torch.no_grad():
        args = (x, weight.requires_grad_(), layer.base.bias, layer.diagonals(), layer.circulants())
        paths.adapted_linear(*args, path="native")
        paths.adapted_linear(*args, path="native")
    with pytest.raises(ValueError, match="must be frozen"):
        paths.adapted_linear(*args, path="native")


def test_a_tensor_of_a_transform_that_has_ended(short: list[str]) -> None:
    layer, x, kept = adapted(), torch.randn(4, 48), []

    def leaking(one: Tensor) -> Tensor:
        kept.append(one)
        return one.sum()

    torch.func.grad(leaking)(x)
    wanted = layer(x)
    torch.testing.assert_close(layer(kept[0]), wanted, rtol=0, atol=0)


def test_a_second_derivative_is_refused_as_ever() -> None:
    layer, x = adapted(), torch.randn(4, 48, requires_grad=True)
    for _ in range(2):
        (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


def test_calls_of_many_shapes_are_not_kept_for_ever() -> None:
    layer = adapted()
    for rows in range(1, 300):
        layer(torch.zeros(rows, 48))
    assert 0 < len(kernels.of_thread.known) <= 256
