"""PEFT's own layers: parameters, starts and refusals, on single layers and on whole models."""

import subprocess
import sys
import warnings
from dataclasses import asdict, fields
from functools import cache
from random import Random

import numpy as np
import pytest
import torch
from torch import nn

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import Method, make_method, method_class, method_names
from cdvft_bench.methods._peft import PeftMethod
from cdvft_bench.methods.lokr import split
from cdvft_bench.sweep.probes.exactness import draw_case

PEERS = [name for name in method_names() if issubclass(method_class(name), PeftMethod)]
NOT_AT_ZERO = {"fourierft", "c3a"}
"""Their weight changes start at random."""
SIZES = [(48, 48), (48, 80), (80, 48), (24, 96)]


def trainable(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(
        BertConfig(
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=80,
            vocab_size=50,
            max_position_embeddings=32,
        )
    )


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=80,
            vocab_size=50,
            max_position_embeddings=32,
        )
    )


@cache
def small(name: str) -> Method:
    """An example that fits all of SIZES."""
    shapes = [LinearShape(d_in, d_out) for d_in, d_out in SIZES]
    for seed in range(1000):
        for method in method_class(name).examples(Random(seed), LinearShape(8, 8)):
            if all(fits(method, shape) for shape in shapes):
                return method
    raise AssertionError(f"no example of {name} fits {SIZES}")


def fits(method: Method, shape: LinearShape) -> bool:
    try:
        method.check(shape)
    except UserError:
        return False
    return True


@pytest.mark.parametrize("name", ["full", *PEERS])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_parameters_are_exact(name, bias) -> None:
    for d_in, d_out in SIZES:
        method, shape = small(name), LinearShape(d_in, d_out, bias)
        adapted = method.adapt_linear(nn.Linear(d_in, d_out, bias=bias))
        counted = trainable(adapted)
        cost = method.cost(shape, tokens=2, device="cpu")
        assert method.parameters(shape) == cost.parameters == sum(p.numel() for p in counted)
        assert cost.tensors == len(counted)
        assert type(cost.parameters) is int


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize(
    ("build", "targets"),
    [(bert, ["query", "value"]), (bert, ["dense"]), (llama, ["q_proj", "v_proj"]), (llama, ["k_proj", "down_proj"])],
)
def test_model_parameters_are_exact(name, build, targets) -> None:
    method, model = small(name), build()
    shapes = [
        LinearShape(module.in_features, module.out_features, module.bias is not None)
        for key, module in model.named_modules()
        if isinstance(module, nn.Linear) and key.rsplit(".", 1)[-1] in targets
    ]
    assert len(shapes) >= 4
    adapted = method.adapt_model(model, targets)
    assert sum(p.numel() for p in trainable(adapted)) == sum(method.parameters(shape) for shape in shapes)
    ids = torch.arange(6).reshape(1, 6)
    output = adapted(input_ids=ids)[0]
    output.square().mean().backward()
    gradients = [p.grad for p in trainable(adapted) if p.grad is not None]
    assert gradients
    assert any(g.abs().max() > 0 for g in gradients)


def test_full_trains_every_parameter() -> None:
    model = bert().requires_grad_(False)
    assert len(trainable(small("full").adapt_model(model, ["query"]))) == len(list(model.parameters()))


@pytest.mark.parametrize("name", PEERS)
def test_training_starts_where_peft_starts_it(name) -> None:
    method = make_method(name, {"rank": 4}) if name == "hra" else small(name)  # an odd number of reflections turns
    torch.manual_seed(0)
    for d_in, d_out in SIZES:
        base = nn.Linear(d_in, d_out, dtype=torch.float64)
        x = torch.randn(1, 5, d_in, dtype=torch.float64)
        with torch.no_grad():
            expected = base(x)
            adapted = method.adapt_linear(base)
            change = float(torch.linalg.norm(adapted(x) - expected) / torch.linalg.norm(expected))
        assert (change > 1e-3) if name in NOT_AT_ZERO else (change <= 1e-12)
        assert not base.weight.requires_grad


@pytest.mark.parametrize("name", PEERS)
def test_adapters_of_16_bit_bases_are_float32(name) -> None:
    for dtype, expected in [("bfloat16", "float32"), ("float16", "float32"), ("float64", "float64")]:
        adapted = small(name).adapt_linear(nn.Linear(48, 80, dtype=getattr(torch, dtype)))
        assert {p.dtype for p in trainable(adapted)} == {getattr(torch, expected)}
        assert small(name).cost(LinearShape(48, 80), 3, dtype, device="cpu").parameter_dtype == expected


