"""The path "merged_dense" where Triton's kernels run: four launches and three products a step, and little Python.

An eager step on a GPU takes as long as the host needs to launch it. Operands were checked by ``paths.run_layer``; what
depends on sizes alone is worked out once. Compiled graphs go through ``execution.merged``, which computes the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cdvft_bench.execution.fused import Plan, flattened, unflattened
from cdvft_bench.execution.repeats import in_dtype
from cdvft_bench.execution.triton.path import as_read, launch_fold, launch_merged_weight, of


class KernelFunction(torch.autograd.Function):
    """See the module's docstring. Inputs: x (..., d_in), weight, bias or None, plan, factors: a_1, a_3 and c, or c."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan, *factors: Tensor) -> Tensor:
        dtype = plan.dtype or x.dtype
        read = as_read(factors)
        with of(weight):
            merged = launch_merged_weight(weight, read, plan, weight.new_empty(weight.shape, dtype=dtype))
        ctx.plan = plan
        ctx.save_for_backward(flattened(x), weight, *read)
        return torch.nn.functional.linear(in_dtype(x, dtype), merged, None if bias is None else in_dtype(bias, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        x, weight, *factors = ctx.saved_tensors
        rows, grad_x, wanted = flattened(g), None, ctx.needs_input_grad[0]
        if torch.compiler.is_compiling():  # a compiled backward of this eager forward
            options = (plan.diagonals, plan.alpha, plan.row, True, wanted)
            found, *grads = torch.ops.cdvft.merged_backward.default(x, rows.contiguous(), weight, factors, *options)
            return (unflattened(found, g) if wanted else None, None, None, None, *grads)
        with of(weight):
            factors = as_read(factors)
            if wanted:
                merged = launch_merged_weight(weight, factors, plan, weight.new_empty(weight.shape, dtype=g.dtype))
                grad_x = unflattened(in_dtype(torch.mm(rows, merged), x.dtype), g)
            grads = launch_fold(torch.mm(rows.t(), in_dtype(x, g.dtype)), factors, plan)
        return (grad_x, None, None, None, *grads)
