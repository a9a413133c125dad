"""Real weight changes: the accuracy room fine-tunes a model in full; tuned minus base is saved layer by layer.

Needs the packages that model and task come from; everything else of this room runs without.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from cdvft_bench.accuracy.training.fit import run_trial
from cdvft_bench.accuracy.training.trial import Trial, TrialResult
from cdvft_bench.accuracy.workloads import make_workload
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import replacing
from cdvft_bench.expressivity.fitting.targets import SOURCE


def changes_of(trial: Trial, layers: str = r"(query|value)$") -> tuple[dict[str, Tensor], TrialResult]:
    """Tuned minus base of every chosen linear layer (d_out, d_in), float32, and what came of the fine-tuning.

    Args:
        trial: of the method "full".
        layers: regular expression; a layer whose name it matches somewhere is chosen.

    Raises:
        UserError: the method is not "full", no layer matches, training diverged, or as for ``run_trial``.
    """
    if trial.method != "full":
        raise UserError(f"method {trial.method!r} leaves most weights as they are; give 'full'")
    try:
        chosen = re.compile(layers)
    except re.error as error:
        raise UserError(f"layers = {layers!r} is no regular expression ({error})") from None

    def weights(body: nn.Module) -> dict[str, Tensor]:
        found = {
            name: module.weight.detach().clone()
            for name, module in body.named_modules()
            if isinstance(module, nn.Linear) and chosen.search(name)
        }
        if not found:
            raise UserError(f"no linear layer of {trial.model} matches {layers!r}")
        return found

    base = weights(make_workload(trial.model, trial.task, trial.length, "cpu").load())
    tuned: dict[str, Tensor] = {}
    result = run_trial(trial, keep=lambda body: tuned.update(weights(body)))
    if result.diverged:
        raise UserError(f"training diverged at lr = {trial.lr:g}; give a smaller one")
    return {name: tuned[name] - weight for name, weight in base.items()}, result


def describe(trial: Trial, result: TrialResult) -> str:
    """The origin of the changes in one line, kept with every figure made from them."""
    return (
        f"{trial.model} on {trial.task}, full fine-tuning: {trial.examples:,} examples, {trial.epochs} epochs, "
        f"AdamW {trial.lr:g}, seed {trial.seed}, {trial.evaluate} accuracy {result.accuracy:.3f}"
    )


def save_changes(path: Path, changes: dict[str, Tensor], source: str) -> None:
    """Write the .npz that ``run --weights`` reads; ``source`` says in words where it comes from."""
    arrays: dict[str, Any] = {SOURCE: np.array(source)} | {name: change.numpy() for name, change in changes.items()}
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)
