"""One fine-tuning run: a model, a task, a method, its learning rate and seed; and what came of it."""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast

from cdvft_bench.accuracy.tasks import Example, Task, load_task
from cdvft_bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

Value = int | float | str | bool
Split = Literal["validation", "test"]
HEAD = "head"
"""Not a method of the suite: the classifier alone is trained."""


@dataclass(frozen=True)
class Trial:
    """What is run. Equal trials give equal results on one machine.

    Attributes:
        model: of the model table, with pretrained weights. task: see ``tasks``.
        method: of the suite, or "head" for the classifier alone. hyperparameters: of the method.
        lr: learning rate of the adapter (of all trained weights in full fine-tuning), constant after a linear
            warm-up of a tenth of the steps, with linear decay to zero. head_lr: of the classifier.
        seed: of initial values and the order of batches.
        examples, epochs, batch, length: training examples, passes over them, batch, tokens a text at most.
        evaluate: split that is scored, and how many of its examples at most.
    """

    model: str
    task: str
    method: str
    hyperparameters: tuple[tuple[str, Value], ...] = ()
    lr: float = 1e-3
    head_lr: float = 1e-3
    seed: int = 0
    examples: int = 1000
    epochs: int = 2
    batch: int = 16
    length: int = 32
    evaluate: Split = "validation"
    scored: int = 1000

    def __post_init__(self) -> None:
        for name in ("lr", "head_lr"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"{name} = {value} must be a finite number above 0")
        for name in ("examples", "epochs", "batch", "length", "scored"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"{name} = {value!r} must be an integer >= 1")
        if self.evaluate not in ("validation", "test"):
            raise UserError(f"evaluate = {self.evaluate!r} must be 'validation' or 'test'")

    @property
    def key(self) -> str:
        """Stable key of the trial."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """The method with its hyperparameters."""
        if self.method == HEAD:
            return "Head alone"
        from cdvft_bench.methods import make_method

        return make_method(self.method, dict(self.hyperparameters)).label


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial.

    Attributes:
        trial: what was run. label: the method with its hyperparameters.
        accuracy: share of the scored split that is right; None where training diverged.
        losses: mean loss of the first ten steps, then of every epoch; None where it is not finite.
        diverged: the loss became infinite or NaN.
        parameters: trained parameters beside the classifier, counted. formula_parameters: by closed form, None for
            "head" and for full fine-tuning, which trains all of the model.
        step_flops: FLOPs of a training step of the adapted layers and the products, convention "flop", by formula.
        step_seconds: median seconds of a step. seconds: of the whole trial.
        peak_bytes: high-water mark of a GPU's allocator over the trial; None on a CPU, where it is not measured.
        error: why the trial failed, one line. environment: key of the environment.
    """

    trial: Trial
    label: str
    accuracy: float | None
    losses: tuple[float | None, ...] = ()
    diverged: bool = False
    parameters: int = 0
    formula_parameters: int | None = None
    step_flops: float | None = None
    step_seconds: float | None = None
    seconds: float = 0.0
    peak_bytes: int | None = None
    error: str | None = None
    environment: str = ""
    created: str = field(default="")


@lru_cache(maxsize=4)
def _task(name: str) -> Task:
    return load_task(name)


@lru_cache(maxsize=2)
def _tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    from cdvft_bench.accuracy.models import model_source

    return AutoTokenizer.from_pretrained(model_source(model))


@lru_cache(maxsize=16)
def _encoded(model: str, task: str, split: str, n: int, length: int) -> list[tuple[list[int], int]]:
    examples: Sequence[Example] = getattr(_task(task), split)[:n]
    encoded = _tokenizer(model)([e.text for e in examples], truncation=True, max_length=length)["input_ids"]
    return [(ids, e.label) for ids, e in zip(encoded, examples, strict=True)]


