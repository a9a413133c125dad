"""Fine-tuning and scoring: what runs a trial."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cdvft_bench.accuracy.training.trial import BASE, HEAD, Trial, TrialResult, packed
from cdvft_bench.accuracy.workloads import Workload, make_workload
from cdvft_bench.core.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Reading(Protocol):
    """Joules of a call, None where they are not known, and how they were read or why not."""

    @property
    def joules(self) -> float | None: ...

    @property
    def how(self) -> str: ...


Measure = Callable[[Callable[[], object], str], Reading]
"""Makes a call once on a device and reads the energy that the device took for it."""


@dataclass(frozen=True)
class Unread:
    """No reading, and why."""

    how: str
    joules: float | None = None


def unread(call: Callable[[], object], device: str, reason: str = "no meter was asked for") -> Reading:
    """Make the call and read nothing."""
    call()
    return Unread(reason)


class Training:
    """A trial's model, adapted and with its classifier, and the optimiser: what one step needs.

    Attributes:
        workload: the task as the model sees it. adapter, head: the trained parameters. optimizers: over both.
        gradient_rms: of the adapter's gradient entries in the first step; None before it, and without an adapter.
    """

    def __init__(self, trial: Trial, device: str = "cpu") -> None:
        import torch

        self.workload = _prepare(trial, device)
        self.adapter = [p for p in self.workload.body.parameters() if p.requires_grad]
        self.head = list(self.workload.head.parameters()) if self.workload.head is not None else []
        head = {"params": self.head, "lr": trial.head_lr}
        adapter = {"params": self.adapter, "lr": trial.lr}
        if trial.optimizer == "adamw":
            given = [group for group in (head, adapter) if group["params"]]
            self.optimizers: list[torch.optim.Optimizer] = []
            if given:
                self.optimizers.append(torch.optim.AdamW(given, weight_decay=0.01))
        else:  # the classifier as ever, so that the rate under study is the adapter's alone
            self.optimizers = [torch.optim.AdamW([group], weight_decay=0.01) for group in (head,) if self.head]
            self.optimizers += [torch.optim.SGD([adapter])] if self.adapter else []
        self.gradient_rms: float | None = None
        self._mixed = trial.precision == "bfloat16"
        self._kind = device.split(":")[0]
        if self._mixed:
            _hold_in_bfloat16(self.workload.body)
        self.workload.body.train()

    @property
    def trained_bytes(self) -> int:
        """Bytes of the trained parameters."""
        return sum(p.numel() * p.element_size() for p in (*self.adapter, *self.head))

    def update(self, loss: Tensor) -> None:
        """Backward pass and optimiser step; the norm of all gradients together is clipped to 1."""
        from torch import nn

        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.gradient_rms is None and self.adapter:
            squares = sum(float(p.grad.double().square().sum()) for p in self.adapter if p.grad is not None)
            self.gradient_rms = math.sqrt(squares / sum(p.numel() for p in self.adapter))
        nn.utils.clip_grad_norm_([*self.adapter, *self.head], 1.0)
        for optimizer in self.optimizers:
            optimizer.step()

    def loss(self, rows: Sequence[Any]) -> Tensor:
        """Mean loss of a batch, a scalar, in the trial's precision."""
        with self._precision():
            return self.workload.loss(rows)

    def right(self, rows: Sequence[Any]) -> list[bool]:
        """Whether each of the rows is answered right, in the trial's precision."""
        import torch

        with torch.no_grad(), self._precision():
            return self.workload.right(rows)

    def _precision(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast(self._kind, torch.bfloat16, enabled=self._mixed)

    def step(self, rows: Sequence[Any]) -> float:
        """A whole step on a batch; the loss."""
        loss = self.loss(rows)
        self.update(loss)
        return float(loss.detach())


def _prepare(trial: Trial, device: str) -> Workload:
    """The workload with its adapted model, and a classifier where the task has classes."""
    import torch

    from cdvft_bench.analytic.models import model_spec
    from cdvft_bench.methods import make_method

    workload = make_workload(trial.model, trial.task, trial.length, device)
    generation = workload.task.kind == "generation"
    if generation and trial.method == HEAD:
        raise UserError(f"task {trial.task} has no classifier, so the method 'head' has nothing to train; leave it out")
    if not generation and trial.method == BASE:
        raise UserError(f"task {trial.task} needs a classifier, which no model has untrained; leave 'base' out")
    body = workload.load()
    torch.manual_seed(trial.seed)
    if not generation:
        workload.add_head()
    if trial.method in (HEAD, BASE):
        body.requires_grad_(False)
    else:
        method = make_method(trial.method, dict(trial.hyperparameters))
        workload.body = method.adapt_model(body, model_spec(trial.model).targets)
    return workload


def _hold_in_bfloat16(body: nn.Module) -> None:
    """Cast frozen linear weights once, which autocast would cast at every call, and keep every time for backward.

    Not one that another kind of module shares, as an embedding does: what that gives would be of 16 bits as well.
    """
    import torch
    from torch import nn

    others = [m for m in body.modules() if not isinstance(m, nn.Linear)]
    shared = {id(p) for m in others for p in m.parameters(recurse=False)}
    for module in body.modules():
        if isinstance(module, nn.Linear) and not any(p.requires_grad or id(p) in shared for p in module.parameters()):
            module.to(torch.bfloat16)


@dataclass
class _Course:
    """How training went: the loss and the seconds of every step, and the mean losses of ``TrialResult.losses``."""

    losses: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)

    @property
    def diverged(self) -> bool:
        return bool(self.losses) and not math.isfinite(self.losses[-1])


