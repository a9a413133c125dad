"""The counters against counts made by hand and against torch's own."""

import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cdvft_bench.core.counted import PassCount
from cdvft_bench.counting.count import count_layer, count_model, saved_bytes
from cdvft_bench.counting.dispatch import count_dispatch
from cdvft_bench.counting.fvcore_counter import count_forward


def counted(call: Any) -> PassCount:
    with count_dispatch() as counter:
        call()
    return counter.result()


def rfft(n: int, batch: int) -> float:
    return 2.5 * n * math.log2(n) * batch


x = torch.randn(5, 12)
z = torch.randn(5, 12, dtype=torch.complex64)


@pytest.mark.parametrize(
    ("call", "operators", "macs", "flops", "fft"),
    [
        (lambda: x @ x.T, {"mm": 1}, 5 * 12 * 5, 0, 0),
        (lambda: torch.addmm(x[:, :5], x, x.T), {"addmm": 1}, 5 * 12 * 5, 0, 0),
        (lambda: z @ z.T, {"mm": 1}, 4 * 5 * 12 * 5, 0, 0),
        (lambda: torch.bmm(x.view(5, 3, 4), x.view(5, 4, 3)), {"bmm": 1}, 5 * 3 * 4 * 3, 0, 0),
        (lambda: x + x, {"add": 1}, 0, 60, 0),
        (lambda: z + z, {"add": 1}, 0, 120, 0),
        (lambda: z * z, {"mul": 1}, 0, 360, 0),
        (lambda: z * 2.0, {"mul": 1}, 0, 120, 0),
        (lambda: z * z.conj(), {"mul": 1, "clone": 1}, 0, 360, 0),
        (lambda: x.sum(), {"sum": 1}, 0, 60, 0),
        (lambda: torch.fft.rfft(x), {"_fft_r2c": 1}, 0, 0, rfft(12, 5)),
        (lambda: torch.fft.irfft(z, n=22), {"_fft_c2r": 1}, 0, 0, rfft(22, 5)),
        (lambda: torch.fft.fft(z), {"_fft_c2c": 1}, 0, 0, 5 * 12 * math.log2(12) * 5),
        (lambda: torch.fft.fft2(z), {"_fft_c2c": 1}, 0, 0, 5 * 60 * math.log2(60)),
        (lambda: nn.functional.pad(x, (0, 3)), {"constant_pad_nd": 1}, 0, 0, 0),
        (lambda: x.view(60).unsqueeze(0).expand(3, 60).transpose(0, 1)[2:], {}, 0, 0, 0),
        (lambda: torch.empty(7), {}, 0, 0, 0),
        (lambda: x[:0] * 2, {}, 0, 0, 0),
        (lambda: torch.zeros(7), {"zeros": 1}, 0, 0, 0),
        (lambda: torch.linalg.vector_norm(x, dim=1), {"linalg_vector_norm": 1}, 0, 120, 0),
    ],
)
def test_operators_by_hand(call, operators, macs, flops, fft) -> None:
    result = counted(call)
    assert result.operators == operators
    assert result.launches == sum(operators.values())
    assert (result.macs, result.elementwise_flops) == (macs, flops)
    assert result.fft_flops == pytest.approx(fft, rel=1e-12)
    assert result.unpriced == {}


def test_what_has_no_price_is_said() -> None:
    assert counted(lambda: torch.special.bessel_j0(x)).unpriced == {"special_bessel_j0": 1}
    result = count_forward(_Call(torch.special.bessel_j0), (x,))
    assert result.unsupported == {"special_bessel_j0": 1}


class _Call(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *values: Tensor) -> Any:
        return self.function(*values)


@pytest.mark.parametrize("bias", [True, False])
def test_products_of_a_network_equal_torchs_own_counter(bias) -> None:
    network = nn.Sequential(nn.Linear(12, 20, bias), nn.Tanh(), nn.Linear(20, 7, bias))
    data = torch.randn(3, 5, 12, requires_grad=True)
    with FlopCounterMode(display=False) as theirs:
        network(data).sum().backward()
    data.grad = None
    network.zero_grad()
    ours = count_layer(network, data)
    assert ours.backward is not None
    assert 2 * (ours.forward.macs + ours.backward.macs) == theirs.get_total_flops()
    assert ours.fvcore is not None
    assert ours.fvcore.macs == ours.fvcore.stock_macs == ours.forward.macs == 15 * (12 * 20 + 20 * 7)
    assert ours.parameters == sum(p.numel() for p in network.parameters())


