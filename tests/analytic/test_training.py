"""Memory as people train, by formula: against real optimisers, real quantised weights, real chunks of a loss."""

import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdvft_bench.analytic.cost import total
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.training import (
    Training,
    chunked_loss,
    clipping,
    dequantised,
    held_bytes,
    state_bytes,
    update_kernels,
)
from cdvft_bench.core.counted import PassCount
from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.count import saved_bytes
from cdvft_bench.counting.dispatch import count_dispatch


def drawn(seed: int) -> list[tuple[int, ...]]:
    """Shapes of parameters: vectors, matrices, and one of three dimensions."""
    rng = random.Random(seed)
    shapes = [tuple(rng.randint(1, 90) for _ in range(rng.choice((1, 2, 2, 2, 3)))) for _ in range(8)]
    return [*shapes, (70, 80), (64, 64), (rng.randint(5000, 6000),)]


def held_by(optimizer: torch.optim.Optimizer) -> int:
    states = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    return sum(v.numel() * v.element_size() for v in states)


def stepped(make: object, shapes: list[tuple[int, ...]], dtype: torch.dtype) -> int:
    parameters = [nn.Parameter(torch.randn(shape).to(dtype)) for shape in shapes]
    optimizer = make(parameters)  # type: ignore[operator]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return held_by(optimizer)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("seed", range(3))
def test_states_are_those_of_real_optimisers(seed: int, dtype: str) -> None:
    from transformers.optimization import Adafactor

    shapes, real = drawn(seed), getattr(torch, dtype)
    assert state_bytes(shapes, "adamw", dtype) == stepped(torch.optim.AdamW, shapes, real)
    assert state_bytes(shapes, "adafactor", dtype) == stepped(Adafactor, shapes, real)


@pytest.mark.parametrize("seed", range(3))
def test_8_bit_moments_are_those_of_bitsandbytes(seed: int) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    parameters = [nn.Parameter(torch.randn(shape)) for shape in drawn(seed)]
    optimizer = bnb.optim.AdamW8bit(parameters)
    tables = {}
    total = 0
    for i, parameter in enumerate(parameters):
        parameter.grad = torch.randn_like(parameter)
        optimizer.init_state(optimizer.param_groups[0], parameter, 0, i)
        for name, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor) and name.startswith("qmap"):
                tables[name] = value.numel() * value.element_size()  # shared by all
            elif isinstance(value, Tensor):
                total += value.numel() * value.element_size()
    assert state_bytes(drawn(seed), "adamw-8bit", "float32") == total + sum(tables.values())


def test_8_bit_moments_by_hand() -> None:
    assert state_bytes([(64, 64)], "adamw-8bit", "float32") == 2 * 4096 + 2 * 16 * 4 + 2 * 1024
    assert state_bytes([(63, 65)], "adamw-8bit", "float32") == 2 * 4 * 4095
    large = state_bytes([(4096, 4096)], "adamw-8bit", "float32") / state_bytes([(4096, 4096)], "adamw", "float32")
    assert large == pytest.approx(0.25 * (1 + 4 / 256), rel=1e-3)


@pytest.mark.parametrize("base", ["nf4", "nf4-double", "int8"])
def test_quantised_weights_are_those_of_bitsandbytes(base: str) -> None:
    pytest.importorskip("bitsandbytes")
    from bitsandbytes import functional as quantising

    rng = random.Random(base)
    for _ in range(5):
        d_in, d_out = rng.randint(3, 300), rng.randint(3, 300)
        weight = torch.randn(d_out, d_in)
        if base == "int8":
            found, scales, _ = quantising.int8_vectorwise_quant(weight.half())
            tensors = [found, scales]
        else:
            found, state = quantising.quantize_4bit(weight, quant_type="nf4", compress_statistics=base != "nf4")
            tensors = [found, state.absmax, state.code]
            tensors += [state.state2.absmax, state.state2.code, state.offset] if state.nested else []
        expected = sum(t.numel() * t.element_size() for t in tensors)
        assert held_bytes(LinearShape(d_in, d_out, bias=False), base, "bfloat16") == expected  # type: ignore[arg-type]


def test_quantised_weights_take_the_bits_that_the_papers_say() -> None:
    """QLoRA, section 3: scales take 0.5 bits a weight, doubly quantised 0.127."""
    layer = LinearShape(8192, 8192, bias=False)
    bits = {base: 8 * held_bytes(layer, base, "bfloat16") / layer.weights for base in ("nf4", "nf4-double", "int8")}  # type: ignore[arg-type]
    assert bits["nf4"] == pytest.approx(4.5, abs=1e-4)
    assert bits["nf4-double"] == pytest.approx(4.127, abs=1e-3)
    assert bits["int8"] == pytest.approx(8 + 32 / 8192, abs=1e-6)
    assert held_bytes(LinearShape(8192, 8192), "nf4", "bfloat16") - held_bytes(layer, "nf4", "bfloat16") == 2 * 8192
    (kernel,) = dequantised(layer, "nf4", "bfloat16")
    assert (kernel.read, kernel.written) == (held_bytes(layer, "nf4", "bfloat16"), 2 * 8192**2)
    assert dequantised(layer, "full", "bfloat16") == ()