def _batch(rows: Sequence[tuple[list[int], int]], pad: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    import torch

    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([i + [pad] * (longest - len(i)) for i, _ in rows], device=device)
    mask = torch.tensor([[1] * len(i) + [0] * (longest - len(i)) for i, _ in rows], device=device)
    return ids, mask, torch.tensor([label for _, label in rows], device=device)


def _classifier(trial: Trial, classes: int, device: str) -> tuple[nn.Module, nn.Module]:
    """The adapted encoder, and a classifier on the mean of its last hidden states."""
    import torch
    from torch import nn

    from cdvft_bench.accuracy.models import load_model
    from cdvft_bench.analytic.models import model_spec
    from cdvft_bench.methods import make_method

    body = load_model(trial.model, device=device)
    torch.manual_seed(trial.seed)
    head = nn.Linear(cast(Any, body.config).hidden_size, classes).to(device)
    nn.init.zeros_(head.bias)
    if trial.method == HEAD:
        return body.requires_grad_(False), head
    method = make_method(trial.method, dict(trial.hyperparameters))
    return method.adapt_model(body, model_spec(trial.model).targets), head


def run_trial(trial: Trial, device: str = "cpu") -> TrialResult:
    """Fine-tune and score. A loss that is not finite ends training and is recorded, not raised.

    Raises:
        UserError: the model, task or method is unknown, or a package is missing.
    """
    import torch
    from torch import nn

    begun = time.perf_counter()
    classes = len(_task(trial.task).classes)
    body, head = _classifier(trial, classes, device)
    adapter = [p for p in body.parameters() if p.requires_grad]
    groups = [{"params": head.parameters(), "lr": trial.head_lr}]
    if adapter:
        groups.append({"params": adapter, "lr": trial.lr})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    rows = _encoded(trial.model, trial.task, "train", trial.examples, trial.length)
    pad = _tokenizer(trial.model).pad_token_id or 0
    order = random.Random(trial.seed)
    per_epoch = -(-len(rows) // trial.batch)
    total, warm = per_epoch * trial.epochs, max(1, per_epoch * trial.epochs // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (total - step) / max(total - warm, 1))
    )
    losses: list[float] = []
    times: list[float] = []
    epoch_losses: list[float] = []
    _reset_peak(device)
    body.train()
    diverged = False
    for _ in range(trial.epochs):
        shuffled = order.sample(rows, len(rows))
        losses = []
        for start in range(0, len(shuffled), trial.batch):
            t = time.perf_counter()
            ids, mask, labels = _batch(shuffled[start : start + trial.batch], pad, device)
            loss = nn.functional.cross_entropy(_logits(body, head, ids, mask), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_([*adapter, *head.parameters()], 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            times.append(time.perf_counter() - t)
            if not math.isfinite(losses[-1]):
                diverged = True
                break
            if len(times) == 10:
                epoch_losses.append(sum(losses) / len(losses))
        epoch_losses.append(sum(losses) / len(losses))
        if diverged:
            break
    accuracy = None if diverged else _score(trial, body, head, pad, device)
    formula, flops = _cost(trial)
    return TrialResult(
        trial=trial,
        label=trial.label,
        accuracy=accuracy,
        losses=tuple(loss if math.isfinite(loss) else None for loss in epoch_losses),
        diverged=diverged,
        parameters=sum(p.numel() for p in adapter),
        formula_parameters=formula,
        step_flops=flops,
        step_seconds=sorted(times)[len(times) // 2],
        seconds=time.perf_counter() - begun,
        peak_bytes=_peak(device),
    )


def _logits(body: nn.Module, head: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    states = body(input_ids=ids, attention_mask=mask).last_hidden_state
    weight = mask.unsqueeze(-1).to(states.dtype)
    logits: Tensor = head((states * weight).sum(1) / weight.sum(1))
    return logits


def _score(trial: Trial, body: nn.Module, head: nn.Module, pad: int, device: str) -> float:
    import torch

    rows = _encoded(trial.model, trial.task, trial.evaluate, trial.scored, trial.length)
    ordered = sorted(rows, key=lambda row: len(row[0]))  # little padding
    body.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(ordered), 64):
            ids, mask, labels = _batch(ordered[start : start + 64], pad, device)
            right += int((_logits(body, head, ids, mask).argmax(1) == labels).sum())
    return right / len(rows)


def _cost(trial: Trial) -> tuple[int | None, float | None]:
    """Adapter parameters, and FLOPs of a step on a full batch, by closed form."""
    from cdvft_bench.analytic.models import frozen_model_macs, model_shape, target_linears
    from cdvft_bench.methods import make_method

    shape = model_shape(trial.model)
    frozen = 2.0 * float(frozen_model_macs(shape, trial.batch, trial.length))
    if trial.method == HEAD:
        return None, frozen
    if trial.method == "full":  # each product again for the gradient of its input, and of its weight
        return None, 3 * frozen
    method = make_method(trial.method, dict(trial.hyperparameters))
    tokens = trial.batch * trial.length
    layers = [linear.shape for linear in target_linears(shape)]
    costs = [method.cost(layer, tokens) for layer in layers]
    beside = sum(float(c.flops("step", "flop", scope="adapter")) for c in costs)
    return sum(int(c.parameters) for c in costs), 2 * frozen + beside


def _reset_peak(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: str) -> int | None:
    import torch

    return None if device == "cpu" else int(torch.cuda.max_memory_allocated(device))


def with_setting(trial: Trial, lr: float, seed: int, evaluate: Split) -> Trial:
    """The same run at another learning rate, seed and split."""
    return replace(trial, lr=lr, seed=seed, evaluate=evaluate)
