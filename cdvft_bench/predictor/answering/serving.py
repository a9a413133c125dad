"""Many adapters on one base: bytes of each, how long one takes to come in, and merged against unmerged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cdvft_bench.analytic.kernels import ITEMSIZE, Kernels, copy
from cdvft_bench.methods import Method
from cdvft_bench.predictor.results import Serving
from cdvft_bench.predictor.transformer import Transformer, rest_forward
from cdvft_bench.sweep.model_cost import model_cost

Seconds = Callable[[Kernels], float]


@dataclass(frozen=True)
class Decoding:
    """A step of serving: one token of every sequence.

    Attributes:
        base_bytes: of the base's weights. cache_bytes: of keys and values of the batch.
        merged, unmerged: kernels of a step. weights: entries of each adapted layer.
    """

    base_bytes: int
    cache_bytes: int
    merged: Kernels
    unmerged: Kernels
    weights: tuple[int, ...]


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
    decoding: Decoding,
    parameters: int,
    dtype: str,
    seconds: Seconds,
    *,
    pcie: float | None,
    capacity: int | None,
    reserved: int,
) -> Serving:
    """Serving a batch with adapters of one method, held in the base's dtype.

    Merging reads and writes the adapted weights and writes and reads the change once each, at least.

    Args:
        decoding: a step of it. parameters: of one adapter. dtype: of the base. seconds: predicts a sequence of kernels.
        pcie: bytes/s, None unknown. capacity: bytes of the GPU, None unknown. reserved: of the context.
    """
    adapter = parameters * ITEMSIZE[dtype]
    merged = seconds(decoding.merged)
    unmerged = merged if decoding.unmerged == decoding.merged else seconds(decoding.unmerged)
    left = None
    if capacity is not None:
        left = max(capacity - decoding.base_bytes - decoding.cache_bytes - reserved, 0) // max(adapter, 1)
    merge_s = seconds(tuple(copy("merge", 2 * n, dtype) for n in decoding.weights))
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
