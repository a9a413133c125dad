"""Answers about any network: as those of closed forms where there are some, and of every way to train it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from click.testing import CliRunner

from cdvft_bench.analytic.cost import Cost, total
from cdvft_bench.analytic.models import model_shape
from cdvft_bench.analytic.training import Training
from cdvft_bench.cli import main
from cdvft_bench.methods import make_method
from cdvft_bench.predictor.answering.answer import answer
from cdvft_bench.predictor.answering.counted import AnyNetwork
from cdvft_bench.predictor.answering.subject import TableModel, open_network_subject, open_subject
from cdvft_bench.predictor.devices import assumptions, find_target
from cdvft_bench.predictor.pricing import Pricer
from cdvft_bench.sweep.model_cost import model_cost
from cdvft_bench.sweep.network_cost import network_cost
from tests.counting.architectures import NETWORKS, network

H200 = find_target("h200")
LORA, CDVFT = make_method("lora", {"rank": 8}), make_method("cdvft", {"m": 2, "path": "merged"})


def llama(folder: Path, **values: Any) -> str:
    """A small Llama's configuration, two query heads a key."""
    small = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4, "num_attention_heads": 4}
    made = transformers.LlamaConfig(
        **{**small, "num_key_value_heads": 2, "vocab_size": 300, "pad_token_id": 0, **values},
        architectures=["LlamaForCausalLM"],
    )
    made.save_pretrained(folder)
    return str(folder)


def subject(model: str, dtype: str = "bfloat16", **given: Any) -> AnyNetwork:
    batch, sequence = given.pop("batch", 2), given.pop("sequence", 32)
    training = Training(**given.pop("training", {}))
    return open_network_subject(model, batch, sequence, dtype, "cuda", training=training, **given)


def kernels(cost: Cost, name: str) -> list[tuple[int, int]]:
    """Launches and bytes of an operator in both passes."""
    found = [k for k in (*cost.forward, *cost.backward) if k.op == name]
    return [(int(k.launches), int(k.read + k.written)) for k in found]


# --- both roads ------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "sequence"), [("minilm", 128), ("smollm2-135m", 256), ("vit-small-fashion", 17)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_of_the_table_is_answered_alike_by_both_roads(model: str, sequence: int, dtype: str) -> None:
    asked = (model, 4, sequence, dtype, "cuda")
    closed, counted = open_subject(*asked), open_network_subject(*asked)
    assert isinstance(closed, TableModel)
    assert (counted.parameters, counted.layers) == (closed.parameters, closed.layers)
    assert counted.blocks == closed.blocks
    pricer = Pricer(H200.rates, dtype)
    seconds: dict[str, list[float]] = {"closed": [], "counted": []}
    for method in (None, LORA, CDVFT, make_method("dora"), make_method("fourierft")):
        one, other = closed.cost(method), counted.cost(method)
        for a, b in ((one.forward, other.forward), (one.backward, other.backward)):
            assert int(total(a).macs) == int(total(b).macs)
        seconds["closed"].append(pricer.seconds(one.forward + one.backward))
        seconds["counted"].append(pricer.seconds(other.forward + other.backward))
        if method is None:
            continue
        assert (other.parameters, other.tensors, other.parameter_dtype) == (
            one.parameters,
            one.tensors,
            one.parameter_dtype,
        )
        first, second = (x.memory(method, c, 4, False, 0, None) for x, c in ((closed, one), (counted, other)))
        assert (second.gradients, second.optimizer) == (first.gradients, first.optimizer)
        assert second.weights == pytest.approx(first.weights, rel=1e-3)  # buffers of positions
        shared = dtype == "float32" and model.startswith("smollm2")  # keys, which no fused kernel of float32 shares
        assert second.activations == pytest.approx(first.activations, rel=0.1 if shared else 0.03)
        assert second.workspace == first.workspace
    # Masks, positions and reshaped copies that no closed form lists are launched too.
    assert seconds["counted"] == pytest.approx(seconds["closed"], rel=0.12)
    assert sorted(range(5), key=lambda i: seconds["counted"][i]) == sorted(range(5), key=lambda i: seconds["closed"][i])


def test_a_model_of_the_table_with_other_layers_is_counted_and_ranked_as_by_closed_forms() -> None:
    given = {"batch": 4, "sequence": 64, "methods": ["lora:4,cdvft,dora"]}
    plain = answer("minilm", "h200", targets=["query"], **given)  # type: ignore[arg-type]
    pattern = answer("minilm", "h200", targets=[r".*\.query"], **given)  # type: ignore[arg-type]
    assert [c.label for c in pattern.choices] == [c.label for c in plain.choices]
    assert [c.parameters for c in pattern.choices] == [c.parameters for c in plain.choices]
    for one, other in zip(plain.choices, pattern.choices, strict=True):
        assert other.step_s.value == pytest.approx(one.step_s.value, rel=0.12)
        assert other.at_least
    every = answer("minilm", "h200", targets=["all-linear"], **given)  # type: ignore[arg-type]
    assert every.choices[0].parameters > 4 * plain.choices[0].parameters


