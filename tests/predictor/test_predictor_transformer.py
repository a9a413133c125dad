"""Launches, bytes and memory of whole models by formula, against what small models of the same kind do."""

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from cdvft_bench.analytic.configs import config_values, shape_from_config
from cdvft_bench.analytic.cost import total
from cdvft_bench.analytic.models import target_linears
from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.count import count_model, saved_bytes
from cdvft_bench.counting.network.by_module import checkpointing
from cdvft_bench.methods import make_method
from cdvft_bench.predictor.memory import adapter_saved_bytes, budget
from cdvft_bench.predictor.transformer import (
    Transformer,
    describe,
    find_model,
    rest_backward,
    rest_forward,
    rest_saved_bytes,
)
from cdvft_bench.sweep.model_cost import model_cost

BATCH, SEQUENCE = 2, 32
SMALL: dict[str, Any] = {"num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 100, "pad_token_id": 0}
CONFIGS = {
    "llama": (
        transformers.LlamaConfig(hidden_size=64, intermediate_size=160, num_key_value_heads=2, **SMALL),
        "AutoModelForCausalLM",
    ),
    "bert": (transformers.BertConfig(hidden_size=64, intermediate_size=160, **SMALL), "AutoModel"),
    "roberta": (transformers.RobertaConfig(hidden_size=64, intermediate_size=160, **SMALL), "AutoModel"),
}
TARGETS = {"llama": ("v_proj",), "bert": ("value",), "roberta": ("value",)}


def build(name: str, dtype: str) -> tuple[nn.Module, Transformer]:
    config, auto = CONFIGS[name]
    torch.manual_seed(0)
    model = getattr(transformers, auto).from_config(config, dtype=getattr(torch, dtype)).requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model, describe(shape_from_config(config, name, auto, TARGETS[name]), config_values(config))


def inputs(model: nn.Module) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 100, (BATCH, SEQUENCE))
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()  # type: ignore[operator]
    return {"inputs_embeds": embedded, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_launches_bytes_and_saved_activations_are_counted_so(name: str, dtype: str) -> None:
    module, model = build(name, dtype)
    counted = count_model(module, inputs(module))
    cost = model_cost(model.shape, None, BATCH, SEQUENCE, dtype, device="cpu")
    forward = total(cost.forward + rest_forward(model, BATCH, SEQUENCE, dtype, loss=False))
    backward = total(cost.backward + rest_backward(model, BATCH, SEQUENCE, dtype, loss=False))
    assert counted.backward is not None
    assert backward.launches == counted.backward.launches
    # Masks, positions and embeddings are made once a call, whatever the depth.
    assert 0 <= counted.forward.launches - int(forward.launches) <= 20
    for predicted, found in ((forward, counted.forward), (backward, counted.backward)):
        assert 0.8 <= (predicted.read + predicted.written) / (found.read + found.written) <= 1
    saved = rest_saved_bytes(model, BATCH, SEQUENCE, dtype, loss=False)
    if name == "llama" or dtype == "float32":
        assert saved == counted.saved_bytes
    else:  # a GPU keeps layer norms' statistics in float32, a CPU in the dtype of the input
        norms = 2 * model.shape.attention.layers + 1
        assert saved - counted.saved_bytes == norms * BATCH * SEQUENCE * 2 * 2


@pytest.mark.parametrize("name", CONFIGS)
def test_checkpointing_keeps_the_inputs_of_blocks_and_one_block(name: str) -> None:
    module, model = build(name, "float32")
    with checkpointing(module, 1):
        given = inputs(module)
        kept, _ = saved_bytes(module, lambda: module(**given))
    whole = rest_saved_bytes(model, BATCH, SEQUENCE, "float32", loss=False)
    layers = model.shape.attention.layers
    inside = BATCH * SEQUENCE * model.shape.hidden * 4
    found = rest_saved_bytes(model, BATCH, SEQUENCE, "float32", loss=False, checkpointed=True)
    # One block is whole while it is computed again; the others keep their input alone.
    block = (whole - found + layers * inside) // (layers - 1)
    positions = 2 * SEQUENCE * model.shape.attention.head_dim * 4 if name == "llama" else 0
    assert kept == found - block - positions  # cosines and sines are an argument of each block, no saved tensor


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loss_keeps_log_probabilities(dtype: str) -> None:
    module, model = build("llama", dtype)
    given = inputs(module)
    labels = torch.randint(1, 100, (BATCH, SEQUENCE))
    kept, _ = saved_bytes(module, lambda: module(**given, labels=labels).loss)
    predicted = rest_saved_bytes(model, BATCH, SEQUENCE, dtype, loss=True)
    assert 0 <= kept - predicted <= 64  # the shifted labels, and a scalar


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("lora", {"rank": 4}),
        ("cdvft", {"m": 2, "block_size": 16}),
        ("cdvft", {"m": 2, "path": "merged"}),
        ("dora", {"rank": 4}),
        ("c3a", {"block_size": 16}),
        ("fourierft", {"n_frequency": 50}),
    ],
)
@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_budget_is_what_a_step_holds(name: str, method: str, values: dict[str, Any], dtype: str) -> None:
    """Weights, gradients, optimiser and saved activations of a real step; one adapted layer a block."""
    module, model = build(name, dtype)
    made = make_method(method, values)
    adapted = made.adapt_model(module, TARGETS[name])
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    given = inputs(adapted)
    kept, output = saved_bytes(adapted, lambda: adapted(**given))
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    output[0].sum().backward()
    optimizer.step()
    cost = model_cost(model.shape, made, BATCH, SEQUENCE, dtype, device="cpu")
    found = budget(model, made, cost, BATCH, SEQUENCE, dtype, device="cpu", loss=False)
    assert found.weights == sum(p.numel() * p.element_size() for p in adapted.parameters())
    assert found.gradients == sum(p.grad.numel() * p.grad.element_size() for p in trained if p.grad is not None)
    state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    assert found.optimizer == sum(v.numel() * v.element_size() for v in state)
    statistics = 7 * BATCH * SEQUENCE * 4 if name == "bert" and dtype == "bfloat16" else 0
    # In float32 the cast is none, and the adapter's input may be a tensor that the block keeps anyway.
    shared = 3 * BATCH * SEQUENCE * 64 * 4 if dtype == "float32" else 0
    assert 0 <= found.activations - statistics - kept <= shared
    adapted_shape = target_linears(model.shape)[0].shape
    one = int(made.cost(adapted_shape, BATCH * SEQUENCE, dtype, device="cpu").saved_bytes)
    assert adapter_saved_bytes(model, made, BATCH, SEQUENCE, dtype, device="cpu") == 3 * one


def test_models_by_name() -> None:
    assert find_model("llama-3-8b").shape.total_parameters == 8_030_261_248
    assert find_model("roberta-base").positions == 512
    with pytest.raises(UserError, match="model 'llama-9' is not in the table; did you mean llama"):
        find_model("llama-9")


def test_what_closed_forms_do_not_cover_is_refused() -> None:
    shape = shape_from_config(CONFIGS["llama"][0], "experts", "AutoModelForCausalLM")
    with pytest.raises(UserError, match="num_local_experts = 8 is not covered"):
        describe(shape, {"num_local_experts": 8, "rms_norm_eps": 1e-5})
