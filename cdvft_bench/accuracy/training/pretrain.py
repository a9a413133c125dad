"""Pretrain a small vision transformer of the model table on Fashion-MNIST, for transfer to other images.

``cdvft-bench pretrain`` trains all weights with a classifier on the train split of the model's task
(all of Fashion-MNIST, or for ``--model vit-small-odd`` half of its classes, for transfer to the other half), scores the
validation split, and keeps the body without the classifier in the cache (``training.models.kept``), where
``load_model`` finds it. Minutes on two cores.
"""

import json
import math
import random
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cdvft_bench.accuracy.training.models import make_parent
from cdvft_bench.accuracy.training.tasks import load_task
from cdvft_bench.accuracy.workloads import ImageWorkload
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import make_folders, remove_folders, shown, unwritable

TASKS = {"vit-small-fashion": "fashion-mnist", "vit-small-odd": "fashion-mnist-odd"}
"""By model, what it is pretrained on."""
MODEL = "vit-small-fashion"
EXAMPLES, EPOCHS, BATCH, LR, SEED = 24_000, 3, 128, 1e-3, 0


def pretrain(
    folder: Path,
    examples: int = EXAMPLES,
    epochs: int = EPOCHS,
    seed: int = SEED,
    say: Callable[[str], None] = lambda text: None,
    name: str = MODEL,
) -> float:
    """Pretrain and save.

    Args:
        folder: where the model goes, made or replaced. examples: of the train split, at most. epochs: passes over them.
        seed: of the first values and the order of batches. say: told of every epoch.
        name: of the model, see ``TASKS``.

    Returns:
        Accuracy on 2000 examples of the validation split.

    Raises:
        UserError: the model is unknown, a count is not above 0, the folder holds something else or cannot be written
            (told before any training), the data are missing, or training diverged.
    """
    import torch

    from cdvft_bench.accuracy.training.models import load_model

    if name not in TASKS:
        raise UserError(f"model {name!r} is not pretrained here; use one of {', '.join(TASKS)}")
    if examples < 1 or epochs < 1:
        raise UserError(f"examples = {examples} and epochs = {epochs} must be 1 or more")
    _check(folder)
    workload = ImageWorkload(name, load_task(TASKS[name]), 1, "cpu")
    workload.body = load_model(name, pretrained=False, seed=seed)
    torch.manual_seed(seed)
    workload.add_head()
    assert workload.head is not None
    parameters = [*workload.body.parameters(), *workload.head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.05)
    rows = list(workload.rows("train", examples))
    total = -(-len(rows) // BATCH) * epochs
    warm = max(1, total // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (1 + math.cos(math.pi * step / total)) / 2)
    )
    order = random.Random(seed)
    begun = time.perf_counter()
    for epoch in range(epochs):
        workload.body.train()
        shuffled = order.sample(rows, len(rows))
        losses = []
        for start in range(0, len(shuffled), BATCH):
            loss = workload.loss(shuffled[start : start + BATCH])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        mean = sum(losses) / len(losses)
        if not math.isfinite(mean):
            raise UserError(f"pretraining diverged in epoch {epoch + 1}; try another seed")
        say(f"epoch {epoch + 1} of {epochs}: loss {mean:.3f}, {time.perf_counter() - begun:.0f} s")
    accuracy = _score(workload)
    facts = {"task": TASKS[name], "examples": len(rows), "epochs": epochs, "batch": BATCH, "lr": LR, "seed": seed}
    _save(workload.body, folder, {**facts, "validation_accuracy": accuracy})
    return accuracy


def _score(workload: ImageWorkload) -> float:
    import torch

    rows = workload.rows("validation", 2000)
    workload.body.eval()
    with torch.no_grad():
        right = sum(sum(workload.right(rows[start : start + 256])) for start in range(0, len(rows), 256))
    return right / len(rows)


def _check(folder: Path) -> None:
    """Refuse a folder that could not be written, before minutes of training and not after them."""
    try:
        _check_ours(folder)
        made = make_folders(folder.parent)
        try:
            Path(tempfile.mkdtemp(dir=folder.parent)).rmdir()
        finally:
            remove_folders(made)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(unwritable(folder, error, "folder")) from error


def _check_ours(folder: Path) -> None:
    """Refuse what would be replaced and is neither an empty folder nor a model of ours."""
    try:
        is_folder = stat.S_ISDIR(folder.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_folder or (any(folder.iterdir()) and not (folder / "pretrain.json").is_file()):
        raise UserError(f"{shown(folder)} holds something else; name another folder")


def _save(model: Any, folder: Path, facts: dict[str, Any]) -> None:
    """Write beside the folder first, so that a kill leaves no half model."""
    try:
        make_parent(folder)
        work = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
        try:
            model.save_pretrained(work)
            (work / "pretrain.json").write_text(json.dumps(facts, indent=1) + "\n")
            _check_ours(folder)
            if folder.exists():
                shutil.rmtree(folder)
            work.replace(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise UserError(unwritable(folder, error, "folder")) from error