# --- every architecture ------------------------------------------------------------------------

SOME = ("t5", "whisper", "clip", "llava", "mixtral", "albert", "swin", "convnext", "mamba", "deberta", "gpt2", "vit")


@pytest.mark.parametrize("tiny", [t for t in NETWORKS if t.kind in SOME], ids=lambda t: t.kind)
def test_architectures_that_closed_forms_do_not_cover(tiny: Any) -> None:
    opened, _ = network(tiny)
    asked = AnyNetwork(opened, (), 2, 12, "float32", "cuda", ("all-linear",))
    frozen, pricer = asked.cost(None), Pricer(H200.rates, "float32")
    base = asked.base
    assert base.backward is not None
    assert int(total(frozen.forward).macs) == base.forward.macs
    ends = sum(k.launches for k in frozen.forward if k.op == "_log_softmax")
    assert int(total(frozen.forward).launches) == base.forward.launches + ends
    adapted = asked.cost(LORA)
    expected = sum(8 * (m.linear[0] + m.linear[1]) for m in asked._chosen(base) if m.linear is not None)
    assert adapted.parameters == expected > 0
    assert pricer.seconds(adapted.forward + adapted.backward) > pricer.seconds(frozen.forward + frozen.backward)
    memory = asked.memory(LORA, adapted, 2, False, 0, None)
    assert memory.gradients == 4 * expected
    assert memory.activations >= base.saved_bytes
    found = network_cost(base, LORA, asked._chosen(base), "float32", device="cuda")
    assert (int(total(adapted.forward).macs), int(total(adapted.backward).macs)) == (
        found.forward.macs,
        found.backward.macs,
    )


@pytest.mark.slow
@pytest.mark.parametrize("tiny", NETWORKS, ids=lambda t: t.kind)
def test_no_architecture_ends_in_a_traceback(tiny: Any, tmp_path: Path) -> None:
    opened, config = network(tiny)
    config.architectures = [type(opened.module).__name__]
    config.save_pretrained(tmp_path)
    asked = ["answer", "--model", str(tmp_path), "--gpu", "h100", "--methods", "lora:4,cdvft,full", "--details"]
    done = CliRunner().invoke(main, [*asked, "--batch", "2", "--seq", "12"])
    assert done.exit_code in (0, 2), done.output
    assert done.exit_code == 0 or "linear layer" in done.output, done.output


# --- what small kernels and unknown operators take ----------------------------------------------


def test_a_step_of_many_small_kernels_takes_the_hosts_interval_each(tmp_path: Path) -> None:
    asked = subject(llama(tmp_path / "net"), dtype="float32", batch=1, sequence=4)
    cost = asked.cost(LORA)
    passes = (*cost.forward, *cost.backward, *asked.update(LORA, cost))
    launches = sum(int(k.launches) * int(k.starts) for k in passes)
    found = Pricer(H200.rates, "float32").seconds(passes)
    assert found == pytest.approx(launches * assumptions().launch_s)
    asked_for = answer(asked.name, "h200", batch=1, sequence=4, dtype="float32", methods=["lora:8"])
    assert asked_for.choices[0].step_s.value == pytest.approx(found)


