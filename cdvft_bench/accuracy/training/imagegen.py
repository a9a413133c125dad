"""PEFT's second published comparison: an image generator adapted by 31 methods, joined to this suite's formulas.

FLUX.2 klein base, a diffusion transformer of 4 billion parameters, trained for 750 steps, one run for 300 (512 pixels,
batch 2, bfloat16, gradient checkpointing, one L40S): DINO similarity on test prompts, drift, trainable parameters,
training time and peak memory, as PEFT's repository records them.

transformers has no such model, so its layers are written out here. That they are right shows in the published number
of all its parameters, which they give to the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cdvft_bench.accuracy.published import Formula, Run, formula_of, read_runs
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.models import ModelLinear

SOURCE = (
    "Hugging Face PEFT, method_comparison/image-gen: FLUX.2 klein base 4B, 512 pixels, batch 2, 750 steps, "
    "one NVIDIA L40S"
)
MODEL = "flux2-klein-4b"
WIDTH, DOUBLE, SINGLE = 3072, 5, 20
"""Of the tokens; blocks in which pictures and texts keep weights of their own, and blocks in which they share them."""
HEAD, CHANNELS, TEXT, TIME = 128, 128, 7680, 256
"""Widths of an attention head, a picture's patch, a text token and a time embedding."""

_FILE = "peft_imagegen_flux2-klein-4b.csv"


@dataclass(frozen=True)
class ImageRun(Run):
    """A run of the comparison.

    Attributes:
        test_dino_similarity: on test prompts, -1 to 1; higher is better.
        drift: as published; None where the file has none.
    """

    test_dino_similarity: float
    drift: float | None


def image_runs(path: str | Path | None = None) -> list[ImageRun]:
    """Read the published runs, in the file's order.

    Args:
        path: a CSV file of the same columns; None reads the one that comes with the suite.

    Raises:
        UserError: a column is missing or a cell is not of its kind; the message has line and column.
    """
    return read_runs(ImageRun, _FILE, path, {"test_dino_similarity": (-1.0, 1.0)})


@cache
def image_linears() -> tuple[ModelLinear, ...]:
    """Every linear layer of the transformer, none with a bias, by its module name."""
    return tuple(ModelLinear(name, LinearShape(d_in, d_out, bias=False)) for name, d_in, d_out in _linears())


def _linears() -> Iterator[tuple[str, int, int]]:
    d = WIDTH
    yield "x_embedder", CHANNELS, d
    yield "context_embedder", TEXT, d
    yield "time_guidance_embed.timestep_embedder.linear_1", TIME, d
    yield "time_guidance_embed.timestep_embedder.linear_2", d, d
    for stream in ("img", "txt"):
        yield f"double_stream_modulation_{stream}.linear", d, 6 * d  # scale, shift and gate, twice a block
    yield "single_stream_modulation.linear", d, 3 * d
    for i in range(DOUBLE):
        block = f"transformer_blocks.{i}"
        for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
            yield f"{block}.attn.{name}", d, d
        for name in ("ff", "ff_context"):  # gated: twice the inner width in, once out
            yield f"{block}.{name}.linear_in", d, 6 * d
            yield f"{block}.{name}.linear_out", 3 * d, d
    for i in range(SINGLE):
        attention = f"single_transformer_blocks.{i}.attn"
        yield f"{attention}.to_qkv_mlp_proj", d, 9 * d  # query, key, value, and a gated MLP's input
        yield f"{attention}.to_out", 4 * d, d
    yield "norm_out.linear", d, 2 * d
    yield "proj_out", d, CHANNELS


def image_parameters() -> int:
    """All parameters of the transformer: linear layers, and the norms of queries and keys of every block."""
    norms = HEAD * (4 * DOUBLE + 2 * SINGLE)
    return sum(int(linear.shape.parameters) for linear in image_linears()) + norms


def image_formula(run: ImageRun) -> Formula:
    """What this suite's closed forms say of a run, or why they say nothing."""
    if run.method == "FULL":
        return Formula("Full fine-tuning", image_parameters(), None, "every parameter of the model, beside its layers")
    return formula_of(run, image_linears())
