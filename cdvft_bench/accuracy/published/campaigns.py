"""Hugging Face PEFT's two comparisons of its methods, as its repository records them; they come with the suite.

Training on MetaMathQA, tested on GSM8K (63 runs), and an image generator adapted to one subject (31 runs), each on one
L40S. What every run of a comparison shares stands in its ``default_training_params.json`` and is added here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from cdvft_bench.accuracy.published.reading import Published, parse_table
from cdvft_bench.core.io.reading import packaged


@dataclass(frozen=True)
class Campaign:
    """A comparison that comes with the suite.

    Attributes:
        file: of its runs. source: who made it, and how. shared: by all runs.
    """

    file: str
    source: str
    shared: tuple[tuple[str, Any], ...]


MATHS = Campaign(
    "peft_metamathqa_llama-3.2-3b.csv",
    "Hugging Face PEFT, method_comparison/MetaMathQA: "
    "Llama-3.2-3B trained on MetaMathQA, tested on GSM8K, one NVIDIA L40S",
    # 4,197,579 training tokens in 20,000 samples, as one of its result files says.
    (
        ("model", "meta-llama/Llama-3.2-3B"),
        ("dtype", "bfloat16"),
        ("batch", 4),
        ("tokens", 4_197_579 / 20_000),
        ("longest", 768),
        ("clipping", True),
    ),
)
IMAGES = Campaign(
    "peft_imagegen_flux2-klein-4b.csv",
    "Hugging Face PEFT, method_comparison/image-gen: FLUX.2 klein base 4B, 512 pixels, batch 2, 750 steps (one run "
    "300), one NVIDIA L40S",
    (
        ("model", "black-forest-labs/FLUX.2-klein-base-4B"),
        ("dtype", "bfloat16"),
        ("batch", 2),
        ("resolution", 512),
        ("checkpointing", True),
        ("clipping", True),
    ),
)


@cache
def campaign(one: Campaign = MATHS) -> Published:
    """The runs of a comparison, in the file's order."""
    text = packaged("cdvft_bench.accuracy", "data", one.file)
    found = parse_table(text, one.file, source=one.source)
    return replace(found, runs=tuple(replace(run, **dict(one.shared)) for run in found.runs))