def _fit(trial: Trial, training: Training, saved: SavedBytes, course: _Course) -> None:
    """Train to the end, or to the first loss that is not finite."""
    import torch

    rows = training.workload.rows("train", trial.examples)
    order = random.Random(trial.seed)
    total = -(-len(rows) // trial.batch) * trial.epochs
    warm = max(1, total // 10)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: min((step + 1) / warm, (total - step) / max(total - warm, 1)))
        for o in training.optimizers
    ]
    losses = course.losses
    while len(losses) < total and not course.diverged:
        begin = len(losses)
        for batch in batches(order.sample(rows, len(rows)), trial, training.workload.size, order):
            t = time.perf_counter()
            with nullcontext() if losses else saved:
                loss = training.loss(batch)
            training.update(loss)
            for schedule in schedules:
                schedule.step()
            losses.append(float(loss.detach()))
            course.times.append(time.perf_counter() - t)
            if not math.isfinite(losses[-1]):
                break
        if begin == 0:
            course.epochs.append(sum(losses[:10]) / len(losses[:10]))
        course.epochs.append(sum(losses[begin:]) / len(losses[begin:]))


def batches(
    shuffled: Sequence[Any], trial: Trial, size: Callable[[Any], int], order: random.Random
) -> Iterator[Sequence[Any]]:
    """Batches of examples in random order; in a pool of several batches, those of one length stand together.

    The batches of a pool come in random order, so that no length is always trained on last.
    """
    span = trial.batch * trial.pool
    for start in range(0, len(shuffled), span):
        drawn = shuffled[start : start + span]
        if trial.pool > 1:
            drawn = sorted(drawn, key=size)
        parts = [drawn[i : i + trial.batch] for i in range(0, len(drawn), trial.batch)]
        if trial.pool > 1:
            order.shuffle(parts)
        yield from parts


def run_trial(
    trial: Trial,
    device: str = "cpu",
    keep: Callable[[nn.Module], None] | None = None,
    measure: Measure = unread,
) -> TrialResult:
    """Fine-tune and score. A loss that is not finite ends training and is recorded, not raised.

    Args:
        trial: what is run.
        device: cpu or cuda.
        keep: called with the trained model, for what a result does not hold.
        measure: makes the training and reads its energy, as ``timing.memory.energy_while`` does.

    Raises:
        UserError: the model, task or method is unknown, they do not suit each other, or a package is missing.
    """
    begun, cpu_begun = time.perf_counter(), time.process_time()
    training = Training(trial, device)
    workload = training.workload
    saved, course = SavedBytes(workload.body), _Course()
    _reset_peak(device)
    if trial.method == BASE:
        used: Reading = Unread("nothing was trained")
    else:
        used = measure(lambda: _fit(trial, training, saved, course), device)
    if keep is not None:
        keep(workload.body)
    right = [] if course.diverged else _score(trial, training)
    formula, flops = _cost(trial, workload, device)
    steps = len(course.losses)
    return TrialResult(
        trial=trial,
        label=trial.label,
        accuracy=sum(right) / len(right) if right else None,
        losses=_finite(course.epochs),
        diverged=course.diverged,
        parameters=sum(p.numel() for p in training.adapter),
        formula_parameters=formula,
        step_flops=flops,
        step_seconds=sorted(course.times)[steps // 2] if steps else None,
        seconds=time.perf_counter() - begun,
        peak_bytes=_peak(device),
        # Beside the frozen weights: what the backward pass waits for, gradients, and AdamW's two moments.
        training_bytes=saved.bytes + 3 * training.trained_bytes if steps else None,
        curve=_finite(thinned(course.losses)),
        cpu_seconds=time.process_time() - cpu_begun,
        scored=len(right),
        right=packed(right),
        gradient_rms=training.gradient_rms,
        step_joules=used.joules / steps if used.joules and steps else None,
        energy=used.how,
    )


CURVE = 100
"""Points of a loss curve at most: a row must stay small however many steps were made."""


def thinned(losses: Sequence[float]) -> list[float]:
    """The losses as they are, or the means of ``CURVE`` equal stretches where there are more."""
    n = len(losses)
    if n <= CURVE:
        return [round(loss, 6) for loss in losses]
    parts = [losses[i * n // CURVE : (i + 1) * n // CURVE] for i in range(CURVE)]
    return [round(sum(part) / len(part), 6) for part in parts]


def _finite(losses: Sequence[float]) -> tuple[float | None, ...]:
    return tuple(loss if math.isfinite(loss) else None for loss in losses)


def _score(trial: Trial, training: Training) -> list[bool]:
    """Whether each example of the scored split is answered right, in the split's order."""
    workload = training.workload
    rows = workload.rows(trial.evaluate, trial.scored)
    order = sorted(range(len(rows)), key=lambda i: workload.size(rows[i]))  # alike lengths together: little padding
    workload.body.eval()
    found = [False] * len(rows)
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        for i, good in zip(part, training.right([rows[i] for i in part]), strict=True):
            found[i] = good
    return found


def _cost(trial: Trial, workload: Workload, device: str) -> tuple[int | None, float | None]:
    """Adapter parameters, and FLOPs of a step on a full batch, by closed form."""
    from cdvft_bench.analytic.models import frozen_model_macs, model_shape, target_linears
    from cdvft_bench.methods import make_method

    if trial.method == BASE:
        return None, None
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
    costs = [method.cost(layer, tokens, device=device) for layer in layers]
    beside = sum(float(c.flops("step", "flop", scope="adapter")) for c in costs)
    return sum(int(c.parameters) for c in costs), 2 * frozen + beside


def _reset_peak(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: str) -> int | None:
    import torch

    return None if device == "cpu" else int(torch.cuda.max_memory_allocated(device))


# --- what autograd keeps ---------------------------------------------------------------------


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
