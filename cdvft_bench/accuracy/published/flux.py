"""The image generator of PEFT's second comparison: FLUX.2 klein base, a diffusion transformer of 4 billion parameters.

transformers has no such model, so its layers are written out here. That they are right shows in the published number
of all its parameters, which they give to the last one.
"""

from collections.abc import Iterator
from functools import cache

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.models import ModelLinear

MODEL = "flux.2-klein-base-4b"
"""The end of its hub id."""
WIDTH, DOUBLE, SINGLE = 3072, 5, 20
"""Of the tokens; blocks in which pictures and texts keep weights of their own, and blocks in which they share them."""
HEAD, CHANNELS, TEXT, TIME = 128, 128, 7680, 256
"""Widths of an attention head, a picture's patch, a text token and a time embedding."""


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
