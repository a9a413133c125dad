"""The reference's adapted layers, executed by a fast path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cdvft_bench.execution.base import is_plain
from cdvft_bench.execution.paths import change, check_path, run_layer
from cdvft_reference import BlockCirculantLinear, CDVFTLinear


def _run(
    layer: CDVFTLinear | BlockCirculantLinear,
    x: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    path: str,
) -> Tensor:
    """A layer in one go where its base is plain, else the base's own forward and the change beside it."""
    base: Any = layer.base
    if is_plain(base, x):
        return run_layer(x, base.weight, base.bias, diagonals, circulants, layer.alpha, path, layer.convention)
    h: Tensor = base(x)
    d_out = base.out_features
    return h + change(x, diagonals, circulants, d_out, alpha=layer.alpha, path=path, convention=layer.convention).to(
        h.dtype
    )


class FastCDVFTLinear(CDVFTLinear):
    """:class:`cdvft_reference.CDVFTLinear` on any path of ``execution.PATHS``, or "auto".

    Args:
        base: the layer to adapt, frozen in place.
        path: how to execute it.
        options: those of the reference's layer (m, block_size, alpha, convention, init, generator).
    """

    def __init__(self, base: nn.Linear, path: str = "auto", **options: Any) -> None:
        super().__init__(base, **options)
        check_path(path, self.shapes.m)
        self.execution_path = path

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) if self.merged else _run(self, x, self.diagonals(), self.circulants(), self.execution_path)

    def extra_repr(self) -> str:
        s = self.shapes
        return f"m={s.m}, block_size={s.block_size}, alpha={self.alpha}, path={self.execution_path}"


class FastBlockCirculantLinear(BlockCirculantLinear):
    """:class:`cdvft_reference.BlockCirculantLinear` on any path of ``execution.PATHS``, or "auto"."""

    def __init__(self, base: nn.Linear, path: str = "auto", **options: Any) -> None:
        super().__init__(base, **options)
        check_path(path, 0)
        self.execution_path = path

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) if self.merged else _run(self, x, (), (self.circulant,), self.execution_path)

    def extra_repr(self) -> str:
        return f"block_size={self.circulant.shape[-1]}, alpha={self.alpha}, path={self.execution_path}"
