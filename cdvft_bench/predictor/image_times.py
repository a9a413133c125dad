"""A training step of the image generator of PEFT's second comparison, by closed forms of its layers.

Linear layers (adapted ones too) and attention products; norms, modulations, activations and rotary positions are not
listed, so that times and memory are lower bounds. Every block is computed again in the backward pass.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from cdvft_bench.accuracy.published.flux import DOUBLE, SINGLE, WIDTH, image_linears, image_parameters
from cdvft_bench.accuracy.published.methods import adapted
from cdvft_bench.accuracy.published.run import PublishedRun
from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Kernel, Kernels, times
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import Method
from cdvft_bench.predictor.results import MemoryBudget
from cdvft_bench.sweep.model_cost import layer_cost

WORDS = 512
"""Tokens of a prompt, which is padded to as many."""
PATCH = 16
"""Pixels a side of a token: the encoder halves an image three times, and tokens are two by two of what is left."""


def image_cost(run: PublishedRun, device: str) -> Cost:
    """Both passes of a step, with the method on the layers that the run adapts.

    Raises:
        UserError: the suite has no such method, or it does not fit a layer.
    """
    pixels = ((run.resolution or 0) // PATCH) ** 2
    batch, everything = run.batch or 0, False
    methods = {linear.name: method for linear, method in adapted(run, image_linears())}
    groups: Counter[tuple[LinearShape, int, bool, Method | None]] = Counter()
    for linear in image_linears():
        method = methods.get(linear.name)
        everything = everything or (method is not None and method.trains_all)
        groups[linear.shape, batch * _rows(linear.name, pixels), "blocks." in linear.name, method] += 1
    tokens = pixels + WORDS
    attention = Kernel("scaled_dot_product_attention", "matmul", DOUBLE + SINGLE, scope="base")
    macs = batch * WIDTH * tokens * tokens  # heads times their width is the width of the model
    forward: Kernels = (replace(attention, macs=2 * macs),)
    again = forward
    backward: Kernels = (replace(attention, macs=5 * macs),)
    adapters: Cost | None = None
    for (shape, rows, inside, method), n in groups.items():
        one = layer_cost(shape, rows, run.dtype, method, device=device)
        forward += times(one.forward, n)
        again += times(one.forward, n) if inside else ()
        backward += times(one.backward, n)
        if method is not None:
            adapters = one * n if adapters is None else adapters + one * n
    if adapters is None:
        raise UserError("it adapts no layer")
    parameters = image_parameters() if everything else adapters.parameters
    return replace(
        adapters,
        parameters=parameters,
        forward=forward,
        backward=(*backward, *(again if run.checkpointing else ())),
    )


def image_memory(run: PublishedRun, cost: Cost, everything: bool) -> MemoryBudget:
    """Bytes of a step: of activations the inputs of blocks, and what the adapters of one block keep."""
    size, parameters = ITEMSIZE[cost.parameter_dtype], int(cost.parameters)
    blocks = DOUBLE + SINGLE
    tokens = ((run.resolution or 0) // PATCH) ** 2 + WORDS
    entered = blocks * (run.batch or 0) * tokens * WIDTH * ITEMSIZE[run.dtype]
    own = int(cost.saved_bytes) // (blocks if run.checkpointing else 1)
    return MemoryBudget(
        weights=image_parameters() * ITEMSIZE[run.dtype] + (0 if everything else parameters * size),
        gradients=parameters * size,
        optimizer=int(cost.optimizer_bytes),
        activations=entered + own,
        workspace=0,
        overhead=0,
        capacity=None,
    )


def _rows(name: str, pixels: int) -> int:
    """Rows of an image that pass through a layer: of its tokens, of its prompt's, of both, or one."""
    if name.startswith("single_transformer_blocks."):
        return pixels + WORDS
    if name.startswith("transformer_blocks."):
        of_words = any(part in name for part in (".add_", ".to_add_out", ".ff_context."))
        return WORDS if of_words else pixels
    return {"x_embedder": pixels, "proj_out": pixels, "context_embedder": WORDS}.get(name, 1)
