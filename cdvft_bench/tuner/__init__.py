"""CDVFT and the block-circulant adapter as Hugging Face PEFT methods.

Importing this package registers the method with PEFT::

    import cdvft_bench.tuner
    from cdvft_bench.tuner import CdvftConfig
    from peft import get_peft_model

    model = get_peft_model(model, CdvftConfig(m=2, block_size=768, target_modules=["query", "value"]))
"""

from __future__ import annotations

from cdvft_bench.tuner.config import CdvftConfig
from cdvft_bench.tuner.groups import cdvft_param_groups
from cdvft_bench.tuner.layer import CdvftLayer, CdvftLinear
from cdvft_bench.tuner.loading import check_adapter, load_adapter
from cdvft_bench.tuner.model import CdvftModel
from cdvft_bench.tuner.registration import register

__all__ = [
    "CdvftConfig",
    "CdvftLayer",
    "CdvftLinear",
    "CdvftModel",
    "cdvft_param_groups",
    "check_adapter",
    "load_adapter",
]

register(CdvftConfig, CdvftModel)