SOURCE = """
import torch
from torch import nn

@torch.library.custom_op("cdvft_bench_net::mixed", mutates_args=())
def mixed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b

@mixed.register_fake
def _(a, b):
    return a.new_empty(a.shape[0], b.shape[1])

mixed.register_autograd(
    lambda ctx, grad: (grad @ ctx.saved_tensors[1].T, ctx.saved_tensors[0].T @ grad),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(32, 48), nn.Linear(48, 16)
        self.weight = nn.Parameter(torch.randn(48, 48))

    def forward(self, x):
        return self.last(mixed(self.first(x), self.weight))

def small():
    return Net(), (torch.zeros(10, 32),)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = f"network_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(SOURCE.replace("cdvft_bench_net", name))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield f"{name}:small"
    sys.modules.pop(name, None)


def test_operators_without_a_price_are_bounded_and_named(module: str) -> None:
    asked = ["answer", "--model", module, "--gpu", "h200", "--dtype", "float32", "--batch", "10", "--seq", "1"]
    done = CliRunner().invoke(main, [*asked, "--methods", "lora:4", "--details", "--targets", "all-linear", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    (said,) = [text for text in found["assumptions"] if text.startswith("operators without a price")]
    assert f"{module.partition(':')[0]}::mixed" in said
    assert found["choices"][0]["at_least"]
    (counted,) = [text for text in found["assumptions"] if text.startswith("forward: 1 of 3 launches have no price")]
    # 10 x 48 by 48 x 48 is what the operator does; as bytes: both operands and the result.
    known, most = 10 * 48 * (32 + 16), 10 * 48 * 48
    moved = 4 * (10 * 48 + 48 * 48 + 10 * 48)
    others = 4 * (10 * 32 + 32 * 48 + 48 + 10 * 48) + 4 * (10 * 48 + 48 * 16 + 16 + 10 * 16)
    assert f"{100 * moved / (moved + others):.2g} % of the bytes" in counted
    assert f"at most {100 * most / (known + most):.2g} % of the multiply-adds" in counted


def test_a_convolution_net_trains_whole_or_says_that_it_has_no_linear_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"convolutions_of_{tmp_path.name}".replace("-", "_")
    text = "import torch\nfrom torch import nn\n\ndef small():\n    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), "
    (tmp_path / f"{name}.py").write_text(text + "nn.Conv2d(8, 4, 3))\n    return net, (torch.zeros(2, 3, 12, 12),)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    done = CliRunner().invoke(main, ["answer", "--model", f"{name}:small", "--gpu", "h200", "--methods", "lora"])
    assert done.exit_code == 2
    assert "the network has no linear layer" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--model", "lama"], "model 'lama' is neither in the table nor a folder"),
        (["--model", "{net}", "--targets", "nosuch"], "target 'nosuch' matches no module"),
        (["--model", "{net}", "--checkpoint", "9"], "checkpoint = 9: the model has 4 blocks"),
        (["--model", "{net}", "--packed", "99"], "packed = 99: documents are longer than a row of 16 tokens"),
        (["--model", "{net}", "--packed", "-1"], "packed = -1 is not an integer >= 0"),
        (["--model", "{net}", "--task", "nosuch"], "task 'nosuch' is not known"),
        (["--model", "{net}", "--base", "nf4", "--methods", "dora"], "no plain addition"),
        (["--model", "{net}/config.json", "--methods", "c3a:7"], "no choice fits"),
        (["--model", "{net}/none.json"], "neither a folder with a config.json nor a config.json"),
    ],
)
def test_a_wrong_question_about_a_network_gets_one_line(tmp_path: Path, more: list[str], said: str) -> None:
    path = llama(tmp_path / "net")
    asked = ["answer", "--gpu", "h200", "--batch", "2", "--seq", "16", *(text.replace("{net}", path) for text in more)]
    done = CliRunner().invoke(main, asked if "--methods" in asked else [*asked, "--methods", "lora"])
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert "Traceback" not in done.output


def test_an_encoder_is_answered_without_serving_and_a_decoder_with_it(tmp_path: Path) -> None:
    found = answer(llama(tmp_path / "net"), "h200", batch=2, sequence=32, methods=["lora:8"])
    serving = found.choices[0].serving
    assert serving is not None
    assert serving.adapter_bytes == 2 * found.choices[0].parameters
    assert serving.token_s_unmerged > serving.token_s_merged
    made = transformers.T5Config(d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4, vocab_size=100)
    made.architectures = ["T5ForConditionalGeneration"]
    made.save_pretrained(tmp_path / "t5")
    asked = [
        "answer",
        "--model",
        str(tmp_path / "t5"),
        "--gpu",
        "h200",
        "--seq",
        "16",
        "--methods",
        "lora",
        "--details",
    ]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.output
    assert "1,000 adapters" not in done.output


def test_the_frozen_network_by_both_roads_has_the_same_products() -> None:
    """Llama-3.2-3B as PEFT's comparison trains it."""
    closed = model_cost(model_shape("llama-3.2-3b"), LORA, 4, 210, "bfloat16", device="cuda")
    counted = open_network_subject("llama-3.2-3b", 4, 210, "bfloat16", "cuda").cost(LORA)
    for a, b in ((closed.forward, counted.forward), (closed.backward, counted.backward)):
        assert int(total(a).macs) == int(total(b).macs)


def test_a_network_that_takes_no_16_bits_is_told_the_way_out(tmp_path: Path) -> None:
    opened, config = network(next(t for t in NETWORKS if t.kind == "deberta"))
    config.architectures = [type(opened.module).__name__]
    config.save_pretrained(tmp_path)
    asked = ["answer", "--model", str(tmp_path), "--gpu", "h200", "--batch", "2", "--seq", "12", "--methods", "lora:4"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 2
    assert "it was tried in bfloat16: give --dtype float32" in done.output
    assert CliRunner().invoke(main, [*asked, "--dtype", "float32"]).exit_code == 0
