"""Networks without data are counted as they run: against the CPU, torch's own counter, and the closed forms."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from cdvft_bench.analytic.configs import make_config
from cdvft_bench.analytic.cost import total
from cdvft_bench.analytic.models import MODELS, model_shape
from cdvft_bench.cli import main
from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.count import floating_output, saved_bytes
from cdvft_bench.counting.dispatch import count_dispatch
from cdvft_bench.counting.network.build import open_network
from cdvft_bench.counting.network.by_module import checkpointing, count_modules
from cdvft_bench.counting.network.meta import NeedsDataError
from cdvft_bench.methods import make_method
from cdvft_bench.sweep.model_cost import model_cost
from cdvft_bench.sweep.network_cost import network_cost, select_targets
from tests.counting.architectures import NETWORKS, Tiny, counted, materialised, network, real_inputs

FEW = ("llama", "albert", "mixtral", "t5", "gpt2", "clip", "deberta")
BY_KIND = {tiny.kind: tiny for tiny in NETWORKS}


def test_there_are_as_many_as_are_told() -> None:
    assert len(BY_KIND) == len(NETWORKS) >= 60


LAYOUTS = {
    "swin": "without data some gradients reach a sum in a transposed layout, and are copied once more",
    "gemma3": "without data some gradients reach a sum in a transposed layout, and are copied once more",
    "segformer": "a linear layer of a transposed input is one operator on a CPU, and a product and a sum elsewhere",
}
"""Where launches (and a sum's FLOPs) differ from the CPU's, and why; products and bytes kept do not."""


def _agrees(tiny: Tiny) -> None:
    row = counted(tiny)
    # torch's counter takes the gradients of a convolution in groups for those of a whole one.
    theirs = {op: pair for op, pair in row.torch.items() if op != "convolution_backward" or pair[0] > pair[1]}
    if tiny.kind in LAYOUTS:
        assert [row.meta[i] for i in (0, 1, 4)] == [row.cpu[i] for i in (0, 1, 4)], row.differences
    else:
        assert row.meta == row.cpu, row.differences
    assert not theirs, row.differences
    assert not row.unpriced, row.differences
    assert row.meta[0] > 0


@pytest.mark.parametrize("kind", FEW)
def test_a_few_architectures_count_as_they_run(kind: str) -> None:
    _agrees(BY_KIND[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(BY_KIND) - set(FEW)))
def test_every_architecture_counts_as_it_runs(kind: str) -> None:
    _agrees(BY_KIND[kind])


def _closed_form_agrees(name: str) -> None:
    spec, shape = MODELS[name], model_shape(name)
    net = open_network(name, config=make_config(spec), auto=spec.auto)
    tokens = shape.image_tokens or 24
    found = count_modules(net.module, lambda: net.make_inputs(3, tokens), to_embeddings=True)
    cost = model_cost(shape, None, 3, tokens, "float32", device="cpu")
    assert found.parameters == shape.total_parameters
    assert found.forward.macs == total(cost.forward).macs
    assert found.backward is not None
    assert found.backward.macs == total(cost.backward).macs
    for pass_, whole in (("forward", found.forward), ("backward", found.backward)):
        assert sum(getattr(m, pass_).macs for m in found.modules) == whole.macs
        assert sum(getattr(m, pass_).launches for m in found.modules) == whole.launches


@pytest.mark.parametrize("name", ["minilm", "mpnet-base", "vit-small-fashion"])
def test_the_closed_form_of_a_model_of_the_table_is_what_is_counted(name: str) -> None:
    _closed_form_agrees(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"minilm", "mpnet-base", "vit-small-fashion"}))
def test_every_closed_form_is_what_is_counted(name: str) -> None:
    _closed_form_agrees(name)


def test_a_shared_layer_counts_as_often_as_it_is_called() -> None:
    import transformers

    net = open_network(
        "albert",
        config=transformers.AlbertConfig(
            hidden_size=768, num_attention_heads=12, intermediate_size=3072, num_hidden_layers=12
        ),
    )
    found = count_modules(net.module, lambda: net.make_inputs(1, 128), to_embeddings=True)
    query = next(m for m in found.modules if m.name.endswith("attention.query"))
    assert query.calls == 12
    assert query.rows == ((128, 12),)
    assert query.forward.macs == 12 * 128 * 768**2
    block = 128 * (4 * 768**2 + 2 * 768 * 3072) + 2 * 128**2 * 768
    assert found.forward.macs == 12 * block + 128 * 128 * 768 + 768**2  # the embedding's widening; the pooler


@pytest.mark.parametrize("every", [1, 2])
def test_checkpointing_is_counted_as_it_runs(every: int) -> None:
    tiny = BY_KIND["llama"]
    net, config = network(tiny)
    found = count_modules(net.module, lambda: net.make_inputs(2, 12), checkpointed=every)
    whole = count_modules(net.module, lambda: net.make_inputs(2, 12))
    real = materialised(net.module, tiny, config)
    given = real_inputs(net.make_inputs(2, 12))
    with checkpointing(real, every):
        kept, output = saved_bytes(real, lambda: real(**given))
        y = floating_output(output)
        with count_dispatch() as backward:
            y.backward(torch.ones_like(y))
    assert found.saved_bytes == kept < whole.saved_bytes
    assert found.backward is not None
    assert whole.backward is not None
    assert found.backward.macs == backward.result().macs > whole.backward.macs
    assert found.forward.macs == whole.forward.macs


# --- targets and adapters ------------------------------------------------------------------


@pytest.mark.parametrize("targets", [("all-linear",), ("q_proj", "v_proj"), (r".*layers\.1\..*_proj",)])
def test_targets_are_those_of_peft(targets: tuple[str, ...]) -> None:
    from peft import LoraConfig, get_peft_model

    tiny = BY_KIND["llama"]
    net, config = network(tiny)
    found = count_modules(net.module, lambda: net.make_inputs(2, 12), to_embeddings=True)
    chosen = select_targets(found.modules, targets, net.head)
    asked = targets[0] if len(targets) == 1 else list(targets)
    real = get_peft_model(materialised(net.module, tiny, config), LoraConfig(r=3, target_modules=asked))
    theirs = {
        n.removeprefix("base_model.model.").removesuffix(".lora_A.default")
        for n, _ in real.named_modules()
        if n.endswith("lora_A.default")
    }
    assert {m.name for m in chosen} == theirs
    cost = network_cost(found, make_method("lora", {"rank": 3}), chosen, "float32", device="cpu")
    assert cost.parameters == sum(p.numel() for p in real.parameters() if p.requires_grad)
    given = real_inputs(net.make_inputs(2, 12))
    with count_dispatch() as forward:
        real(**given)
    assert cost.forward.macs == forward.result().macs
    assert not cost.notes


def test_frozen_costs_what_was_counted() -> None:
    net, _ = network(BY_KIND["llama"])
    found = count_modules(net.module, lambda: net.make_inputs(2, 12), to_embeddings=True)
    cost = network_cost(found, None, (), "float32", device="cpu")
    assert found.backward is not None
    assert (cost.forward.macs, cost.forward.launches) == (found.forward.macs, found.forward.launches)
    assert cost.backward.read == found.backward.read
    assert cost.parameters == 0


@pytest.mark.parametrize("target", ["nothing", "embed_tokens", "(", "self_attn"])
def test_a_target_that_is_no_linear_layer_is_refused(target: str) -> None:
    net, _ = network(BY_KIND["llama"])
    found = count_modules(net.module, lambda: net.make_inputs(1, 4), to_embeddings=True)
    with pytest.raises(UserError, match=r"q_proj|no regular expression"):
        select_targets(found.modules, (target,), net.head)


# --- the user's own ------------------------------------------------------------------------


class _Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.first(x)
        return y if y.sum() > 0 else -y


def branching() -> tuple[nn.Module, tuple[torch.Tensor]]:
    """A network that branches on its activations, and its inputs."""
    return _Branches(), (torch.empty(3, 6),)


def convolving() -> tuple[nn.Module, tuple[torch.Tensor]]:
    """A network of convolutions and a linear layer, and its inputs."""
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 7))
    return nn.Sequential(*layers), (torch.empty(2, 3, 6, 6),)


def test_a_network_of_ones_own_counts_by_hand() -> None:
    net = open_network(f"{__name__}:convolving")
    found = count_modules(net.module, lambda: net.make_inputs(1, 1))
    assert found.forward.macs == 2 * 36 * 8 * 3 * 9 + 2 * 8 * 36 * 7
    assert {m.name: m.forward.macs for m in found.modules if m.forward.macs} == {
        "0": 2 * 36 * 8 * 3 * 9,
        "3": 2 * 8 * 36 * 7,
    }


def test_a_network_that_asks_for_values_is_refused_in_words() -> None:
    net = open_network(f"{__name__}:branching")
    with pytest.raises(NeedsDataError, match="values of weights or activations"):
        count_modules(net.module, lambda: net.make_inputs(1, 1))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not_there:make", "ModuleNotFoundError"),
        ("math:pi", "must be a function"),
        ("math:cos", "raised TypeError"),
        ("platform:machine", "must return an nn.Module"),
        ("/nowhere/config.json", "neither a folder"),
        ("", "neither a folder"),
    ],
)
def test_what_is_no_network_is_refused_in_a_line(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        open_network(text)
    assert "\n" not in str(caught.value)


def _folder(path: Path) -> Path:
    _, config = network(BY_KIND["llama"])
    values = {k: v for k, v in config.to_dict().items() if k != "architectures"}
    (path / "config.json").write_text(json.dumps({**values, "architectures": ["LlamaForCausalLM"]}))
    return path


def _run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(args))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_commands_take_a_folder(tmp_path: Path) -> None:
    folder = str(_folder(tmp_path))
    code, out = _run(
        "predict", "lora", "rank=2", "--model", folder, "--targets", "q_proj,v_proj", "--tokens", "8", "--json"
    )
    assert code == 0, out
    told = json.loads(out)
    assert told["parameters"] == 2 * (2 * (32 + 32) + 2 * (32 + 16))
    assert len(told["adapted"]) == 4
    code, out = _run("count", "--model", folder, "--by", "module", "--tokens", "8", "--json")
    assert code == 0, out
    counted_ = json.loads(out)["counted"]
    assert sum(m["forward"]["macs"] for m in counted_["modules"]) == counted_["forward"]["macs"]
    for by in ("module", "operator"):
        code, out = _run("count", "lora", "--model", folder, "--by", by, "--tokens", "8", "--sort", "flops")
        assert code == 0, out
        assert "lora_A" in out or by == "operator"


@pytest.mark.parametrize(
    "args",
    [
        ("--targets", "nothing"),
        ("--task", "nothing"),
        ("--tokens", "65"),
        ("--batch", "0"),
        ("--dtype", "nothing"),
        ("--inputs", "nothing"),
        ("--device", "nothing"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, args: tuple[str, ...]) -> None:
    code, out = _run("predict", "lora", "--model", str(_folder(tmp_path)), *_short(args))
    assert code == 2
    assert "Traceback" not in out
    assert "nothing" in out or args[1] in out


def _short(args: tuple[str, ...]) -> tuple[str, ...]:
    return args if "--tokens" in args else ("--tokens", "8", *args)


def test_utilisation_is_of_the_products_of_both_passes(tmp_path: Path) -> None:
    folder = str(_folder(tmp_path))
    options = ("--model", folder, "--tokens", "8", "--step-time", "0.001", "--gpu", "a100", "--json")
    code, out = _run("count", *options)
    assert code == 0, out
    told = json.loads(out)
    macs = told["predicted"]["forward"]["macs"] + told["predicted"]["backward"]["macs"]
    assert told["utilisation"] == pytest.approx(2 * macs / (0.001 * 19.5e12))
    code, out = _run("count", "--model", folder, "--step-time", "1e-15", "--gpu", "a100")
    assert code == 2
