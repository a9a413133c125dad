"""Bytes of activations that a forward call keeps for backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from cdvft_bench.tensors import plain_parts

T = TypeVar("T")


def saved_bytes(module: nn.Module, call: Callable[[], T]) -> tuple[int, T]:
    """Run ``call`` and measure what autograd keeps.

    Returns:
        bytes of distinct storages packed for backward, whole storages once each, without those of
        the module's parameters and buffers; and the result of ``call``.
    """
    held = [part for t in (*module.parameters(), *module.buffers()) for part in plain_parts(t)]
    own = {part.untyped_storage().data_ptr() for part in held}
    kept: dict[int, Tensor] = {}  # holding the tensors keeps an address from being used twice

    def pack(tensor: Tensor) -> Tensor:
        for part in plain_parts(tensor):
            kept.setdefault(part.untyped_storage().data_ptr(), part)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own), result
