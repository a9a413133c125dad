"""CDVFT and the block-circulant adapter as Hugging Face PEFT methods.

Importing this package registers the method with PEFT::

    import cdvft_bench.tuner
    from cdvft_bench.tuner import CdvftConfig
    from peft import get_peft_model

    model = get_peft_model(model, CdvftConfig(m=2, block_size=768, target_modules=["query", "value"]))
"""

from cdvft_bench.tuner.registration import register, require_interface

require_interface()  # before the imports that need it, so that an unsuited PEFT is named as such

from cdvft_bench.tuner.config import CdvftConfig  # noqa: E402
from cdvft_bench.tuner.groups import cdvft_param_groups  # noqa: E402
from cdvft_bench.tuner.layer import CdvftLayer, CdvftLinear  # noqa: E402
from cdvft_bench.tuner.loading import check_adapter, load_adapter  # noqa: E402
from cdvft_bench.tuner.model import CdvftModel  # noqa: E402

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
