"""What an answer is about: a network and its workload, whose costs come by closed forms alone or from its count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Kernels
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.models import MODELS, ModelLinear, known_model, target_linears
from cdvft_bench.analytic.training import Training
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import is_file, is_folder
from cdvft_bench.core.names import not_known
from cdvft_bench.methods import Method
from cdvft_bench.predictor.answering.serving import Decoding, cache_bytes, token_kernels
from cdvft_bench.predictor.memory import budget
from cdvft_bench.predictor.results import MemoryBudget
from cdvft_bench.predictor.transformer import Transformer, find_model, rest_backward, rest_forward
from cdvft_bench.sweep.model_cost import model_cost

if TYPE_CHECKING:
    from cdvft_bench.predictor.answering.counted import AnyNetwork


class Subject(ABC):
    """A network, its workload, and how it is trained.

    Attributes:
        batch, sequence: of one GPU. dtype: of base and activations. kind: of the device.
    """

    batch: int
    sequence: int
    dtype: str
    kind: str

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the network."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Of the network."""

    @property
    @abstractmethod
    def largest_block(self) -> int:
        """Bytes that FSDP gathers at a time."""

    @property
    @abstractmethod
    def blocks(self) -> int:
        """How often it does so in a pass."""

    @property
    @abstractmethod
    def comparable(self) -> bool:
        """Whether records hold this very step."""

    @property
    @abstractmethod
    def layers(self) -> list[LinearShape]:
        """Shapes of the adapted layers, each once.

        Raises:
            UserError: the targets select none.
        """

    def check(self, method: Method) -> None:
        """Raise UserError where the method cannot be trained so."""
        return None

    @abstractmethod
    def cost(self, method: Method | None) -> Cost:
        """Kernels of both passes of the whole network, the loss included; the frozen network's without a method."""

    def update(self, method: Method, cost: Cost) -> Kernels:
        """Kernels of the optimiser."""
        return cost.update

    @abstractmethod
    def memory(
        self, method: Method, cost: Cost, batch: int, checkpointed: bool, reserved: int, capacity: int | None
    ) -> MemoryBudget:
        """Of a step on one GPU that holds everything.

        Args:
            cost: of the method at this subject's batch. batch: of the step.
            checkpointed: every block is computed again. reserved: bytes of the context. capacity: of the GPU.
        """

    @abstractmethod
    def decoding(self, method: Method) -> Decoding | None:
        """A step of serving; None where the network makes no text, a token at a time."""

    @property
    @abstractmethod
    def assumptions(self) -> tuple[str, ...]:
        """What was taken for granted."""

    @property
    def unpriced(self) -> tuple[Kernels, Kernels]:
        """Of the frozen passes, operators without a price: as they are in the times, and with their most arithmetic."""
        return (), ()


OPTIMISED = "AdamW in its fused form"


