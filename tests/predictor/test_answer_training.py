"""Answers about networks as people train them: quantised bases, packed rows, optimisers, narrow adapters, memory."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cdvft_bench.analytic.cost import total
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.models import attention_macs, frozen_model_macs, model_shape
from cdvft_bench.analytic.training import Training, attended, held_bytes
from cdvft_bench.commands.networks import adapt
from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.network.by_module import count_modules
from cdvft_bench.methods import make_method
from cdvft_bench.predictor.answering.answer import answer
from cdvft_bench.predictor.answering.counted import AnyNetwork
from cdvft_bench.predictor.answering.subject import open_network_subject
from cdvft_bench.predictor.network_memory import held_weights, network_budget
from cdvft_bench.predictor.pricing import Pricer
from cdvft_bench.sweep.network_cost import network_cost
from tests.counting.architectures import NETWORKS, network
from tests.predictor.test_answer_networks import CDVFT, H200, LORA, kernels, llama, subject


def test_what_trains_everything_is_counted_as_it_trains(tmp_path: Path) -> None:
    asked = subject(llama(tmp_path / "net"), sequence=24)
    cost = asked.cost(make_method("full"))
    frozen, lora = asked.cost(None), asked.cost(LORA)
    assert cost.parameters == asked.parameters
    assert int(total(cost.forward).macs) == int(total(frozen.forward).macs) < int(total(lora.forward).macs)
    # Twice the products of linear layers, and the gradient of the first layers' inputs either way.
    linear = 2 * 24 * sum(m.linear[0] * m.linear[1] for m in asked.base.modules if m.linear)
    assert int(total(cost.backward).macs) - int(total(frozen.backward).macs) == linear
    assert any(k.op == "embedding_dense_backward" for k in cost.backward)
    memory = asked.memory(make_method("full"), cost, 2, False, 0, None)
    assert memory.weights == 2 * asked.parameters + sum(
        b.numel() * b.element_size() for b in asked.network.module.buffers()
    )
    assert (memory.gradients, memory.optimizer) == (2 * asked.parameters, 4 * asked.parameters + 4 * cost.tensors)


@pytest.mark.parametrize("base", ["int8", "nf4", "nf4-double"])
@pytest.mark.parametrize("checkpoint", [0, 1])
def test_quantised_weights_are_converted_at_every_product(tmp_path: Path, base: str, checkpoint: int) -> None:
    path = llama(tmp_path / "net")
    plain = subject(path, training={"checkpoint": checkpoint})
    held = subject(path, training={"base": base, "checkpoint": checkpoint})
    shapes = [(m.linear[0], m.linear[1]) for m in held.base.modules if m.linear and m.name != "lm_head"]
    one, other = plain.cost(LORA), held.cost(LORA)
    found = kernels(other, "dequantize")
    # Forward, backward, and forward again where a block is computed again, up to the last result that is needed.
    again = [s for s in shapes if checkpoint and s != (160, 64)]
    assert sum(n for n, _ in found) == 2 * len(shapes) + len(again)

    def stored(layers: list[tuple[int, int]]) -> int:
        return sum(held_bytes(LinearShape(*s, bias=False), base, "bfloat16") for s in layers)  # type: ignore[arg-type]

    def written(layers: list[tuple[int, int]]) -> int:
        return 2 * sum(a * b for a, b in layers)

    assert sum(n * moved for n, moved in found) == sum(
        n * (stored(layers) + written(layers)) for n, layers in ((2, shapes), (1, again))
    )
    pricer = Pricer(H200.rates, "bfloat16")
    more = [pricer.seconds(c.forward + c.backward) for c in (one, other)]
    bandwidth = [k for k in (*other.forward, *other.backward) if k.op == "dequantize"]
    assert more[1] - more[0] == pytest.approx(pricer.seconds(tuple(bandwidth)), rel=1e-6)
    large = replace(bandwidth[0], launches=1, read=10**9, written=2 * 10**9)
    assert pricer.seconds((large,)) == pytest.approx(3e9 / 4.8e12)
    weights = [s.memory(LORA, c, 2, False, 0, None).weights for s, c in ((plain, one), (held, other))]
    assert weights[0] - weights[1] == written(shapes) - stored(shapes)
    with pytest.raises(UserError, match="no plain addition"):
        held.check(make_method("full"))
    asked = answer(
        path, "h200", training=Training(base=base), batch=2, sequence=32, methods=["lora:4", "full", "cdvft"]
    )  # type: ignore[arg-type]
    paths = {dict(c.hyperparameters)["path"] for c in asked.choices if c.method == "cdvft"}
    assert paths <= {"fft", "handwritten"}  # its fast paths read W
    assert {c.method for c in asked.choices} == {"lora", "cdvft"}
    assert [label for label, _ in asked.left_out] == ["Full fine-tuning"]


@pytest.mark.parametrize("seed", range(4))
def test_packed_rows_are_their_documents_side_by_side(tmp_path: Path, seed: int) -> None:
    """A row of k documents, whole: the FLOPs, times of attention and memory of k rows, each of one."""
    rng = random.Random(seed)
    document, many = 4 * rng.randint(2, 6), rng.randint(2, 5)
    path = llama(tmp_path / "net", num_hidden_layers=2)
    row = document * many
    packed = subject(path, sequence=row, training={"packed": document})
    apart = subject(path, sequence=document, batch=2 * many)
    whole = subject(path, sequence=row)
    assert attended(row, document) == many * document**2
    for method in (None, LORA):
        one, other = packed.cost(method), apart.cost(method)
        for a, b in ((one.forward, other.forward), (one.backward, other.backward)):
            assert int(total(a).macs) == int(total(b).macs)
        pricer = Pricer(H200.rates, "bfloat16")
        of = [pricer.seconds(tuple(k for k in c.forward if "attention" in k.op)) for c in (one, other)]
        assert of[0] == pytest.approx(of[1], rel=1e-9)
    memory = [s.memory(LORA, s.cost(LORA), s.batch, False, 0, None) for s in (packed, apart, whole)]
    tables = 2 * row * 16 * 2  # cosines and sines of a longer row
    assert 0 <= memory[0].activations - memory[1].activations <= tables
    assert memory[0] == memory[2]  # fused attention keeps no scores: packing saves rows, not bytes of a row
    saved = attention = 2 * 2 * 2 * 4 * row * row * 16
    saved -= attention * attended(row, document) // row**2
    assert whole.base.forward.macs - packed.base.forward.macs == saved


def test_documents_that_do_not_fill_a_row() -> None:
    assert attended(10, 4) == 2 * 16 + 4
    assert attended(10, 0) == attended(10, 10) == 100
    shape = model_shape("minilm")
    asked = open_network_subject("minilm", 2, 100, "float32", "cuda", training=Training(packed=30))
    full = frozen_model_macs(shape, 2, 100)
    pairs = 3 * 30**2 + 10**2
    expected = full - attention_macs(shape, 2, 100) + attention_macs(shape, 2, 100) * pairs // 100**2
    assert asked.base.forward.macs == expected
    with pytest.raises(UserError, match="packed = 101: documents are longer than a row of 100 tokens"):
        open_network_subject("minilm", 2, 100, "float32", "cuda", training=Training(packed=101)).cost(None)


def test_packing_that_saves_nothing_says_so() -> None:
    opened, _ = network(next(t for t in NETWORKS if t.kind == "mamba"))
    asked = AnyNetwork(opened, (), 2, 12, "float32", "cuda", ("all-linear",), Training(packed=4))
    assert any("packing saves nothing here" in note for note in asked.assumptions)


def test_adapters_in_16_bits_are_counted_so(tmp_path: Path) -> None:
    """The closed form of LoRA without casts against the launches of PEFT's layer whose parameters are in bfloat16."""
    path = llama(tmp_path / "net", num_hidden_layers=2)
    asked = subject(path, training={"adapter_dtype": "bfloat16"}, targets=("q_proj", "v_proj"))
    cost = asked.cost(LORA)
    assert cost.parameter_dtype == "bfloat16"
    wide = subject(path, targets=("q_proj", "v_proj")).cost(LORA)
    assert int(total(cost.forward).launches) < int(total(wide.forward).launches)
    found = network_cost(asked.base, LORA, asked._chosen(asked.base), "bfloat16", device="cuda", narrow=True)
    adapted = adapt(asked.network, found, LORA)
    for p in adapted.parameters():
        p.data = p.data.to(torch.bfloat16)
    counted = count_modules(adapted, lambda: asked.network.make_inputs(2, 32), device="cuda")
    assert counted.backward is not None
    assert found.forward.macs == counted.forward.macs
    assert found.forward.launches == counted.forward.launches
    assert found.forward.read + found.forward.written == counted.forward.read + counted.forward.written
    assert counted.saved_bytes <= asked.base.saved_bytes + int(cost.saved_bytes) * 1.001