def test_attention_forward_and_backward() -> None:
    q, k, v = (torch.randn(2, 3, n, 8, requires_grad=True) for n in (5, 6, 6))
    product = 2 * 3 * 5 * 6 * 8
    with count_dispatch() as forward:
        y = nn.functional.scaled_dot_product_attention(q, k, v)
    assert forward.result().macs == 2 * product
    with count_dispatch() as backward:
        y.backward(torch.randn_like(y))
    assert backward.result().macs in (4 * product, 5 * product)  # with stored probabilities, or recomputing scores
    assert count_forward(_Call(nn.functional.scaled_dot_product_attention), (q, k, v)).macs == 2 * product


def test_fvcore_sees_through_custom_functions() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
            ctx.save_for_backward(a, b)
            return torch.fft.irfft(torch.fft.rfft(a @ b), n=12)

        @staticmethod
        def backward(ctx: Any, *g: Tensor) -> Any:
            return None, None

    module = _Call(lambda a: Twice.apply(a, torch.eye(12)))
    apply = torch.autograd.Function.__dict__["apply"]
    result = count_forward(module, (x,))
    assert result.macs == 5 * 12 * 12
    assert result.fft_flops == pytest.approx(2 * rfft(12, 5))
    assert result.unsupported == {}
    assert torch.autograd.Function.__dict__["apply"] is apply
    assert module.training


def test_saved_bytes_by_hand() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.randn(12))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.a).exp() * self.a

    scale = Scale()
    data = torch.randn(5, 12, requires_grad=True)
    # x for a's gradient, the exponential once for its own gradient and a's; a is a parameter.
    assert saved_bytes(scale, lambda: scale(data))[0] == 2 * 60 * 4
    view = torch.randn(50, 12)[:5].requires_grad_()
    assert saved_bytes(scale, lambda: scale(view))[0] == 600 * 4 + 60 * 4  # the whole storage is kept


def test_the_optimizer_step_is_counted_and_changes_nothing() -> None:
    layer = nn.Linear(12, 5)
    before = layer.weight.clone()
    result = count_layer(layer, torch.randn(3, 12, requires_grad=True))
    assert result.update is not None
    assert result.update.operators == {"_foreach_add_": 1, "_fused_adamw_": 1}
    assert result.update.elementwise_flops == 14 * (60 + 5) + 2
    assert torch.equal(layer.weight, before)


def test_a_module_that_cannot_be_traced_is_noted() -> None:
    class Sly(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if torch.jit.is_tracing():
                raise RuntimeError("not today")
            return x * 2

    result = count_layer(Sly(), torch.randn(3, requires_grad=True))
    assert result.fvcore is None
    assert "not today" in result.notes[0]
    assert result.forward.launches == 1


def test_a_machine_without_fvcore_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cdvft_bench.counting.fvcore_counter", None)  # as where its import fails
    result = count_layer(nn.Linear(12, 5), torch.randn(3, 12, requires_grad=True))
    assert result.fvcore is None
    assert result.notes[0].startswith("fvcore did not count the forward pass: ModuleNotFoundError")
    assert result.forward.macs == 3 * 12 * 5


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["bert", "llama", "vit"])
def test_whole_models_multiply_as_often_as_their_shape_says(kind, attention) -> None:
    import transformers

    from cdvft_bench.analytic.configs import shape_from_config
    from cdvft_bench.analytic.models import frozen_model_macs

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = {
        "bert": lambda: transformers.BertConfig(**small, vocab_size=60),
        "llama": lambda: transformers.LlamaConfig(**small, num_key_value_heads=2, vocab_size=60),
        "vit": lambda: transformers.ViTConfig(**small, image_size=32, patch_size=8),
    }[kind]()
    auto = "AutoModelForCausalLM" if kind == "llama" else "AutoModel"
    config._attn_implementation = attention
    model = getattr(transformers, auto).from_config(config)
    shape = shape_from_config(config, auto=auto)
    if kind == "vit":
        inputs = {"pixel_values": torch.randn(3, 3, 32, 32)}
        want = frozen_model_macs(shape, 3, shape.image_tokens or 0)
    else:
        inputs = {"input_ids": torch.randint(0, 60, (3, 9)), "attention_mask": torch.ones(3, 9, dtype=torch.long)}
        want = frozen_model_macs(shape, 3, 9)
    result = count_model(model, inputs)
    assert result.fvcore is not None, result.notes
    extra = result.forward.macs - want
    if kind == "llama":  # the table of rotary angles: positions times frequencies
        assert 0 <= extra <= 9 * 4
    else:
        assert extra == 0
    assert result.fvcore.macs == result.forward.macs
