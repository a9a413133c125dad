"""The budget of a training step of any network, against real steps of small ones, and checkpointing by closed form."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import transformers
from click.testing import CliRunner

from cdvft_bench.analytic.training import (
    AdapterDtype,
    Base,
    Optimizer,
    Training,
    chunked_loss,
    state_bytes,
)
from cdvft_bench.cli import main
from cdvft_bench.commands.networks import ADAPTERS, BASES, OPTIMIZERS, budget_of
from cdvft_bench.counting.count import saved_bytes
from cdvft_bench.methods import make_method
from cdvft_bench.predictor.results import MemoryBudget
from cdvft_bench.sweep.networks import open_model, predict_network

BATCH, TOKENS = 2, 24
LAYERS = 4


def config(folder: Path, layers: int = LAYERS, **more: Any) -> str:
    made = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=300,
        pad_token_id=0,
        architectures=["LlamaForCausalLM"],
        **more,
    )
    made.save_pretrained(folder)
    return str(folder)


def budget(path: str, training: Training, dtype: str = "bfloat16", rank: int = 4, method: str = "lora") -> MemoryBudget:
    network, _ = open_model(path, dtype, "causal-lm", None)
    made = make_method(method, {"rank": rank} if method == "lora" else {})
    targets = ("q_proj", "v_proj")
    cost = predict_network(network, (), made, targets, (BATCH, TOKENS), dtype, "cpu", training)
    return budget_of(network, cost, made, (BATCH, TOKENS), dtype, "cpu", training)


def real(path: str, dtype: str, adapter: bool, checkpoint: bool) -> dict[str, int]:
    """Bytes that a real step of the network with PEFT's LoRA holds; activations as far as the logits."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(path), dtype=getattr(torch, dtype)
    )
    model = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]), autocast_adapter_dtype=not adapter
    )
    if checkpoint:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    model.train()
    ids = torch.randint(1, 300, (BATCH, TOKENS))
    kept, output = saved_bytes(model, lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids)))
    output.logits.float().sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    states = [v for state in optimizer.state.values() for v in state.values()]

    def size(tensors: list[torch.Tensor]) -> int:
        return sum(t.numel() * t.element_size() for t in tensors)

    return {
        "weights": size([*model.parameters(), *model.buffers()]),
        "gradients": size([p.grad for p in trained if p.grad is not None]),
        "optimizer": size(states),
        "activations": kept,
    }


@pytest.mark.parametrize("adapter_dtype", ["default", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_budget_is_what_a_real_step_holds(tmp_path: Path, dtype: str, adapter_dtype: str) -> None:
    if (dtype, adapter_dtype) == ("float32", "bfloat16"):
        pytest.skip("PEFT keeps adapters of a float32 base in float32")
    path = config(tmp_path / "net")
    found = budget(path, Training(adapter_dtype=adapter_dtype), dtype)  # type: ignore[arg-type]
    expected = real(path, dtype, adapter_dtype == "bfloat16", checkpoint=False)
    loss, temporaries = chunked_loss(BATCH * TOKENS, 300, 64, dtype, 1)
    assert (found.weights, found.gradients, found.optimizer) == tuple(
        expected[name] for name in ("weights", "gradients", "optimizer")
    )
    assert found.activations - loss == pytest.approx(expected["activations"], rel=0.02)  # masks and positions
    assert found.workspace == temporaries


def test_checkpointing_keeps_what_a_real_run_keeps(tmp_path: Path) -> None:
    path = config(tmp_path / "net")
    loss, _ = chunked_loss(BATCH * TOKENS, 300, 64, "bfloat16", 1)
    for checkpoint in (0, 1):
        found = budget(path, Training(checkpoint=checkpoint))
        expected = real(path, "bfloat16", False, bool(checkpoint))
        assert found.activations - loss == pytest.approx(expected["activations"], rel=0.05, abs=2000)


def test_lean_training_takes_less_item_by_item(tmp_path: Path) -> None:
    path = config(tmp_path / "net")
    plain = budget(path, Training())
    for training, item in (
        (Training(base="nf4"), "weights"),
        (Training(base="int8"), "weights"),
        (Training(optimizer="adafactor"), "optimizer"),
        (Training(adapter_dtype="bfloat16"), "gradients"),
        (Training(checkpoint=2), "activations"),
        (Training(logit_chunks=4), "activations"),
    ):
        assert getattr(budget(path, training), item) < getattr(plain, item), training
    linear = LAYERS * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160)
    double = budget(path, Training(base="nf4-double")).weights
    assert plain.weights - double == pytest.approx(linear * (2 - 4.127 / 8) - 7 * LAYERS * 1092, rel=1e-3)
    shapes = [(4, 64), (64, 4), (4, 64), (32, 4)] * LAYERS
    assert budget(path, Training(optimizer="adafactor")).optimizer == state_bytes(shapes, "adafactor", "float32")


def test_the_command_prints_the_budget(tmp_path: Path) -> None:
    path = config(tmp_path / "net")
    arguments = ["predict", "lora", "rank=4", "--model", path, "--tokens", str(TOKENS), "--dtype", "bfloat16"]
    done = CliRunner().invoke(main, [*arguments, "--base", "nf4", "--checkpoint", "1", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["training"] == {
        "base": "nf4",
        "optimizer": "adamw",
        "checkpoint": 1,
        "adapter_dtype": "default",
        "logit_chunks": 1,
        "packed": 0,
    }
    assert found["memory"]["weights"] > 0
    assert not [note for note in found["predicted"]["notes"] if "multiply-adds counted" in note]
    for more, message in (
        (["--checkpoint", "9"], "checkpoint"),
        (["--checkpoint", "-1"], "checkpoint = -1"),
        (["--logit-chunks", "0"], "logit-chunks = 0"),
    ):
        done = CliRunner().invoke(main, [*arguments, *more])
        assert done.exit_code == 2, done.output
        assert message in done.output
    done = CliRunner().invoke(main, ["predict", "lora", "--layer", "8x8", "--memory"])
    assert done.exit_code == 2
    assert "go with --model" in done.output


def test_the_command_takes_what_the_formulas_know() -> None:
    assert tuple(map(get_args, (Base, Optimizer, AdapterDtype))) == (BASES, OPTIMIZERS, ADAPTERS)
