"""Whether a case can fit this machine's memory at all, asked before any of it is taken."""

from __future__ import annotations

from cdvft_bench.analytic.linear import itemsize
from cdvft_bench.analytic.models import layer_shape, model_shape
from cdvft_bench.core.case import Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.timing.machine.environment import memory_gib


def least_bytes(case: Case) -> int:
    """What a case takes at the least: the frozen weights, one input, and one output or hidden state of each layer."""
    size = itemsize(case.dtype)
    if case.kind == "layer":
        shape = layer_shape(case.subject)
        return size * int(shape.d_in * shape.d_out + case.tokens * (shape.d_in + shape.d_out))
    model = model_shape(case.subject)
    return size * (model.total_parameters + case.tokens * model.hidden)


def check_fits(case: Case) -> None:
    """Refuse a case whose tensors are larger than the whole memory; a GPU says so itself.

    Raises:
        UserError: it is; names the workload, what it takes and what there is.
    """
    there = memory_gib()
    least = least_bytes(case) / 2**30
    if case.device == "cpu" and there is not None and least > there:
        raise UserError(
            f"batch = {case.batch} sequences of {case.sequence} tokens on {case.subject} take {least:,.0f} GiB at the "
            f"least, and this machine has {there:g} GiB; give fewer sequences or tokens, or a smaller subject"
        )
