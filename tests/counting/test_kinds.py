"""Kinds of operators, inputs and outputs that a user's network may have: each counted right, or noted."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula

from cdvft_bench.core.counted import PassCount
from cdvft_bench.counting.count import count_layer, count_model, floating_output, saved_bytes
from cdvft_bench.counting.dispatch import count_dispatch
from cdvft_bench.counting.fvcore_counter import count_forward
from cdvft_bench.counting.fvcore_handles import contract
from cdvft_bench.counting.operator_prices import Price, register_price, unregister_price

SEEDS = range(12)


class Call(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *values: Any) -> Any:
        return self.function(*values)


def counted(call: Any) -> PassCount:
    with count_dispatch() as counter:
        call()
    return counter.result()


def both(function: Any, *values: Any) -> tuple[PassCount, Any]:
    return counted(lambda: function(*values)), count_forward(Call(function), values)


# --- convolutions --------------------------------------------------------------------------


def test_the_transposed_convolution_by_hand() -> None:
    layer, x = nn.ConvTranspose2d(8, 16, 4, 2, 1), torch.randn(2, 8, 10, 10)
    assert counted(lambda: layer(x)).macs == count_forward(layer, (x,)).macs == 409_600
    grouped = nn.ConvTranspose2d(8, 16, 4, 2, 1, groups=4)
    assert counted(lambda: grouped(x)).macs == count_forward(grouped, (x,)).macs == 102_400


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_convolution_of_ones_sums_up_to_its_multiply_adds(seed, transposed) -> None:
    rng = random.Random(seed)
    dimensions = rng.choice([1, 2, 3])
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{dimensions}d")
    groups = rng.choice([1, 2, 3])
    inputs, outputs = groups * rng.randint(1, 3), groups * rng.randint(1, 3)
    layer = kind(
        inputs,
        outputs,
        rng.randint(1, 3),
        stride=rng.randint(1, 3),
        dilation=rng.randint(1, 2),
        groups=groups,
        bias=rng.random() < 0.5,
    )
    x = torch.ones(rng.randint(1, 3), inputs, *(rng.randint(5, 7) for _ in range(dimensions)), requires_grad=True)
    with torch.no_grad():
        for p in layer.parameters():
            p.fill_(1.0 if p.dim() > 1 else 0.0)
    y = layer(x)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    want = round(float(y.detach().double().sum()))
    assert round(float(x.grad.double().sum())) == round(float(layer.weight.grad.double().sum())) == want
    x.grad = None
    with FlopCounterMode(display=False) as theirs:
        layer(x)
    x.grad = None
    found = count_layer(layer, x)
    assert found.fvcore is not None
    assert found.backward is not None
    assert found.forward.macs == found.fvcore.macs == want
    assert found.backward.macs == 2 * want
    assert 2 * found.forward.macs == theirs.get_total_flops()


# --- einsum --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equation", "shapes", "macs", "elementwise"),
    [
        ("nd,dr,re->ne", [(10, 64), (64, 4), (4, 64)], 5_120, 0),
        ("bij,bjk->bik", [(4, 5, 6), (1, 6, 7)], 840, 0),
        ("ij->i", [(4, 5)], 0, 20),
        ("ij,ij->ij", [(4, 5), (4, 5)], 0, 20),
        ("...ij,...jk", [(2, 4, 5), (5, 6)], 240, 0),
        ("ii->i", [(5, 5)], 0, 0),
    ],
)
def test_einsum_by_hand(equation, shapes, macs, elementwise) -> None:
    dispatched, traced = both(lambda *x: torch.einsum(equation, *x), *(torch.randn(s) for s in shapes))
    assert (dispatched.macs, dispatched.elementwise_flops) == (macs, elementwise)
    assert (traced.macs, traced.elementwise_flops) == (macs, elementwise)


def drawn_einsum(rng: random.Random) -> tuple[str, list[list[int]]]:
    """An equation of one to four operands, with sizes of 1 to broadcast, repeated labels and ellipses."""
    letters = "abcdeF"
    size = {label: rng.randint(1, 5) for label in letters}
    terms, shapes = [], []
    for _ in range(rng.randint(1, 4)):
        labels = [rng.choice(letters) for _ in range(rng.randint(0, 4))]
        shape = [1 if rng.random() < 0.2 and labels.count(x) == 1 else size[x] for x in labels]
        term = "".join(labels)
        if rng.random() < 0.3:
            at = rng.randint(0, len(labels))
            term = f"{term[:at]}...{term[at:]}"
            shape[at:at] = [rng.choice([1, 3]) for _ in range(rng.randint(0, 2))]
        terms.append(term)
        shapes.append(shape)
    equation = ",".join(terms)
    if rng.random() < 0.8:
        out = [x for x in sorted(set(equation) - set(".,")) if rng.random() < 0.5]
        rng.shuffle(out)
        equation += "->" + "".join(out) + ("..." if "..." in equation and rng.random() < 0.7 else "")
    return equation, shapes


@pytest.mark.parametrize("seed", range(100))
def test_einsum_is_priced_as_it_is_carried_out(seed) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        equation, shapes = drawn_einsum(rng)
        operands = [torch.randn(shape) for shape in shapes]
        path = None
        if rng.random() < 0.5:
            path = []
            for left in range(len(shapes), 1, -1):
                path += rng.sample(range(left), 2)
        try:
            ran = counted(lambda e=equation, o=operands, p=path: torch.ops.aten.einsum(e, o, path=p))
        except RuntimeError:  # an equation that torch refuses
            continue
        told = contract(equation, shapes, path)
        assert (told.macs, told.products + told.additions) == (ran.macs, ran.elementwise_flops), (equation, shapes)


# --- transforms ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_a_transform_of_given_length_is_priced_at_that_length(name, dtype) -> None:
    if name in ("rfft", "ihfft") and dtype.is_complex:
        pytest.skip("takes real data")
    rng = random.Random(name)
    for _ in range(5):
        x = torch.randn(rng.randint(2, 6), rng.randint(3, 9), rng.randint(2, 5), dtype=dtype)
        n, dim = rng.choice([None, rng.randint(2, 12)]), rng.choice([-1, -2, 0, 1])
        dispatched, traced = both(lambda y, n=n, d=dim: getattr(torch.fft, name)(y, n=n, dim=d), x)
        assert traced.fft_flops == pytest.approx(dispatched.fft_flops, rel=1e-12)
        assert dispatched.fft_flops > 0
        assert not traced.unsupported


@pytest.mark.parametrize("name", ["fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn", "rfftn", "irfftn"])
def test_a_transform_over_chosen_dimensions_is_priced_over_these(name) -> None:
    rng = random.Random(name)
    for _ in range(5):
        real = name.startswith("rfft")
        x = torch.randn(*(rng.randint(2, 6) for _ in range(4)), dtype=torch.float32 if real else torch.complex64)
        dims = rng.sample(range(-4, 0), 2 if name.endswith("2") else rng.randint(1, 3))
        sizes = rng.choice([None, [rng.randint(2, 7) for _ in dims]])
        dispatched, traced = both(lambda y, s=sizes, d=dims: getattr(torch.fft, name)(y, s=s, dim=d), x)
        assert traced.fft_flops == pytest.approx(dispatched.fft_flops, rel=1e-12)


def test_transforms_at_their_defaults() -> None:
    x = torch.randn(3, 4, 5)
    for name in ("fftn", "rfftn", "rfft2", "fft2"):
        dispatched, traced = both(getattr(torch.fft, name), x)
        assert traced.fft_flops == pytest.approx(dispatched.fft_flops, rel=1e-12), name


# --- operators of other libraries ----------------------------------------------------------


def _double(x: Tensor) -> None:
    x.mul_(2)


@pytest.fixture(scope="module")
def library() -> Iterator[torch.library.Library]:
    made = torch.library.Library("cdvft_bench_test", "DEF")
    made.define("product(Tensor a, Tensor b) -> Tensor")
    made.define("double_(Tensor(a!) x) -> ()")
    made.define("flat(Tensor(a) x) -> Tensor(a)")
    made.define("of_others(Tensor a, Tensor b) -> Tensor")
    made.impl("product", torch.mm, "CompositeExplicitAutograd")
    made.impl("double_", _double, "CompositeExplicitAutograd")
    made.impl("flat", lambda x: x.view(-1), "CompositeExplicitAutograd")
    made.impl("of_others", lambda a, b: torch.mm(a, b) + 1, "CompositeImplicitAutograd")
    yield made
    made._destroy()


OPS = torch.ops.cdvft_bench_test


@pytest.mark.usefixtures("library")
def test_another_librarys_operator_is_a_launch_and_listed() -> None:
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    result = counted(lambda: OPS.product(a, b))
    assert result.operators == result.unpriced == {"cdvft_bench_test::product": 1}
    assert (result.launches, result.read, result.written) == (1, 4 * (12 + 20), 4 * 15)
    assert result.unpriced_bytes == result.read + result.written
    assert counted(lambda: torch.mm(a, b)).unpriced_bytes == 0
    assert count_forward(Call(OPS.product), (a, b)).unsupported == {"cdvft_bench_test::product": 1}
    nothing_returned = counted(lambda: OPS.double_(a))
    assert nothing_returned.operators == {"cdvft_bench_test::double_": 1}
    assert nothing_returned.written == 4 * 12
    assert counted(lambda: OPS.flat(a)).launches == 0
    assert counted(lambda: OPS.product(a[:0], b)).launches == 0


@pytest.mark.usefixtures("library")
def test_an_operator_made_of_others_is_counted_as_those() -> None:
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    result = counted(lambda: OPS.of_others(a, b))
    assert result.operators == {"mm": 1, "add": 1}
    assert result.macs == 60


@pytest.mark.usefixtures("library")
def test_a_registered_price_is_used_by_both_counters() -> None:
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    name = "cdvft_bench_test::product"
    assert register_price(name, lambda x, k, o: Price(macs=o[0].numel() * x[0].shape[-1], flops=7)) is None
    try:
        dispatched, traced = both(OPS.product, a, b)
    finally:
        unregister_price(name)
    assert (dispatched.macs, dispatched.elementwise_flops, dispatched.unpriced) == (60, 7, {})
    assert (traced.macs, traced.elementwise_flops, traced.unsupported) == (60, 7, {})
    assert counted(lambda: OPS.product(a, b)).unpriced == {name: 1}


@pytest.mark.usefixtures("library")
def test_a_formula_of_torchs_own_register_is_used() -> None:
    packet = torch.ops.cdvft_bench_test.product

    @register_flop_formula(packet)
    def formula(a: Any, b: Any, out_shape: Any = None, **kwargs: Any) -> int:
        return 2 * a[0] * a[1] * b[1]

    try:
        result = counted(lambda: packet(torch.randn(3, 4), torch.randn(4, 5)))
    finally:
        del flop_registry[packet]
    assert (result.macs, result.unpriced) == (60, {})


def test_an_operator_that_takes_functions_is_a_launch() -> None:
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    if not hasattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"):
        pytest.skip("this torch compiles flex attention, which no counter sees")
    q, k, v = (torch.randn(1, 2, n, 16) for n in (128, 256, 256))
    before, flex._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = flex._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG, True
    try:
        result = counted(lambda: flex.flex_attention(q, k, v))
    finally:
        flex._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = before
    assert result.operators["flex_attention"] == 1
    assert result.macs == 2 * 2 * 128 * 256 * 16


def test_a_quantised_layer_is_a_launch_without_a_price() -> None:
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("this torch has no quantised products")
    layer = torch.ao.nn.quantized.dynamic.Linear(16, 4)
    x = torch.randn(3, 16)
    result = counted(lambda: layer(x))
    assert result.launches == 1
    assert result.operators == result.unpriced == {"quantized::linear_dynamic": 1}


# --- fast paths ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_attention_in_eval_multiplies_as_often_as_in_training(seed) -> None:
    rng = random.Random(seed)
    heads = rng.choice([2, 4])  # an odd number takes the usual path
    width, batch, length = heads * rng.randint(2, 6), rng.randint(1, 3), rng.randint(2, 9)
    layer = nn.MultiheadAttention(width, heads, batch_first=True)
    x = torch.randn(batch, length, width)
    trained = counted(lambda: layer(x, x, x, need_weights=rng.random() < 0.5))
    assert "_native_multi_head_attention" not in trained.operators
    layer.eval()
    with torch.no_grad():
        fast = counted(lambda: layer(x, x, x))
        assert fast.operators == {"_native_multi_head_attention": 1}
        assert fast.unpriced == {}
        assert fast.macs == trained.macs == count_forward(layer, (x, x, x)).macs


@pytest.mark.parametrize("seed", SEEDS)
def test_an_encoder_in_eval_multiplies_as_often_as_in_training(seed) -> None:
    rng = random.Random(seed)
    heads = rng.choice([2, 4])  # an odd number takes the usual path
    width, inner = heads * rng.randint(2, 6), rng.randint(3, 20)
    layer = nn.TransformerEncoderLayer(width, heads, inner, 0.0, batch_first=True, norm_first=rng.random() < 0.5)
    x = torch.randn(rng.randint(1, 3), rng.randint(2, 9), width)
    trained = counted(lambda: layer(x))
    layer.eval()
    with torch.no_grad():
        fast = counted(lambda: layer(x))
        assert fast.operators == {"_transformer_encoder_layer_fwd": 1}
        assert fast.macs == trained.macs == count_forward(layer, (x,)).macs


def test_an_encoder_of_padded_sequences_counts_what_is_left_of_them() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True), 2).eval()
    x, lengths = torch.randn(3, 7, 16), (7, 4, 2)
    mask = torch.arange(7)[None] >= torch.tensor(lengths)[:, None]
    with torch.no_grad():
        fast = counted(lambda: encoder(x, src_key_padding_mask=mask))
        alone = [counted(lambda n=n: encoder(torch.randn(1, n, 16))).macs for n in lengths]
    assert fast.operators["_transformer_encoder_layer_fwd"] == 2
    assert fast.macs == sum(alone)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_networks(kind, bidirectional) -> None:
    network = kind(5, 6, num_layers=2, bidirectional=bidirectional)
    data = torch.randn(7, 3, 5, requires_grad=True)
    want = 21 * sum(p.numel() for p in network.parameters() if p.dim() == 2)
    found = count_layer(network, data)
    assert found.backward is not None
    assert found.fvcore is not None
    assert found.forward.macs == found.fvcore.macs == want
    assert want < found.backward.macs <= 2 * want  # the first state needs no gradient
    packed = nn.utils.rnn.pack_padded_sequence(data.detach(), torch.tensor([7, 4, 2]))
    steps = counted(lambda: network(packed)).macs
    assert steps == want * 13 // 21


# --- inputs, outputs and parameters of every kind ------------------------------------------


@dataclass
class Output:
    scores: Any
    rest: Any


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: (y, None),
        lambda y: [y],
        lambda y: {"a": [{"b": (y,)}]},
        lambda y: Output(None, [y]),
        lambda y: (torch.arange(3), y),
        lambda y: (y.detach(), y),
        lambda y: torch.view_as_complex(y.reshape(-1, 2)),
    ],
)
def test_outputs_however_nested(wrap) -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Any:
            return wrap(self.layer(x))

    for found in (
        count_layer(Nested(), torch.randn(2, 4, requires_grad=True)),
        count_model(Nested(), {"x": torch.randn(2, 4, requires_grad=True)}),
    ):
        assert found.fvcore is not None
        assert found.backward is not None
        assert found.update is not None
        assert found.forward.macs == found.fvcore.macs == 48
        assert found.backward.macs == 96


def test_inputs_however_nested() -> None:
    class Attends(nn.Module):
        def forward(self, given: dict[str, list[Tensor]], scale: float, use: bool) -> Tensor:
            return given["a"][0] @ given["b"][0] * scale if use else given["a"][0]

    given = {"a": [torch.randn(2, 3, requires_grad=True)], "b": [torch.randn(3, 4)]}
    found = count_model(Attends(), {"given": given, "scale": 2.0, "use": True})
    assert found.fvcore is not None
    assert found.forward.macs == found.fvcore.macs == 24


def test_an_output_without_numbers_is_noted() -> None:
    found = count_layer(Call(lambda x: (x > 0, "text")), torch.randn(3, requires_grad=True))
    assert found.backward is None
    assert any("no floating-point tensor" in note for note in found.notes)
    with pytest.raises(TypeError, match="no floating-point tensor"):
        floating_output({"a": [torch.arange(3)]})


def test_a_trained_parameter_without_a_gradient_is_noted() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.randn(3))

        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    found = count_layer(Unused(), torch.randn(4, requires_grad=True))
    assert found.backward is not None
    assert found.update is None
    assert "update not counted: no trained parameter has a gradient" in found.notes


def test_complex_parameters() -> None:
    layer = nn.Linear(4, 5, dtype=torch.complex64)
    before = layer.weight.detach().clone()
    found = count_layer(layer, torch.randn(3, 4, dtype=torch.complex64, requires_grad=True))
    assert found.backward is not None
    assert found.update is not None
    assert (found.forward.macs, found.backward.macs) == (4 * 60, 2 * 4 * 60)
    assert found.update.launches > 0
    assert any("plain form" in note for note in found.notes)
    assert torch.equal(before, layer.weight)


def test_sparse_embeddings() -> None:
    found = count_model(nn.Embedding(1000, 4, sparse=True), {"input": torch.tensor([1, 2, 2])})
    assert found.backward is not None
    assert found.update is None
    assert any("sparse" in note for note in found.notes)
    # Rows that are looked up, and their numbers; not the whole table.
    assert (found.forward.read, found.forward.written) == (3 * 4 * 4 + 3 * 8, 3 * 4 * 4)


def test_an_operator_without_a_derivative_is_noted() -> None:
    found = count_layer(Call(lambda x: torch.special.i1(x) * 2), torch.randn(3, requires_grad=True))
    assert found.backward is not None or any("backward not counted" in note for note in found.notes)

    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

    found = count_layer(Call(Forward.apply), torch.randn(3, requires_grad=True))
    assert found.backward is None
    assert any("backward not counted" in note for note in found.notes)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_meta_device_counts_what_a_cpu_counts(seed) -> None:
    rng = random.Random(seed)

    def network(device: str) -> nn.Module:
        draw = random.Random(seed)
        with torch.device(device):
            width, layers = draw.randint(2, 9), []
            for _ in range(draw.randint(1, 4)):
                wider = draw.randint(2, 9)
                layers += [nn.Linear(width, wider, draw.random() < 0.5), draw.choice([nn.Tanh, nn.GELU, nn.SiLU])()]
                layers += [nn.LayerNorm(wider)] if draw.random() < 0.5 else []
                width = wider
            return nn.Sequential(*layers)

    shape = (rng.randint(1, 3), rng.randint(1, 9), network("cpu")[0].in_features)
    real, meta = (
        count_layer(network(device), torch.randn(shape, device=device, requires_grad=True))
        for device in ("cpu", "meta")
    )
    assert real == meta


def test_different_tensors_of_one_shape_on_meta_are_not_one() -> None:
    a, b = (torch.empty(5, 6, device="meta", requires_grad=True) for _ in range(2))
    assert counted(lambda: a * b).read == 2 * 4 * 30
    assert counted(lambda: a * a).read == 4 * 30
    kept, _ = saved_bytes(nn.Identity(), lambda: (a * 1.0) * (b * 1.0))
    assert kept == 2 * 4 * 30


def test_inference_mode() -> None:
    network = nn.Sequential(nn.Conv1d(3, 4, 2), nn.Flatten(), nn.Linear(16, 6))
    x = torch.randn(2, 3, 5)
    want = counted(lambda: network(x))
    with torch.inference_mode():
        found = counted(lambda: network(x))
        layer = count_layer(network, torch.randn(2, 3, 5))
    assert (found.macs, found.unpriced) == (want.macs, {})
    assert layer.forward.macs == want.macs
    assert any("needs no gradient" in note for note in layer.notes)


def test_parameters_made_in_inference_mode() -> None:
    with torch.inference_mode():
        layer = nn.Linear(4, 5)
    found = count_layer(layer, torch.randn(3, 4, requires_grad=True))
    assert found.forward.macs == 60
    assert found.backward is None
    assert any("inference mode" in note for note in found.notes)


def test_every_price_is_of_an_operator_that_exists() -> None:
    from cdvft_bench.counting.operator_prices import PRICES

    later = {  # of newer versions of torch, or of builds for other devices
        "_grouped_mm",
        "_scaled_grouped_mm",
        "_fused_rms_norm",
        "_fused_rms_norm_backward",
        "_addmm_activation",
        "mkldnn_linear",
        "_weight_int4pack_mm_for_cpu",
    }
    missing = {name for name in PRICES if "::" not in name and not hasattr(torch.ops.aten, name)}
    assert missing <= later


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_operator_with_a_kernel_of_its_own_is_not_taken_apart(device) -> None:
    x = torch.randn(3, 4, device=device, requires_grad=True)
    found = count_layer(nn.SiLU(), x)
    assert found.backward is not None
    assert found.backward.operators == {"silu_backward": 1}
    assert found.backward.elementwise_flops == 6 * 12