@pytest.mark.parametrize("name", ["full", *PEERS])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_a_grid_of_layers_costs_what_its_layers_cost(name, dtype) -> None:
    rng = np.random.default_rng(3)
    d_in, d_out = 8 * rng.integers(1, 12, 30), 8 * rng.integers(1, 12, 30)
    tokens = rng.integers(2, 400, 30)
    method = small(name)
    grid = method.cost(LinearShape(d_in, d_out), tokens, dtype, device="cpu")

    def at(value: object, i: int) -> object:
        return int(np.broadcast_to(value, 30)[i]) if isinstance(value, (int, np.ndarray)) else value

    for i in range(30):
        one = method.cost(LinearShape(int(d_in[i]), int(d_out[i])), int(tokens[i]), dtype, device="cpu")
        for attribute in (*(field.name for field in fields(Cost)), "update"):
            several, single = getattr(grid, attribute), getattr(one, attribute)
            if attribute not in ("forward", "backward", "update"):
                assert at(several, i) == single
                continue
            assert len(several) == len(single)
            for a, b in zip(several, single, strict=True):
                for entry in fields(a):
                    assert at(getattr(a, entry.name), i) == getattr(b, entry.name), (b.op, entry.name)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("lora", {"rank": 0}, "rank = 0 is too small; it must be >= 1"),
        ("lora", {"rank": 2.5}, r"rank = 2\.5 is not an integer"),
        ("lora", {"alpha": float("nan")}, "alpha = nan is not finite"),
        ("dora", {"rank": -1}, "rank = -1 is too small"),
        ("dora", {"alpha": float("inf")}, "alpha = inf is not finite"),
        ("vera", {"rank": 0}, "rank = 0 is too small"),
        ("fourierft", {"n_frequency": 0}, "n_frequency = 0 is too small"),
        ("fourierft", {"scaling": float("inf")}, "scaling = inf is not finite"),
        ("c3a", {"block_size": 0}, "block_size = 0 is too small"),
        ("boft", {"block_size": 0}, "block_size = 0 is too small"),
        ("lokr", {"decompose_factor": 0}, "decompose_factor = 0 is too small; it must be >= 1, or -1"),
        ("lokr", {"decompose_both": 1}, "decompose_both = 1 is not a truth value"),
        ("ia3", {"feedforward": "yes"}, "feedforward = 'yes' is not a truth value"),
        ("oft", {"block_size": 1}, "block_size = 1 rotates nothing; it must be >= 2"),
        ("hra", {"rank": 0}, "rank = 0 is too small"),
        ("delora", {"delora_lambda": float("inf")}, "delora_lambda = inf is not finite"),
        ("waveft", {"scaling": float("nan")}, "scaling = nan is not finite"),
        ("gralora", {"rank": 1}, "rank = 1 is too small for GraLoRA; use at least 2"),
        ("gralora", {"rank": 6, "gralora_k": 4}, "rank = 6 is not a multiple of gralora_k = 4"),
        ("road", {"variant": "road_3"}, "variant 'road_3' is not known; did you mean .*use one of road_1"),
        ("road", {"group_size": 5}, "group_size = 5 is odd"),
        ("boft", {"n_butterfly_factor": 2}, "n_butterfly_factor = 2 needs .* use n_butterfly_factor = 1"),
    ],
)
def test_bad_hyperparameters_are_refused(name, values, message) -> None:
    with pytest.raises(UserError, match=message):
        make_method(name, values)


@pytest.mark.parametrize(
    ("name", "values", "shape", "message"),
    [
        ("fourierft", {"n_frequency": 13}, (3, 4), "n_frequency = 13 is more than the 12 frequencies .* at most"),
        ("c3a", {"block_size": 8}, (24, 36), "block_size = 8 does not divide both widths of a 24x36 .* divisor of 12"),
        ("waveft", {"n_frequency": 13}, (3, 4), "n_frequency = 13 is more than the 12 coefficients .* at most"),
        ("miss", {"rank": 30}, (24, 40), "rank = 30 is more than d_in = 24.* use at most 24"),
        ("oft", {"block_size": 5}, (24, 40), "block_size = 5 does not divide d_in = 24.* use a divisor of 24"),
        ("road", {"group_size": 10}, (40, 24), "group_size = 10 does not divide d_out = 24.* even divisor of 24"),
        (
            "gralora",
            {"rank": 5, "gralora_k": 5},
            (40, 24),
            "gralora_k = 5 does not cut a 40x24 layer into whole blocks",
        ),
        ("boft", {"block_size": 5}, (24, 40), "block_size = 5 does not divide d_in = 24.* use a divisor of 24"),
    ],
)
def test_layers_that_do_not_fit_are_refused(name, values, shape, message) -> None:
    method = make_method(name, values)
    layer = LinearShape(*shape)
    grid = LinearShape(np.array([40, shape[0]]), np.array([40, shape[1]]))
    for refused in (
        lambda: method.check(layer),
        lambda: method.check(grid),
        lambda: method.parameters(layer),
        lambda: method.cost(grid, 4, device="cpu"),
        lambda: method.adapt_linear(nn.Linear(*shape)),
    ):
        with pytest.raises(UserError, match=message):
            refused()
    method.check(LinearShape(40, 40))


