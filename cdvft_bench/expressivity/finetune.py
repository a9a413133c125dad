"""Real weight changes: full fine-tuning of a small text classifier, tuned minus base saved layer by layer.

Needs transformers, a model folder (or hub id) and a CSV of labels and texts; everything else of this package
runs without. The classifier is a linear head on the mean of the last hidden states.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cdvft_bench.errors import UserError
from cdvft_bench.expressivity.targets import SOURCE


@dataclass(frozen=True)
class Recipe:
    """How the classifier is trained.

    Attributes:
        model: folder or hub id of an encoder.
        data: CSV file whose first line holds the column names.
        label, text: column names.
        layers: regular expression; weights of linear layers whose name it matches somewhere are saved.
        steps, batch, length, learning_rate, seed: of AdamW training.
    """

    model: str
    data: Path
    label: str = "label"
    text: str = "text"
    layers: str = r"(query|value)$"
    steps: int = 200
    batch: int = 16
    length: int = 48
    learning_rate: float = 5e-5
    seed: int = 0


def read_examples(path: Path, label: str, text: str) -> tuple[list[str], list[int], list[str]]:
    """Texts, class numbers and class names of a CSV file.

    Raises:
        UserError: the file or a column is missing, or there are fewer than two classes.
    """
    if not path.is_file():
        raise UserError(f"data file {path} does not exist; give a CSV file with columns {label!r} and {text!r}")
    with path.open(encoding="utf-8", errors="replace", newline="") as source:
        reader = csv.DictReader(source)
        names = reader.fieldnames or []
        for column in (label, text):
            if column not in names:
                raise UserError(f"{path} has no column {column!r}; it has {', '.join(names) or 'none'}")
        pairs = [(row[label], row[text]) for row in reader if row[label] and row[text]]
    classes = sorted({name for name, _ in pairs})
    if len(classes) < 2:
        raise UserError(f"{path} has {len(classes)} class in column {label!r}; a classifier needs two or more")
    return [text for _, text in pairs], [classes.index(name) for name, _ in pairs], classes


def changes_of(recipe: Recipe) -> tuple[dict[str, Tensor], list[float]]:
    """Tuned minus base of every chosen layer, float32, and the loss of every step.

    Raises:
        UserError: the model cannot be loaded, no layer matches, or the data is unusable.
    """
    import transformers

    texts, labels, classes = read_examples(recipe.data, recipe.label, recipe.text)
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(recipe.model)
        encoder: Any = transformers.AutoModel.from_pretrained(recipe.model)
    except (OSError, ValueError) as error:
        raise UserError(f"model {recipe.model} cannot be loaded; give a folder or a hub id of an encoder") from error
    torch.manual_seed(recipe.seed)
    chosen = {
        name: layer
        for name, layer in encoder.named_modules()
        if isinstance(layer, nn.Linear) and re.search(recipe.layers, name)
    }
    if recipe.steps < 1:
        raise UserError(f"steps = {recipe.steps} is too small; it must be >= 1")
    if not chosen:
        raise UserError(f"no linear layer of {recipe.model} matches {recipe.layers!r}")
    base = {name: layer.weight.detach().clone() for name, layer in chosen.items()}
    head = nn.Linear(encoder.config.hidden_size, len(classes))
    trained = [*encoder.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=0.0)
    order = torch.randint(
        len(texts), (recipe.steps, recipe.batch), generator=torch.Generator().manual_seed(recipe.seed)
    )
    losses = []
    encoder.train()
    for batch in order:
        tokens = tokenizer(
            [texts[int(k)] for k in batch], padding=True, truncation=True, max_length=recipe.length, return_tensors="pt"
        )
        hidden = encoder(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None].to(hidden.dtype)
        logits = head((hidden * mask).sum(1) / mask.sum(1))
        loss = nn.functional.cross_entropy(logits, torch.tensor([labels[int(k)] for k in batch]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return {name: layer.weight.detach() - base[name] for name, layer in chosen.items()}, losses


def save_changes(path: Path, changes: dict[str, Tensor], source: str) -> None:
    """Write the .npz that ``run --weights`` reads; ``source`` says in words where it comes from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part.npz")
    arrays: dict[str, Any] = {SOURCE: np.array(source)} | {name: change.numpy() for name, change in changes.items()}
    np.savez(temporary, **arrays)
    temporary.replace(path)
