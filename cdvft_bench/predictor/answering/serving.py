"""Many adapters on one base: bytes of each, how long one takes to come in, and merged against unmerged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cdvft_bench.analytic.kernels import ITEMSIZE, Kernels, copy
from cdvft_bench.analytic.models import target_linears
from cdvft_bench.methods import Method
from cdvft_bench.predictor.results import Serving
from cdvft_bench.predictor.transformer import Transformer, rest_forward
from cdvft_bench.sweep.model_cost import model_cost

Seconds = Callable[[Kernels], float]


def cache_bytes(model: Transformer, batch: int, sequence: int, dtype: str) -> int:
    """Keys and values of ``batch`` sequences."""
    a = model.shape.attention
    return 2 * a.layers * batch * sequence * a.key_value_heads * a.head_dim * ITEMSIZE[dtype]


def token_kernels(
    model: Transformer,
    method: Method | None,
    batch: int,
    sequence: int,
    dtype: str,
    targets: Sequence[str] = (),
    *,
    device: str,
) -> Kernels:
    """One decoding step: a token a sequence through every layer, and the cache read once."""
    kernels = model_cost(model.shape, method, batch, 1, dtype, targets, device=device).forward
    kernels += rest_forward(model, batch, 1, dtype, loss=False)
    return (*kernels, copy("cache", cache_bytes(model, batch, sequence, dtype) // ITEMSIZE[dtype], dtype))


def serve(
    model: Transformer,
    method: Method,
    parameters: int,
    batch: int,
    sequence: int,
    dtype: str,
    seconds: Seconds,
    *,
    device: str,
    pcie: float | None,
    capacity: int | None,
    reserved: int,
    targets: Sequence[str] = (),
) -> Serving:
    """Serving ``batch`` sequences of ``sequence`` tokens with adapters of this method, held in the base's dtype.

    Merging reads and writes the adapted weights and writes and reads the change once each, at least.

    Args:
        parameters: of one adapter. seconds: predicts a sequence of kernels.
        device: kind of it. pcie: bytes/s, None unknown.
    """
    size = ITEMSIZE[dtype]
    adapter = parameters * size
    layers = model.shape.linears if method.trains_all else target_linears(model.shape, targets)
    merge = tuple(copy("merge", 2 * int(x.shape.weights), dtype) for x in layers)

    def step(adapter: Method | None) -> float:
        return seconds(token_kernels(model, adapter, batch, sequence, dtype, targets, device=device))

    merged = step(None)
    unmerged = merged if method.trains_all else step(method)
    left = None
    if capacity is not None:
        held = model.shape.total_parameters * size + cache_bytes(model, batch, sequence, dtype) + reserved
        left = max(capacity - held, 0) // max(adapter, 1)
    merge_s = seconds(merge)
    gain = unmerged - merged
    return Serving(
        adapter,
        left,
        adapter / pcie if pcie else None,
        merge_s,
        merged,
        unmerged,
        2 * merge_s / gain if gain > 0 else None,
    )
