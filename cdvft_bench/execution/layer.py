"""The reference's adapted layers, executed by a fast path."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cdvft_bench.execution.paths import check_path, run_layer
from cdvft_reference import BlockCirculantLinear, CDVFTLinear


def members(held: nn.ParameterList) -> list[Tensor]:
    """The parameters of a list, without its iterator, which asks for each by name: this runs at every call."""
    found: list[Any] = list(held._parameters.values())
    return found if len(found) == len(held) else list(held)  # where one is parametrised it is held elsewhere


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
        if self.merged:
            return self.base(x)
        base, circulants = self.base, members(self.circulants)
        return run_layer(x, base.weight, base.bias, members(self.diagonals), circulants, self.alpha,
                         self.execution_path, self.convention)  # fmt: skip

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
        if self.merged:
            return self.base(x)
        base = self.base
        return run_layer(x, base.weight, base.bias, (), (self.circulant,), self.alpha, self.execution_path,
                         self.convention)  # fmt: skip

    def extra_repr(self) -> str:
        return f"block_size={self.circulant.shape[-1]}, alpha={self.alpha}, path={self.execution_path}"
