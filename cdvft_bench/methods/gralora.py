"""GraLoRA: a k x k grid of small LoRAs (Jung et al., NeurIPS 2025, arXiv 2505.20355)."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal, Self

from cdvft_bench.analytic.circulant import flag
from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernels, adapter_dtype, bmm, copy, elementwise
from cdvft_bench.analytic.linear import LinearShape, frozen_forward, itemsize
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods._peft import PeftMethod, PeftNames, base_backward, cast, first_misfit
from cdvft_bench.methods.base import register
from cdvft_bench.methods.lora import thin_gradients, thin_products


@register
@dataclass(frozen=True)
class GraLoRA(PeftMethod):
    """W cut into k x k blocks with a LoRA of rank r / k each. PEFT starts with every B zero.

    The k blocks of a column share one product of r columns. PEFT adds to the base's result in
    place; where the base has a bias that result is a view, and autograd's backward of the in-place
    sum copies the whole gradient.

    Attributes:
        rank: r, >= 2, a multiple of k.
        alpha: the change is scaled by ``alpha / (rank + hybrid_r)``.
        gralora_k: k, >= 1: blocks a side; it divides both widths and is less than d_in.
        hybrid_r: rank of a LoRA of the whole layer besides, 0 for none.
    """

    name: ClassVar[str] = "gralora"
    title: ClassVar[str] = "GraLoRA"
    source: ClassVar[str] = "Jung et al.: NeurIPS 2025, arXiv 2505.20355"
    short: ClassVar = {"rank": "r", "gralora_k": "k", "hybrid_r": "hybrid"}
    peft: ClassVar = PeftNames("GraloraConfig", {"rank": "r"})

    rank: int = 32
    alpha: float = 64
    gralora_k: int = 2
    hybrid_r: int | Literal[0] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 2:
            raise UserError("rank = 1 is too small for GraLoRA; use at least 2, or the method lora")
        if self.rank % self.gralora_k:
            raise UserError(f"rank = {self.rank} is not a multiple of gralora_k = {self.gralora_k}, as GraLoRA needs")

    @classmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        fitting = [k for k in (1, 2, 3, 4, 8, 16) if layer.d_in % k == layer.d_out % k == 0 and k < layer.d_in]
        for k in rng.sample(fitting, min(len(fitting), 1)):
            rank = max(2, k * rng.randint(1, 3))
            yield cls(rank=rank, alpha=rng.choice([64, 2.5]), gralora_k=k, hybrid_r=rng.choice([0, 1, 3]))

    def check(self, layer: LinearShape) -> None:
        k = self.gralora_k
        misfit = flag(layer.d_in % k != 0) + flag(layer.d_out % k != 0) + flag(layer.d_in <= k)
        widths = first_misfit(layer, misfit > 0)
        if widths:
            d_in, d_out = widths
            raise UserError(
                f"gralora_k = {k} does not cut a {d_in}x{d_out} layer into whole blocks of at least 2 inputs; "
                f"use a divisor of both widths below {d_in}"
            )

    def parameters(self, layer: LinearShape) -> Count:
        """``(r + hybrid_r) (d_in + d_out)``."""
        self.check(layer)
        return (self.rank + self.hybrid_r) * (layer.d_in + layer.d_out)

    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        parameters = self.parameters(layer)
        itemsize(dtype)
        adapter, r, k, hybrid = adapter_dtype(dtype), self.rank, self.gralora_k, self.hybrid_r
        across, down = layer.d_in // k, layer.d_out // k
        n_in, n_out, thin = tokens * layer.d_in, tokens * layer.d_out, tokens * k * r
        several = int(k > 1)
        rows = several * flag(tokens > 1)  # one row's blocks lie in order already
        exchange = copy("clone", thin, adapter, launches=several * int(r > k))  # rows of blocks to columns

        scale = elementwise("mul", n_out, dtype, reads=n_out)
        add: Kernels = (*cast(n_out, adapter, dtype), scale, elementwise("add_", n_out, dtype))
        forward = (
            *frozen_forward(layer, tokens, dtype),
            *cast(n_in, dtype, adapter),
            bmm(k, tokens, across, r, adapter),
            exchange,
            bmm(k, tokens, r, down, adapter),
            copy("clone", n_out, adapter, launches=rows * flag(down > 1)),
            *add,
        )
        if hybrid:
            forward += (*cast(n_in, dtype, adapter), *thin_products(layer, tokens, hybrid, adapter), *add)

        # Each in-place sum copies the gradient of the view; the last one first makes the whole gradient.
        view: Kernels = (copy("copy_", n_out, dtype), copy("clone", n_out, dtype), copy("copy_", n_out, dtype))
        last: Kernels = (copy("new_zeros", n_out, dtype, reads=0), copy("copy_", n_out, dtype), *view)
        backward: Kernels = last if layer.bias else ()
        add_backward: Kernels = (scale, *cast(n_out, dtype, adapter))
        if hybrid:
            backward += (
                *add_backward,
                *thin_gradients(layer, tokens, hybrid, adapter),
                *cast(n_in, adapter, dtype),
                *(view if layer.bias else ()),
            )
        backward += (
            *add_backward,
            bmm(k, r, tokens, down, adapter),
            bmm(k, tokens, down, r, adapter),
            exchange,
            bmm(k, across, tokens, r, adapter),
            bmm(k, tokens, r, across, adapter),
            copy("clone", n_in, adapter, launches=rows),
            *cast(n_in, adapter, dtype),
            elementwise("add", n_in, dtype, launches=int(hybrid > 0)),
            *base_backward(layer, tokens, dtype),
        )
        kept = n_in + thin + tokens * hybrid  # x and its products
        if hybrid and adapter != dtype:
            kept = kept + n_in  # x is cast twice
        tensors = 4 if hybrid else 2
        return Cost(parameters, tensors, forward, backward, kept * ITEMSIZE[adapter], adapter)
