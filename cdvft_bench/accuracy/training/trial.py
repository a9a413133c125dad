"""One fine-tuning run: a model, a task, a method, its learning rate and seed; and what came of it."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Literal, get_args

from cdvft_bench.core.case import todays_label
from cdvft_bench.core.errors import UserError

Value = int | float | str | bool
Split = Literal["validation", "test"]
Optimizer = Literal["adamw", "sgd"]
Precision = Literal["float32", "bfloat16"]
MOST = 2**31 - 1
HEAD = "head"
"""Not a method of the suite: the classifier alone is trained."""
BASE = "base"
"""Not a method of the suite: nothing is trained, the model answers as it is."""


@dataclass(frozen=True)
class Trial:
    """What is run. Equal trials give equal results on one machine.

    Attributes:
        model: of the model table, with pretrained weights. task: see ``tasks``.
        method: of the suite, "head" for the classifier alone, or "base" for nothing. hyperparameters: of the method.
        lr: learning rate of the adapter (of all trained weights in full fine-tuning), constant after a linear
            warm-up of a tenth of the steps, with linear decay to zero. head_lr: of the classifier.
        seed: of initial values and the order of batches.
        examples, epochs, batch, length: training examples, passes over them, batch, tokens a text at most.
        evaluate: split that is scored, and how many of its examples at most.
        optimizer: "adamw", or "sgd" (plain, for maps of the learning rate: AdamW does not see a gradient's scale).
        pool: batches that are drawn at a time and filled in order of length, which saves padding; 1 for batches as
            they are drawn.
        precision: of the products: "float32", or "bfloat16" for mixed precision by autocast, under which frozen linear
            layers hold their weights in bfloat16 and what is trained stays in float32.
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
    optimizer: Optimizer = "adamw"
    pool: int = 1
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        for name in ("model", "task", "method"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise UserError(f"{name} = {value!r:.60} must be a text in quotes")
        for name in ("lr", "head_lr"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and 0 < value <= MOST):
                raise UserError(f"{name} = {value!r:.60} must be a finite number above 0")
        for name in ("examples", "epochs", "batch", "length", "scored", "pool"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
                raise UserError(f"{name} = {value!r:.60} must be an integer >= 1, and below 2^31")
        if self.evaluate not in get_args(Split):
            raise UserError(f"evaluate = {self.evaluate!r:.60} must be 'validation' or 'test'")
        if self.optimizer not in get_args(Optimizer):
            raise UserError(f"optimizer = {self.optimizer!r:.60} must be 'adamw' or 'sgd'")
        if self.precision not in get_args(Precision):
            raise UserError(f"precision = {self.precision!r:.60} must be 'float32' or 'bfloat16'")
        for name, value in self.hyperparameters:
            if not isinstance(value, Value):
                raise UserError(f"{name} = {value!r:.60} must be one number, text, true or false")

    @property
    def key(self) -> str:
        """Stable key of the trial; what was added later does not change the key of a trial that leaves it alone."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        for name, default in (("optimizer", "adamw"), ("pool", 1), ("precision", "float32")):
            if values[name] == default:
                del values[name]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """The method with its hyperparameters."""
        if self.method == HEAD:
            return "Head alone"
        if self.method == BASE:
            return "Untrained"
        from cdvft_bench.methods import make_method

        return make_method(self.method, dict(self.hyperparameters)).label

    @property
    def start(self) -> str:
        """How the adapter begins, where the run says so; else empty."""
        return str(dict(self.hyperparameters).get("init", ""))


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
            "head" and "base".
        step_flops: FLOPs of a training step of the adapted layers and the products, convention "flop", by formula.
        step_seconds: median seconds of a step. seconds: of the whole trial.
        step_joules: of the GPU for a training step, the mean over the run's; None where it is not known.
        energy: how that was read, or why it is not known; empty in files from before it was read.
        peak_bytes: high-water mark of a GPU's allocator over the trial; None on a CPU, where it is not measured.
        training_bytes: what training takes beside the model's weights: tensors that autograd saved in the first step,
            gradients, and AdamW's two moments, on any device; None where it was not read.
        curve: the loss of every step, or the means of a hundred equal stretches where there are more; None where it is
            not finite.
        cpu_seconds: processor seconds of the whole trial, over all threads: unlike ``seconds``, little of it comes from
            what else the machine does.
        contender: label of the preset's method that the run is of, where tuning its scale made another label.
        scored: examples that were scored. right: which of them were answered right, see ``packed``.
        gradient_rms: root mean square of the adapter's gradient entries in the first step; None without an adapter.
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
    cpu_seconds: float | None = None
    contender: str = ""
    scored: int = 0
    right: str = ""
    gradient_rms: float | None = None
    step_joules: float | None = None
    energy: str = ""


def with_start(label: str, trial: Trial) -> str:
    """A method's label, which does not say how it begins, with the start where the run names one."""
    plain, path = todays_label(label), _default_path(trial.method)
    if path and "path" not in dict(trial.hyperparameters) and path not in plain.split():
        plain = re.sub(r"\bp=\w+", rf"\g<0> {path}", plain)  # older files leave out what is the default
    return f"{plain} {trial.start}" if trial.start else plain


@cache
def _default_path(method: str) -> str:
    """The path that labels of a method name where none is given; "" for most methods."""
    from cdvft_bench.methods import method_class, method_names

    path = getattr(method_class(method), "path", "auto") if method in method_names() else "auto"
    return path if path != "auto" else ""


def packed(right: Sequence[bool]) -> str:
    """Right and wrong as hexadecimal digits, four examples a digit, the first example its highest bit."""
    bits = "".join("1" if good else "0" for good in right)
    bits += "0" * (-len(bits) % 4)
    return f"{int(bits, 2):0{len(bits) // 4}x}" if bits else ""


def unpacked(text: str, n: int) -> list[bool]:
    """What :func:`packed` packed of ``n`` examples."""
    return [bit == "1" for bit in f"{int(text, 16):0{4 * len(text)}b}"[:n]] if text else []


def scale_name(method: str) -> str | None:
    """The hyperparameter that scales a method's weight change; None where it has none."""
    if method in (HEAD, BASE):
        return None
    from cdvft_bench.methods import method_class

    names = [f.name for f in fields(method_class(method)) if f.name in ("alpha", "scaling")]
    return names[0] if names else None


def scaled(trial: Trial, factor: float) -> Trial:
    """The same run with its weight change scaled by a factor, or its learning rate where the method has no scale."""
    name = scale_name(trial.method)
    if name is None:
        return with_setting(trial, _rounded(trial.lr * factor), trial.seed, trial.evaluate)
    from cdvft_bench.methods import make_method

    given = dict(trial.hyperparameters)
    given[name] = _rounded(getattr(make_method(trial.method, given), name) * factor)
    return replace(trial, hyperparameters=tuple(sorted(given.items())))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def with_setting(trial: Trial, lr: float, seed: int, evaluate: Split) -> Trial:
    """The same run at another learning rate, seed and split; where the classifier alone is trained, the rate is its."""
    if trial.method == HEAD:
        return replace(trial, lr=lr, head_lr=lr, seed=seed, evaluate=evaluate)
    return replace(trial, lr=lr, seed=seed, evaluate=evaluate)
