"""Training: two processes against one, an interrupted run against a whole one, compiled graphs, quantised bases."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn

from cdvft_bench.accuracy.training.models import model_source
from cdvft_bench.tuner import CdvftConfig, load_adapter
from tests.fresh import Fresh
from tests.tuner.models import KINDS, Net

CONFIG: dict[str, Any] = {"m": 2, "block_size": 8, "target_modules": ["first", "second"], "path": "fused"}


def model_and_data() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = get_peft_model(Net(), CdvftConfig(**CONFIG))
    return model, torch.randn(8, 20), torch.randn(8, 12)


def train(model: nn.Module, x: Tensor, y: Tensor, steps: int = 4) -> dict[str, Tensor]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {
        n.replace("_fsdp_wrapped_module.", ""): p.detach().clone()
        for n, p in model.named_parameters()
        if p.requires_grad
    }


def sharded(init: str = "random") -> tuple[Any, Tensor, Tensor]:
    """As ``model_and_data``, and m = 3: every kind of factor is there."""
    torch.manual_seed(0)
    model = get_peft_model(Net(), CdvftConfig(**{**CONFIG, "m": 3, "init": init}))
    return model, torch.randn(8, 20), torch.randn(8, 12)


def descend(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Four steps of plain descent: Adam would blow the rounding of small gradients up."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(4):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()


TWO = """
import sys
import torch.multiprocessing as mp
from tests.tuner.test_tuner_training import one_of_two

mp.start_processes(one_of_two, (sys.argv[1],), nprocs=2, start_method="fork")
"""


def one_of_two(rank: int, folder: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found: dict[str, dict[str, Tensor]] = {}

    model, x, y = model_and_data()
    train(nn.parallel.DistributedDataParallel(model), x[rank::2], y[rank::2])
    found["DDP"] = weights_of(model)

    model, x, y = sharded()
    wrapped = FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    descend(wrapped, x[rank::2], y[rank::2])
    with FullyShardedDataParallel.summon_full_params(wrapped):
        found["FSDP"] = weights_of(wrapped)

    model, x, y = sharded()
    mesh = init_device_mesh("cpu", (2,))
    for layer in (model.base_model.model.first, model.base_model.model.second, model):
        fully_shard(layer, mesh=mesh)
    descend(model, x[rank::2], y[rank::2])
    assert all(len(p.to_local()) < len(p) for p in model.parameters() if len(p) > 1), "nothing was sharded"
    found["fully_shard"] = {n: p.full_tensor() for n, p in weights_of(model).items()}  # type: ignore[operator]

    if rank == 0:
        torch.save(found, f"{folder}/weights.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.timeout(900)  # two processes import everything anew
def test_two_processes_give_the_weights_of_one(tmp_path: Path, fresh: Fresh) -> None:
    """DDP, FSDP and fully_shard, each process with half of the batch, against one process with all of it."""
    fresh.run(TWO, str(tmp_path))
    found = torch.load(tmp_path / "weights.pt")
    model, x, y = sharded()
    start = weights_of(model)
    descend(model, x, y)
    alone = {"DDP": train(*model_and_data()), "FSDP": weights_of(model), "fully_shard": weights_of(model)}
    assert all(not torch.allclose(start[name], value, atol=1e-4) for name, value in weights_of(model).items())
    for way, weights in alone.items():
        assert set(found[way]) == set(weights)
        for name, value in weights.items():
            torch.testing.assert_close(found[way][name], value, rtol=1e-4, atol=1e-6, msg=lambda m, w=way: f"{w}: {m}")


def minilm() -> nn.Module:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(model_source("minilm"), num_labels=3)


def trainer(folder: Path, steps: int, base: Callable[[], nn.Module]) -> Any:
    from transformers import Trainer, TrainingArguments

    torch.manual_seed(0)
    model = get_peft_model(base(), CdvftConfig(m=2, modules_to_save=["classifier"], path="fused"))
    generator = torch.Generator().manual_seed(1)
    data = [
        {"input_ids": torch.randint(3, 60, (8,), generator=generator), "labels": torch.tensor(i % 3)} for i in range(24)
    ]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        save_steps=3,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
        lr_scheduler_type="constant",
    )
    return Trainer(model=model, args=arguments, train_dataset=data)


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="transformers' Trainer needs accelerate")
@pytest.mark.parametrize("base", [KINDS["encoder"].make, minilm], ids=["random", "minilm"])
def test_a_resumed_fine_tune_equals_an_uninterrupted_one(base: Callable[[], nn.Module], tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", 6, base)
    whole.train()
    first = trainer(tmp_path / "halves", 3, base)
    first.train()
    second = trainer(tmp_path / "halves", 6, base)
    second.train(resume_from_checkpoint=True)
    expected, found = (get_peft_model_state_dict(t.model) for t in (whole, second))
    assert set(expected) == set(found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-9)
    losses = [[log["loss"] for log in t.state.log_history if "loss" in log] for t in (whole, second)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["fft", "fused", "stored", "merged"])
def test_compiled_models_train_alike(path: str) -> None:
    torch.manual_seed(0)
    model = get_peft_model(Net(), CdvftConfig(**{**CONFIG, "path": path, "init": "random"}))
    x, g = torch.randn(8, 20), torch.randn(8, 12)
    model(x).backward(g)
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    compiled = torch.compile(model, backend="aot_eager")
    compiled(x).backward(g)
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="the package torchao is not installed")
def test_quantised_bases_train_and_refuse_to_merge(tmp_path: Path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    torch.manual_seed(0)
    base = Net()
    quantize_(base, Int8WeightOnlyConfig())
    x = torch.randn(6, 20)
    before = base(x)
    model = get_peft_model(base, CdvftConfig(**CONFIG))
    torch.testing.assert_close(model(x), before)
    model(x).square().mean().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None and p.dtype == torch.float32 for p in trained)
    torch.optim.SGD(trained, lr=0.5).step()
    assert not torch.allclose(model(x), before)
    with pytest.raises(TypeError, match="dequantise"):
        model.merge_adapter()
    model.save_pretrained(tmp_path)
    assert load_adapter(Net(), tmp_path) is not None


def test_fully_sharded_parameters_have_a_dimension() -> None:
    """FSDP shards along the first dimension: no factor is a scalar, none shares storage with another."""
    model = get_peft_model(Net(), CdvftConfig(**{**CONFIG, "m": 3}))
    factors = [p for p in model.parameters() if p.requires_grad]
    assert all(p.ndim >= 1 and p.is_contiguous() for p in factors)
    assert len({p.untyped_storage().data_ptr() for p in factors}) == len(factors)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bfloat16_training_on_a_gpu() -> None:
    model, x, y = model_and_data()
    model = model.to("cuda", torch.bfloat16)
    assert train(model, x.cuda().bfloat16(), y.cuda().bfloat16())
