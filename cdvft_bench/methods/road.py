"""RoAd: outputs rotated and stretched in pairs (Liao, Monz, NeurIPS 2024, arXiv 2409.00119)."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal, Self, get_args

from cdvft_bench.analytic.circulant import flag
from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernels, adapter_dtype, copy, elementwise, reduction, times
from cdvft_bench.analytic.linear import LinearShape, frozen_backward, frozen_forward, itemsize
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods._peft import PeftMethod, PeftNames, cast, divisors, first_misfit
from cdvft_bench.methods.base import register

Variant = Literal["road_1", "road_2", "road_4"]


@register
@dataclass(frozen=True)
class RoAd(PeftMethod):
    """Each pair of outputs times ``[[a cos t, -a sin t], [a sin t, a cos t]]``. PEFT starts with the identity.

    Attributes:
        variant: "road_1" trains one angle t and one stretch a a pair, "road_2" a pair of each
            (one a row of the matrix), "road_4" four of each (one an entry).
        group_size: even, a divisor of d_out. A pair is half a group apart.
    """

    name: ClassVar[str] = "road"
    title: ClassVar[str] = "RoAd"
    source: ClassVar[str] = "Liao, Monz: NeurIPS 2024, arXiv 2409.00119"
    not_covered: ClassVar[str] = "batches that mix adapters"
    short: ClassVar = {"group_size": "group"}
    peft: ClassVar = PeftNames("RoadConfig")

    variant: Variant = "road_1"
    group_size: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size % 2:
            raise UserError(f"group_size = {self.group_size} is odd; a group holds whole pairs, so use an even one")

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        even = [d for d in divisors(layer.d_out) if d % 2 == 0]
        for group in rng.sample(even, min(len(even), 1)):
            yield cls(variant=rng.choice(get_args(Variant)), group_size=group)

    @property
    def label(self) -> str:
        return super().label.replace(f" variant={self.variant}", f"-{self.variant[-1]}")

    def check(self, layer: LinearShape) -> None:
        widths = first_misfit(layer, layer.d_out % self.group_size != 0)
        if widths:
            raise UserError(
                f"group_size = {self.group_size} does not divide d_out = {widths[1]}, which RoAd cuts into whole "
                f"groups; use an even divisor of {widths[1]}"
            )

    def parameters(self, layer: LinearShape) -> Count:
        """``d_out``, twice or four times that, for road_1, road_2 and road_4."""
        self.check(layer)
        return layer.d_out * int(self.variant[-1])

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        parameters = self.parameters(layer)
        itemsize(dtype)
        adapter, d_out = adapter_dtype(dtype), layer.d_out
        n_out = tokens * d_out

        columns, columns_backward, kept = self._columns(layer, adapter)
        by_column = elementwise("mul", n_out, adapter, reads=n_out + d_out)
        column_backward: Kernels = (
            elementwise("mul", n_out, adapter),
            by_column,
            reduction("sum", n_out, d_out, adapter),
        )
        half_turn = elementwise("neg", n_out // 2, adapter, reads=n_out // 2)
        apart = copy("select_backward", n_out, adapter, reads=n_out // 2)
        sum_ = elementwise("add", n_out, adapter)
        forward = (
            *frozen_forward(layer, tokens, dtype),
            *cast(n_out, dtype, adapter),
            *columns,
            half_turn,
            copy("stack", n_out, adapter),
            by_column,
            by_column,
            sum_,
            *cast(n_out, adapter, dtype),
        )
        backward = (
            *cast(n_out, dtype, adapter),
            *column_backward,
            *column_backward,
            half_turn,
            apart,
            apart,
            sum_,
            sum_,
            *columns_backward,
            *cast(n_out, adapter, dtype),
            *frozen_backward(layer, tokens, dtype),
        )
        saved = (kept + 2 * n_out) * ITEMSIZE[adapter]  # the vectors; the result, and the same turned
        return Cost(parameters, 2, forward, backward, saved, adapter)

    def _columns(self, layer: LinearShape, dtype: str) -> tuple[Kernels, Kernels, Count]:
        """The two vectors a cos t and a sin t: kernels of both passes, and entries kept."""
        d_out = layer.d_out
        product = elementwise("mul", d_out, dtype)
        cos, sin, negative = (elementwise(op, d_out, dtype, reads=d_out) for op in ("cos", "sin", "neg"))
        products_backward: Kernels = (product, product, product, product)
        if self.variant == "road_4":
            # Angles and stretches lie interleaved; stretches are cut apart, which copies if there are several groups.
            several = flag(d_out > self.group_size)
            cut = copy("clone", d_out, dtype, launches=several)
            apart = copy("select_backward", 2 * d_out, dtype, reads=d_out)
            sum_ = elementwise("add", 2 * d_out, dtype)
            forward: Kernels = (cos, sin, cut, cut, product, product)
            backward: Kernels = (
                *products_backward,
                *times((apart, product), 2),
                *times((apart, sum_), 2),
                cos,
                sin,
                negative,
            )
            return forward, backward, (4 + 2 * several) * d_out
        sum_ = elementwise("add", d_out, dtype)
        forward = (cos, sin, product, product)
        backward = (*products_backward, sum_, cos, product, sin, negative, product, sum_)
        if self.variant == "road_2":
            return forward, backward, 4 * d_out
        twice = copy("clone", d_out, dtype, reads=d_out // 2)
        to_pair = reduction("sum", d_out, d_out // 2, dtype)
        return (twice, twice, *forward), (*backward, to_pair, to_pair), 6 * d_out
