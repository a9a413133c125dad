"""One fine-tuning run: a model, a task, a method, its learning rate and seed; and what came of it."""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from cdvft_bench.accuracy.workloads import Workload, make_workload
from cdvft_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

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
        losses: mean loss of the first ten steps (or the first epoch, if shorter), then of every epoch; None where
            it is not finite.
        diverged: the loss became infinite or NaN.
        parameters: trained parameters beside the classifier, counted. formula_parameters: by closed form, None for
            "head".
        step_flops: FLOPs of a training step of the adapted layers and the products, convention "flop", by formula.
        step_seconds: median seconds of a step. seconds: of the whole trial.
        peak_bytes: high-water mark of a GPU's allocator over the trial; None on a CPU, where it is not measured.
        training_bytes: what training takes beside the model's weights: tensors that autograd saved in the first step,
            gradients, and AdamW's two moments, on any device; None where it was not read.
        curve: the loss of every step, None where it is not finite.
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
    training_bytes: int | None = None
    curve: tuple[float | None, ...] = ()


def _prepare(trial: Trial, device: str) -> Workload:
    """The workload with its adapted model, and a classifier where the task has classes."""
    import torch

    from cdvft_bench.analytic.models import model_spec
    from cdvft_bench.methods import make_method

    workload = make_workload(trial.model, trial.task, trial.length, device)
    generation = workload.task.kind == "generation"
    if generation and trial.method == HEAD:
        raise UserError(f"task {trial.task} has no classifier, so the method 'head' has nothing to train; leave it out")
    body = workload.load()
    torch.manual_seed(trial.seed)
    if not generation:
        workload.add_head()
    if trial.method == HEAD:
        body.requires_grad_(False)
    else:
        method = make_method(trial.method, dict(trial.hyperparameters))
        workload.body = method.adapt_model(body, model_spec(trial.model).targets)
    return workload


def run_trial(trial: Trial, device: str = "cpu", keep: Callable[[nn.Module], None] | None = None) -> TrialResult:
    """Fine-tune and score. A loss that is not finite ends training and is recorded, not raised.

    Args:
        trial: what is run.
        device: cpu or cuda.
        keep: called with the trained model, for what a result does not hold.

    Raises:
        UserError: the model, task or method is unknown, they do not suit each other, or a package is missing.
    """
    import torch
    from torch import nn

    begun = time.perf_counter()
    workload = _prepare(trial, device)
    adapter = [p for p in workload.body.parameters() if p.requires_grad]
    head = list(workload.head.parameters()) if workload.head is not None else []
    groups = [{"params": group, "lr": lr} for group, lr in ((head, trial.head_lr), (adapter, trial.lr)) if group]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    rows = workload.rows("train", trial.examples)
    order = random.Random(trial.seed)
    total = -(-len(rows) // trial.batch) * trial.epochs
    warm = max(1, total // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (total - step) / max(total - warm, 1))
    )
    losses: list[float] = []
    times: list[float] = []
    epoch_losses: list[float] = []
    saved: SavedBytes | None = None
    _reset_peak(device)
    workload.body.train()
    while len(losses) < total:
        begin = len(losses)
        shuffled = order.sample(rows, len(rows))
        for start in range(0, len(shuffled), trial.batch):
            t = time.perf_counter()
            batch = shuffled[start : start + trial.batch]
            if saved is None:
                with SavedBytes(workload.body) as saved:
                    loss = workload.loss(batch)
            else:
                loss = workload.loss(batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_([*adapter, *head], 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            times.append(time.perf_counter() - t)
            if not math.isfinite(losses[-1]):
                break
        if begin == 0:
            epoch_losses.append(sum(losses[:10]) / len(losses[:10]))
        epoch_losses.append(sum(losses[begin:]) / len(losses[begin:]))
        if not math.isfinite(losses[-1]):
            break
    diverged = not math.isfinite(losses[-1])
    if keep is not None:
        keep(workload.body)
    trained = sum(p.numel() * p.element_size() for p in (*adapter, *head))
    accuracy = None if diverged else _score(trial, workload)
    formula, flops = _cost(trial, workload)
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
        # Beside the frozen weights: what the backward pass waits for, gradients, and AdamW's two moments.
        training_bytes=None if saved is None else saved.bytes + 3 * trained,
        curve=tuple(round(loss, 6) if math.isfinite(loss) else None for loss in losses),
    )


def _score(trial: Trial, workload: Workload) -> float:
    import torch

    rows = workload.rows(trial.evaluate, trial.scored)
    ordered = sorted(rows, key=lambda row: len(row[0])) if isinstance(rows[0], tuple) else rows  # little padding
    workload.body.eval()
    with torch.no_grad():
        right = sum(workload.right(ordered[start : start + 64]) for start in range(0, len(ordered), 64))
    return right / len(rows)


class SavedBytes:
    """While entered, adds up in ``bytes`` what autograd saves for the backward pass; a storage counts once.

    Args:
        model: parameters and buffers of it are there anyway, and are not counted.
    """

    def __init__(self, model: nn.Module) -> None:
        self.bytes = 0
        self._seen = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}

    def __enter__(self) -> SavedBytes:
        import torch

        # Detached, because a saved output that kept its own node would keep itself alive.
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._hooks.__exit__()

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor.detach()


def _cost(trial: Trial, workload: Workload) -> tuple[int | None, float | None]:
    """Adapter parameters, and FLOPs of a step on a full batch, by closed form."""
    from cdvft_bench.analytic.models import frozen_model_macs, model_shape, target_linears
    from cdvft_bench.methods import make_method

    shape = model_shape(trial.model)
    batch, length = workload.tokens(trial.batch)
    frozen = 2.0 * float(frozen_model_macs(shape, batch, length))
    if trial.method == HEAD:
        return None, frozen
    if trial.method == "full":  # each product again for the gradient of its input, and of its weight
        return shape.total_parameters, 3 * frozen
    method = make_method(trial.method, dict(trial.hyperparameters))
    tokens = batch * length
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
    """The same run at another learning rate, seed and split; where the classifier alone is trained, the rate is its."""
    if trial.method == HEAD:
        return replace(trial, lr=lr, head_lr=lr, seed=seed, evaluate=evaluate)
    return replace(trial, lr=lr, seed=seed, evaluate=evaluate)
