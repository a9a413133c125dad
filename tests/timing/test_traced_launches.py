"""What a CPU trace counts is what a dispatch mode sees, forward and backward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import record_function
from torch.utils._python_dispatch import TorchDispatchMode

from cdvft_bench.timing.trace import trace_call
from cdvft_reference import BlockCirculantLinear, CDVFTLinear

IN_PLACE = {"add_": "add", "_index_put_impl_": "index_put"}  # under a dispatch mode autograd works out of place
SILENT = {"detach", "alias", "_unsafe_view", "lift_fresh", "_local_scalar_dense"}


class Seen(TorchDispatchMode):
    """Names of the operators that reach a kernel: no views, no bare allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, _, name = func._schema.name.partition("::")
        if namespace == "aten" and not func.is_view and name not in SILENT and "empty" not in name:
            self.names[IN_PLACE.get(name, name)] += 1
        return func(*args, **(kwargs or {}))


def dispatched(call: Callable[[], object]) -> Counter[str]:
    with Seen() as seen:
        call()
    return seen.names


def traced(call: Callable[[], object]) -> Counter[str]:
    summary = trace_call(call)
    names: Counter[str] = Counter()
    for name, count in summary.by_operator.items():
        names[IN_PLACE.get(name, name)] += count
    assert summary.device == "cpu"
    assert summary.launches == summary.dispatched == sum(names.values()) == sum(summary.scopes.values())
    return names


def x(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape))).requires_grad_()


A, B, W = x(6, 8), x(8, 5), x(5, 8)
CASES: dict[str, Callable[[], torch.Tensor]] = {
    "product": lambda: A @ B,
    "linear": lambda: nn.functional.linear(A, W),
    "linear with a bias, three dimensions": lambda: nn.functional.linear(A.view(2, 3, 8), W, B[0]),
    "element-wise": lambda: (A * 2 + A).tanh() / 3,
    "views only": lambda: A.t().reshape(2, 4, 6).transpose(0, 1).unsqueeze(0),
    "a reshape that copies": lambda: A.t().reshape(-1),
    "real FFT and back": lambda: torch.fft.irfft(torch.fft.rfft(A), n=8),
    "circular convolution": lambda: torch.fft.irfft(torch.fft.rfft(A) * torch.fft.rfft(W[0]), n=8),
    "a conjugate": lambda: (torch.fft.rfft(A).conj() * torch.fft.rfft(A)).real,
    "sums and norms": lambda: A.sum(0) + A.mean(0) + A.norm(dim=0),
    "casts": lambda: A.to(torch.bfloat16).float() + A.double(),
    "layer norm": lambda: nn.functional.layer_norm(A, (8,)),
    "softmax": lambda: A.softmax(-1),
    "concatenation and padding": lambda: nn.functional.pad(torch.cat([A, A]), (0, 3)),
    "indexing": lambda: A[[0, 2, 2]] + A[1:4],
    "used twice": lambda: A.exp() * A.exp() + A,
}


@pytest.mark.parametrize("name", CASES)
def test_forward_and_backward_agree(name) -> None:
    call = CASES[name]
    assert traced(call) == dispatched(call)
    gradient = torch.randn_like(call())

    def step() -> None:
        A.grad = B.grad = W.grad = None
        call().backward(gradient)

    assert traced(step) == dispatched(step)
    no_grad = torch.no_grad()(call)
    assert traced(no_grad) == dispatched(no_grad)


def layers() -> list[nn.Module]:
    generator = torch.Generator().manual_seed(1)
    return [
        CDVFTLinear(nn.Linear(24, 16), m=m, block_size=p, init="random", path=path, generator=generator)
        for m in (1, 2, 3)
        for p in (None, 5)
        for path in ("fft", "handwritten")
    ] + [BlockCirculantLinear(nn.Linear(24, 24), block_size=8)]


@pytest.mark.parametrize("layer", layers(), ids=repr)
def test_the_reference_layers_agree(layer: nn.Module) -> None:
    inputs = x(4, 24)
    optimizer = torch.optim.AdamW([p for p in layer.parameters() if p.requires_grad], fused=True)
    gradient = torch.randn_like(layer(inputs))

    def step() -> None:
        inputs.grad = None
        optimizer.zero_grad(set_to_none=True)
        layer(inputs).backward(gradient)
        optimizer.step()

    assert traced(step) == dispatched(step)


def test_operators_on_empty_tensors_are_counted_as_documented() -> None:
    empty = torch.empty(0, 4)
    assert traced(lambda: empty * 2) == {"mul": 1}


def test_backward_launches_belong_to_the_scope_of_their_forward() -> None:
    base, adapter = nn.Linear(8, 8, bias=False).requires_grad_(False), x(8)
    inputs = x(3, 8)
    gradient = torch.randn(3, 8)

    def step() -> None:
        inputs.grad = adapter.grad = None
        with record_function("base"):
            h = base(inputs)
        with record_function("adapter"):
            change = inputs * adapter
        (h + change).backward(gradient)

    summary = trace_call(step)
    # Base: a matrix product forward, one backward. Adapter: a product forward; two and the sum over tokens backward.
    # Both gradients of the inputs are added by whichever of them comes last; the sum of both outputs is in no scope.
    assert summary.by_operator == {"mm": 2, "mul": 3, "sum": 1, "add": 1, "add_": 1}
    assert summary.scopes["base"] + summary.scopes["adapter"] == 7
    assert summary.scopes["base"] in (2, 3)
    assert summary.scopes["unscoped"] == 1


def test_nested_scopes_count_for_the_innermost() -> None:
    def call() -> None:
        with record_function("model"):
            y = A * 2
            with record_function("adapter"):
                y = y + A
        y.sum()

    assert trace_call(call).scopes == {"model": 1, "adapter": 1, "unscoped": 1}


def test_a_cpu_trace_measures_time_by_family() -> None:
    big, t = torch.randn(512, 512), torch.randn(8, 8)
    products = trace_call(lambda: [big @ big for _ in range(4)])
    assert max(products.families, key=products.families.__getitem__) == "matmul"
    assert products.busy_fraction is not None
    assert 0 < products.busy_fraction <= 1
    assert products.device_seconds == 0
    assert products.span_seconds > 0
    assert products.host_seconds <= products.span_seconds

    def overhead() -> None:
        for _ in range(20):
            t.add(1)
            sum(range(20_000))

    spent = trace_call(overhead)
    assert spent.verdict == "launch-bound"
    moving = trace_call(lambda: big.exp())
    assert (moving.verdict, moving.evidence) == ("bandwidth-bound", 1.0)
    blind = trace_call(lambda: big.exp(), shapes=False)
    assert (blind.verdict, "shapes were recorded for 0%" in blind.reason) == ("unknown", True)
    intensity = trace_call(lambda: big @ big)
    assert "FLOPs a byte" in intensity.reason
    assert "shapes were not recorded" in trace_call(lambda: big @ big, shapes=False).reason


def test_profiling_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    import sys

    def call() -> None:
        print("from the call", file=sys.stderr, flush=True)

    trace_call(lambda: (call(), A * 2), warm_ups=0)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "from the call\n"