class Chunked(torch.autograd.Function):
    """A loss over the vocabulary, chunk by chunk: gradients are taken in the forward pass, as fused kernels do."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, labels: Tensor, chunks: int) -> Tensor:
        gradients, total = [], hidden.new_zeros(())
        for h, y in zip(hidden.chunk(chunks), labels.chunk(chunks), strict=True):
            with torch.enable_grad():
                h = h.detach().requires_grad_()
                loss = F.cross_entropy((h @ weight.T).float(), y, reduction="sum") / len(hidden)
                (gradient,) = torch.autograd.grad(loss, h)
            gradients.append(gradient)
            total = total + loss.detach()
        ctx.save_for_backward(torch.cat(gradients))
        return total

    @staticmethod
    def backward(ctx, above: Tensor):  # type: ignore[override]
        return above * ctx.saved_tensors[0], None, None, None


@pytest.mark.parametrize("chunks", [1, 3, 8])
def test_what_a_loss_keeps(chunks: int) -> None:
    n, hidden, vocabulary = 48, 16, 100
    x = torch.randn(n, hidden, requires_grad=True)
    weight, labels = torch.randn(vocabulary, hidden), torch.randint(0, vocabulary, (n,))
    head = nn.Linear(hidden, vocabulary, bias=False).requires_grad_(False)
    head.weight.data = weight

    def whole() -> Tensor:
        return F.cross_entropy(head(x), labels)

    if chunks == 1:
        kept, loss = saved_bytes(head, whole)
    else:
        loss = Chunked.apply(x, weight, labels, chunks)  # type: ignore[no-untyped-call]
        kept = sum(t.numel() * t.element_size() for t in loss.grad_fn.saved_tensors)
    predicted, temporaries = chunked_loss(n, vocabulary, hidden, "float32", chunks)
    labels_kept = 8 * n if chunks > 1 else 0  # fused kernels keep them to skip what is ignored
    assert abs(predicted - labels_kept - kept) <= 8  # a count of what is not ignored
    assert float(loss.detach()) == pytest.approx(float(whole().detach()), rel=1e-5)
    assert chunked_loss(n, vocabulary, hidden, "float32", 2 * chunks)[1] < temporaries


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"base": "nf5"}, "base"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"adapter_dtype": "float8"}, "adapter-dtype"),
        ({"checkpoint": -1}, "checkpoint = -1"),
        ({"checkpoint": True}, "checkpoint = True"),
        ({"logit_chunks": 0}, "logit-chunks = 0"),
    ],
)
def test_bad_training(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Training(**given)  # type: ignore[arg-type]


def counted_update(optimizer: torch.optim.Optimizer) -> PassCount:
    """A step of an optimiser that has its state already."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    with count_dispatch() as counter:
        optimizer.step()
    return counter.result()


@pytest.mark.parametrize("seed", range(3))
def test_updates_launch_and_move_what_real_optimisers_do(seed: int) -> None:
    from transformers.optimization import Adafactor

    shapes = drawn(seed)

    def made() -> list[nn.Parameter]:
        return [nn.Parameter(torch.randn(shape)) for shape in shapes]

    foreach = counted_update(torch.optim.AdamW(made(), foreach=True))
    found = total(update_kernels(shapes, "adamw-foreach", "float32"))
    assert foreach.launches == found.launches
    assert foreach.read + foreach.written == pytest.approx(int(found.read) + int(found.written), rel=1e-3)
    given = {"scale_parameter": False, "relative_step": False, "lr": 1e-3}
    lean = counted_update(Adafactor(made(), **given))  # type: ignore[arg-type]
    found = total(update_kernels(shapes, "adafactor", "float32"))
    assert lean.launches == pytest.approx(found.launches, rel=0.1)
    assert lean.read + lean.written == pytest.approx(int(found.read) + int(found.written), rel=0.1)


def test_clipping_reads_the_gradients_twice_and_writes_them_once() -> None:
    parameters = [nn.Parameter(torch.randn(shape)) for shape in drawn(0)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    with count_dispatch() as counter:
        nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
    n, counted = sum(p.numel() for p in parameters), counter.result()
    found = total(clipping(n, len(parameters), "float32"))
    assert int(found.read) + int(found.written) == 3 * 4 * n + 4 * len(parameters)
    assert counted.read + counted.written == pytest.approx(3 * 4 * n, rel=0.02)
