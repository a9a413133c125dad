"""What a tensor is made of."""

from __future__ import annotations

from torch import Tensor


def plain_parts(tensor: Tensor) -> list[Tensor]:
    """The tensor itself, or the plain ones that a wrapper (a quantised weight) is made of: those have a storage."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return [tensor]
    names, _ = flatten()
    return [part for name in names for part in plain_parts(getattr(tensor, name))]