@pytest.mark.parametrize("training", [{}, {"checkpoint": 1}, {"optimizer": "adafactor"}, {"logit_chunks": 4}])
@pytest.mark.parametrize("kind", ["lora", "cdvft"])
def test_memory_is_that_of_the_adapted_network_by_count(tmp_path: Path, training: dict[str, Any], kind: str) -> None:
    method = LORA if kind == "lora" else CDVFT
    asked = subject(llama(tmp_path / "net"), training=training, targets=("v_proj",))
    mine = asked.memory(method, asked.cost(method), 2, False, 0, None)
    opened = asked.network
    held = held_weights(opened.module, opened.head, asked.training, "bfloat16")
    cost = network_cost(asked.base, method, asked._chosen(asked.base), "bfloat16", device="cuda")
    theirs = network_budget(
        adapt(opened, cost, method),
        held,
        held.bytes_,
        cost,
        lambda: opened.make_inputs(2, 32),
        asked.training,
        "bfloat16",
        device="cuda",
        head=opened.head,
    )
    for item in ("weights", "gradients", "optimizer"):
        assert getattr(mine, item) == getattr(theirs, item), item
    assert mine.activations == pytest.approx(theirs.activations, rel=0.03)


def test_memory_of_other_batches_lies_on_the_line_of_two_counts(tmp_path: Path) -> None:
    path = llama(tmp_path / "net")
    asked = subject(path, batch=6)
    cost = asked.cost(LORA)
    for batch in (1, 3, 6):
        for checkpointed in (False, True):
            real = subject(path, batch=batch)
            found = asked.memory(LORA, cost, batch, checkpointed, 0, None)
            assert found.activations == pytest.approx(
                real.memory(LORA, real.cost(LORA), batch, checkpointed, 0, None).activations, abs=64
            )


def test_optimisers_are_priced(tmp_path: Path) -> None:
    path = llama(tmp_path / "net")
    full, pricer = make_method("full"), Pricer(H200.rates, "bfloat16")
    steps = {}
    for name in ("adamw", "adamw-foreach", "adamw-8bit", "adafactor"):
        asked = subject(path, training={"optimizer": name})
        cost = asked.cost(full)
        update = asked.update(full, cost)
        steps[name] = int(total(update).read) + int(total(update).written), pricer.seconds(update)
    n, tensors = asked.parameters, int(cost.tensors)
    assert steps["adamw"][0] == 7 * 2 * n + 4 * tensors + 8 * tensors
    assert steps["adamw-foreach"][0] == 20 * 2 * n + 8 * tensors
    assert steps["adamw-8bit"][0] < steps["adamw-foreach"][0]
    memory = [
        subject(path, training={"optimizer": name}).memory(full, cost, 2, False, 0, None)
        for name in ("adamw", "adamw-foreach")
    ]
    assert memory[0].optimizer == memory[1].optimizer
