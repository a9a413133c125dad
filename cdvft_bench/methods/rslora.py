"""rsLoRA: LoRA scaled by ``alpha / sqrt(r)`` (Kalajdzievski, 2023, arXiv 2312.03732)."""

from dataclasses import dataclass
from typing import ClassVar

from cdvft_bench.methods._peft import PeftNames
from cdvft_bench.methods.base import Settings, register
from cdvft_bench.methods.lora import LoRA


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
    usual: ClassVar[tuple[Settings, ...]] = ({"rank": 32},)
    peft: ClassVar = PeftNames("LoraConfig", LoRA.peft.names, {"use_rslora": True})
