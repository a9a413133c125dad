"""What a kind of task makes of a model: how examples become batches, what the loss is, and when an answer is right.

| kind | model | what is trained beside the adapter | right |
|---|---|---|---|
| text | encoder, mean of the last hidden states | a linear classifier | the class with the largest score |
| image | vision transformer, its first (class) token | a linear classifier | the same |
| generation | causal language model | nothing | the final number of the greedily decoded answer |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from cdvft_bench.accuracy.training.arithmetic import Problem, final_answer
from cdvft_bench.accuracy.training.images import Picture
from cdvft_bench.accuracy.training.tasks import Example, Task, load_task
from cdvft_bench.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

PROMPT = "Question: {}\nAnswer:"
NEW_TOKENS = 64
"""Tokens that an answer may take when it is generated, more where worked answers do; it is cut there."""
SPARE_TOKENS = 16


class Workload(ABC):
    """A task as a model sees it. A row is what ``rows`` gives for one example.

    Attributes:
        task: the task. device: where batches go. body: the model, set by ``build``. head: the classifier, or None.
    """

    def __init__(self, model: str, task: Task, length: int, device: str) -> None:
        self.model, self.task, self.length, self.device = model, task, length, device
        self.body: nn.Module
        self.head: nn.Module | None = None

    def load(self) -> nn.Module:
        """The model with its pretrained weights."""
        from cdvft_bench.accuracy.training.models import load_model

        self.body = load_model(self.model, device=self.device)
        return self.body

    def add_head(self) -> None:
        """Make the classifier; its first values are drawn from torch's generator."""
        from torch import nn

        width = cast(Any, self.body.config).hidden_size
        head = nn.Linear(width, len(self.task.classes))
        nn.init.zeros_(head.bias)
        self.head = head.to(self.device)

    @abstractmethod
    def rows(self, split: str, n: int) -> Sequence[Any]:
        """The first ``n`` examples of a split, ready to be put in a batch."""

    @abstractmethod
    def loss(self, rows: Sequence[Any]) -> Tensor:
        """Mean loss of a batch, a scalar."""

    @abstractmethod
    def right(self, rows: Sequence[Any]) -> list[bool]:
        """Whether each of the rows is answered right."""

    def size(self, row: Any) -> int:
        """Tokens that a row takes in a batch; rows of one size need no padding. Alike for all if they have none."""
        return 0

    def tokens(self, batch: int) -> tuple[int, int]:
        """Batch and tokens an example that the closed form is asked for."""
        return batch, self.length


class Classification(Workload):
    """A linear classifier on one vector an example."""

    @abstractmethod
    def logits(self, rows: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Scores (batch, classes) and class indices (batch,)."""

    def loss(self, rows: Sequence[Any]) -> Tensor:
        from torch.nn import functional as F

        logits, labels = self.logits(rows)
        return F.cross_entropy(logits, labels)

    def right(self, rows: Sequence[Any]) -> list[bool]:
        logits, labels = self.logits(rows)
        return [bool(good) for good in logits.argmax(1) == labels]

    def score(self, vectors: Tensor) -> Tensor:
        """The classifier's scores of (batch, width) vectors."""
        assert self.head is not None
        logits: Tensor = self.head(vectors)
        return logits


class TextWorkload(Classification):
    """Rows are (token ids, class)."""

    def rows(self, split: str, n: int) -> Sequence[Any]:
        return _encoded(self.model, self.task.name, split, n, self.length)

    def size(self, row: Any) -> int:
        return len(row[0])

    def logits(self, rows: Sequence[Any]) -> tuple[Tensor, Tensor]:
        import torch

        pad = tokenizer(self.model).pad_token_id or 0
        ids, mask = padded([ids for ids, _ in rows], pad, self.device)
        labels = torch.tensor([label for _, label in rows], device=self.device)
        states = self.body(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(states.dtype)
        return self.score((states * weight).sum(1) / weight.sum(1)), labels


class ImageWorkload(Classification):
    """Rows are pictures; grey ones are repeated over the model's channels and scaled to its size and to -1 ... 1."""

    def rows(self, split: str, n: int) -> Sequence[Any]:
        return cast(Sequence[Picture], getattr(self.task, split)[:n])

    def logits(self, rows: Sequence[Any]) -> tuple[Tensor, Tensor]:
        import numpy as np
        import torch
        from torch.nn import functional as F

        config = cast(Any, self.body.config)
        grey = torch.from_numpy(np.stack([row.pixels for row in rows])).to(self.device).float().unsqueeze(1)
        sized = F.interpolate(grey, (config.image_size, config.image_size), mode="bilinear", antialias=True)
        pixels = (sized / 127.5 - 1).expand(-1, config.num_channels, -1, -1)
        labels = torch.tensor([row.label for row in rows], device=self.device)
        return self.score(self.body(pixel_values=pixels).last_hidden_state[:, 0]), labels

    def tokens(self, batch: int) -> tuple[int, int]:
        from cdvft_bench.analytic.models import model_shape

        shape = model_shape(self.model)
        if shape.image_tokens is None:
            raise UserError(f"{self.model} takes no images, but task {self.task.name} is of images; use vit-base")
        return batch, shape.image_tokens


class GenerationWorkload(Workload):
    """Rows are (prompt ids, answer ids, final number). The loss is that of the answer's tokens alone."""

    def rows(self, split: str, n: int) -> Sequence[Any]:
        return _problems(self.model, self.task.name, split, n, self.length)

    def size(self, row: Any) -> int:
        return len(row[0]) + len(row[1])

    def loss(self, rows: Sequence[Any]) -> Tensor:
        from torch.nn import functional as F

        words = tokenizer(self.model)
        ids, mask = padded([prompt + answer for prompt, answer, _ in rows], words.eos_token_id, self.device)
        labels, _ = padded([[-100] * len(prompt) + answer for prompt, answer, _ in rows], -100, self.device)
        logits = self.body(input_ids=ids, attention_mask=mask).logits
        return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)

    def right(self, rows: Sequence[Any]) -> list[bool]:
        words = tokenizer(self.model)
        end = words.eos_token_id
        ids, mask = padded([prompt for prompt, _, _ in rows], end, self.device, left=True)
        most = max(NEW_TOKENS, SPARE_TOKENS + max(len(answer) for _, answer, _ in rows))
        made = cast(Any, self.body).generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=most,
            do_sample=False,
            num_beams=1,
            pad_token_id=end,
            eos_token_id=end,
            temperature=None,
            top_p=None,
            top_k=None,
        )
        texts = words.batch_decode(made[:, ids.shape[1] :], skip_special_tokens=True)
        return [final_answer(text) == number for text, (_, _, number) in zip(texts, rows, strict=True)]