def test_unfit_models_and_dtypes_are_refused() -> None:
    with pytest.raises(UserError, match=r"targets \['qurey'\] match no linear layer.*query"):
        small("lora").adapt_model(bert(), ["qurey"])
    with pytest.raises(UserError, match=r"layer 'encoder.layer.0.output.dense': block_size = 48"):
        make_method("c3a", {"block_size": 48}).adapt_model(bert(), ["output.dense"])
    for name in ("full", *PEERS):
        with pytest.raises(UserError, match="dtype 'int8' is not known"):
            small(name).cost(LinearShape(48, 48), 2, "int8", device="cpu")


def test_c3a_takes_the_greatest_common_divisor_of_each_layer() -> None:
    from peft.tuners.c3a.layer import C3ALayer

    method = make_method("c3a")
    adapted = method.adapt_model(llama(), ["q_proj", "v_proj", "down_proj"])
    blocks = {
        key.rsplit(".", 1)[-1]: m.block_size["default"] for key, m in adapted.named_modules() if isinstance(m, C3ALayer)
    }
    assert blocks == {"q_proj": 48, "v_proj": 24, "down_proj": 16}
    assert method.resolved(LinearShape(80, 48)) == {"block_size": 16}


def test_lora_fa_trains_b_alone() -> None:
    adapted = small("lora_fa").adapt_model(bert(), ["query"])
    assert {key.split(".")[-3] for key, p in adapted.named_parameters() if p.requires_grad} == {"lora_B"}


@pytest.mark.parametrize("factor", [-1, 1, 2, 3, 4, 8, 100])
def test_lokr_cuts_widths_as_peft_does(factor) -> None:
    from peft.tuners.lokr.layer import factorization

    widths = np.arange(1, 300)
    shares, rest = split(widths, factor)
    assert [factorization(int(w), factor) for w in widths] == list(zip(shares, rest, strict=True))
    assert split(96, factor) == factorization(96, factor)


def test_bitfit_trains_biases_of_targets_and_refuses_layers_without() -> None:
    method = make_method("bitfit")
    adapted = method.adapt_model(bert(), ["query", "value"])
    names = [key for key, p in adapted.named_parameters() if p.requires_grad]
    assert len(names) == 4
    assert all(key.endswith(("query.bias", "value.bias")) for key in names)
    with pytest.raises(UserError, match=r"layer 'model.layers.0.self_attn.q_proj': the layer has no bias"):
        method.adapt_model(llama(), ["q_proj"])
    for refused in (method.check, method.parameters, lambda layer: method.cost(layer, 4, device="cpu")):
        with pytest.raises(UserError, match="no bias, all that BitFit trains"):
            refused(LinearShape(8, 8, bias=False))
    assert method.parameters(LinearShape(8, 12)) == 12


def test_boft_builds_without_an_extension_and_without_noise(capfd) -> None:
    from peft.tuners.boft import layer

    load = layer.get_fbd_cuda
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small("boft").adapt_linear(nn.Linear(24, 8))
    assert layer.get_fbd_cuda is load
    assert capfd.readouterr().err == ""


def test_vera_keeps_its_projections_in_the_layer() -> None:
    adapted = make_method("vera", {"rank": 7}).adapt_linear(nn.Linear(24, 40))
    assert {tuple(b.shape) for b in adapted.buffers()} == {(7, 24), (40, 7)}


def test_labels_tell_settings_apart() -> None:
    for name in method_names():
        drawn = {case.method for case in (draw_case(name, seed) for seed in range(100))}
        hidden = {"alpha", "convention", "init"} if "path" in method_class(name).__dataclass_fields__ else set()
        labels = {method.label for method in drawn}
        apart = {tuple((k, v) for k, v in asdict(method).items() if k not in hidden) for method in drawn}
        assert len(labels) == len(apart), name
    assert make_method("lora", {"rank": 3}).label == "LoRA r=3"
    assert make_method("dora", {"alpha": 2.5}).label == "DoRA r=8 alpha=2.5"
    assert make_method("lokr", {"decompose_both": True, "decompose_factor": 4}).label == "LoKr r=8 both factor=4"
    assert make_method("road", {"variant": "road_4"}).label == "RoAd-4"
    assert make_method("gralora", {"gralora_k": 4, "hybrid_r": 2}).label == "GraLoRA r=32 k=4 hybrid=2"
    assert make_method("delora", {"delora_lambda": 3}).label == "DeLoRA r=8 lambda=3"
    assert make_method("ia3", {"feedforward": True}).label == "(IA)3 inputs"


def test_formulas_load_neither_torch_nor_peft() -> None:
    code = (
        "import sys; from cdvft_bench.methods import make_method; from cdvft_bench.analytic.linear import LinearShape\n"
        f"for name in {['full', *PEERS]!r}:\n"
        "    make_method(name).cost(LinearShape(768, 768), 8, device='cpu').total('step')\n"
        "assert not {'torch', 'peft', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