@dataclass(frozen=True)
class TableModel(Subject):
    """A model of the table, by closed forms: no network is built.

    Attributes:
        model: with its family. targets: endings of the adapted layers; none for its usual ones.

    Raises:
        UserError: the model takes no such sequence.
    """

    model: Transformer
    batch: int
    sequence: int
    dtype: str
    kind: str
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, positions = self.model.shape, self.model.positions
        if shape.image_tokens is not None and self.sequence != shape.image_tokens:
            raise UserError(f"{shape.name} makes {shape.image_tokens} tokens of an image, not {self.sequence}")
        if positions is not None and self.sequence > positions:
            raise UserError(f"sequence = {self.sequence} is longer than {shape.name}'s {positions} positions")

    @property
    def _workload(self) -> tuple[int, int, str]:
        return self.batch, self.sequence, self.dtype

    @property
    def name(self) -> str:
        """Of the table."""
        return self.model.shape.name

    @property
    def parameters(self) -> int:
        """Of the model."""
        return self.model.shape.total_parameters

    @property
    def largest_block(self) -> int:
        """Bytes that FSDP gathers at a time."""
        return self.model.largest_block * ITEMSIZE[self.dtype]

    @property
    def blocks(self) -> int:
        """Its blocks, and what is outside of them."""
        return self.model.shape.attention.layers + 1

    @property
    def comparable(self) -> bool:
        """A record's step has no loss over a vocabulary, and adapts the usual layers."""
        return not self.targets and not self.model.language_model

    @property
    def layers(self) -> list[LinearShape]:
        """Shapes of the adapted layers, each once."""
        return list(dict.fromkeys(x.shape for x in target_linears(self.model.shape, self.targets)))

    def cost(self, method: Method | None) -> Cost:
        """Linear layers, attention, and the rest of the model."""
        found = model_cost(self.model.shape, method, *self._workload, self.targets, device=self.kind)
        rest = (self.model, *self._workload)
        forward, backward = rest_forward(*rest, loss=True), rest_backward(*rest, loss=True)
        return Cost(
            found.parameters,
            found.tensors,
            found.forward + forward,
            found.backward + backward,
            found.saved_bytes,
            found.parameter_dtype,
        )

    def memory(
        self, method: Method, cost: Cost, batch: int, checkpointed: bool, reserved: int, capacity: int | None
    ) -> MemoryBudget:
        """Of a step on one GPU that holds everything."""
        rest = (batch, self.sequence, self.dtype)
        if batch != self.batch:
            cost = model_cost(self.model.shape, method, *rest, self.targets, device=self.kind)
        return budget(
            self.model,
            method,
            cost,
            *rest,
            device=self.kind,
            reserved=reserved,
            capacity=capacity,
            targets=self.targets,
            checkpointed=checkpointed,
        )

    def decoding(self, method: Method) -> Decoding | None:
        """A token a sequence through every layer, and the cache read once."""
        shape = self.model.shape
        adapted: Sequence[ModelLinear] = shape.linears if method.trains_all else target_linears(shape, self.targets)
        kernels = [
            token_kernels(self.model, one, *self._workload, self.targets, device=self.kind)
            for one in (None, None if method.trains_all else method)
        ]
        return Decoding(
            shape.total_parameters * ITEMSIZE[self.dtype],
            cache_bytes(self.model, *self._workload),
            kernels[0],
            kernels[1],
            tuple(int(x.shape.weights) for x in adapted),
        )

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What was taken for granted."""
        return (
            f"eager PyTorch, one kernel after the other; {OPTIMISED}; dropout off; no activation checkpointing",
            "attention fused (no score matrix is kept); loss over the whole vocabulary for language models",
            f"adapted layers: {', '.join(self.targets or self.model.shape.targets)}",
            *self.model.notes,
        )


# --- which subject an answer is about -------------------------------------------------------


LONGEST = 2048
"""Tokens a sequence where none were asked for and the model takes as many."""
PATTERN = frozenset("\\[](){}^$*+?|")
"""Characters by which a target is a regular expression."""


def open_subject(
    model: str,
    batch: int,
    sequence: int | None,
    dtype: str,
    kind: str,
    *,
    targets: Sequence[str] = (),
    task: str | None = None,
    inputs: str | None = None,
    training: Training | None = None,
) -> Subject:
    """The network of a question.

    Args:
        sequence: None for 2048, or the model's longest. kind: of the device. The others as ``answer`` takes them.

    Raises:
        UserError: there is no such network, or it does not take this workload.
    """
    named, model = tuple(targets), known_model(model)
    plain = not any(set(text) & PATTERN or text == "all-linear" for text in named)
    if model in MODELS and plain and not (task or inputs) and training in (None, Training()):
        found = find_model(model)
        longest = found.shape.image_tokens or min(LONGEST, found.positions or LONGEST)
        return TableModel(found, batch, longest if sequence is None else sequence, dtype, kind, named)
    if model not in MODELS and not (":" in model or "/" in model or is_file(Path(model)) or is_folder(Path(model))):
        state = (
            "is neither in the table nor a folder with a config.json, a config.json, a hub id (owner/name) or "
            "package.module:factory"
        )
        raise not_known("model", model, MODELS, state, "the table has")
    return open_network_subject(
        model, batch, sequence, dtype, kind, targets=named, task=task, inputs=inputs, training=training
    )


def open_network_subject(
    model: str,
    batch: int,
    sequence: int | None,
    dtype: str,
    kind: str,
    *,
    targets: tuple[str, ...] = (),
    task: str | None = None,
    inputs: str | None = None,
    training: Training | None = None,
) -> AnyNetwork:
    """Any network by its count, one of the table too."""
    from cdvft_bench.predictor.answering.counted import AnyNetwork
    from cdvft_bench.sweep.networks import open_model

    network, usual = open_model(model, dtype, task, inputs)
    if sequence is None:
        sequence = _longest(network.module)
    return AnyNetwork(network, usual, batch, sequence, dtype, kind, targets, training or Training())


def _longest(module: Any) -> int:
    """Tokens a sequence where none were asked for: of an image its own, else the most that the network takes."""
    config: Any = getattr(module, "config", None)
    if config is None:
        return LONGEST
    if getattr(module, "main_input_name", "input_ids") == "pixel_values" and isinstance(
        size := getattr(config, "image_size", None), int
    ):
        patch = getattr(config, "patch_size", None)
        return (size // patch) ** 2 + 1 if isinstance(patch, int) and patch else LONGEST
    text = config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_source_positions", "max_target_positions")
    known = [value for name in names if isinstance(value := getattr(text, name, None), int) and value > 0]
    padded = 2 if getattr(text, "model_type", "") in ("roberta", "mpnet", "xlm-roberta", "camembert") else 0
    return min([LONGEST, *(n - padded for n in known)])
