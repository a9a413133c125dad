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
    own = {key for t in (*module.parameters(), *module.buffers()) for key in _storages(t)}
    kept: dict[int, tuple[Tensor, int]] = {}  # holding the tensors keeps a storage from being used twice

    def pack(tensor: Tensor) -> Tensor:
        for key, found in _storages(tensor).items():
            kept.setdefault(key, found)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    return sum(size for key, (_, size) in kept.items() if key not in own), result


def _storages(tensor: Tensor) -> dict[int, tuple[Tensor, int]]:
    """What a tensor is held in: tensor and bytes by the storage's identity, which a meta tensor has as well."""
    found = {}
    for part in plain_parts(tensor):
        try:
            storage = part.untyped_storage()
        except (RuntimeError, NotImplementedError):  # an opaque layout, as oneDNN's
            found[id(part)] = (part, part.numel() * part.element_size())
        else:
            found[storage._cdata] = (part, storage.nbytes())
    return found
