"""Compiled models: one graph, as LoRA's, for all numbers of tokens, that computes and trains as the model does."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from cdvft_bench.execution import native
from cdvft_bench.execution.paths import PATHS
from cdvft_bench.tuner import CdvftConfig
from tests.tuner.models import KINDS

TARGETS = ["q_proj", "v_proj"]
LISTED = ["fft", "auto", "native", "merged"]
OTHERS = ["lora", *(path for path in PATHS if path != "triton")]


def decoder(path: str) -> Any:
    if path == "native" and native.missing(torch.float32):
        pytest.skip(native.missing(torch.float32))
    torch.manual_seed(0)
    base = KINDS["decoder"].make()
    if path == "lora":
        return get_peft_model(base, LoraConfig(target_modules=TARGETS, init_lora_weights=False))
    return get_peft_model(base, CdvftConfig(target_modules=TARGETS, path=path, block_size=16, init="random"))


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(3, 60, shape)


@pytest.mark.parametrize("path", ["auto", *(pytest.param(path, marks=pytest.mark.slow) for path in OTHERS)])
def test_the_graph_of_a_decoder_is_whole(path: str) -> None:
    torch._dynamo.reset()
    explained = torch._dynamo.explain(decoder(path))(tokens(2, 9))
    assert (explained.graph_count, explained.graph_break_count) == (1, 0), explained.break_reasons


SHAPES: dict[str, dict[str, Any]] = {
    "one block": {"block_size": 32},
    "few blocks": {"block_size": 16},
    "many blocks": {"block_size": 4, "m": 3},
    "ragged": {"block_size": 5},
    "bca": {"diagonals": False, "block_size": 16},
}
LAYERS = [(path, "few blocks") for path in LISTED]
SLOW = [(path, shape) for path in ("auto", *PATHS) if path != "triton" for shape in SHAPES]


@pytest.mark.parametrize(
    ("path", "shape"), [*LAYERS, *(pytest.param(*c, marks=pytest.mark.slow) for c in SLOW if c not in LAYERS)]
)
def test_a_layer_is_one_graph_for_all_numbers_of_tokens(path: str, shape: str) -> None:
    options = SHAPES[shape]
    if path == "native" and (options["block_size"] % 16 or native.missing(torch.float32)):
        pytest.skip("the compiled kernel does not take it, or there is none")
    if path == "merged_dense" and options.get("m", 2) > 2:
        pytest.skip("merged_dense takes one circulant factor")
    torch.manual_seed(0)
    base = nn.ModuleDict({"layer": nn.Linear(32, 48)})
    given = CdvftConfig(target_modules=["layer"], path=path, init="random", **options)
    model: Any = get_peft_model(base, given).base_model.model["layer"]
    if not given.diagonals:
        nn.init.normal_(model.cdvft_circulant["default"])
    whole = copy.deepcopy(model)
    torch._dynamo.reset()
    explained = torch._dynamo.explain(model)(torch.randn(2, 9, 32))
    assert (explained.graph_count, explained.graph_break_count) == (1, 0), explained.break_reasons
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, dynamic=True, fullgraph=True)
    frames = []
    for rows in ((2, 9), (3, 17), (64, 40)):
        x, g = torch.randn(*rows, 32, requires_grad=True), torch.randn(*rows, 48)
        gradients = []
        for layer in (compiled, whole):
            h = layer(x)
            trained = [p for p in layer.parameters() if p.requires_grad]
            gradients.append([h, *torch.autograd.grad(h, [x, *trained], g)])
        for found, expected in zip(*gradients, strict=True):
            assert float((found - expected).detach().norm()) <= 1e-5 * float(expected.detach().norm())
        frames.append(counter.frame_count)
    assert len(set(frames)) == 1


def test_a_compiled_graph_is_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from cdvft_bench.execution import planner

    asked: list[int] = []
    monkeypatch.setattr(planner, "pick_for", lambda problem: asked.append(problem.tokens) or "fused")
    torch._dynamo.reset()
    layer = decoder("auto").base_model.model.model.layers[0].self_attn.q_proj
    compiled = torch.compile(layer, backend="eager", dynamic=True, fullgraph=True)
    for rows in (8, 24):
        compiled(torch.randn(rows, 32))
    assert set(asked) == {planner.Problem.tokens}
    asked.clear()
    planner._pick.cache_clear()
    layer(torch.randn(24, 32))
    assert asked == [24]
    planner._pick.cache_clear()  # what was picked here was made up


def test_a_compiled_layer_on_an_offloaded_base_is_called(tmp_path: Any) -> None:
    """accelerate's hooks are never compiled: the graph breaks at them, and stays right."""
    from accelerate import cpu_offload

    torch._dynamo.reset()
    torch.manual_seed(0)
    base = nn.ModuleDict({"layer": nn.Linear(32, 32)})
    layer = get_peft_model(
        cpu_offload(base, torch.device("cpu")), CdvftConfig(target_modules=["layer"], init="random", block_size=16)
    ).base_model.model["layer"]
    x = torch.randn(4, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(layer, backend="eager")(x), layer(x))