def make_workload(model: str, task: str, length: int, device: str) -> Workload:
    """The workload of a task's kind.

    Raises:
        UserError: the task or model is unknown, or the model does not suit the task.
    """
    from cdvft_bench.analytic.models import model_spec

    spec = model_spec(model)
    loaded = _task(task)
    causal, vision = spec.auto == "AutoModelForCausalLM", spec.config.startswith("ViT")
    fits = {"text": not causal and not vision, "image": vision, "generation": causal}
    if not fits[loaded.kind]:
        wanted = {
            "text": "an encoder of text such as minilm",
            "image": "a vision transformer such as vit-base",
            "generation": "a causal language model such as smollm2-135m",
        }
        raise UserError(f"model {model} does not suit task {task}, which needs {wanted[loaded.kind]}")
    kinds: dict[str, type[Workload]] = {
        "text": TextWorkload,
        "image": ImageWorkload,
        "generation": GenerationWorkload,
    }
    return kinds[loaded.kind](model, loaded, length, device)


def padded(rows: Sequence[Sequence[int]], pad: int, device: str, left: bool = False) -> tuple[Tensor, Tensor]:
    """Token ids (batch, longest) and their mask, filled up with ``pad`` on the right, or on the left."""
    import torch

    longest = max(len(row) for row in rows)
    fill = [longest - len(row) for row in rows]
    ids = [[pad] * n + [*row] if left else [*row] + [pad] * n for row, n in zip(rows, fill, strict=True)]
    mask = [[0] * n + [1] * len(row) if left else [1] * len(row) + [0] * n for row, n in zip(rows, fill, strict=True)]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


@lru_cache(maxsize=4)
def _task(name: str) -> Task:
    return load_task(name)


@lru_cache(maxsize=2)
def tokenizer(model: str) -> Any:
    """The tokenizer of a model, from its package or the hub."""
    from cdvft_bench.accuracy.training.models import load_tokenizer

    return load_tokenizer(model)


@lru_cache(maxsize=16)
def _encoded(model: str, task: str, split: str, n: int, length: int) -> list[tuple[list[int], int]]:
    examples = cast(Sequence[Example], getattr(_task(task), split)[:n])
    encoded = tokenizer(model)([e.text for e in examples], truncation=True, max_length=length)["input_ids"]
    return [(ids, e.label) for ids, e in zip(encoded, examples, strict=True)]


@lru_cache(maxsize=16)
def _problems(model: str, task: str, split: str, n: int, length: int) -> list[tuple[list[int], list[int], int | None]]:
    words = tokenizer(model)
    problems = cast(Sequence[Problem], getattr(_task(task), split)[:n])
    found = []
    for problem in problems:
        prompt = list(words(PROMPT.format(problem.text))["input_ids"])
        answer = [*words(" " + problem.answer, add_special_tokens=False)["input_ids"], words.eos_token_id]
        if len(prompt) + len(answer) > length:
            raise UserError(
                f"task {task}: a problem and its answer take {len(prompt) + len(answer)} tokens, more than "
                f"length = {length}; give a larger length"
            )
        found.append((prompt, answer, final_answer(problem.answer)))
    return found
