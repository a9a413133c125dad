"""rsLoRA: LoRA scaled by ``alpha / sqrt(r)`` (Kalajdzievski, 2023, arXiv 2312.03732)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.methods.base import register
from cdvft_bench.methods.lora import LoRA

if TYPE_CHECKING:
    from peft import PeftConfig


@register
@dataclass(frozen=True)
class RsLoRA(LoRA):
    """LoRA with another scale, so that large ranks train as fast as small ones. It costs what LoRA costs.

    Attributes:
        rank: r, >= 1.
        alpha: the change is scaled by ``alpha / sqrt(rank)``.
    """

    name: ClassVar[str] = "rslora"
    title: ClassVar[str] = "rsLoRA"
    source: ClassVar[str] = "Kalajdzievski: arXiv 2312.03732"

    @property
    def label(self) -> str:
        return f"rsLoRA r={self.rank}" + ("" if self.alpha == 16 else f" alpha={self.alpha:g}")

    def config(self, layers: Mapping[str, LinearShape]) -> PeftConfig:
        from peft import LoraConfig

        return LoraConfig(r=self.rank, lora_alpha=self.alpha, use_rslora=True, target_modules=list(layers))
