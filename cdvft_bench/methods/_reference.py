"""Methods whose layers live in ``cdvft_reference``: how they adapt layers and models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdvft_bench.methods.base import Method, linear_targets, replace_module

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ReferenceMethod(Method):
    """A method that wraps one ``nn.Linear`` by itself."""

    @abstractmethod
    def adapt_linear(self, base: nn.Linear) -> nn.Module: ...

    def adapt_model(self, model: nn.Module, targets: Sequence[str]) -> nn.Module:
        """Freeze ``model`` and put an adapted layer in the place of each target, in place."""
        names = linear_targets(model, targets)
        model.requires_grad_(False)
        for name in names:
            base: nn.Linear = model.get_submodule(name)  # type: ignore[assignment]
            replace_module(model, name, self.adapt_linear(base))
        return model
